"""NATS goes away and comes back while jobs run: nobody else has to be restarted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.running import RunningWorker, running_worker, worker_process
from tests.workers.stories import all_ended, assert_one_end, create, create_many, done_with, ended, kinds, running


class RestartableServer:
    """A nats-server that comes back with the same port and store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()
        self._port = 0
        self.server: EmbeddedServer

    @property
    def url(self) -> str:
        """Where clients connect, before and after."""
        return self.server.url

    async def start(self) -> None:
        """Start it for the first time or again."""
        opening = embedded_server(self._folder, port=self._port, max_store_bytes=1 << 30)
        self.server = await self._stack.enter_async_context(opening)
        self._port = self.server.port

    async def stop(self) -> None:
        """Stop it in order, if it still runs."""
        await self._stack.aclose()


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[RestartableServer]:
    """The server of these tests."""
    server = RestartableServer(tmp_path / "store")
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A few slots each, so that both workers have to take part."""
    return settings.model_copy(update={"num_workers": 5})


@pytest.mark.parametrize("killed", [False, True], ids=["terminated", "killed"])
async def test_running_jobs_are_finished_and_recorded_and_intake_goes_on(
    nats: RestartableServer,
    runtime: Runtime,
    settings: Settings,
    workers: AsyncExitStack,
    tmp_path: Path,
    *,
    killed: bool,
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    await workers.enter_async_context(running_worker(settings))
    async with worker_process(settings):
        job_ids = await create_many(runtime, 10, gate=before, steps=2, seconds=0.2)
        await running(runtime, *job_ids, within=20)
        if killed:
            psutil.Process(nats.server.pid).kill()
            await nats.server.wait()
        await nats.stop()
        before.touch()
        await nats.start()
        for job in await all_ended(runtime, job_ids, within=20):
            assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
            assert await kinds(runtime.connection, job.id) == [Kind.QUEUED, Kind.STARTED, Kind.COMPLETED]
        # Ten at a time: both workers take jobs again.
        job_ids = await create_many(runtime, 10, gate=after)
        await running(runtime, *job_ids)
        after.touch()
        for job in await all_ended(runtime, job_ids):
            assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
        await done_with(runtime.connection)


async def test_a_retry_and_a_cancellation_survive_the_restart(
    nats: RestartableServer, runtime: Runtime, worker: RunningWorker, tmp_path: Path
) -> None:
    assert worker.task is not None
    gate = tmp_path / "gate"
    cancelled = await create(runtime, gate=tmp_path / "never")
    failing = await create(runtime, gate=gate, fail_attempts=2)
    await running(runtime, cancelled)
    await nats.stop()
    await nats.start()
    await until(lambda: runtime.connection.connected, "the connection is back")
    await runtime.commands.cancel(cancelled)
    gate.touch()
    assert (await ended(runtime, failing)).attempt == 3
    assert (await ended(runtime, cancelled)).status is JobStatus.CANCELLED
    await done_with(runtime.connection)
    await assert_one_end(runtime.connection, cancelled)


async def test_a_worker_that_is_stopped_while_nats_is_away_ends_by_itself(
    nats: RestartableServer, runtime: Runtime, settings: Settings
) -> None:
    async with worker_process(settings) as process:
        await ended(runtime, await create(runtime), within=20)
        await nats.stop()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_worker_that_loses_nats_while_it_is_being_stopped_ends_by_itself(
    nats: RestartableServer, runtime: Runtime, settings: Settings
) -> None:
    async with worker_process(settings) as process:
        await ended(runtime, await create(runtime), within=20)
        await done_with(runtime.connection)
        psutil.Process(nats.server.pid).kill()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
