"""What a client makes of an API that is away, comes back, refuses, or whose answers are lost."""

import asyncio
import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.client.async_client import AsyncClient, AsyncJobHandle
from gql_jobs.client.errors import (
    DamagedArtifact,
    Forbidden,
    InvalidState,
    NotFound,
    QueueFull,
    QueueUnavailable,
    RateLimited,
    Unauthenticated,
    Unreachable,
)
from gql_jobs.client.transport import CompletedEvent, JobEvent, StartedEvent
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log.job_log import job_events
from gql_jobs.log.retention import expire
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import open_runtime
from tests.api.operations import history
from tests.by_hand import RestartingServer
from tests.client.lossy_line import LossyLine
from tests.deadline import until
from tests.guarded import guarded
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.running import JOB_TYPES
from tests.serving import HOST, ServedApi, api_process, free_port, serving

pytestmark = pytest.mark.timeout(120)
needs_worker = pytest.mark.usefixtures("worker")


async def _create(client: AsyncClient, fields: dict[str, Any] | None = None, **options: Any) -> AsyncJobHandle[Any]:
    return await client.create(ProbePayload(**fields or {}), type="probe", **options)


@needs_worker
async def test_results_and_events_outlast_a_restart_of_the_api_without_a_gap_or_a_repetition(
    settings: Settings, tmp_path: Path
) -> None:
    gate, trace, port = tmp_path / "gate", tmp_path / "trace", free_port()
    async with AsyncClient(f"http://{HOST}:{port}", patience=1) as client:
        async with api_process(settings, port):
            fields = {"gate": str(gate), "trace": str(trace), "fail_attempts": 0}
            job = await _create(client, fields)
            result, events = asyncio.create_task(job.result()), job.events()
            seen: list[JobEvent] = [await anext(aiter(events))]
            while not isinstance(seen[-1], StartedEvent):
                seen.append(await anext(aiter(events)))
            others = [asyncio.create_task((await _create(client, fields)).result()) for _ in range(20)]
        gate.touch()
        await until(lambda: len(trace.read_text().splitlines()) == 21, "the jobs have run while there is no API")
        async with api_process(settings, port) as (api, _):
            seen += [event async for event in events]
            assert (await asyncio.wait_for(result, 30)).attempt == 1
            assert [one.attempt for one in await asyncio.gather(*others)] == [1] * 20
            told = [event["cursor"] for event in await history(api, job.id)]
    assert [event.cursor for event in seen] == told[told.index(seen[0].cursor) :]
    assert isinstance(seen[-1], CompletedEvent)


async def test_a_creation_waits_for_an_api_that_is_about_to_come(settings: Settings) -> None:
    port = free_port()
    async with AsyncClient(f"http://{HOST}:{port}", patience=60) as client:
        creation = asyncio.create_task(_create(client))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(creation), 0.5)
        async with api_process(settings, port):
            job = await creation
            assert (await job.state()).status is JobStatus.QUEUED


async def test_without_an_api_it_gives_up_when_its_patience_is_over() -> None:
    async with AsyncClient(f"http://{HOST}:{free_port()}", patience=0.5) as client:
        for asked in (_create(client), client.job("x").result(), client.job("x").events().__anext__()):
            with pytest.raises(Unreachable, match=r"The API at http://127.* does not answer \(.*\)") as refused:
                await asked
            assert refused.value.code is None
            assert refused.value.uncertain is False


async def test_something_else_at_the_address_is_told_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server, AsyncClient(f"http://{HOST}:{server.sockets[0].getsockname()[1]}", patience=60) as client:
        for asked in (_create(client), client.job("x").events().__anext__()):
            with pytest.raises(Unreachable, match="nothing of GraphQL: is it the API's address"):
                await asyncio.wait_for(asked, 10)


async def test_a_creation_whose_answer_is_lost_is_repeated_and_makes_one_job(
    line: LossyLine, by_line: AsyncClient
) -> None:
    for key in (None, "one"):
        line.losing = 2
        job = await _create(by_line, {"steps": 1}, key=key)
        assert line.losing == 0
        # Nobody else knows the key that it has made; of the caller's it cannot say who has used it before.
        assert job.deduplicated is (key is not None)
    line.losing = 1
    many = await by_line.create_many([(ProbePayload(), {"type": "probe"})] * 3)
    assert [handle.deduplicated for handle in many] == [False] * 3
    assert len([one async for one in by_line.jobs()]) == 5
    assert sum(request.count(b"createRawJobs") for request in line.requests) == 8


async def test_a_cancellation_whose_answer_is_lost_has_been_made(line: LossyLine, by_line: AsyncClient) -> None:
    job = await _create(by_line)
    line.losing = 1
    assert (await job.cancel()).status is JobStatus.CANCELLED
    with pytest.raises(InvalidState):
        await job.cancel()


