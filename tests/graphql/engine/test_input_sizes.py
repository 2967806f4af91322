"""Lists in inputs have limits, which are checked before their values are read one by one."""

from typing import Any

import pytest
from msgspec import json

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.documents import MAX_LIST
from gql_jobs.graphql.schema import JobsSchema
from tests.graphql.sample_jobs import IDS

PAGE = "query ($filter: JobFilter) { jobs(filter: $filter) { totalCount nodes { id } } }"
CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { deduplicated } }"
CREATE_MANY = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { deduplicatedCount } }"
TAGGED = "mutation ($t: [String!]) { createJob(input: {payload: {probe: {}}, tags: $t}) { deduplicated } }"
LISTS: dict[str, tuple[int, Any]] = {
    "ids": (500, IDS[0]),
    "tags": (32, "a"),
    "type": (100, "probe"),
    "queue": (100, "default"),
    "status": (8, "QUEUED"),
    "priority": (4, "LOW"),
}


async def _refusal(schema: JobsSchema, context: Context, query: str, **variables: Any) -> dict[str, Any]:
    result = await schema.execute(query, variables, context)
    (error,) = result.formatted_errors
    return {**error["extensions"], "message": error["message"]}


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_of_a_filter_has_a_limit(schema: JobsSchema, context: Context, name: str) -> None:
    most, value = LISTS[name]
    fitting = await schema.execute(PAGE, {"filter": {name: [value] * most}}, context)
    assert fitting.errors is None
    refusal = await _refusal(schema, context, PAGE, filter={name: [value] * (most + 1)})
    assert (refusal["code"], refusal["argument"]) == ("INVALID_ARGUMENT", f"filter.{name}")
    assert str(most) in refusal["message"]
    shown = value if name in {"status", "priority"} else json.encode(value).decode()
    literal = f"[{', '.join([shown] * (most + 1))}]"
    refusal = await _refusal(schema, context, f"{{ jobs(filter: {{{name}: {literal}}}) {{ totalCount }} }}")
    assert (refusal["code"], refusal["argument"]) == ("INVALID_ARGUMENT", f"filter.{name}")


@pytest.mark.parametrize("name", ["tags", "type", "queue"])
async def test_a_text_of_a_filter_has_a_limit(schema: JobsSchema, context: Context, name: str) -> None:
    assert (await schema.execute(PAGE, {"filter": {name: ["x" * 255]}}, context)).errors is None
    refusal = await _refusal(schema, context, PAGE, filter={name: ["a", "x" * 256]})
    assert (refusal["code"], refusal["argument"]) == ("INVALID_ARGUMENT", f"filter.{name}.1")


async def test_long_ids_and_cursors_are_answered_as_any_that_nobody_has(schema: JobsSchema, context: Context) -> None:
    long = "f" * 1_000_000
    found = await schema.execute(PAGE, {"filter": {"ids": [long]}}, context)
    assert found.data == {"jobs": {"totalCount": 0, "nodes": []}}
    refusal = await _refusal(schema, context, "query ($a: String) { jobs(after: $a) { totalCount } }", a=long)
    assert (refusal["code"], refusal["argument"]) == ("INVALID_ARGUMENT", "after")
    found = await schema.execute("query ($id: ID!) { job(id: $id) { id } }", {"id": long}, context)
    assert found.data == {"job": None}


TOO_MANY: dict[str, tuple[str, dict[str, Any]]] = {
    "filter.ids": (PAGE, {"filter": {"ids": ["x"] * 1_000_000}}),
    "filter": (PAGE, {"filter": {str(n): 1 for n in range(100_000)}}),
    "input.tags": (CREATE, {"input": {"payload": {"probe": {}}, "tags": ["a"] * 33}}),
    f"filter.{'x' * 92}…": (PAGE, {"filter": {"x" * 1_000_000: 1}}),
    "filter.status.1": (PAGE, {"filter": {"status": ["QUEUED", "x" * 1_000_000]}}),
    "inputs": (CREATE_MANY, {"inputs": [{}] * (MAX_LIST + 1)}),
    "inputs.3913": (CREATE_MANY, {"inputs": [{"payload": {"probe": {}}, "tags": ["a"] * 20}] * MAX_LIST}),
}


@pytest.mark.parametrize("argument", TOO_MANY)
async def test_too_many_values_are_refused_before_they_are_coerced(
    schema: JobsSchema, context: Context, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    monkeypatch.delattr("graphql.execution.values.coerce_input_value")
    query, variables = TOO_MANY[argument]
    refusal = await _refusal(schema, context, query, **variables)
    assert (refusal["code"], refusal["argument"]) == ("INVALID_ARGUMENT", argument)


async def test_a_list_in_a_variable_of_its_own_is_named_by_its_place(schema: JobsSchema, context: Context) -> None:
    refusal = await _refusal(schema, context, TAGGED, t=["a"] * (MAX_LIST + 1))
    assert (refusal["code"], refusal["argument"]) == ("INVALID_ARGUMENT", "input.tags")


async def test_too_many_values_of_a_payload_are_its_faults(schema: JobsSchema, context: Context) -> None:
    given = {"payload": {"probe": dict.fromkeys(map(str, range(500)), 1)}}
    refusal = await _refusal(schema, context, CREATE, input=given)
    assert refusal["code"] == "INVALID_PAYLOAD"
    assert [fault["path"] for fault in refusal["fields"]] == ["input.payload.probe"]


async def test_what_does_not_fit_its_type_is_left_to_coercion(schema: JobsSchema, context: Context) -> None:
    for value in ("x", 1, [1], [[["x"]]], {"ids": {"a": 1}}, {"ids": IDS[0]}, {"ids": [[IDS[0]]]}):
        result = await schema.execute(PAGE, {"filter": value}, context)
        assert all((error.extensions or {})["code"] == "INVALID_ARGUMENT" for error in result.errors or [])
