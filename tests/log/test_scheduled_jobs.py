"""Jobs that run later: held by the server, never early, cancelled without a trace."""

import logging
from datetime import UTC, datetime, timedelta

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import delete_message
from gql_jobs.jobs.claim import Drop, decide
from gql_jobs.jobs.messages import Cancelled, Kind, Started, Submission
from gql_jobs.jobs.model import Job, JobStatus, job_id_for_key
from gql_jobs.log import codec
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, Superseded, Write, folded, job_events
from gql_jobs.log.retention import fire_overdue
from tests.by_hand import say, stored
from tests.deadline import until
from tests.stories import attempt_body, request


def _later(seconds: float = 3600.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def _subjects(connection: Connection, job: Job) -> list[str]:
    return [message.subject.removeprefix(f"jobs.{job.id}.") for message in await stored(connection)]


async def test_a_scheduled_job_is_queued_when_its_time_has_come_and_not_before(
    commands: JobCommands, connection: Connection, job_log: JobLog
) -> None:
    run_at = _later(0.3)
    job = (await commands.create(request(run_at=run_at))).job
    assert job.status is JobStatus.SCHEDULED
    assert await _subjects(connection, job) == ["scheduled"]
    fired = await until(lambda: job_log.last(codec.submission_subjects(job.id)), "the job is queued")
    assert fired.at >= run_at
    assert await _subjects(connection, job) == ["queued.default.normal"]
    message = fired.read()
    assert message is not None
    assert message.nonce is not None
    assert message.body.spec == job.spec
    now = await commands.find(job.id)
    assert now is not None
    assert (now.status, now.submission_seq) == (JobStatus.QUEUED, fired.seq)


@pytest.mark.parametrize("seconds", [-3600.0, -0.001])
async def test_a_time_in_the_past_means_now(commands: JobCommands, seconds: float) -> None:
    job = (await commands.create(request(run_at=_later(seconds)))).job
    assert (job.status, job.spec.run_at) == (JobStatus.QUEUED, None)


async def test_a_job_cancelled_before_its_time_leaves_no_schedule_and_does_not_fire(
    commands: JobCommands, connection: Connection
) -> None:
    cancelled = (await commands.create(request(run_at=_later(0.3)))).job
    assert (await commands.cancel(cancelled.id)).status is JobStatus.CANCELLED
    assert await _subjects(connection, cancelled) == ["event.cancelled"]
    # A job due later has been queued: by then the cancelled one would have been, too.
    other = (await commands.create(request(run_at=_later(0.35)))).job

    async def other_has_fired() -> bool:
        job = await commands.find(other.id)
        return job is not None and job.status is JobStatus.QUEUED

    await until(other_has_fired, "the later job is queued")
    found = await commands.find(cancelled.id)
    assert found is not None
    assert found.status is JobStatus.CANCELLED
    assert [m.subject for m in await stored(connection, codec.job_subjects(cancelled.id))] == [
        codec.event_subject(cancelled.id, Kind.CANCELLED)
    ]


async def test_a_job_cancelled_before_its_time_and_retried_is_held_until_that_time(
    commands: JobCommands, job_log: JobLog
) -> None:
    run_at = _later(0.5)
    job = (await commands.create(request(run_at=run_at))).job
    await commands.cancel(job.id)
    assert (await commands.retry(job.id)).status is JobStatus.SCHEDULED
    fired = await until(lambda: job_log.last(codec.submission_subjects(job.id)), "the job is queued")
    assert fired.at >= run_at
    found = await commands.find(job.id)
    assert found is not None
    assert (found.status, found.run_at) == (JobStatus.QUEUED, run_at)


async def test_a_scheduled_job_is_deduplicated_by_its_key(commands: JobCommands) -> None:
    await commands.create(request(run_at=_later(), idempotency_key="k"))
    again = await commands.create(request(idempotency_key="k"))
    assert (again.deduplicated, again.job.status) == (True, JobStatus.SCHEDULED)
    assert again.job.id == job_id_for_key("k")


async def test_a_firing_that_crosses_a_cancel_is_refused_at_started(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    job = (await commands.create(request(run_at=_later(0.2)))).job
    body = Cancelled(submission=job.submission_seq, spec=job.spec)
    write = Write(job.id, codec.event_subject(job.id, Kind.CANCELLED), body, job_events(job.id, 0))
    cancelled = await job_log.append(write)
    fired = await until(lambda: job_log.last(codec.submission_subjects(job.id)), "the schedule fires all the same")
    assert fired.seq > cancelled
    message = fired.read()
    assert message is not None
    submission: Submission = message.body
    assert submission.event_seq == 0
    start = Write(
        job.id,
        codec.event_subject(job.id, Kind.STARTED),
        attempt_body(Started, 1, fired.seq),
        job_events(job.id, submission.event_seq),
    )
    with pytest.raises(Superseded) as refused:
        await job_log.append(start)
    assert refused.value.last is not None
    last = refused.value.last.read()
    assert decide(submission, fired.seq, last, redelivered=False, now=datetime.now(UTC)) == Drop()
    # The schedule is gone by now: deleting it is no error.
    await delete_message(connection, codec.JOBS_STREAM, job.submission_seq)
    found = await commands.find(job.id)
    assert found is not None
    assert found.status is JobStatus.CANCELLED


async def test_an_overdue_job_is_queued_by_the_sweep_once(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    job = (await commands.create(request(run_at=_later()))).job
    assert not await fire_overdue(job_log, job.id, datetime.now(UTC))
    # As if its time had come without the server firing it.
    assert await fire_overdue(job_log, job.id, _later(7200))
    assert await _subjects(connection, job) == ["queued.default.normal"]
    assert not await fire_overdue(job_log, job.id, _later(7200))
    await say(job_log, job, Started)
    now = folded(await job_log.history(job.id))
    assert now is not None
    assert (now.status, now.attempt) == (JobStatus.PROCESSING, 1)


async def test_the_line_of_an_overdue_job_says_as_fields_which_job_it_is(
    commands: JobCommands, job_log: JobLog, caplog: pytest.LogCaptureFixture
) -> None:
    job = (await commands.create(request(run_at=_later()))).job
    with caplog.at_level(logging.INFO, "gql_jobs.log.retention"):
        assert await fire_overdue(job_log, job.id, _later(7200))
    (line,) = [record for record in caplog.records if record.name == "gql_jobs.log.retention"]
    assert (line.__dict__["job_id"], line.__dict__["type"]) == (job.id, "probe")
