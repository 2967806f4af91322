"""The codes of errors, and where they point to. Nothing here reaches a running part: the input is refused before."""

import logging
from typing import Any

import pytest
from graphql import GraphQLError
from msgspec import json

from gql_jobs.graphql.engine.errors import bounded
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.jobs.errors import InvalidPayload
from tests.shipped import shipped_schema

CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { deduplicated } }"
CREATE_MANY = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { deduplicatedCount } }"
MAIL = {"to": "a@example.com", "subject": "s", "body": "b"}


@pytest.fixture(scope="module")
def schema() -> JobsSchema:
    return shipped_schema()


async def _errors(schema: JobsSchema, query: str, variables: dict[str, Any] | None = None) -> list[GraphQLError]:
    errors = (await schema.execute(query, variables)).errors
    assert errors
    return errors


def _code(error: GraphQLError) -> Any:
    return (error.extensions or {})["code"]


async def _invalid_paths(schema: JobsSchema, query: str, variables: dict[str, Any] | None = None) -> list[str]:
    errors = await _errors(schema, query, variables)
    assert [_code(error) for error in errors] == ["INVALID_PAYLOAD"]
    return [field["path"] for field in (errors[0].extensions or {})["fields"]]


@pytest.mark.parametrize(
    ("payload", "paths"),
    [
        ('{email: {to: 1, subject: "", body: ""}}', ["email.to"]),
        ('{email: {to: "a@example.com"}}', ["email.subject", "email.body"]),
        ('{email: {to: "a@example.com", subject: "", body: "", cc: ""}}', ["email.cc"]),
        ('{email: {to: "nobody", subject: "", body: ""}}', ["email.to"]),
        ("{email: null}", ["email"]),
        ("{email: []}", ["email"]),
        ("{fax: {}}", ["fax", ""]),
        ("{}", [""]),
        ("null", [""]),
    ],
)
async def test_a_payload_written_in_the_document(schema: JobsSchema, payload: str, paths: list[str]) -> None:
    expected = [f"input.payload.{path}".rstrip(".") for path in paths]
    literal = f"mutation {{ createJob(input: {{payload: {payload}}}) {{ deduplicated }} }}"
    assert await _invalid_paths(schema, literal) == expected


@pytest.mark.parametrize(
    ("payload", "paths"),
    [
        ({"email": MAIL | {"to": 1}}, ["email.to"]),
        ({"email": {"to": "a@example.com"}}, ["email.subject", "email.body"]),
        ({"email": MAIL | {"cc": ""}}, ["email.cc"]),
        ({"email": MAIL | {"to": "nobody"}}, ["email.to"]),
        ({"email": MAIL | {"to": "nobody", "subject": "two\nlines"}}, ["email.to", "email.subject"]),
        ({"email": None}, ["email"]),
        ({"email": "x"}, ["email"]),
        ({"fax": {}}, ["fax", ""]),
        ({}, [""]),
        (None, [""]),
    ],
)
async def test_a_payload_in_variables(schema: JobsSchema, payload: Any, paths: list[str]) -> None:
    expected = [f"payload.{path}".rstrip(".") for path in paths]
    one = await _invalid_paths(schema, CREATE, {"input": {"payload": payload}})
    assert one == [f"input.{path}" for path in expected]
    good = {"payload": {"email": MAIL}}
    many = await _invalid_paths(schema, CREATE_MANY, {"inputs": [good, {"payload": payload}]})
    assert many == [f"inputs.1.{path}" for path in expected]


async def test_a_missing_payload(schema: JobsSchema) -> None:
    assert await _invalid_paths(schema, CREATE, {"input": {}}) == ["input.payload"]
    literal = "mutation { createJob(input: {}) { deduplicated } }"
    assert await _invalid_paths(schema, literal) == ["input.payload"]


async def test_a_variable_for_a_part_of_the_payload(schema: JobsSchema) -> None:
    whole = "mutation ($p: JobPayloadInput!) { createJob(input: {payload: $p}) { deduplicated } }"
    assert await _invalid_paths(schema, whole, {"p": {"email": {}}}) == [
        "input.payload.email.to",
        "input.payload.email.subject",
        "input.payload.email.body",
    ]
    part = 'mutation ($to: String!) { createJobs(inputs: [{payload: {email: {to: $to, subject: "", body: ""}}}])'
    part += " { deduplicatedCount } }"
    assert await _invalid_paths(schema, part, {"to": 1}) == ["inputs.0.payload.email.to"]
    nullable = part.replace("String!", 'String = "x"')
    assert await _invalid_paths(schema, nullable, {"to": None}) == ["inputs.0.payload.email.to"]


