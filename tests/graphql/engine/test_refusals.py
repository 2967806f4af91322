"""A refusal is short, whatever a client has sent, and however often that stands in what it sent."""

import gc
import tracemalloc
from typing import Any

import pytest
from msgspec import json

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.errors import InvalidPayload, shortened
from gql_jobs.settings import Settings
from tests.shipped import shipped_types

LONG = "x" * 300_000
WORDS = "long words " * 30_000
MANY = " ".join(f"n{n}: __typename @skip(if: {n})" for n in range(300))
VARIABLES = ", ".join(f"$v{n}: Int" for n in range(1000))
CREATE = "mutation ($p: JobPayloadInput!) { createJob(input: {payload: $p}) { deduplicated } }"
CREATE_MANY = f"""mutation ($p: JobPayloadInput!) {{
  createJobs(inputs: [{"{payload: $p}" * 820}]) {{ deduplicatedCount }}
}}"""
EMAIL: dict[str, Any] = {"to": "ada@example.com", "subject": "s", "body": "b"}


@pytest.fixture(scope="module")
def schema() -> JobsSchema:
    return build_schema(shipped_types(), Settings(max_document_length=1 << 21))


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "an unknown key": (CREATE, {"p": {"email": {**EMAIL, LONG: 1}}}),
    "an unknown key of words": (CREATE, {"p": {"email": {**EMAIL, WORDS: 1}}}),
    "an unknown key at 820 places": (CREATE_MANY, {"p": {"email": {**EMAIL, LONG: 1}}}),
    "60 unknown keys at 820 places": (
        CREATE_MANY,
        {"p": {"email": {**EMAIL, **{f"{n}{LONG[n:]}": 1 for n in range(60)}}}},
    ),
    "100 000 unknown keys": (CREATE, {"p": {"email": dict.fromkeys(map(str, range(100_000)), 1)}}),
    "an unknown member": (CREATE, {"p": {LONG: EMAIL}}),
    "a value of the wrong type": (CREATE, {"p": {"email": {**EMAIL, "to": [LONG]}}}),
    "no address": (CREATE, {"p": {"email": {**EMAIL, "to": LONG}}}),
    "a string for a number": ("query ($n: Int) { jobs(first: $n) { totalCount } }", {"n": LONG}),
    "a number of many digits": ("query ($n: Int) { jobs(first: $n) { totalCount } }", {"n": 10**4000}),
    "values that are no enum": (
        "query ($s: [JobStatus!]) { jobs(filter: {status: $s}) { totalCount } }",
        {"s": [LONG] * 5},
    ),
    "no moment": ("query ($a: DateTime) { jobs(filter: {createdAfter: $a}) { totalCount } }", {"a": WORDS}),
    "a cursor": ("query ($a: String) { jobs(after: $a) { totalCount } }", {"a": LONG}),
    "an unknown field": (f"{{ {LONG} }}", {}),
    "many unknown fields": ("{" + " ".join(f"{LONG[:2000]}{n}" for n in range(500)) + "}", {}),
    "an unknown argument": (f"{{ jobs({LONG}: 1) {{ totalCount }} }}", {}),
    "an unknown type": (f"{{ ... on {LONG} {{ id }} }}", {}),
    "an unknown fragment": (f"{{ ...{LONG} }}", {}),
    "an unknown directive": (f"{{ __typename @{LONG} }}", {}),
    "an unknown variable": (f"{{ job(id: ${LONG}) {{ id }} }}", {}),
    "unused variables": (f"query ({VARIABLES}) {{ __typename }}", {}),
    "an alias twice": (f"{{ {LONG}: jobs {{ totalCount }} {LONG}: jobTypes {{ name }} }}", {}),
    "a literal": (f'{{ jobs(first: "{LONG}") {{ totalCount }} }}', {}),
    "an enum literal": (f"{{ jobs(filter: {{status: {LONG}}}) {{ totalCount }} }}", {}),
    "an unknown key in a literal": (f"{{ jobs(filter: {{{LONG}: 1}}) {{ totalCount }} }}", {}),
    "arguments of directives": (f"{{ {MANY} }}", {}),
    "a syntax error": (f'{{ "{LONG}" }}', {}),
    "an unexpected name": (f"{LONG} {{ id }}", {}),
    "an alias of a field that fails": (f"{{ {LONG[:9000]}: jobs(first: -1) {{ totalCount }} }}", {}),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_is_short(schema: JobsSchema, context: Context, case: str) -> None:
    query, variables = REFUSED[case]
    result = await schema.execute(query, variables, context)
    assert len(result.payload) <= 64 * 1024
    errors = json.decode(result.payload)["errors"]
    assert 1 <= len(errors) <= 51
    for error in errors:
        assert len(error["message"]) <= 1000
        assert all(len(str(part)) <= 100 for part in error.get("path") or [])
        assert len(error.get("locations") or []) <= 10
        assert LONG[:101] not in error["message"]
        for field in [error["extensions"], *error["extensions"].get("fields", [])]:
            assert len(str(field.get("path", ""))) <= 100
            assert len(str(field.get("message", ""))) <= 300
            assert len(str(field.get("argument", ""))) <= 100
        assert len(error["extensions"].get("fields", [])) <= 50
        assert error["extensions"]["code"] != "INTERNAL"


async def test_a_refusal_takes_little_memory_while_it_is_made(schema: JobsSchema) -> None:
    variables = {"p": {"email": {**EMAIL, "k" * 1_000_000: 1}}}
    await schema.execute(CREATE_MANY, variables)
    gc.collect()
    tracemalloc.start()
    try:
        await schema.execute(CREATE_MANY, variables)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 128 << 20


async def test_errors_of_resolvers_are_counted_and_cut_too(context: Context) -> None:
    schema = build_schema(shipped_types(), Settings(max_document_length=1 << 21))
    fields = " ".join(f'{LONG[:3000]}{n}: job(id: "{n}") {{ events(first: -1) {{ at }} }}' for n in range(20))
    result = await schema.execute(f"{{ {fields} }}", None, context)
    assert len(result.payload) <= 64 * 1024 + 20 * 4000


def test_an_invalid_payload_shows_fifty_fields() -> None:
    fields = [{"path": f"{n}.{LONG}", "message": LONG} for n in range(60)]
    refusal = InvalidPayload(fields)
    assert len(refusal.extensions["fields"]) == 50
    assert len(refusal.message) < 2000


def test_a_text_is_cut_with_a_sign() -> None:
    assert shortened("a" * 100) == "a" * 100
    assert shortened("a" * 101) == "a" * 99 + "…"


async def test_a_large_literal_is_not_printed_for_each_of_its_faults(schema: JobsSchema, context: Context) -> None:
    few = await schema.execute("{ jobs(filter: {a: 1, b: 2, c: 3}) { totalCount } }", {}, context)
    assert [error["extensions"]["argument"] for error in few.formatted_errors] == ["filter.a", "filter.b", "filter.c"]
    fields = " ".join(f"unknown{n}: 1" for n in range(500))
    large = f"{{ jobs(filter: {{{fields}}}) {{ totalCount }} }}"
    for query in large, f"{{ {' '.join(f'a{n}: {large[2:-2]}' for n in range(3))} }}":
        many = await schema.execute(query, {}, context)
        assert 1 <= len(many.formatted_errors) <= 2
        assert many.formatted_errors[0]["extensions"]["argument"] == "filter.unknown0"
