"""Machines whose clocks differ: the order is the stream's, and no decision looks at another machine's time."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.claim import Start, Wait, decide
from gql_jobs.jobs.messages import Failed, Kind, Message
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.maintenance import Maintenance
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker.record import Records
from tests.by_hand import bring_to
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker
from tests.stories import JOB, at, error, queued, request, said


@pytest.fixture
def ahead(job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> JobCommands:
    """The decisions of a machine whose clock is an hour ahead."""
    return _shifted(job_log, settings, monkeypatch, timedelta(hours=1))


@pytest.fixture
def behind(job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> JobCommands:
    """The decisions of a machine whose clock is an hour behind."""
    return _shifted(job_log, settings, monkeypatch, -timedelta(hours=1))


def _shifted(job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> JobCommands:
    commands = JobCommands(job_log, settings)
    monkeypatch.setattr(commands, "_now", lambda: datetime.now(UTC) + by)
    return commands


async def test_clocks_an_hour_apart_change_neither_the_order_of_events_nor_what_becomes_of_a_job(
    runtime: Runtime, job_log: JobLog, ahead: JobCommands, behind: JobCommands
) -> None:
    first = (await ahead.create(request(idempotency_key="k"))).job
    second = (await behind.create(request())).job
    assert first.spec.created_at > second.spec.created_at
    assert (await behind.create(request(idempotency_key="k"))).deduplicated
    await behind.cancel(first.id)
    await ahead.retry(first.id)
    done = await bring_to(job_log, behind, first, JobStatus.COMPLETED)
    await bring_to(job_log, ahead, second, JobStatus.DEAD_LETTER)
    again = await behind.retry(second.id)
    assert await runtime.feed.wait_for(again.last_seq, 10)
    told = {job.id: runtime.index.events(job.id) for job in (first, second)}
    assert [event.kind for event in told[first.id]] == [
        *(Kind.QUEUED, Kind.CANCELLED),
        *(Kind.QUEUED, Kind.STARTED, Kind.COMPLETED),
    ]
    assert [event.kind for event in told[second.id]] == [Kind.QUEUED, Kind.STARTED, Kind.DEAD_LETTER, Kind.QUEUED]
    for events in told.values():
        assert all(one.cursor < next_one.cursor for one, next_one in pairwise(events))
        # After its creation a job's times are those of the server.
        assert all(one.job.updated_at <= next_one.job.updated_at for one, next_one in pairwise(events[1:]))
    assert told[first.id][0].cursor < told[second.id][0].cursor
    found = runtime.index.job(first.id)
    assert found is not None
    assert (found.status, found.attempt, found.last_seq) == (JobStatus.COMPLETED, 1, done.last_seq)


HALF_AN_HOUR = timedelta(minutes=30)


async def test_a_clock_that_was_ahead_for_one_creation_has_no_later_job_run_early(
    job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = JobCommands(job_log, settings)
    with monkeypatch.context() as wrong:
        wrong.setattr(commands, "_now", lambda: datetime.now(UTC) + timedelta(hours=2))
        await commands.create(request())
    run_at = datetime.now(UTC) + HALF_AN_HOUR
    job = (await commands.create(request(run_at=run_at))).job
    assert (job.status, job.spec.run_at) == (JobStatus.SCHEDULED, run_at)
    # Nor does it seem to come from the future.
    assert abs(job.spec.created_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_job_for_later_waits_for_the_server_s_clock_whatever_this_machine_s_says(ahead: JobCommands) -> None:
    run_at = datetime.now(UTC) + HALF_AN_HOUR
    job = (await ahead.create(request(run_at=run_at))).job
    assert (job.status, job.spec.run_at) == (JobStatus.SCHEDULED, run_at)
    past = (await ahead.create(request(run_at=datetime.now(UTC) - HALF_AN_HOUR))).job
    assert (past.status, past.spec.run_at) == (JobStatus.QUEUED, None)


async def test_a_time_that_has_passed_means_now_also_for_a_clock_that_is_behind(behind: JobCommands) -> None:
    job = (await behind.create(request(run_at=datetime.now(UTC) - HALF_AN_HOUR))).job

    async def queued() -> bool:
        found = await behind.find(job.id)
        return found is not None and found.status is JobStatus.QUEUED

    await until(queued, "the server has fired the schedule")


async def test_a_batch_keeps_its_order_while_its_clock_stands_still(
    job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = JobCommands(job_log, settings)
    now = datetime.now(UTC)
    monkeypatch.setattr(commands, "_now", lambda: now)
    created = [one.job.spec.created_at for one in await commands.create_many([request() for _ in range(20)])]
    assert created == sorted(set(created))


async def test_sweeps_fire_and_expire_by_the_server_s_clock(
    runtime: Runtime, job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper = Maintenance(job_log, runtime.artifacts, runtime.index, runtime.reader, runtime.feed, settings=settings)
    later = (await runtime.commands.create(request(run_at=datetime.now(UTC) + HALF_AN_HOUR))).job
    ended = await bring_to(
        job_log, runtime.commands, (await runtime.commands.create(request())).job, JobStatus.COMPLETED
    )
    assert await runtime.feed.wait_for(ended.last_seq, 10)
    await sweeper.sweep()
    assert (found := await runtime.commands.find(later.id)) is not None
    assert found.status is JobStatus.SCHEDULED
    assert await runtime.commands.find(ended.id) is not None

    async def in_a_while() -> datetime:
        return datetime.now(UTC) + timedelta(hours=1, seconds=settings.retention)

    monkeypatch.setattr(job_log, "server_time", in_a_while)
    await sweeper.sweep()
    assert (found := await runtime.commands.find(later.id)) is not None
    assert found.status is JobStatus.QUEUED
    assert await runtime.commands.find(ended.id) is None


@pytest.mark.parametrize("off", [timedelta(hours=2), timedelta(0), timedelta(hours=-2)], ids=str)
def test_a_retry_is_due_after_its_delay_whatever_the_clock_of_the_worker_that_failed(off: timedelta) -> None:
    failed_at, delay = at(3), timedelta(seconds=10)
    failure = said(3, Failed, errors=(replace(error(1), at=failed_at + off),), next_attempt_at=failed_at + off + delay)
    last = Message(JOB, Kind.FAILED, 3, failed_at, failure.body)
    due = decide(queued(1).body, 1, last, redelivered=True, now=failed_at + delay)
    assert isinstance(due, Start)
    if off >= timedelta(0):
        early = decide(queued(1).body, 1, last, redelivered=True, now=failed_at + timedelta(seconds=4))
        assert early == Wait(6.0)


async def test_a_job_whose_worker_s_clock_is_ahead_is_retried_after_its_delay(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ahead() -> datetime:
        return datetime.now(UTC) + timedelta(hours=2)

    monkeypatch.setattr(Records, "_time", lambda _: ahead())
    job = (await runtime.commands.create(request(ProbePayload(fail_attempts=1)))).job
    async with running_worker(settings.model_copy(update={"base_retry_delay": 0.1})):

        def completed() -> bool:
            found = runtime.index.job(job.id)
            return found is not None and found.status is JobStatus.COMPLETED

        await until(completed, "the job is retried and completes")


async def test_the_next_attempt_is_announced_by_the_server_s_clock(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def a_day_ahead(_: JobLog) -> datetime:
        return datetime.now(UTC) + timedelta(days=1)

    monkeypatch.setattr(JobLog, "server_time", a_day_ahead)
    job = (await runtime.commands.create(request(ProbePayload(fail_attempts=1)))).job
    async with running_worker(settings.model_copy(update={"base_retry_delay": 5.0, "retry_jitter": 0.0})):

        def retrying() -> datetime | None:
            found = runtime.index.job(job.id)
            return found.next_attempt_at if found is not None else None

        announced = await until(retrying, "the attempt has failed")
        assert timedelta(0) < announced - datetime.now(UTC) - timedelta(days=1) <= timedelta(seconds=5)
