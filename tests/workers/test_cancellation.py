"""Cancelling a job, wherever it is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import JobContext
from gql_jobs.jobs.errors import InvalidState
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.running import RunningWorker, worker_process
from tests.workers.stories import (
    assert_one_end,
    create,
    create_many,
    done_with,
    ended,
    handled_by,
    kinds,
    reached,
    running,
)


async def test_the_handler_on_another_process_is_stopped_within_a_second(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with worker_process(settings, "--concurrency", "1"):
        job_id = await create(runtime, gate=tmp_path / "never")
        await running(runtime, job_id, within=20)
        after = await create(runtime, trace=trace)
        await runtime.commands.cancel(job_id)
        # The only slot is free again: the handler has ended.
        job = await ended(runtime, after, within=1.0)
        assert job.status is JobStatus.COMPLETED
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.STARTED, Kind.CANCELLED]
    await assert_one_end(runtime.connection, job_id)


async def test_the_handler_may_clean_up(
    runtime: Runtime, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker.task is not None
    cleaned: list[str] = []

    async def handler(_: JobContext, __: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append("up")

    handled_by(monkeypatch, handler)
    job_id = await create(runtime)
    await running(runtime, job_id)
    await runtime.commands.cancel(job_id)
    await until(lambda: cleaned, "the handler has cleaned up")
    await done_with(runtime.connection)


@pytest.mark.usefixtures("worker")
async def test_a_job_that_waits_for_its_retry_never_runs_again(runtime: Runtime, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    job_id = await create(runtime, fail_attempts=9, trace=trace)
    await reached(runtime, job_id, JobStatus.RETRYING)
    await runtime.commands.cancel(job_id)
    await done_with(runtime.connection)
    await assert_one_end(runtime.connection, job_id)
    attempts = len(trace.read_text().splitlines())
    assert (await kinds(runtime.connection, job_id)).count(Kind.STARTED) == attempts
    assert (await ended(runtime, job_id)).status is JobStatus.CANCELLED


async def test_a_queued_job_is_dropped_by_whoever_is_given_it(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    job_id = await create(runtime, trace=tmp_path / "trace")
    await runtime.commands.cancel(job_id)
    async with worker_process(settings):
        await done_with(runtime.connection)
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.CANCELLED]
    assert not (tmp_path / "trace").exists()


@pytest.mark.usefixtures("worker")
async def test_a_cancelled_job_runs_when_it_is_retried_by_hand(runtime: Runtime, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id = await create(runtime, gate=gate)
    await running(runtime, job_id)
    await runtime.commands.cancel(job_id)
    gate.touch()
    await runtime.feed.read_back(await runtime.commands.retry(job_id))
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)


@pytest.mark.usefixtures("worker")
async def test_a_cancellation_that_races_with_the_completion_leaves_one_end(runtime: Runtime) -> None:
    job_ids = await create_many(runtime, 40, seconds=0.01)

    async def cancel(number: int, job_id: str) -> bool:
        await asyncio.sleep(number * 0.002)
        try:
            await runtime.commands.cancel(job_id)
        except InvalidState:
            return False
        return True

    cancelled = await asyncio.gather(*(cancel(number, job_id) for number, job_id in enumerate(job_ids)))
    for job_id, was_cancelled in zip(job_ids, cancelled, strict=True):
        job = await ended(runtime, job_id)
        await assert_one_end(runtime.connection, job_id)
        assert job.status is (JobStatus.CANCELLED if was_cancelled else JobStatus.COMPLETED)
    await done_with(runtime.connection)


@pytest.mark.usefixtures("worker")
async def test_a_job_cancelled_at_its_start_is_stopped(runtime: Runtime, tmp_path: Path) -> None:
    for _ in range(20):
        job_id = await create(runtime, gate=tmp_path / "never")
        await runtime.commands.cancel(job_id)
    # Every slot is free again, or this would not run.
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED
    await done_with(runtime.connection)
