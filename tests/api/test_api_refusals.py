"""The table of bad input: each row's answer, over the wire, and nothing stored."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from gql_jobs.jetstream.server import embedded_server
from gql_jobs.log.streams import stream_info
from gql_jobs.settings import Settings
from tests.api.operations import (
    CANCEL,
    CREATE,
    CREATE_MANY,
    FIND,
    PAGE,
    RETRY,
    UNKNOWN_ID,
    asked,
    create,
    ended,
    reached,
)
from tests.graphql.engine.bombs import doubling_fragments, nested_events
from tests.running import RunningWorker, running_worker
from tests.serving import Data, ServedApi, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAIL = {"to": "ada@example.com", "subject": "Hello", "body": "Text"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settings]:
    """One nats-server for the whole table: nothing of it is stored."""
    folder = tmp_path_factory.mktemp("refusals")
    async with embedded_server(folder / "store", max_store_bytes=1 << 30) as server:
        yield Settings(nats_url=server.url, data_dir=folder / "data", max_body_bytes=3 << 20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """One API for the whole table."""
    async with serving(settings) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def worker(settings: Settings) -> AsyncIterator[RunningWorker]:
    """A worker, for the rows that need a job in some state."""
    async with running_worker(settings) as running:
        yield running


async def _stored(api: ServedApi) -> int:
    return (await stream_info(api.runtime.connection)).state.last_seq


PAYLOADS: list[tuple[str, Any, list[str]]] = [
    ("no address", {"email": {**MAIL, "to": "nobody"}}, ["email.to"]),
    ("a line break", {"email": {**MAIL, "subject": "a\nb"}}, ["email.subject"]),
    ("two faults", {"email": {**MAIL, "to": "@", "subject": "\r"}}, ["email.to", "email.subject"]),
    ("a missing field", {"email": {"to": MAIL["to"], "subject": ""}}, ["email.body"]),
    ("an unknown field", {"email": {**MAIL, "cc": "x"}}, ["email.cc"]),
    ("a wrong type", {"probe": {"steps": "many"}}, ["probe.steps"]),
    ("a null", {"email": {**MAIL, "body": None}}, ["email.body"]),
    ("an unknown type", {"fax": {"number": "1"}}, ["fax"]),
    ("two members", {"email": MAIL, "probe": {}}, []),
    ("no member", {}, []),
    ("a null member", {"email": None}, []),
    ("no object", "email", []),
]


def _literal(value: Any) -> str:
    """A JSON value as a GraphQL literal."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_literal(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)


def _by_variable(payload: Any) -> tuple[str, Data]:
    return CREATE, {"input": {"payload": payload}}


def _by_literal(payload: Any) -> tuple[str, Data]:
    return f"mutation {{ createJob(input: {{payload: {_literal(payload)}}}) {{ deduplicated }} }}", {}


def _in_a_batch(payload: Any) -> tuple[str, Data]:
    return CREATE_MANY, {"inputs": [asked(), {"payload": payload}]}


