"""A lease that runs out although its worker lives: NATS was away, or the event loop stood still."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import JobContext
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.deliveries import Delivery
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import context as attempt_context
from tests.by_hand import RestartingServer
from tests.deadline import until
from tests.running import running_worker, worker_process
from tests.workers.stories import create, done_with, ended, handled_by, kinds, lane_is, running

ONE_ATTEMPT = [Kind.QUEUED, Kind.STARTED, Kind.COMPLETED]


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[RestartingServer]:
    """A server that goes and comes back."""
    server = RestartingServer(tmp_path / "store")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The shortest lease there is."""
    return settings.model_copy(update={"ack_wait": 1.0, "num_workers": 8})


async def _away_beyond_the_lease(nats: RestartingServer, settings: Settings, runtime: Runtime) -> None:
    await nats.stop()
    # Nothing happens when a lease runs out and nobody can say so: only time passes.
    await asyncio.sleep(settings.ack_wait * 1.2)
    await nats.start()
    await until(lambda: runtime.connection.connected, "the connection is back")


async def _redelivered(runtime: Runtime, handed_out: int) -> None:
    """So many deliveries have been handed out in all."""
    what = f"{handed_out} deliveries have been handed out"
    await lane_is(runtime.connection, what, lambda lane: lane.delivered.consumer_seq >= handed_out)


async def test_a_worker_goes_on_with_what_it_runs_under_the_redelivery(
    nats: RestartingServer, runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    async with running_worker(settings):
        job_ids = [await create(runtime, gate=gate, trace=trace, max_retries=budget) for budget in (0, 0, 3)]
        await running(runtime, *job_ids)
        for outage in (1, 2):
            await _away_beyond_the_lease(nats, settings, runtime)
            await _redelivered(runtime, 3 * (outage + 1))
        gate.touch()
        for job_id in job_ids:
            job = await ended(runtime, job_id)
            assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
            assert await kinds(runtime.connection, job_id) == ONE_ATTEMPT
        await done_with(runtime.connection)
    assert len(trace.read_text().splitlines()) == 3


async def test_a_worker_that_lives_keeps_what_others_are_offered(
    nats: RestartingServer, runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    async with worker_process(settings), AsyncExitStack() as others:
        job_ids = [await create(runtime, gate=gate, trace=trace, max_retries=budget) for budget in (0, 0, 0, 3, 3, 3)]
        await running(runtime, *job_ids, within=20)
        for _ in range(2):
            await others.enter_async_context(running_worker(settings))
        await until(lambda: len(runtime.presence.workers()) == 3, "all workers are there")
        await _away_beyond_the_lease(nats, settings, runtime)
        await _redelivered(runtime, 12)
        gate.touch()
        for job_id in job_ids:
            job = await ended(runtime, job_id)
            assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
            assert await kinds(runtime.connection, job_id) == ONE_ATTEMPT
        await done_with(runtime.connection)
    assert len(trace.read_text().splitlines()) == 6


async def test_the_lease_of_the_redelivery_is_kept(
    nats: RestartingServer, runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with running_worker(settings):
        job_id = await create(runtime, gate=gate)
        await running(runtime, job_id)
        await _away_beyond_the_lease(nats, settings, runtime)
        await _redelivered(runtime, 2)
        # A lease and a half without another redelivery.
        await asyncio.sleep(settings.ack_wait * 1.5)
        await lane_is(runtime.connection, "it is kept", lambda lane: lane.delivered.consumer_seq == 2)
        gate.touch()
        assert (await ended(runtime, job_id)).attempt == 1


async def test_a_failure_is_retried_after_its_backoff_under_the_redelivery(
    nats: RestartingServer, runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()

    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        await let_go.wait()
        if context.attempt == 1:
            raise ConnectionError
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    async with running_worker(settings):
        job_id = await create(runtime, max_retries=1)
        await running(runtime, job_id)
        await _away_beyond_the_lease(nats, settings, runtime)
        await _redelivered(runtime, 2)
        let_go.set()
        job = await ended(runtime, job_id)
        await done_with(runtime.connection)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    assert [error.type for error in job.errors] == ["ConnectionError"]


async def test_what_a_handler_stores_waits_until_nats_is_back(
    nats: RestartingServer, runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it fails while NATS is away: that is not what tries are counted for."""
    let_go, failures = asyncio.Event(), 0
    monkeypatch.setattr(attempt_context, "STORE_TRIES", 1)
    monkeypatch.setattr(attempt_context, "STORE_PAUSE", 0.02)

    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        await let_go.wait()
        await context.save_artifact("a.txt", BytesIO(b"kept"))
        await context.checkpoint("kept")
        return {"attempt": context.attempt, "saved": context.saved}

    def counted(owner: type[Any], name: str) -> None:
        original = getattr(owner, name)

        async def spy(*arguments: Any) -> Any:
            nonlocal failures
            try:
                return await original(*arguments)
            except Exception:
                failures += 1
                raise

        monkeypatch.setattr(owner, name, spy)

    handled_by(monkeypatch, handler)
    counted(ArtifactStore, "save")
    counted(JobLog, "rollup")
    async with running_worker(settings):
        job_id = await create(runtime, max_retries=0)
        await running(runtime, job_id)
        await nats.stop()
        let_go.set()
        await until(lambda: failures > 5, "the handler has tried in vain")
        await nats.start()
        job = await ended(runtime, job_id)
    assert (job.status, job.errors) == (JobStatus.COMPLETED, ())
    assert [saved.name for saved in runtime.index.artifacts(job_id)] == ["a.txt"]


async def test_a_coroutine_that_blocks_the_worker_s_event_loop_is_not_taken_over_by_its_own_worker(
    nats: RestartingServer, runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    assert nats.url
    async with worker_process(settings):
        await ended(runtime, await create(runtime), within=20)
        job_id = await create(runtime, blocks=2.5, seconds=0.5, trace=trace, max_retries=0)
        job = await ended(runtime, job_id)
    assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
    assert len(trace.read_text().splitlines()) == 1


@pytest.mark.usefixtures("nats")
async def test_a_lost_ack_costs_a_redelivery_that_is_dropped(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    ack, lost = Delivery.ack, 0

    async def lost_at_first(delivery: Delivery) -> None:
        nonlocal lost
        lost += not delivery.redelivered
        if delivery.redelivered:
            await ack(delivery)

    monkeypatch.setattr(Delivery, "ack", lost_at_first)
    async with running_worker(settings):
        job_id = await create(runtime, trace=trace)
        await ended(runtime, job_id)
        await _redelivered(runtime, 2)
        await done_with(runtime.connection)
    assert lost == 1
    assert await kinds(runtime.connection, job_id) == ONE_ATTEMPT
    assert len(trace.read_text().splitlines()) == 1
