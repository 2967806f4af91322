"""Reading a new document costs little, whatever it looks like, and one client has only so much of the time for it."""

from dataclasses import replace
from typing import Any

import graphql
import pytest
from graphql import parse
from graphql.validation.rules import overlapping_fields_can_be_merged

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.budget import ReadingTimes, Refusals
from gql_jobs.graphql.engine.complexity import without_repetitions
from gql_jobs.graphql.engine.documents import MAX_DEFINITIONS, MAX_SELECTIONS, OperationRequest
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.settings import Settings
from tests.running import JOB_TYPES

PAGE = "{{ jobs {{ nodes {{ {} }} }} }}"
MANY = " ".join(f"n{n}: id" for n in range(MAX_SELECTIONS + 1))
FRAGMENTS = " ".join(f"fragment F{n} on Job {{ id }}" for n in range(MAX_DEFINITIONS))


def _schema(**limits: Any) -> JobsSchema:
    return build_schema(load_job_types(JOB_TYPES), Settings(**limits))


async def _errors(schema: JobsSchema, query: str, context: Context | None = None) -> list[dict[str, Any]]:
    return (await schema.execute(query, None, context)).formatted_errors


async def test_a_field_said_many_times_is_looked_at_once(schema: JobsSchema, context: Context) -> None:
    repeated = PAGE.format("id " * 3000 + "status a: id a: id tags id")
    result = await schema.execute(repeated, None, context)
    assert result.errors is None
    assert result.data == (await schema.execute(PAGE.format("id status a: id tags"), None, context)).data


@pytest.mark.parametrize(
    ("document", "same"),
    [
        ("{a a}", "{a}"),
        ("{a b a ...F ...F}", "{a b ...F ...F}"),
        ("{a {b b} a {b}}", "{a {b} a {b}}"),
        ("{a a @x c: a c: a a(n: 1)}", "{a a @x c: a c: a a(n: 1)}"),
        ("{...{a a} ...{a}} fragment F on T {b b b}", "{...{a} ...{a}} fragment F on T {b}"),
    ],
)
def test_what_is_folded_means_the_same(document: str, same: str) -> None:
    assert graphql.print_ast(without_repetitions(parse(document))) == graphql.print_ast(parse(same))


def test_a_document_without_repetitions_stays_itself() -> None:
    document = parse("query ($a: Int) {a {b ...F} c @include(if: true)} fragment F on T {b}")
    assert without_repetitions(document) is document


@pytest.mark.parametrize(
    ("document", "measure", "limit"),
    [
        (PAGE.format(MANY), "number of selections in one set", MAX_SELECTIONS),
        (PAGE.format("...{id} " * (MAX_SELECTIONS // 2 + 1)), "number of selections in one set", MAX_SELECTIONS),
        (PAGE.format("...F0 " * (MAX_SELECTIONS + 1)), "number of selections in one set", MAX_SELECTIONS),
        ("{__typename} " + FRAGMENTS, "number of operations and fragments", MAX_DEFINITIONS),
        ("query Q {__typename} " * (MAX_DEFINITIONS + 1), "number of operations and fragments", MAX_DEFINITIONS),
    ],
)
async def test_a_document_that_is_slow_to_validate_is_refused_before(
    schema: JobsSchema, monkeypatch: pytest.MonkeyPatch, document: str, measure: str, limit: int
) -> None:
    monkeypatch.delattr("gql_jobs.graphql.engine.documents.validate")
    (error,) = await _errors(schema, document)
    shown = error["extensions"]
    assert (shown["code"], shown["measure"], shown["limit"]) == ("TOO_COMPLEX", measure, limit)
    assert shown["actual"] > limit


def test_the_search_for_fields_that_cannot_be_merged_is_cut_early() -> None:
    assert overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET == 50_000


@pytest.mark.parametrize("document", ["{", "{ nope }", "{ jobs }", PAGE.format(MANY), "query A {a} query B {b}"])
async def test_a_refused_text_is_read_once(monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    schema = _schema()
    first = await _errors(schema, document)
    monkeypatch.delattr("gql_jobs.graphql.engine.documents.graphql")
    assert await _errors(schema, document) == first


async def test_a_refused_subscription_is_known_as_one(schema: JobsSchema) -> None:
    request = OperationRequest("subscription { nope }")
    for _ in range(2):
        operation = schema.operations.operation(request, Context(_nothing))
        assert operation.type is graphql.OperationType.SUBSCRIPTION
        assert (await schema.operations.result(operation)).refused


def _nothing() -> Any:
    raise AssertionError


def test_refusals_are_kept_within_a_number_and_bytes() -> None:
    refusals: Refusals[int] = Refusals()
    for n in range(2000):
        refusals.keep(b"%d" % n, n, 10)
    assert (refusals.find(b"0"), refusals.find(b"1999")) == (None, 1999)
    refusals.keep(b"large", 1, 1 << 20)
    assert (refusals.find(b"1999"), refusals.find(b"large")) == (None, 1)


async def test_new_documents_of_one_client_have_a_share_of_the_time(context: Context) -> None:
    schema = _schema(max_reading_time=0.0001)
    one, other = (replace(context, client=lambda name=name: name) for name in ("one", "other"))  # type: ignore[misc]
    kept = PAGE.format("id")
    assert await _errors(schema, kept, one) == []
    codes = [
        [e["extensions"]["code"] for e in await _errors(schema, f"{{ a{n}: jobs {{ totalCount }} }}", one)]
        for n in range(9)
    ]
    assert codes[-1] == ["RATE_LIMITED"]
    assert await _errors(schema, kept, one) == []
    assert await _errors(schema, "{ other: jobs { totalCount } }", other) == []
    assert await _errors(schema, "{ nobody: jobs { totalCount } }", context) == []


def test_the_time_of_a_client_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("gql_jobs.graphql.engine.budget.time.monotonic", lambda: now)
    monkeypatch.setattr("gql_jobs.graphql.engine.budget.time.thread_time", lambda: now)
    times = ReadingTimes(0.25)
    with times.spent("one"):
        now += 2.0
    assert times.is_exhausted("one")
    assert not times.is_exhausted("other")
    now += 4.5
    assert not times.is_exhausted("one")
    assert not ReadingTimes(0).is_exhausted("one")
