"""NATS away, full, or holding what nobody can read: told at once, nothing unannounced, everything resumes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from gql.transport.exceptions import TransportQueryError

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobPriority, new_job_id
from gql_jobs.log import codec
from gql_jobs.settings import Settings
from tests.api.operations import (
    CANCEL,
    CREATE,
    CREATE_MANY,
    FEED,
    FIND,
    RETRY,
    UNKNOWN_ID,
    asked,
    create,
    ended,
    find,
    page,
    reached,
    watched,
)
from tests.by_hand import RestartingServer, frozen
from tests.deadline import until
from tests.running import RunningWorker, running_worker
from tests.serving import Data, ServedApi, is_ready, serving


async def _ready(api: ServedApi, *, ready: bool = True) -> None:
    async def so() -> bool:
        return await is_ready(api) is ready

    await until(so, f"readiness is {ready}", within=20)


async def _refused(api: ServedApi, document: str, **variables: object) -> Data:
    """The extensions of a refusal that comes within 5 seconds."""
    began = time.monotonic()
    refusal = await api.refusal(document, **variables)
    assert time.monotonic() - began < 5.5
    assert refusal["extensions"]["code"] == "QUEUE_UNAVAILABLE"
    extensions: Data = refusal["extensions"]
    return extensions


async def _all_refused(api: ServedApi, known: Data) -> set[str]:
    """Ask for everything that needs NATS; returns the ids of jobs whose fate was said to be unknown."""
    refused = await asyncio.gather(
        *(_refused(api, CREATE, input=asked(tags=["refused"])) for _ in range(5)),
        _refused(api, CREATE_MANY, inputs=[asked(tags=["refused"]) for _ in range(20)]),
        _refused(api, CANCEL, id=known["id"]),
        _refused(api, RETRY, id=known["id"]),
        _refused(api, FIND, id=UNKNOWN_ID),
    )
    async with api.raw_socket() as opened:
        document = f'subscription {{ jobProgress(id: "{UNKNOWN_ID}") {{ cursor }} }}'
        assert (await api.refused_on(opened, "1", document))["extensions"]["code"] == "QUEUE_UNAVAILABLE"
    batch = refused[5]["acceptedIds"] + refused[5].get("uncertainIds", [])
    return set(batch) | {extensions["jobId"] for extensions in refused if "jobId" in extensions}


async def _known_still_answers(api: ServedApi, known: Data) -> None:
    assert await find(api, known["id"]) == known
    assert (await page(api))["totalCount"] == 1
    async with aclosing(
        api.events("subscription ($id: ID!) { jobProgress(id: $id) { __typename } }", id=known["id"])
    ) as e:
        assert await anext(e) == {"__typename": "JobQueued"}
    assert (await api.http.get("/healthz")).status_code == 200


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestartingServer]:
    """A server to be taken away."""
    async with AsyncExitStack() as stack:
        restarting = RestartingServer(tmp_path / "store")
        stack.push_async_callback(restarting.stop)
        await restarting.start()
        yield restarting


async def test_a_server_that_was_stopped(server: RestartingServer, tmp_path: Path) -> None:
    settings = Settings(nats_url=server.url, data_dir=tmp_path / "data", base_retry_delay=0.1)
    async with serving(settings) as api:
        known = await create(api, {"steps": 2})
        await _ready(api)
        async with api.socket_streams(FEED, [{}]) as (feed,):
            await api.subscribers(1)
            await server.stop()
            await _ready(api, ready=False)
            unknown = await _all_refused(api, known)
            await _known_still_answers(api, known)
            await server.start()
            await _ready(api)
            async with running_worker(settings):
                await ended(api, known["id"])
                new = await create(api)
                await ended(api, new["id"])
            seen = set()
            while new["id"] not in seen:
                seen.add((await anext(feed))["job"]["id"])
        # What was told to have failed is not there, unless its fate was said to be unknown.
        ids = {node["id"] for node in (await page(api, first=500))["nodes"]}
        assert ids - unknown == {known["id"], new["id"]} == seen - unknown


async def test_a_server_that_hangs(nats: EmbeddedServer, settings: Settings) -> None:
    async with serving(settings) as api:
        known = await create(api, {"steps": 2})
        await _ready(api)
        with frozen(nats):
            unknown = await _all_refused(api, known)
            await _known_still_answers(api, known)
            await _ready(api, ready=False)
        assert unknown
        await _ready(api)
        new = await create(api)
        await until(lambda: api.runtime.index.job(new["id"]), "the feed goes on")
        ids = {node["id"] for node in (await page(api, first=500))["nodes"]}
        assert ids - unknown == {known["id"], new["id"]}
        async with running_worker(settings):
            await ended(api, new["id"])


async def test_a_running_job_survives_an_outage(server: RestartingServer, tmp_path: Path) -> None:
    settings = Settings(nats_url=server.url, data_dir=tmp_path / "data", base_retry_delay=0.1)
    gate = tmp_path / "gate"
    async with serving(settings) as api, running_worker(settings):
        job = await create(api, {"gate": str(gate), "steps": 2})
        await reached(api, job["id"], "PROCESSING")
        following = asyncio.create_task(watched(api, job["id"]))
        await api.subscribers(1)
        await server.stop()
        gate.touch()
        await _ready(api, ready=False)
        await server.start()
        events = await asyncio.wait_for(following, 30)
        assert events[-1]["__typename"] == "JobCompleted"
        assert (await find(api, job["id"]))["attempt"] == 1


async def test_a_full_stream_takes_no_jobs_while_running_ones_finish(nats: EmbeddedServer, tmp_path: Path) -> None:
    settings = Settings(nats_url=nats.url, data_dir=tmp_path / "data", max_store_bytes=1 << 20)
    gate = tmp_path / "gate"
    async with serving(settings) as api, running_worker(settings, ("default",)):
        running = await create(api, {"gate": str(gate)})
        await reached(api, running["id"], "PROCESSING")
        filling = [await create(api, {"saves": "x" * 200_000}, "probeThread") for _ in range(5)]

        async def refused() -> Data | None:
            try:
                await api.ask(CREATE, input=asked(kind="probeThread"))
            except TransportQueryError as error:
                return dict((error.errors or [{}])[0])
            return None

        refusal = await until(refused, "a creation is refused")
        assert refusal["extensions"]["code"] == "QUEUE_FULL"
        assert (await api.refusal(CREATE_MANY, inputs=[asked()]))["extensions"]["code"] == "QUEUE_FULL"
        before = (await page(api, first=0))["totalCount"]
        gate.touch()
        await ended(api, running["id"])
        # What exists can still be moved.
        assert (await api.ask(CANCEL, id=filling[0]["id"]))["cancelJob"]["job"]["status"] == "CANCELLED"
        assert (await api.ask(RETRY, id=filling[0]["id"]))["retryJob"]["job"]["status"] == "QUEUED"
        assert (await page(api, first=0))["totalCount"] == before


async def test_messages_that_nobody_can_read_are_set_aside(
    api: ServedApi, connection: Connection, worker: RunningWorker, caplog: pytest.LogCaptureFixture
) -> None:
    assert worker.task is not None
    known = await create(api, {"steps": 1})
    garbage = [
        (codec.queued_subject(new_job_id(), "default", JobPriority.NORMAL), b"no JSON"),
        (codec.queued_subject(new_job_id(), "default", JobPriority.NORMAL), b'{"v":1}'),
        (codec.queued_subject(new_job_id(), "default", JobPriority.NORMAL), b""),
        (codec.queued_subject("no-uuid", "default", JobPriority.NORMAL), b"{}"),
        (codec.event_subject(known["id"], Kind.STARTED), b"\xff\xfe"),
        (codec.progress_subject(new_job_id()), b"[" * 10_000),
    ]
    with caplog.at_level(logging.WARNING):
        for subject, body in garbage:
            await connection.publish(subject, body)
        job = await create(api)
        await ended(api, job["id"])
    assert api.runtime.index.unreadable == len(garbage)
    assert caplog.text.count("is set aside") >= len(garbage)
    assert (await page(api))["totalCount"] == 2
    await _ready(api)
