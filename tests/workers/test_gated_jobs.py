"""What a worker does with jobs that pass the gate, and with those that are too late to be started."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.jobs.claim import MISSED
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import JobStatus, Spec, new_job_id
from gql_jobs.log import codec
from gql_jobs.log.commands import creation
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.steering import SteeringLog, as_value
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.api.operations import create as create_by
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker, worker_process
from tests.serving import api_process, free_port
from tests.stories import request, spec
from tests.workers.stories import all_ended, done_with, ended, handled_by, history, kinds, reached, waiting_for

OLDER_API = ("tests.older_release", "gql_jobs")
OLDER_WORKER = ("tests.older_release", "gql_jobs_worker")


async def limit(runtime: Runtime, job_log: JobLog, limits: Limits) -> None:
    """Limit the queue of the jobs, as this process knows when it returns."""
    message = await SteeringLog(job_log).change(codec.QUEUE_LIMITS, "default", lambda _: as_value(limits))
    assert message is not None
    await runtime.feed.wait_for(message.seq, 5)


@pytest.mark.usefixtures("worker")
async def test_a_failed_attempt_gives_its_place_to_others_and_the_next_one_is_released_again(
    runtime: Runtime, job_log: JobLog
) -> None:
    await limit(runtime, job_log, Limits.of(concurrency=1))
    failing = (await runtime.commands.create(request(ProbePayload(fail_attempts=1)))).job
    other = (await runtime.commands.create(request())).job
    done, _ = await all_ended(runtime, [failing.id, other.id])
    assert (done.status, done.attempt, [error.attempt for error in done.errors]) == (JobStatus.COMPLETED, 2, [1])
    assert await kinds(runtime.connection, failing.id) == [
        Kind.WAITING,
        Kind.QUEUED,
        Kind.STARTED,
        Kind.FAILED,
        Kind.QUEUED,
        Kind.STARTED,
        Kind.COMPLETED,
    ]
    # The first release is acked: nothing of it is delivered once more.
    await done_with(runtime.connection)


@pytest.mark.usefixtures("worker")
async def test_no_more_run_at_a_time_than_the_limits_of_the_queue_say(
    runtime: Runtime, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = 0, 0

    async def counted(*_: Any) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return {"attempt": 1}

    handled_by(monkeypatch, counted)
    await limit(runtime, job_log, Limits.of(concurrency=2))
    created = await runtime.commands.create_many([request() for _ in range(12)])
    assert {job.status for job in await all_ended(runtime, [one.id for one in created])} == {JobStatus.COMPLETED}
    assert 1 <= most <= 2


async def test_a_worker_of_the_older_release_leaves_a_released_job_to_a_newer_one(
    runtime: Runtime, job_log: JobLog, settings: Settings
) -> None:
    await limit(runtime, job_log, Limits.of(concurrency=5))
    async with worker_process(settings, program=OLDER_WORKER):
        limited = (await runtime.commands.create(request())).job
        await reached(runtime, limited.id, JobStatus.QUEUED, within=30)
        await SteeringLog(job_log).change(codec.QUEUE_LIMITS, "default", lambda _: None)
        free = request()
        await runtime.feed.wait_for((await runtime.commands.create(free)).last_seq, 5)
        assert (await kinds(runtime.connection, limited.id)) == [Kind.WAITING, Kind.QUEUED]
        async with running_worker(settings):
            done = await ended(runtime, limited.id, within=30)
    assert (done.status, done.attempt) == (JobStatus.COMPLETED, 1)


async def test_beside_an_api_of_the_older_release_jobs_pass_the_gate_and_those_that_it_creates_do_not(
    runtime: Runtime, job_log: JobLog, settings: Settings, tmp_path: Path
) -> None:
    await limit(runtime, job_log, Limits.of(concurrency=5))
    own_folder = settings.model_copy(update={"data_dir": tmp_path / "older"})
    async with api_process(own_folder, free_port(), program=OLDER_API) as (older, _), running_worker(settings):
        free = (await create_by(older))["id"]
        limited = (await runtime.commands.create(request())).job
        done = await all_ended(runtime, [free, limited.id], within=30)
        assert [job.status for job in done] == [JobStatus.COMPLETED] * 2
        assert (await older.ask("query ($id: ID!) { job(id: $id) { id } }", id=limited.id))["job"] is None
    run = [Kind.STARTED, Kind.COMPLETED]
    assert await kinds(runtime.connection, free) == [Kind.QUEUED, *run]
    assert await kinds(runtime.connection, limited.id) == [Kind.WAITING, Kind.QUEUED, *run]


# Too late to be started.


async def queue_late(job_log: JobLog, start_before: datetime, **asked: Any) -> str:
    """Store a job that should have started before then, and return its id."""
    job_id = new_job_id()
    late: Spec = replace(spec(created_at=clock.now(), **asked), start_before=start_before)
    await job_log.append(creation(job_id, late))
    return job_id


async def test_a_job_that_nobody_has_started_in_time_is_not_started_any_more(
    job_log: JobLog, settings: Settings, runtime: Runtime
) -> None:
    late = clock.now() - timedelta(seconds=1)
    queued = await queue_late(job_log, late)
    in_time = await queue_late(job_log, clock.now() + timedelta(hours=1))
    async with running_worker(settings):
        done, ran = await all_ended(runtime, [queued, in_time])
    assert (done.status, done.attempt) == (JobStatus.CANCELLED, 0)
    assert done.cancel_reason == f"It had not started by {late:%Y-%m-%d %H:%M:%S} UTC."
    assert await kinds(runtime.connection, queued) == [Kind.QUEUED, Kind.CANCELLED]
    assert ran.status is JobStatus.COMPLETED


async def test_a_job_that_has_started_in_time_goes_on_however_late_it_is_then(
    job_log: JobLog, settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()
    handled_by(monkeypatch, waiting_for(go_on, {"attempt": 1}))
    job_id = await queue_late(job_log, clock.now() + timedelta(seconds=2))
    async with running_worker(settings):
        await reached(runtime, job_id, JobStatus.PROCESSING)
    # The worker has handed it back when it shut down, and another one takes it after the time.
    go_on.set()
    monkeypatch.setattr(clock, "now", lambda: datetime.now().astimezone() + timedelta(hours=1))
    async with running_worker(settings):
        done = await ended(runtime, job_id)
    assert done.status is JobStatus.COMPLETED
    assert Kind.RELEASED in await kinds(runtime.connection, job_id)
    (first, *_) = await history(runtime.connection, job_id)
    assert isinstance(first.body, Submission)


async def queue_too_late(job_log: JobLog, **asked: Any) -> str:
    """Store a tick that the server has queued when it was too late for that, and return its id."""
    job_id = new_job_id()
    facts = {"created_at": clock.now(), "fire_before": clock.now() - timedelta(seconds=1), **asked}
    await job_log.append(creation(job_id, spec(**facts)))
    return job_id


async def test_a_tick_that_the_server_has_queued_too_late_is_not_started(job_log: JobLog, settings: Settings) -> None:
    """By a worker: no API process runs that might cancel it before."""
    late = await queue_too_late(job_log)
    in_time = await queue_too_late(job_log, fire_before=clock.now() + timedelta(hours=1))
    async with running_worker(settings):
        await until(lambda: _has(job_log, in_time, Kind.COMPLETED), "the one that is in time runs", within=20)
        await until(lambda: _has(job_log, late, Kind.CANCELLED), "the other one is cancelled", within=20)
    assert await kinds(job_log.connection, late) == [Kind.QUEUED, Kind.CANCELLED]
    (_, cancelled) = await history(job_log.connection, late)
    assert cancelled.body.reason == MISSED


async def _has(job_log: JobLog, job_id: str, kind: Kind) -> bool:
    return kind in await kinds(job_log.connection, job_id)


async def test_it_is_cancelled_by_the_holder_of_the_gate_where_no_worker_is(runtime: Runtime, job_log: JobLog) -> None:
    late = await queue_too_late(job_log, schedule="nightly")
    cancelled = await reached(runtime, late, JobStatus.CANCELLED)
    assert cancelled.cancel_reason == MISSED
    # Whoever retries it wants it to run, however late.
    retried = await runtime.commands.retry(late)
    assert retried.spec.fire_before is None
    async with running_worker(settings=runtime.settings):
        await reached(runtime, late, JobStatus.COMPLETED)