async def test_a_retry_whose_answer_is_lost_is_not_repeated_and_says_so(line: LossyLine, by_line: AsyncClient) -> None:
    job = await _create(by_line)
    await job.cancel()
    line.losing = 1
    with pytest.raises(Unreachable) as lost:
        await job.retry()
    assert lost.value.uncertain is True
    assert (await job.state()).status is JobStatus.QUEUED


@needs_worker
async def test_events_are_whole_whatever_is_cut(
    api: ServedApi, line: LossyLine, by_line: AsyncClient, tmp_path: Path
) -> None:
    job = await _create(by_line, {"fail_attempts": 3, "gate": str(tmp_path / "gate")}, max_retries=4)
    result = asyncio.create_task(job.result())
    seen: list[JobEvent] = []
    async for event in job.events():
        seen.append(event)
        if len(seen) % 3 == 1:
            line.cut()
        (tmp_path / "gate").touch()
    told = [event["cursor"] for event in await history(api, job.id)]
    assert [event.cursor for event in seen] == told[told.index(seen[0].cursor) :]
    assert await result == ProbeResult(attempt=4)


@needs_worker
async def test_a_file_that_breaks_off_is_gone_on_with(line: LossyLine, by_line: AsyncClient) -> None:
    job = await _create(by_line, {"artifact": "zeros.bin", "artifact_bytes": 3_000_000})
    await job.result(timeout=30)
    (file,) = await job.artifacts()
    # Cut by the line itself: what is on its way when another one cuts it may be all that is left.
    line.passing = 1_000_000
    read = b"".join([chunk async for chunk in file.chunks()])
    assert read == bytes(3_000_000)
    assert any(b"range: bytes=" in request.lower() for request in line.requests)


@needs_worker
async def test_a_file_that_is_replaced_while_it_is_read_is_not_taken_for_whole(
    api: ServedApi, line: LossyLine, by_line: AsyncClient
) -> None:
    job = await _create(by_line, {"artifact": "zeros.bin", "artifact_bytes": 3_000_000})
    await job.result(timeout=30)
    (file,) = await job.artifacts()
    stored = api.runtime.index.job(job.id)
    assert stored is not None
    line.passing = 1_000_000
    chunks = file.chunks()
    await anext(aiter(chunks))
    fence = job_events(job.id, stored.event_seq)
    await api.runtime.artifacts.save(job.id, "zeros.bin", io.BytesIO(b"others"), "text/plain", fence)

    def is_replaced() -> bool:
        known = api.runtime.index.artifact(job.id, "zeros.bin")
        return known is not None and known.size_bytes == len(b"others")

    await until(is_replaced, "the other file is known")
    with pytest.raises(DamagedArtifact, match="was replaced while it was read"):
        [chunk async for chunk in chunks]


async def test_a_job_that_expires_while_the_client_is_cut_off_is_not_found(settings: Settings) -> None:
    port = free_port()
    async with AsyncClient(f"http://{HOST}:{port}", patience=30) as client:
        async with api_process(settings, port):
            job = await _create(client)
            waiting = asyncio.create_task(job.result())
            await until(lambda: waiting.done() or _is_waiting(client), "it waits")
        async with open_runtime(settings, JOB_TYPES) as runtime:
            await runtime.feed.read_back(await runtime.commands.cancel(job.id))
            tomorrow = datetime.now(UTC) + timedelta(days=1)
            assert await expire(runtime.commands._log, runtime.artifacts, job.id, tomorrow)  # noqa: SLF001
        async with api_process(settings, port):
            with pytest.raises(NotFound, match=r"There is no job .* any more"):
                await asyncio.wait_for(waiting, 60)


def _is_waiting(client: AsyncClient) -> bool:
    transport: Any = client._transport  # noqa: SLF001
    return bool(transport._ends._streams)  # noqa: SLF001


async def test_a_client_is_refused_what_its_token_does_not_allow(settings: Settings) -> None:
    async with guarded(settings) as shop:
        url = f"http://{HOST}:{shop.api.port}"
        for token in (None, "wrong"):
            async with AsyncClient(url, token) as client:
                for asked in (_create(client), client.job("x").events().__anext__()):
                    with pytest.raises(Unauthenticated):
                        await asked
        async with AsyncClient(url, shop.key) as client:
            job = await _create(client)
            assert (await job.state()).created_by == "key:operator"
        reading = await shop.new_key("reader", frozenset({Scope.READ}))
        async with AsyncClient(url, reading) as client:
            with pytest.raises(Forbidden, match="needs the scope"):
                await _create(client)
            assert [one.id async for one in client.jobs()] == [job.id]


