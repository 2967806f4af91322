"""Whatever a client sends, the answer is GraphQL's own JSON: no 500, and no error that nobody meant for clients."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gql_jobs.graphql.engine.errors import UNEXPECTED
from gql_jobs.jobs.errors import ErrorCode
from gql_jobs.jobs.model import new_job_id
from tests.running import ROOT
from tests.serving import ServedApi

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMAIL = {"email": {"to": "ada@example.com", "subject": "Hello", "body": "Ready."}}
JOB = {
    "payload": EMAIL,
    "priority": "LOW",
    "idempotencyKey": "k",
    "runAt": "2030-01-31T12:00:00Z",
    "maxRetries": 2,
    "timeoutSeconds": 1.5,
    "tags": ["t"],
}
FILTER = {"ids": ["x"], "status": ["QUEUED"], "type": ["email"], "tags": ["t"], "createdAfter": "2020-01-01T00:00:00Z"}
PAGE = {
    "filter": FILTER,
    "orderBy": {"field": "CREATED_AT", "direction": "ASC"},
    "first": 2,
    "after": None,
    "offset": 1,
}
REQUESTS: list[tuple[str, Any]] = [
    (
        "mutation ($input: CreateJobInput!) { createJob(input: $input) { job { id tags } deduplicated } }",
        {"input": JOB},
    ),
    (
        "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { id } } }",
        {"inputs": [{"payload": EMAIL}, JOB]},
    ),
    (
        "mutation ($id: ID!) { cancelJob(id: $id) { job { id } } retryJob(id: $id) { job { id } } }",
        {"id": new_job_id()},
    ),
    ("mutation ($filter: JobFilter!) { retryJobs(filter: $filter) { retriedCount } }", {"filter": FILTER}),
    ("query ($id: ID!) { job(id: $id) { id events { __typename } } }", {"id": new_job_id()}),
    (
        """query ($filter: JobFilter, $orderBy: JobOrder, $first: Int, $after: String, $offset: Int) {
        jobs(filter: $filter, orderBy: $orderBy, first: $first, after: $after, offset: $offset) {
        totalCount nodes { id } pageInfo { endCursor } } }""",
        PAGE,
    ),
    *((path.read_text(), {}) for path in sorted((ROOT / "tests/queries").glob("*.graphql"))),
]
# Lone surrogates are no text but may stand in JSON.
text = st.text(st.characters(codec=None, categories=None), max_size=20) | st.sampled_from(["", "*", ">", "\0", "a.b"])
numbers = st.integers() | st.integers(2**31 - 2, 2**64) | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """The same with one of its parts replaced by anything, mostly deep within."""
    if not whole or not isinstance(whole, dict | list) or draw(st.integers(0, 7)) == 0:
        return draw(values)
    if isinstance(whole, list):
        place = draw(st.integers(0, len(whole) - 1))
        return [*whole[:place], draw(damaged(whole[place])), *whole[place + 1 :]]
    key = draw(st.sampled_from(sorted(whole)))
    return {**whole, key: draw(damaged(whole[key]))}


@st.composite
def edited(draw: st.DrawFn, document: str) -> str:
    """The document with a piece of it replaced."""
    start = draw(st.integers(0, len(document)))
    end = draw(st.integers(start, min(start + 12, len(document))))
    piece = draw(text | st.sampled_from(["null", "{", "$id", '"*"', "-1", "...F", "@skip"]))
    return document[:start] + piece + document[end:]


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """A request of a client, with something wrong in the document, in the variables, beside them, or nowhere."""
    document, variables = draw(st.sampled_from(REQUESTS))
    match draw(st.integers(0, 9)):
        case 0:
            return {"query": document, "variables": variables}
        case 1 | 2 | 3:
            return {"query": draw(edited(document)), "variables": variables}
        case 4:
            return draw(damaged({"query": document, "variables": variables, "operationName": None, "extensions": {}}))
        case _:
            return {"query": document, "variables": draw(damaged(variables))}


async def _post(wire: ServedApi, body: bytes) -> None:
    answer = await wire.http.post("/graphql", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    for error in answer.json().get("errors", ()):
        assert error["message"] not in {"", UNEXPECTED}, error
        assert error["extensions"]["code"] != ErrorCode.INTERNAL, error


quickly = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quickly
@given(request=requests())
async def test_no_document_and_no_variables_make_the_api_answer_with_an_unmasked_error_or_a_500(
    wire: ServedApi, request: Any
) -> None:
    await _post(wire, json.dumps(request).encode())


@quickly
@given(body=values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50))
async def test_no_body_makes_the_api_answer_with_an_unmasked_error_or_a_500(wire: ServedApi, body: bytes) -> None:
    await _post(wire, body)
