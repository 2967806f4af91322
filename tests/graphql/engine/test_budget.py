"""An operation ends at the first row and the first byte too many, in words, however small its document is."""

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any
from weakref import ref

import pytest
from graphql import get_introspection_query
from msgspec import Raw, json

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.budget import Budget, OverBudget
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.messages import Failed, Message, Saved, Started
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.settings import Settings
from tests.graphql.sample_jobs import sample_context
from tests.running import JOB_TYPES
from tests.stories import JOB, artifact, queued, said, tell

HISTORY = 81
TAGS = tuple(f"{n:02d}" + "t" * 200 for n in range(32))


def _messages() -> list[Message]:
    """A job that has failed forty times, with a payload of 40 kB and as many files as events."""
    asked: dict[str, Any] = {"max_retries": 100, "tags": TAGS, "payload": Raw(json.encode({"trace": "p" * 40_000}))}
    told = [queued(1, **asked)]
    for n in range(1, 41):
        told += [said(2 * n, Started, n), said(2 * n + 1, Failed, n)]
    return told + [tell(100 + n, Saved(artifact=artifact(f"{n:03d}.txt"))) for n in range(HISTORY)]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with sample_context(tmp_path_factory.mktemp("index") / "index.sqlite", _messages()) as opened:
        yield opened


@cache
def _schema(**limits: int) -> JobsSchema:
    return build_schema(load_job_types(JOB_TYPES), Settings(**limits))  # type: ignore[arg-type]


async def _data(context: Context, query: str, **variables: Any) -> Any:
    result = await _schema().execute(query, {"id": JOB, **variables}, context)
    assert result.errors is None
    return json.decode(result.payload)["data"]


async def _refusal(schema: JobsSchema, context: Context, query: str) -> dict[str, Any]:
    """The one error of an operation that ends early."""
    result = await schema.execute(query, {"id": JOB}, context)
    assert result.data is None
    (error,) = json.decode(result.payload)["errors"]
    assert error["extensions"]["code"] == "TOO_COMPLEX", error
    return {**error["extensions"], "message": error["message"]}


async def test_a_history_without_arguments_is_whole(context: Context) -> None:
    found = await _data(context, "query ($id: ID!) { job(id: $id) { events { __typename } } }")
    assert len(found["job"]["events"]) == HISTORY


@pytest.mark.parametrize("first", [1, 7, 80, 81, 500])
async def test_a_history_is_read_in_parts_to_its_end(context: Context, first: int) -> None:
    query = """query ($id: ID!, $first: Int, $after: String) {
      job(id: $id) { events(first: $first, after: $after) { cursor } }
    }"""
    seen: list[str] = []
    after = None
    while True:
        part = [e["cursor"] for e in (await _data(context, query, first=first, after=after))["job"]["events"]]
        assert len(part) <= first
        if not part:
            break
        seen += part
        after = part[-1]
    whole = await _data(context, "query ($id: ID!) { job(id: $id) { events { cursor } } }")
    assert seen == [event["cursor"] for event in whole["job"]["events"]]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [("first: -1", "first"), ("first: 501", "first"), ('after: "x"', "after"), (f'after: "{"9" * 5000}"', "after")],
)
async def test_a_part_of_a_history_that_cannot_be(context: Context, arguments: str, named: str) -> None:
    result = await _schema().execute(f'{{job(id: "{JOB}") {{events({arguments}) {{cursor}}}}}}', None, context)
    (error,) = result.formatted_errors
    assert (error["extensions"]["code"], error["extensions"]["argument"]) == ("INVALID_ARGUMENT", named)


