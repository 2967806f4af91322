"""Cancelling and retrying by hand: decided on what the leader has, stored only if nothing has happened since."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import SOURCE_HEADER, StoredMessage, last_message, messages_of
from gql_jobs.jobs.claim import Drop, Start, decide, first_start
from gql_jobs.jobs.errors import InvalidState, NotFound
from gql_jobs.jobs.messages import Completed, DeadLetter, Failed, Kind, Started
from gql_jobs.jobs.model import Job, JobStatus, new_job_id
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events
from gql_jobs.log.retention import remove_dead_letter
from tests.by_hand import bring_to, say, stored
from tests.deadline import until
from tests.stories import attempt_body, request

OPEN = [JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.RETRYING]
ENDED = [JobStatus.COMPLETED, JobStatus.DEAD_LETTER, JobStatus.CANCELLED]


async def _job(commands: JobCommands, job_log: JobLog, status: JobStatus) -> Job:
    return await bring_to(job_log, commands, (await commands.create(request())).job, status)


async def _in_dlq(connection: Connection, job: Job) -> StoredMessage | None:
    return await last_message(connection, codec.DEAD_LETTERS_STREAM, codec.event_subject(job.id, Kind.DEAD_LETTER))


async def _dlq(connection: Connection, job: Job) -> list[int]:
    """The sequences of the events that the job's dead letters are copies of."""
    subject = codec.event_subject(job.id, Kind.DEAD_LETTER)
    copies = [copy async for copy in messages_of(connection, codec.DEAD_LETTERS_STREAM, subject)]
    return [int((copy.header(SOURCE_HEADER) or "").split()[1]) for copy in copies]


@pytest.mark.parametrize("status", OPEN)
async def test_a_job_that_has_not_ended_can_be_cancelled(
    commands: JobCommands, job_log: JobLog, status: JobStatus
) -> None:
    job = await _job(commands, job_log, status)
    cancelled = await commands.cancel(job.id)
    assert cancelled.status is JobStatus.CANCELLED
    found = await commands.find(job.id)
    assert found is not None
    assert (found.status, found.last_seq) == (JobStatus.CANCELLED, cancelled.last_seq)


@pytest.mark.parametrize("status", ENDED)
async def test_a_job_that_has_ended_cannot_be_cancelled(
    commands: JobCommands, job_log: JobLog, status: JobStatus
) -> None:
    job = await _job(commands, job_log, status)
    with pytest.raises(InvalidState, match=f"is {status.name} and cannot be cancelled") as refused:
        await commands.cancel(job.id)
    assert refused.value.extensions["status"] == status.name


@pytest.mark.parametrize("status", [*OPEN, JobStatus.COMPLETED])
async def test_only_a_dead_letter_or_a_cancelled_job_can_be_retried(
    commands: JobCommands, job_log: JobLog, status: JobStatus
) -> None:
    job = await _job(commands, job_log, status)
    with pytest.raises(InvalidState, match=f"is {status.name} and cannot be retried"):
        await commands.retry(job.id)


@pytest.mark.parametrize("status", [JobStatus.DEAD_LETTER, JobStatus.CANCELLED])
async def test_a_retry_queues_the_job_again_with_a_fresh_budget_and_its_history(
    commands: JobCommands, job_log: JobLog, connection: Connection, status: JobStatus
) -> None:
    job = await _job(commands, job_log, status)
    before = await stored(connection, codec.job_subjects(job.id))
    again = await commands.retry(job.id)
    assert (again.status, again.attempt, again.errors) == (JobStatus.QUEUED, 0, ())
    history = await stored(connection, codec.job_subjects(job.id))
    assert history[:-1] == before
    retried = history[-1].read()
    assert retried is not None
    assert (retried.seq, retried.body.event_seq) == (again.submission_seq, job.event_seq)
    await say(job_log, job, Started)
    await say(job_log, job, Completed)
    done = await commands.find(job.id)
    assert done is not None
    assert (done.status, done.attempt) == (JobStatus.COMPLETED, 1)


