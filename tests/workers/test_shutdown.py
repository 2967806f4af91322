"""SIGTERM: fetching stops, running jobs may finish, the rest is handed back and has cost nothing."""

import asyncio
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from pathlib import Path

from gql_jobs import Model
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.running import running_worker, worker_process
from tests.stories import accepted
from tests.workers.stories import (
    all_ended,
    assert_one_end,
    create,
    create_many,
    ended,
    history,
    kinds,
    lane_is,
    pulls_closed,
    reached,
    running,
)

HANDED_BACK = [Kind.QUEUED, Kind.STARTED, Kind.RELEASED, Kind.STARTED, Kind.COMPLETED]


def _grace(settings: Settings, seconds: float, slots: int = 3) -> Settings:
    return settings.model_copy(update={"shutdown_grace": seconds, "num_workers": slots})


async def _exit_code(process: Process, within: float = 10.0) -> int:
    return await asyncio.wait_for(process.wait(), within)


async def test_a_running_job_finishes_within_the_grace(runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with worker_process(_grace(settings, 30)) as process:
        job_id = await create(runtime, gate=gate)
        await running(runtime, job_id, within=20)
        process.terminate()
        await pulls_closed(runtime.connection)
        too_late = await create(runtime)
        gate.touch()
        assert await _exit_code(process) == 0
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
    assert await kinds(runtime.connection, too_late) == [Kind.QUEUED]


async def test_an_idle_worker_ends_at_once(runtime: Runtime, settings: Settings) -> None:
    async with worker_process(_grace(settings, 30)) as process:
        await ended(runtime, await create(runtime), within=20)
        process.terminate()
        assert await _exit_code(process, 3) == 0


async def test_after_the_grace_the_job_is_handed_back_and_has_cost_no_attempt(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(_grace(settings, 0.2)) as process:
        job_id = await create(runtime, gate=gate, max_retries=0)
        await running(runtime, job_id, within=20)
        process.terminate()
        assert await _exit_code(process) == 0
    job = await reached(runtime, job_id, JobStatus.QUEUED)
    assert (job.attempt, job.errors, job.worker_id) == (0, (), None)
    gate.touch()
    await workers.enter_async_context(running_worker(settings))
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
    assert await kinds(runtime.connection, job_id) == HANDED_BACK
    starts = [m.body for m in await history(runtime.connection, job_id) if m.kind is Kind.STARTED]
    assert [(start.attempt, start.supersedes) for start in starts] == [(1, None), (1, None)]


async def test_a_job_handed_back_in_its_second_attempt_is_in_its_second_attempt_again(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(_grace(settings, 0)) as process:
        job_id = await create(runtime, gate=gate, fail_attempts=1, saves="a page")
        await running(runtime, job_id, attempt=2, within=20)
        process.terminate()
        assert await _exit_code(process) == 0
    gate.touch()
    await workers.enter_async_context(running_worker(settings))
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt, len(job.errors)) == (JobStatus.COMPLETED, 2, 1)
    assert b'"saved":"a page"' in bytes(job.result or b"")


async def test_a_second_signal_hands_back_at_once(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(_grace(settings, 30)) as process:
        job_id = await create(runtime, gate=gate)
        await running(runtime, job_id, within=20)
        process.terminate()
        await pulls_closed(runtime.connection)
        process.terminate()
        assert await _exit_code(process, 3) == 0
    gate.touch()
    await workers.enter_async_context(running_worker(settings))
    assert (await ended(runtime, job_id)).attempt == 1
    assert await kinds(runtime.connection, job_id) == HANDED_BACK


async def test_what_was_held_but_not_started_is_given_back_without_cost(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(_grace(settings, 30, slots=1)) as process:
        busy = await create(runtime, gate=gate)
        await running(runtime, busy, within=20)
        held = [await create(runtime, priority=priority) for priority in (JobPriority.CRITICAL, JobPriority.LOW)]
        for priority in (JobPriority.CRITICAL, JobPriority.LOW):
            await lane_is(runtime.connection, "it is held", lambda i: i.num_ack_pending == 1, priority=priority)
        process.terminate()
        await workers.enter_async_context(running_worker(settings))
        for job in await all_ended(runtime, held, within=5):
            assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
            assert await kinds(runtime.connection, job.id) == [Kind.QUEUED, Kind.STARTED, Kind.COMPLETED]
        gate.touch()
        assert await _exit_code(process) == 0
    assert (await ended(runtime, busy)).attempt == 1


async def test_no_start_is_left_without_a_successor_under_load(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack
) -> None:
    async with worker_process(_grace(settings, 0, slots=10)) as process:
        first = await create(runtime)
        job_ids = [first, *await create_many(runtime, 150, seconds=0.1)]
        await ended(runtime, first, within=20)
        process.terminate()
        assert await _exit_code(process) == 0
    for job_id in job_ids:
        assert (await kinds(runtime.connection, job_id))[-1] is not Kind.STARTED
    await workers.enter_async_context(running_worker(_grace(settings, 5, slots=100)))
    for job in await all_ended(runtime, job_ids, within=20):
        assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
        await assert_one_end(runtime.connection, job.id)


async def test_handlers_that_ignore_their_cancellation_do_not_keep_the_worker(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    in_thread = JobType("endless_thread", payload=Model, result=Model, handler="registered:elsewhere")
    async with worker_process(_grace(settings, 0), "--import", "tests.workers.endless_jobs") as process:
        jobs = [
            await create(runtime, gate=tmp_path / "never", deaf=True),
            (await runtime.commands.create(JobRequest.of(in_thread, accepted(Model())))).job.id,
        ]
        await running(runtime, *jobs, within=20)
        process.terminate()
        assert await _exit_code(process, 15) == 0
    for job_id in jobs:
        assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.STARTED, Kind.RELEASED]