@needs_worker
async def test_a_token_is_renewed_when_it_has_ended_also_below_events_and_results(
    settings: Settings, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with guarded(settings) as shop:
        job_id = await shop.create(gate=str(gate))
        issued = [await shop.token(), await shop.token()]
        asked = 0

        async def token() -> str:
            nonlocal asked
            asked += 1
            return issued[0].token

        async with AsyncClient(f"http://{HOST}:{shop.api.port}", token) as client:
            job = client.job(job_id)
            events = job.events()
            seen = [await anext(aiter(events))]
            result = asyncio.create_task(job.result())
            await shop.api.subscribers(2)
            await shop.revoke(issued.pop(0))
            await shop.api.subscribers(2)
            gate.touch()
            assert await result == ProbeResult(attempt=1)
            seen += [event async for event in events]
            assert isinstance(seen[-1], CompletedEvent)
            assert len({event.cursor for event in seen}) == len(seen)
            assert asked > 3
            await shop.revoke(issued[0])
            with pytest.raises(Unauthenticated):
                await job.state()


async def test_a_limit_of_rates_is_waited_for(settings: Settings) -> None:
    async with (
        serving(settings.model_copy(update={"rate_limit_creations": "2/second"})) as api,
        AsyncClient(f"http://{HOST}:{api.port}") as client,
    ):
        jobs = [await _create(client) for _ in range(5)]
        assert len({job.id for job in jobs}) == 5


async def test_what_does_not_pass_within_its_patience_is_raised_under_its_code(
    nats: EmbeddedServer, tmp_path: Path, settings: Settings
) -> None:
    limited = settings.model_copy(update={"rate_limit_creations": "2/hour"})
    async with serving(limited) as api, AsyncClient(f"http://{HOST}:{api.port}", patience=0.5) as client:
        for _ in range(2):
            await _create(client)
        with pytest.raises(RateLimited) as refused:
            await _create(client)
        assert refused.value.retry_after > 60
    full = Settings(nats_url=nats.url, data_dir=tmp_path / "full", max_store_bytes=1 << 20, queue_full_ratio=0.1)
    async with serving(full) as api, AsyncClient(f"http://{HOST}:{api.port}", patience=0.5) as client:

        async def is_refused() -> QueueFull | None:
            try:
                await _create(client, {"saves": "x" * 100_000})
            except QueueFull as error:
                return error
            return None

        assert (await until(is_refused, "the queue is full")).code == "QUEUE_FULL"
        many: Any = [(ProbePayload(), {"type": "probe"})] * 2
        with pytest.raises(QueueFull):
            await client.create_many(many)


async def test_an_api_that_has_lost_its_store_is_waited_for_and_then_told_of(
    server: RestartingServer, tmp_path: Path
) -> None:
    nats = await server.start()
    async with (
        serving(Settings(nats_url=nats.url, data_dir=tmp_path / "data")) as api,
        AsyncClient(f"http://{HOST}:{api.port}", patience=3) as client,
    ):
        job = await _create(client)
        await server.stop()
        with pytest.raises(QueueUnavailable):
            await _create(client)
        waiting = asyncio.create_task(job.cancel())
        await server.start()
        assert (await waiting).status is JobStatus.CANCELLED


def test_without_httpx_it_is_said_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("httpx", "gql_jobs.client.http_transport", "gql_jobs.client.api_connections"):
        monkeypatch.setitem(sys.modules, name, None) if name == "httpx" else monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r"httpx is not installed: run pip install 'gql-jobs\[client\]'"):
        AsyncClient("http://127.0.0.1:9")
    AsyncClient("nats://127.0.0.1:9")


async def test_whoever_waits_for_a_connection_says_who_asks_when_it_has_one_and_ends_with_the_client() -> None:
    connections: set[asyncio.StreamWriter] = set()
    tokens = 0

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        await reader.read()
        writer.close()

    def token() -> str:
        nonlocal tokens
        tokens += 1
        # Hidden in the log from now on, in all tests of this process: nothing that could be a part of a word.
        return "key-of-a-test-0123456789"

    async with await asyncio.start_server(never_answer, HOST, 0) as silent:
        async with AsyncClient(f"http://{HOST}:{silent.sockets[0].getsockname()[1]}", token, patience=0.0) as client:
            asked = [asyncio.create_task(client.job("a").state()) for _ in range(300)]
            await until(lambda: len(connections) == 64, "all connections are in use")
            assert tokens == 64
            for task in asked[:32]:
                task.cancel()
            await until(lambda: tokens == 96, "those that wait have the connections that others have left")
        left = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
    assert {type(error) for error in left} <= {asyncio.CancelledError, RuntimeError, Unreachable}
    assert tokens == 96