async def test_payload_and_arguments_at_once(schema: JobsSchema) -> None:
    errors = await _errors(schema, CREATE, {"input": {"payload": {}, "priority": "high"}})
    assert [_code(error) for error in errors] == ["INVALID_PAYLOAD", "INVALID_ARGUMENT"]
    assert (errors[1].extensions or {})["argument"] == "input.priority"


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ('{ jobs(first: "x") { totalCount } }', None),
        ("{ jobs(first: 501) { totalCount } }", None),
        ("{ jobs(first: -1) { totalCount } }", None),
        ("{ jobs(offset: -1) { totalCount } }", None),
        ('{ jobs(filter: {createdAfter: "yesterday"}) { totalCount } }', None),
        ("query ($f: JobFilter) { jobs(filter: $f) { totalCount } }", {"f": {"status": ["completed"]}}),
        ("query ($n: Int!) { jobs(first: $n) { totalCount } }", {}),
        ("query ($n: Int) { job(id: $n) { id } }", {}),
        ('query ($n: ID = "x") { job(id: $n) { id } }', {"n": None}),
        ("{ job { id } }", None),
        ("mutation { createJob { deduplicated } }", None),
        (CREATE, {}),
        (CREATE, {"input": {"payload": {"email": MAIL}, "maxRetries": 101}}),
        (CREATE, {"input": {"payload": {"email": MAIL}, "timeoutSeconds": 0}}),
        (CREATE, {"input": {"payload": {"email": MAIL}, "idempotencyKey": ""}}),
        (CREATE, {"input": {"payload": {"email": MAIL}, "tags": ["x"] * 33}}),
        (CREATE, {"input": {"payload": {"email": MAIL}, "runAt": "2999-01-01T00:00:00Z"}}),
        (CREATE_MANY, {"inputs": []}),
        (CREATE_MANY, {"inputs": [{"payload": {"email": MAIL}}] * 1001}),
    ],
)
async def test_an_argument_that_cannot_be(schema: JobsSchema, query: str, variables: dict[str, Any] | None) -> None:
    assert {_code(error) for error in await _errors(schema, query, variables)} == {"INVALID_ARGUMENT"}


async def test_a_document_that_is_none(schema: JobsSchema) -> None:
    assert [_code(e) for e in await _errors(schema, "{ jobs {")] == ["GRAPHQL_PARSE_FAILED"]
    assert [_code(e) for e in await _errors(schema, "{ nope }")] == ["GRAPHQL_VALIDATION_FAILED"]
    assert [_code(e) for e in await _errors(schema, "{ jobs(nope: 1) { totalCount } }")] == [
        "GRAPHQL_VALIDATION_FAILED"
    ]


async def test_an_endless_list_of_faults_is_cut(schema: JobsSchema) -> None:
    paths = await _invalid_paths(schema, CREATE_MANY, {"inputs": [{"payload": {}}] * 500})
    assert len(paths) == 50


@pytest.mark.parametrize("move", ["cancelJob", "retryJob"])
async def test_an_id_that_is_no_uuid_is_not_found(schema: JobsSchema, move: str) -> None:
    errors = await _errors(schema, f'mutation {{ {move}(id: "jobs.*") {{ job {{ id }} }} }}')
    assert [_code(error) for error in errors] == ["NOT_FOUND"]


async def _first_errors(schema: JobsSchema, query: str, variables: dict[str, Any] | None = None) -> list[Any]:
    results = [result async for result in await schema.subscribe(query, variables)]
    assert [result.refused for result in results] == [True]
    return [(error.extensions or {})["code"] for error in results[0].errors or []]


async def test_subscriptions_are_refused_before_their_first_event(schema: JobsSchema) -> None:
    assert await _first_errors(schema, 'subscription { jobProgress(id: "x") { at } }') == ["NOT_FOUND"]
    assert await _first_errors(schema, "subscription { jobProgress(id: []) { at } }") == ["INVALID_ARGUMENT"]
    assert await _first_errors(schema, "subscription { nope }") == ["GRAPHQL_VALIDATION_FAILED"]
    by_variable = "subscription ($f: JobFilter) { jobEvents(filter: $f) { at } }"
    assert await _first_errors(schema, by_variable, {"f": {"status": [""]}}) == ["INVALID_ARGUMENT"]


async def test_what_nobody_meant_is_masked_and_logged(schema: JobsSchema, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "gql_jobs.graphql.engine.errors"):
        errors = await _errors(schema, "{ workers { id } }")
    assert _code(errors[0]) == "INTERNAL"
    assert "services" not in errors[0].message
    assert "AttributeError" in caplog.text


@pytest.mark.parametrize("before", [0, 80, 480])
def test_what_validators_say_reaches_clients_without_secrets(before: int) -> None:
    said = "word " * (before // 5) + "cannot reach postgresql://ada:hunter2@db, api_key=hunter2 " + "word " * 300
    invalid = InvalidPayload([{"path": "input.payload.made.size", "message": said}])
    (shown,) = bounded([GraphQLError(invalid.message, original_error=invalid, extensions=invalid.extensions)])
    assert "hunter2" not in json.encode(shown.formatted).decode()