async def test_histories_are_read_in_threads(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    take = Budget.take

    def watched(self: Budget, *taken: int, **named: int) -> None:
        threads.add(threading.current_thread().name.split("_")[0])
        take(self, *taken, **named)

    monkeypatch.setattr(Budget, "take", watched)
    await _data(context, "query ($id: ID!) { job(id: $id) { events { cursor } artifacts { name } } }")
    assert threads == {"index"}


@pytest.mark.parametrize(
    "query",
    [
        "{events{job{events{job{events{cursor}}}}}}",
        "{events(first:500){job{events{cursor at}}}}",
        "{events(first:300){job{events(first:300){cursor}}}}",
        "{events{...E}} } fragment E on JobEvent {job{events{...F}}} fragment F on JobEvent {job{events{cursor}}",
    ],
)
async def test_histories_within_histories_are_multiplied(context: Context, query: str) -> None:
    refusal = await _refusal(_schema(), context, f"query ($id: ID!) {{job(id: $id) {query}}}")
    assert refusal["measure"] == "cost"


@pytest.mark.parametrize(
    "query",
    [
        "{a:events{cursor} b:events{cursor}}",
        "{a:artifacts{name} b:artifacts{name}}",
        "{events(first:40){cursor job{artifacts{name}}}}",
        "{events(first:40){job{events{cursor}}}}",
    ],
)
async def test_an_operation_ends_at_the_first_row_too_many(context: Context, query: str) -> None:
    schema = _schema(max_operation_rows=100)
    refusal = await _refusal(schema, context, f"query ($id: ID!) {{job(id: $id) {query}}}")
    assert (refusal["measure"], refusal["limit"]) == ("number of rows read", 100)
    assert refusal["actual"] > 100
    assert "at most" in refusal["message"]


@pytest.mark.parametrize(
    "query",
    [
        "{a:rawPayload b:rawPayload}",
        "{... on ProbeJob {a:payload{trace} b:payload{trace}}}",
        "{events{job{tags}}}",
        "{events{job{rawPayload}}}",
    ],
)
async def test_an_operation_ends_at_the_first_byte_too_many(context: Context, query: str) -> None:
    refusal = await _refusal(
        _schema(max_operation_bytes=1 << 16), context, f"query ($id: ID!) {{job(id: $id) {query}}}"
    )
    assert (refusal["measure"], refusal["limit"]) == ("size in bytes", 1 << 16)


@pytest.mark.parametrize(
    "query",
    [
        "{artifacts{name url contentType sizeBytes}}",
        "{artifacts{a:name b:name c:name d:name}}",
        "{artifacts{...A}}} fragment A on Artifact {name ...B} fragment B on Artifact {url sizeBytes sha256",
    ],
)
async def test_an_operation_ends_at_the_first_value_more_than_it_may_cost(context: Context, query: str) -> None:
    asked = f"query ($id: ID!) {{job(id: $id) {query}}}"
    # A list of which no argument says how long it is costs little before it is known.
    refusal = await _refusal(_schema(max_operation_cost=HISTORY * 4 - 10), context, asked)
    assert (refusal["measure"], refusal["actual"] - refusal["limit"] <= 4) == ("number of values", True)
    allowed = await _schema(max_operation_cost=HISTORY * 4 + 10).execute(asked, {"id": JOB}, context)
    assert allowed.errors is None


async def test_an_introspection_has_as_many_values_as_tools_ask_for_and_not_many_more(context: Context) -> None:
    schema = _schema(max_operation_cost=3000)
    whole = await schema.execute(get_introspection_query(input_value_deprecation=True), {}, context)
    assert whole.errors is None
    part = "a%d: fields { type { ofType { ofType { name description } } } args { name type { name } } }"
    again = f"{{ __schema {{ types {{ {' '.join(part % n for n in range(40))} }} }} }}"
    refusal = await _refusal(_schema(), context, again)
    assert refusal["measure"] == "number of values"


@pytest.mark.parametrize(
    "query",
    [
        "query ($id: ID!) { job(id: $id) { id events { cursor } } }",
        "query ($id: ID!) { job(id: $id) { unknown } }",
        "query ($id: ID!) { job(id: $id) { events(first: -1) { cursor } } }",
        "query ($id: Int!) { jobs(first: $id) { totalCount } }",
        "{ jobs { nodes { ",
    ],
)
async def test_an_operation_is_freed_at_its_end_with_all_that_it_was_given(context: Context, query: str) -> None:
    await _schema().execute(query, {"id": JOB}, context)
    gc.collect()
    gc.disable()
    try:
        given = replace(context)
        gone = ref(given)
        await _schema().execute(query, {"id": JOB}, given)
        del given
        assert gone() is None
    finally:
        gc.enable()


def test_a_result_of_many_objects_is_encoded_as_one_of_few_is() -> None:
    data = {"a": [{"x": [1, 2], "y": {"z": None}}, {"x": [], "y": {}}], "b": "ä", "c": [], "d": {"e": [[1], [2]]}}
    large = Budget(max_size=1 << 20)
    assert large.encode_result(data) == json.encode(data) == Budget().encode_result(data)
    assert large.encode_result(None) == b"null"


def test_what_follows_the_first_refusal_is_refused_as_well() -> None:
    budget = Budget(max_rows=10)
    budget.take(10)
    for _ in range(2):
        with pytest.raises(OverBudget):
            budget.take(1)
