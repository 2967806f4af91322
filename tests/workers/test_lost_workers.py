"""Workers that die without a word."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.running import running_worker, worker_process
from tests.workers.stories import (
    all_ended,
    assert_one_end,
    create,
    create_many,
    dead_letter,
    done_with,
    ended,
    history,
    kinds,
    running,
)

MANY = 40


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The shortest lease there is, and room for many jobs at once."""
    return settings.model_copy(update={"ack_wait": 1.0, "num_workers": MANY})


async def test_a_kill_9_in_the_middle_of_many_jobs_loses_none_and_each_ends_once(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(settings) as process:
        job_ids = await create_many(runtime, MANY, gate=gate)
        await running(runtime, *job_ids, within=20)
        process.kill()
        await process.wait()
    await workers.enter_async_context(running_worker(settings))
    await running(runtime, *job_ids, attempt=2)
    gate.touch()
    for job in await all_ended(runtime, job_ids):
        assert (job.status, job.attempt, job.superseded_attempt) == (JobStatus.COMPLETED, 2, 1)
        assert [(e.type, e.attempt, e.retryable) for e in job.errors] == [("WorkerLost", 1, True)]
        await assert_one_end(runtime.connection, job.id)
        starts = [m.body for m in await history(runtime.connection, job.id) if m.kind is Kind.STARTED]
        assert [(start.attempt, start.supersedes) for start in starts] == [(1, None), (2, 1)]
        assert starts[0].worker_id in job.errors[0].message
        assert starts[0].worker_id != starts[1].worker_id
    await done_with(runtime.connection)


async def test_a_kill_9_while_jobs_come_and_go_loses_none(runtime: Runtime, settings: Settings) -> None:
    async with worker_process(settings) as killed, worker_process(settings):
        job_ids = [await create(runtime), *await create_many(runtime, 300, seconds=0.2)]
        await all_ended(runtime, job_ids[:100], within=20)
        killed.kill()
        jobs = await all_ended(runtime, job_ids, within=30)
        await done_with(runtime.connection)
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}
    for job_id in job_ids:
        await assert_one_end(runtime.connection, job_id)


async def test_an_idle_worker_is_given_a_lost_job_when_the_lease_has_run_out(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(settings) as process:
        job_id = await create(runtime, gate=gate)
        await running(runtime, job_id, within=20)
        await workers.enter_async_context(running_worker(settings))
        process.kill()
        await running(runtime, job_id, attempt=2, within=5)
    gate.touch()
    assert (await ended(runtime, job_id)).attempt == 2


async def _served_until_its_end(runtime: Runtime, settings: Settings, job_id: str) -> Job:
    """One worker process after the other, as whoever runs them would start them again."""
    ending = asyncio.create_task(ended(runtime, job_id, within=50))
    while not ending.done():
        async with worker_process(settings) as process:
            dying = asyncio.create_task(process.wait())
            await asyncio.wait({ending, dying}, return_when=asyncio.FIRST_COMPLETED)
            dying.cancel()
    return await ending


async def test_a_payload_that_kills_every_worker_ends_as_a_dead_letter(runtime: Runtime, settings: Settings) -> None:
    job_id = await create(runtime, crash=True, max_retries=1, saves="kept")
    job = await _served_until_its_end(runtime, settings, job_id)
    assert (job.status, job.attempt) == (JobStatus.DEAD_LETTER, 2)
    letter = await dead_letter(runtime.connection, job_id)
    assert [(e["type"], e["attempt"], e["retryable"]) for e in letter["errors"]] == [
        ("WorkerLost", 1, True),
        ("WorkerLost", 2, False),
    ]
    assert letter["spec"]["payload"]["crash"] is True
    happened = await kinds(runtime.connection, job_id)
    assert happened == [Kind.QUEUED, Kind.STARTED, Kind.STARTED, Kind.DEAD_LETTER]