@pytest.mark.parametrize("way", [_by_variable, _by_literal, _in_a_batch], ids=["variable", "literal", "batch"])
@pytest.mark.parametrize(("payload", "paths"), [p[1:] for p in PAYLOADS], ids=[p[0] for p in PAYLOADS])
async def test_a_payload_that_does_not_fit_is_refused_with_its_paths(
    api: ServedApi, payload: Any, paths: list[str], way: Callable[[Any], tuple[str, Data]]
) -> None:
    before = await _stored(api)
    document, variables = way(payload)
    refusal = await api.refusal(document, **variables)
    assert refusal["extensions"]["code"] == "INVALID_PAYLOAD"
    root = "inputs.1.payload" if way is _in_a_batch else "input.payload"
    named = [field["path"].rstrip(".") for field in refusal["extensions"]["fields"]]
    assert all(field["message"] for field in refusal["extensions"]["fields"])
    for path in paths:
        assert f"{root}.{path}" in named
    if not paths:
        assert all(name.startswith(root) for name in named)
    assert await _stored(api) == before


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("input.priority", {"priority": "URGENT"}),
        ("input.runAt", {"runAt": "2999-01-01T00:00:00Z"}),
        ("input.runAt", {"runAt": "tomorrow"}),
        ("input.maxRetries", {"maxRetries": -1}),
        ("input.timeoutSeconds", {"timeoutSeconds": 0}),
        ("input.idempotencyKey", {"idempotencyKey": ""}),
        ("input.tags", {"tags": ["x"] * 33}),
        ("input.colour", {"colour": "red"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_an_option_that_cannot_be_is_an_invalid_argument(api: ServedApi, argument: str, given: Data) -> None:
    before = await _stored(api)
    refusal = await api.refusal(CREATE, input=asked(**given))
    assert (refusal["extensions"]["code"], refusal["extensions"]["argument"]) == ("INVALID_ARGUMENT", argument)
    assert await _stored(api) == before


async def test_a_payload_above_the_limit_is_refused_with_both_sizes(api: ServedApi) -> None:
    limit = api.runtime.connection.max_payload - 128 * 1024
    before = await _stored(api)
    refusal = await api.refusal(CREATE, input=asked({"saves": "x" * limit}))
    assert refusal["extensions"]["code"] == "PAYLOAD_TOO_LARGE"
    assert refusal["extensions"]["limitBytes"] == limit
    assert limit < refusal["extensions"]["sizeBytes"] < limit + 1000
    assert await _stored(api) == before
    largest = await create(api, {"saves": "x" * (limit - 500)})
    assert len(largest["rawPayload"]["saves"]) == limit - 500


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_above_the_limit_is_answered_413_in_graphql_json(
    api: ServedApi, settings: Settings, declared: bool
) -> None:
    body = json.dumps({"query": "{ __typename }", "pad": "x" * settings.max_body_bytes}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    headers = {"Content-Type": "application/json"}
    response = await api.http.post("/graphql", content=body if declared else chunks(), headers=headers)
    assert response.status_code == 413
    (error,) = response.json()["errors"]
    assert error["extensions"]["code"] == "PAYLOAD_TOO_LARGE"
    assert error["extensions"]["limitBytes"] == settings.max_body_bytes
    if declared:
        assert error["extensions"]["sizeBytes"] == len(body)


@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "no-uuid", "", "*", "a.b", "ä" * 300])
async def test_an_unknown_id_is_null_or_not_found(api: ServedApi, job_id: str) -> None:
    assert (await api.ask(FIND, id=job_id))["job"] is None
    for move in CANCEL, RETRY:
        assert (await api.refusal(move, id=job_id))["extensions"]["code"] == "NOT_FOUND"
    async with api.raw_socket() as opened:
        document = f"subscription {{ jobProgress(id: {json.dumps(job_id)}) {{ cursor }} }}"
        assert (await api.refused_on(opened, "1", document))["extensions"]["code"] == "NOT_FOUND"


async def test_a_move_that_the_state_forbids_names_the_state(
    api: ServedApi, worker: RunningWorker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert worker.task is not None
    gate = tmp_path_factory.mktemp("moves") / "gate"
    done, running = await create(api), await create(api, {"gate": str(gate)})
    await ended(api, done["id"])
    await reached(api, running["id"], "PROCESSING")
    for move, job, status in (CANCEL, done, "COMPLETED"), (RETRY, done, "COMPLETED"), (RETRY, running, "PROCESSING"):
        refusal = await api.refusal(move, id=job["id"])
        assert (refusal["extensions"]["code"], refusal["extensions"]["status"]) == ("INVALID_STATE", status)
        assert job["id"] in refusal["message"]
    gate.touch()
    await ended(api, running["id"])


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("first", {"first": -1}),
        ("first", {"first": 501}),
        ("offset", {"offset": -1}),
        ("after", {"after": "not a cursor"}),
        ("after", {"after": "MTIz"}),
    ],
)
async def test_a_page_that_cannot_be_is_an_invalid_argument(api: ServedApi, argument: str, given: Data) -> None:
    refusal = await api.refusal(PAGE, **given)
    assert (refusal["extensions"]["code"], refusal["extensions"]["argument"]) == ("INVALID_ARGUMENT", argument)


async def test_a_cursor_of_another_order_is_refused(api: ServedApi) -> None:
    await create(api)
    found = (await api.ask(PAGE, first=1))["jobs"]
    refusal = await api.refusal(PAGE, after=found["pageInfo"]["endCursor"], orderBy={"field": "PRIORITY"})
    assert refusal["extensions"]["code"] == "INVALID_ARGUMENT"


async def test_an_operation_that_asks_for_too_much_is_refused_on_every_transport(api: ServedApi) -> None:
    query = nested_events(20)
    assert (await api.refusal(query))["extensions"]["code"] == "TOO_COMPLEX"
    watched = "subscription { jobEvents { job { ...F0 } } } " + doubling_fragments(40).split(" } } }", 1)[1]
    accepted = {"Accept": "multipart/mixed;subscriptionSpec=1.0, application/json"}
    answer = await api.http.post("/graphql", json={"query": watched}, headers=accepted)
    assert "TOO_COMPLEX" in answer.text
    async with api.raw_socket() as opened:
        for number, document in enumerate((query, watched)):
            assert (await api.refused_on(opened, str(number), document))["extensions"]["code"] == "TOO_COMPLEX"


async def test_a_subscription_without_a_stream_is_refused_in_a_sentence(api: ServedApi) -> None:
    response = await api.http.post("/graphql", json={"query": "subscription { jobEvents { cursor } }"})
    assert response.status_code == 406
    (error,) = response.json()["errors"]
    assert "WebSocket" in error["message"]