async def test_a_dead_letter_is_copied_whole_and_leaves_the_dead_letters_when_it_is_retried(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    job = await _job(commands, job_log, JobStatus.PROCESSING)
    other = await _job(commands, job_log, JobStatus.DEAD_LETTER)
    await say(job_log, job, DeadLetter, spec=job.spec)
    copy = await until(lambda: _in_dlq(connection, job), "the dead letter is copied")
    message = JobMessage.of(copy).read()
    assert message is not None
    assert message.body.spec == job.spec
    await commands.retry(job.id)
    assert await _in_dlq(connection, job) is None
    assert await until(lambda: _in_dlq(connection, other), "the other dead letter stays")
    await say(job_log, job, Started)
    second = await say(job_log, job, DeadLetter, spec=job.spec)
    again = await until(lambda: _in_dlq(connection, job), "the second dead letter is copied")
    assert again.header(SOURCE_HEADER) is not None
    assert str(second) in (again.header(SOURCE_HEADER) or "")


async def test_a_dead_letter_leaves_although_the_next_one_has_come_already(
    commands: JobCommands, job_log: JobLog, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry that runs and fails again before the retrying client has removed the first dead letter."""
    job = await _job(commands, job_log, JobStatus.DEAD_LETTER)
    await until(lambda: _in_dlq(connection, job), "the first dead letter is copied")

    async def fail_again_first(*removal: Any, **options: Any) -> None:
        await say(job_log, job, Started)
        second = await say(job_log, job, DeadLetter)

        async def copied() -> bool:
            return second in await _dlq(connection, job)

        await until(copied, "the second dead letter is copied")
        await remove_dead_letter(*removal, **options)

    with monkeypatch.context() as slow:
        slow.setattr("gql_jobs.log.commands.remove_dead_letter", fail_again_first)
        await commands.retry(job.id)
    (left,) = await _dlq(connection, job)
    now = await commands.find(job.id)
    assert now is not None
    assert left == now.event_seq


async def test_of_five_retries_at_once_one_is_accepted(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    job = await _job(commands, job_log, JobStatus.DEAD_LETTER)
    outcomes = await asyncio.gather(*(commands.retry(job.id) for _ in range(5)), return_exceptions=True)
    assert Counter(type(outcome) for outcome in outcomes) == {Job: 1, InvalidState: 4}
    assert len(await stored(connection, codec.submission_subjects(job.id))) == 2


async def test_of_five_cancellations_at_once_one_is_accepted(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    job = await _job(commands, job_log, JobStatus.PROCESSING)
    outcomes = await asyncio.gather(*(commands.cancel(job.id) for _ in range(5)), return_exceptions=True)
    assert Counter(type(outcome) for outcome in outcomes) == {Job: 1, InvalidState: 4}
    assert len(await stored(connection, codec.event_subjects(job.id))) == 2


async def test_a_cancellation_that_crosses_an_outcome_is_decided_again(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    for _ in range(20):
        job = await _job(commands, job_log, JobStatus.PROCESSING)
        body = attempt_body(Completed, 1, job.submission_seq)
        subject = codec.event_subject(job.id, Kind.COMPLETED)
        completed = job_log.append(Write(job.id, subject, body, job_events(job.id, job.event_seq)))
        outcomes = await asyncio.gather(commands.cancel(job.id), completed, return_exceptions=True)
        refusals = [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]
        assert refusals in ([InvalidState], [Superseded])
        assert len(await stored(connection, codec.event_subjects(job.id))) == 2


async def test_the_delivery_of_an_earlier_submission_is_dropped_after_a_retry_by_hand(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    """Fail, delayed nak, cancel, retry by hand: then the old delivery comes back."""
    job = await _job(commands, job_log, JobStatus.PROCESSING)
    await say(job_log, job, Failed)
    await commands.cancel(job.id)
    again = await commands.retry(job.id)
    old, new = await stored(connection, codec.submission_subjects(job.id))
    last = await job_log.last(codec.event_subjects(job.id))
    assert last is not None
    for submission, expected in ((old, Drop()), (new, Start(attempt=1, event_seq=again.event_seq))):
        message = submission.read()
        assert message is not None
        decision = decide(message.body, submission.seq, last.read(), redelivered=True, now=datetime.now(UTC))
        assert decision == expected
    message = old.read()
    assert message is not None
    start = first_start(message.body)
    body = attempt_body(Started, start.attempt, old.seq)
    with pytest.raises(Superseded):
        await job_log.append(
            Write(job.id, codec.event_subject(job.id, Kind.STARTED), body, job_events(job.id, start.event_seq))
        )


@pytest.mark.parametrize("job_id", ["*", ">", "*.event", "", "1", "x" * 1000])
async def test_an_id_that_is_no_uuid_names_no_job(commands: JobCommands, job_log: JobLog, job_id: str) -> None:
    await _job(commands, job_log, JobStatus.DEAD_LETTER)
    for decision in (commands.cancel, commands.retry):
        with pytest.raises(NotFound):
            await decision(job_id)


async def test_an_unknown_id_is_not_found(commands: JobCommands) -> None:
    unknown = new_job_id()
    assert await commands.find(unknown) is None
    for decision in (commands.cancel, commands.retry):
        with pytest.raises(NotFound, match=unknown):
            await decision(unknown)
