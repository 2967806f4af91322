"""The end of a job: expired, deleted message by message, its key free again."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gql_jobs.jetstream.client import TTL_HEADER
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import last_message, messages_of
from gql_jobs.jobs.errors import InvalidState, NotFound
from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.messages import Completed, Kind, Started, Submission
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, Write, job_events, whole_job
from gql_jobs.log.retention import Ended, delete_remains, expire, expire_ended
from tests.by_hand import bring_to, job_with_remains, say, stored
from tests.deadline import until
from tests.stories import request

ENDED = [JobStatus.COMPLETED, JobStatus.DEAD_LETTER, JobStatus.CANCELLED]


def _tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize("status", ENDED)
async def test_an_expired_job_leaves_one_event_that_goes_by_itself(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore, connection: Connection, status: JobStatus
) -> None:
    job = await job_with_remains(job_log, commands, status)
    assert await expire(job_log, artifacts, job.id, _tomorrow())
    (left,) = await stored(connection)
    assert left.subject == codec.event_subject(job.id, Kind.EXPIRED)
    assert left.header(TTL_HEADER) is not None
    told = left.read()
    assert told is not None
    assert told.body.event_seq == job.last_seq
    assert await commands.find(job.id) is None
    assert await last_message(connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS) is None
    with pytest.raises(NotFound):
        await commands.retry(job.id)


async def test_a_dead_letter_that_a_retry_took_away_is_not_waited_for(
    commands: JobCommands,
    job_log: JobLog,
    artifacts: ArtifactStore,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.DEAD_LETTER)
    await commands.retry(job.id)
    await bring_to(job_log, commands, job, JobStatus.COMPLETED)
    assert await expire(job_log, artifacts, job.id, _tomorrow())
    assert len(await stored(connection)) == 1
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_a_job_that_has_not_ended_or_not_long_ago_does_not_expire(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore, connection: Connection
) -> None:
    running = await bring_to(job_log, commands, (await commands.create(request())).job, JobStatus.PROCESSING)
    done = await job_with_remains(job_log, commands, JobStatus.COMPLETED)
    before = await stored(connection)
    assert not await expire(job_log, artifacts, running.id, _tomorrow())
    assert not await expire(job_log, artifacts, done.id, datetime.now(UTC) - timedelta(days=1))
    assert await stored(connection) == before


def _known(job: Job, history: list[JobMessage]) -> Ended:
    """The job as an index knows it."""
    assert job.finished_at is not None
    messages = [(message.seq, message.kind) for message in history if message.kind is not None]
    return Ended(job.id, job.finished_at, job.last_seq, has_artifacts=False, messages=messages)


async def test_jobs_expire_together_as_an_index_knows_them(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore, connection: Connection
) -> None:
    jobs = [
        await bring_to(job_log, commands, (await commands.create(request())).job, status) for status in (*ENDED, *ENDED)
    ]
    retried, noted = jobs[1], jobs[3]
    known = [_known(job, await job_log.history(job.id)) for job in jobs]
    await commands.retry(retried.id)
    await job_log.rollup(codec.note_subject(noted.id), b"{}", job_events(noted.id, noted.last_seq))
    seqs = await expire_ended(job_log, artifacts, known, _tomorrow())
    left = await stored(connection)
    assert [seq == 0 for seq in seqs] == [job is retried for job in jobs]
    assert {m.seq for m in left if m.kind is Kind.EXPIRED} == set(seqs) - {0}
    assert {m.subject.split(".")[1] for m in left if m.kind is not Kind.EXPIRED} == {retried.id}
    assert await expire_ended(job_log, artifacts, known, _tomorrow()) == [0] * len(jobs)
    found = await commands.find(retried.id)
    assert found is not None
    assert found.status is JobStatus.QUEUED
    copies = [copy async for copy in messages_of(connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS)]
    assert copies == []


async def _half_expired(job_log: JobLog, commands: JobCommands, status: JobStatus) -> Job:
    """As a sweeper leaves a job when even the room of its submissions is taken by somebody else."""
    job = await job_with_remains(job_log, commands, status)
    await job_log.delete([job.submission_seq])
    assert await commands.find(job.id) is None
    return job


async def test_an_expiry_that_a_full_store_cut_short_is_finished_by_the_next_sweep(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore, connection: Connection
) -> None:
    job = await _half_expired(job_log, commands, JobStatus.COMPLETED)
    assert not await expire(job_log, artifacts, job.id, datetime.now(UTC) - timedelta(days=1))
    assert await expire(job_log, artifacts, job.id, _tomorrow())
    assert [m.subject for m in await stored(connection)] == [codec.event_subject(job.id, Kind.EXPIRED)]


async def test_a_creation_under_the_key_of_a_job_that_is_half_expired_finishes_its_expiry_first(
    commands: JobCommands, job_log: JobLog
) -> None:
    old = await _half_expired(job_log, commands, JobStatus.COMPLETED)
    renewed = await commands.create(request(idempotency_key="k"))
    assert (renewed.job.id, renewed.deduplicated) == (old.id, False)
    # An index that was away still has the old job, and ends with the new one like any other.
    as_known: Job | None = old
    for message in await job_log.history(old.id, old.last_seq + 1):
        told = message.read()
        assert told is not None
        as_known = fold(as_known, told)
    assert as_known is not None
    assert (as_known.status, as_known.submission_seq) == (JobStatus.QUEUED, renewed.job.submission_seq)
    assert (await commands.create(request(idempotency_key="k"))).deduplicated


async def test_a_retry_that_crosses_an_expiry_in_a_full_store_is_a_job_by_itself(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore
) -> None:
    job = await _half_expired(job_log, commands, JobStatus.DEAD_LETTER)
    # What retryJob writes if it had read the job before.
    last = await job_log.last(codec.job_subjects(job.id))
    assert last is not None
    body = Submission(spec=job.spec, event_seq=job.event_seq)
    subject = codec.queued_subject(job.id, job.spec.queue, job.spec.priority)
    seq = await job_log.append(Write(job.id, subject, body, whole_job(job.id, last.seq)))
    assert not await expire(job_log, artifacts, job.id, _tomorrow())
    found = await commands.find(job.id)
    assert found is not None
    assert (found.status, found.submission_seq, found.spec) == (JobStatus.QUEUED, seq, job.spec)
    done = await bring_to(job_log, commands, found, JobStatus.COMPLETED)
    assert done.attempt == 1


async def test_what_no_index_knows_of_goes_with_the_remains(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore, connection: Connection
) -> None:
    job = (await commands.create(request())).job
    started = await say(job_log, job, Started)
    await job_log.rollup(codec.checkpoint_subject(job.id), b"{}", job_events(job.id, started))
    await say(job_log, job, Completed)
    done = await commands.find(job.id)
    assert done is not None
    (seq,) = await expire_ended(job_log, artifacts, [_known(done, await job_log.history(job.id))], _tomorrow())
    assert [m.subject for m in await stored(connection)] == [
        codec.checkpoint_subject(job.id),
        codec.event_subject(job.id, Kind.EXPIRED),
    ]
    await delete_remains(job_log, artifacts, job.id)
    assert [m.seq for m in await stored(connection)] == [seq]


async def test_a_job_expires_once(commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.COMPLETED)
    outcomes = await asyncio.gather(*(expire(job_log, artifacts, job.id, _tomorrow()) for _ in range(5)))
    assert sum(outcome > 0 for outcome in outcomes) == 1


async def test_a_retry_and_an_expiry_cannot_both_win(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore, connection: Connection
) -> None:
    for _ in range(20):
        job = (await commands.create(request())).job
        await commands.cancel(job.id)
        retried, expired = await asyncio.gather(
            commands.retry(job.id), expire(job_log, artifacts, job.id, _tomorrow()), return_exceptions=True
        )
        found = await commands.find(job.id)
        assert isinstance(expired, int)
        if expired:
            assert isinstance(retried, NotFound | InvalidState)
            assert found is None
        else:
            assert isinstance(retried, Job)
            assert found is not None
            assert found.status is JobStatus.QUEUED
    assert len(await stored(connection, codec.ALL_EVENTS)) == 20


@pytest.mark.parametrize("run_at", [None, timedelta(seconds=0.2)])
async def test_the_key_of_an_expired_job_makes_a_new_one(
    commands: JobCommands, job_log: JobLog, artifacts: ArtifactStore, run_at: timedelta | None
) -> None:
    old = await job_with_remains(job_log, commands, JobStatus.COMPLETED)
    await expire(job_log, artifacts, old.id, _tomorrow())
    later = None if run_at is None else datetime.now(UTC) + run_at
    renewed = await commands.create(request(idempotency_key="k", run_at=later))
    assert (renewed.job.id, renewed.deduplicated) == (old.id, False)
    again = await commands.create(request(idempotency_key="k"))
    assert again.deduplicated

    async def queued() -> bool:
        job = await commands.find(old.id)
        return job is not None and job.status is JobStatus.QUEUED

    await until(queued, "the new job is queued")
    done = await bring_to(job_log, commands, renewed.job, JobStatus.DEAD_LETTER)
    assert done.attempt == 1
    assert (await commands.retry(done.id)).status is JobStatus.QUEUED


async def test_remains_of_an_expiry_that_was_cut_short_are_deleted_and_a_renewed_job_is_left_alone(
    commands: JobCommands,
    job_log: JobLog,
    artifacts: ArtifactStore,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.DEAD_LETTER)
    with monkeypatch.context() as dying:
        dying.setattr(JobLog, "delete", _die)
        with pytest.raises(KeyboardInterrupt):
            await expire(job_log, artifacts, job.id, _tomorrow())
    assert await commands.find(job.id) is None
    renewed = (await commands.create(request(idempotency_key="k"))).job
    await delete_remains(job_log, artifacts, job.id)
    kept = await stored(connection)
    assert [message.subject.split(".")[2] for message in kept] == ["event", "queued"]
    assert kept[-1].seq == renewed.submission_seq
    await delete_remains(job_log, artifacts, job.id)
    assert await stored(connection) == kept
    assert await commands.find(job.id) is not None


async def _die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
