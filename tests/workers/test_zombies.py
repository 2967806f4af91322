"""A worker that was stopped beyond its lease, and comes back."""

import asyncio
import signal
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import JobContext
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log import codec
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.running import running_worker, worker_process
from tests.workers.stories import (
    assert_one_end,
    create,
    done_with,
    ended,
    handled_by,
    history,
    kinds,
    lane_info,
    lane_is,
    reached,
    running,
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One slot, so that a stopped worker has no pull open that would bring it its own job again."""
    return settings.model_copy(update={"ack_wait": 1.0, "num_workers": 1, "shutdown_grace": 10.0})


async def _beyond_the_lease(settings: Settings) -> None:
    """Nothing happens when a lease runs out and nobody asks for jobs: only time passes."""
    await asyncio.sleep(settings.ack_wait * 1.5)


async def _ended_after_coming_back(zombie: Process) -> None:
    """Let it go on, and end when it has dealt with what it had."""
    zombie.send_signal(signal.SIGCONT)
    zombie.terminate()
    assert await asyncio.wait_for(zombie.wait(), 20) == 0


async def test_its_outcome_is_refused_and_it_neither_acks_nor_naks(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate, let_go = tmp_path / "gate", asyncio.Event()

    async def successor(context: JobContext, _: Any) -> dict[str, Any]:
        context.progress(42, "the successor")
        await let_go.wait()
        return {"attempt": context.attempt, "saved": "the successor"}

    handled_by(monkeypatch, successor)
    async with worker_process(settings) as zombie:
        job_id = await create(runtime, gate=gate, steps=3, seconds=0.2)
        await running(runtime, job_id, within=20)
        zombie.send_signal(signal.SIGSTOP)
        await workers.enter_async_context(running_worker(settings))
        await running(runtime, job_id, attempt=2)
        await until(
            lambda: last_message(runtime.connection, codec.JOBS_STREAM, codec.progress_subject(job_id)),
            "the successor has reported",
        )
        before = await history(runtime.connection, job_id)
        gate.touch()
        await _ended_after_coming_back(zombie)
    assert [m.seq for m in await history(runtime.connection, job_id)] == [m.seq for m in before]
    lane = await lane_info(runtime.connection)
    assert (lane.num_ack_pending, lane.delivered.consumer_seq) == (1, 2)
    let_go.set()
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    assert b"the successor" in bytes(job.result or b"")
    await assert_one_end(runtime.connection, job_id)
    await done_with(runtime.connection)


async def test_its_failure_after_the_successor_s_end_changes_nothing(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def successor(context: JobContext, _: Any) -> dict[str, Any]:
        return {"attempt": context.attempt}

    handled_by(monkeypatch, successor)
    async with worker_process(settings) as zombie:
        job_id = await create(runtime, seconds=30, timeout=1.5)
        await running(runtime, job_id, within=20)
        zombie.send_signal(signal.SIGSTOP)
        await workers.enter_async_context(running_worker(settings))
        assert (await ended(runtime, job_id)).attempt == 2
        await _ended_after_coming_back(zombie)
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.STARTED, Kind.STARTED, Kind.COMPLETED]
    await done_with(runtime.connection)


async def test_without_a_successor_it_may_still_record_its_outcome(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(settings) as late:
        job_id = await create(runtime, gate=gate)
        await running(runtime, job_id, within=20)
        late.send_signal(signal.SIGSTOP)
        await _beyond_the_lease(settings)
        gate.touch()
        await _ended_after_coming_back(late)
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.STARTED, Kind.COMPLETED]
    await done_with(runtime.connection)


async def test_a_retry_that_a_zombie_recorded_is_not_lost(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack
) -> None:
    """Past its lease it may record a failure but not nak: the lease that ran out brings the job back."""
    async with worker_process(settings) as late:
        job_id = await create(runtime, seconds=30, timeout=1.5, max_retries=1)
        await running(runtime, job_id, within=20)
        late.send_signal(signal.SIGSTOP)
        await _beyond_the_lease(settings)
        await _ended_after_coming_back(late)
    await reached(runtime, job_id, JobStatus.RETRYING)
    await workers.enter_async_context(running_worker(settings))
    job = await ended(runtime, job_id)
    assert [(e.type, e.attempt) for e in job.errors] == [("Timeout", 1), ("Timeout", 2)]
    await assert_one_end(runtime.connection, job_id)


async def test_a_hand_back_beyond_the_lease_is_refused_too(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    hurried = settings.model_copy(update={"shutdown_grace": 0.0})
    async with worker_process(hurried) as zombie:
        job_id = await create(runtime, gate=gate)
        await running(runtime, job_id, within=20)
        zombie.send_signal(signal.SIGSTOP)
        await workers.enter_async_context(running_worker(settings))
        await running(runtime, job_id, attempt=2)
        await _ended_after_coming_back(zombie)
    await lane_is(runtime.connection, "the successor has it", lambda info: info.num_ack_pending == 1)
    gate.touch()
    assert (await ended(runtime, job_id)).attempt == 2
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.STARTED, Kind.STARTED, Kind.COMPLETED]
