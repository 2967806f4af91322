"""A job that somebody deletes: gone for good with all that was stored of it, whatever crosses the deletion."""

import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.jetstream.client import TTL_HEADER
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.object_store import bucket_stream
from gql_jobs.jetstream.stored_messages import last_message, messages_of
from gql_jobs.jobs.errors import InvalidState, NotFound, QueueUnavailable
from gql_jobs.jobs.messages import Completed, Expired, Kind, Started, Submission
from gql_jobs.jobs.model import Gate, Job, JobStatus, new_job_id
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log import codec
from gql_jobs.log.artifacts import BUCKET, ArtifactStore
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deletion import JobDeletions
from gql_jobs.log.job_log import Fence, JobLog, Superseded, Write, folded, job_events, whole_job
from gql_jobs.log.retention import delete_remains
from tests.by_hand import bring_to, job_with_remains, say, stored
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import attempt_body, request
from tests.viewers import viewer

ADA = viewer("ada", "acme", Scope.READ, Scope.CREATE, Scope.OPERATE)
IDLE = [status for status in JobStatus if status not in {JobStatus.PROCESSING, JobStatus.WAITING}]


@pytest.fixture
def deletions(job_log: JobLog, commands: JobCommands, artifacts: ArtifactStore) -> JobDeletions:
    """The deletions of one process."""
    return JobDeletions(job_log, commands, artifacts)


def _tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize("status", IDLE)
async def test_a_job_that_does_not_run_is_deleted_and_leaves_one_event_that_goes_by_itself(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog, connection: Connection, status: JobStatus
) -> None:
    job = await job_with_remains(job_log, commands, status)
    outcome = await deletions.delete(job.id)
    (left,) = await stored(connection)
    assert outcome == (True, left.seq)
    assert left.subject == codec.event_subject(job.id, Kind.EXPIRED)
    assert left.header(TTL_HEADER) is not None
    told = left.read()
    assert told is not None
    assert told.body == Expired(event_seq=job.last_seq, deleted=True)
    assert await last_message(connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS) is None
    assert await commands.find(job.id) is None
    for command in (commands.retry, commands.cancel):
        with pytest.raises(NotFound):
            await command(job.id)


async def test_a_job_that_runs_has_to_be_cancelled_first(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog, connection: Connection
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.PROCESSING)
    before = await stored(connection)
    with pytest.raises(InvalidState, match=r"PROCESSING and cannot be deleted\. Cancel it first"):
        await deletions.delete(job.id)
    assert await stored(connection) == before
    await commands.cancel(job.id)
    assert (await deletions.delete(job.id)).deleted


async def test_who_has_deleted_a_job_is_told_by_its_event(
    commands: JobCommands, deletions: JobDeletions, connection: Connection
) -> None:
    job = (await commands.create(request(), ADA)).job
    assert (await deletions.delete(job.id, ADA)).deleted
    (left,) = await stored(connection)
    told = left.read()
    assert told is not None
    assert told.body.actor == "ada"


async def test_a_job_that_is_gone_already_is_said_to_be_so_and_an_unknown_one_not_found(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.COMPLETED)
    first = await deletions.delete(job.id)
    assert await deletions.delete(job.id) == (False, first.seq)
    for unknown in (new_job_id(), "no id"):
        with pytest.raises(NotFound):
            await deletions.delete(unknown)


async def test_whoever_sees_a_part_of_the_jobs_learns_nothing_of_those_that_were_deleted(
    commands: JobCommands, deletions: JobDeletions
) -> None:
    own, others = (await commands.create(request(), ADA)).job, (await commands.create(request())).job
    with pytest.raises(NotFound):
        await deletions.delete(others.id, ADA)
    assert (await deletions.delete(own.id, ADA)).deleted
    assert (await deletions.delete(others.id)).deleted
    for job in (own, others):
        with pytest.raises(NotFound):
            await deletions.delete(job.id, ADA)


async def test_the_key_of_a_deleted_job_makes_a_new_one_whatever_its_payload(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.QUEUED)
    await deletions.delete(job.id)
    created = await commands.create(request(ProbePayload(steps=7), idempotency_key="k"))
    assert (created.id, created.deduplicated) == (job.id, False)
    found = await commands.find(job.id)
    assert found is not None
    assert found.status is JobStatus.QUEUED
    await say(job_log, found, Started)
    done = await say(job_log, found, Completed)
    assert (await deletions.delete(job.id)).seq > done
    assert await commands.find(job.id) is None


async def test_a_job_that_moved_since_it_was_counted_is_left_alone(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.RETRYING)
    with pytest.raises(InvalidState):
        await deletions.delete(job.id, moved_by=job.event_seq - 1)
    assert (await deletions.delete(job.id, moved_by=job.event_seq)).deleted


async def test_files_go_with_their_records(
    commands: JobCommands, deletions: JobDeletions, artifacts: ArtifactStore, connection: Connection
) -> None:
    kept, job = (await commands.create(request())).job, (await commands.create(request())).job
    for one in (kept, job):
        large = io.BytesIO(b"x" * 400_000)
        await artifacts.save(one.id, "a.bin", large, "application/octet-stream", job_events(one.id, 0))
    before = await _count(connection)
    assert (await deletions.delete(job.id)).deleted
    assert await _count(connection) == before / 2
    found = await artifacts.find(kept.id, "a.bin")
    assert found is not None
    whole = io.BytesIO()
    await artifacts.read(found, whole)
    assert len(whole.getvalue()) == 400_000


async def _count(connection: Connection) -> int:
    return len([message async for message in messages_of(connection, bucket_stream(BUCKET), f"$O.{BUCKET}.>")])


async def _store(job_log: JobLog, subject: str, body: Submission) -> int:
    """Store a submission that no fence holds back."""
    last = await job_log.last(codec.ALL_JOBS)
    assert last is not None
    return await job_log.append(Write("none", subject, body, Fence(codec.ALL_JOBS, last.seq)))


Late = Callable[[JobLog, Job], Awaitable[int]]
"""Stores a submission of a job that was written before its deletion."""


async def _firing(job_log: JobLog, job: Job) -> int:
    subject = codec.queued_subject(job.id, job.spec.queue, job.spec.priority)
    return await _store(job_log, subject, Submission(spec=job.spec))


async def _release(job_log: JobLog, job: Job) -> int:
    subject = codec.queued_subject(job.id, job.spec.queue, job.spec.priority)
    return await _store(job_log, subject, Submission(spec=job.spec, release=True, event_seq=job.event_seq))


async def _late_retry(job_log: JobLog, job: Job) -> int:
    subject = codec.queued_subject(job.id, job.spec.queue, job.spec.priority)
    return await _store(job_log, subject, Submission(spec=job.spec, event_seq=job.event_seq))


async def _return_to_the_gate(job_log: JobLog, job: Job) -> int:
    return await _store(job_log, codec.scheduled_subject(job.id), Submission(spec=job.spec, event_seq=job.event_seq))


@pytest.mark.parametrize("late", [_firing, _release, _late_retry, _return_to_the_gate])
async def test_a_submission_that_crosses_a_deletion_makes_no_job_starts_nowhere_and_is_removed(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog, artifacts: ArtifactStore, late: Late
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.CANCELLED)
    gated = Gate() if late is _return_to_the_gate else None
    await deletions.delete(job.id)
    seq = await late(job_log, _with_spec(job, gate=gated))
    assert folded(await job_log.history(job.id)) is None
    for event_seq in (0, job.event_seq):
        body = attempt_body(Started, 1, seq)
        subject = codec.event_subject(job.id, Kind.STARTED)
        with pytest.raises(Superseded):
            await job_log.append(Write(job.id, subject, body, job_events(job.id, event_seq)))
    created = await commands.create(request(ProbePayload(steps=3), idempotency_key="k"))
    assert not created.deduplicated
    await delete_remains(job_log, artifacts, job.id)
    left = [message.kind for message in await stored(job_log.connection)]
    assert left == [Kind.EXPIRED, Kind.QUEUED], "and nothing else of the ghost, whatever has come since"
    found = await commands.find(job.id)
    assert found is not None
    assert found.spec.payload == created.job.spec.payload


async def test_a_ghost_ends_where_earlier_releases_have_made_a_job_of_it(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog, artifacts: ArtifactStore
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.SCHEDULED)
    await deletions.delete(job.id)
    seq = await _firing(job_log, job)
    await delete_remains(job_log, artifacts, job.id)
    *_, last = await stored(job_log.connection)
    told = last.read()
    assert told is not None
    assert told.body == Expired(event_seq=seq, deleted=True)
    await delete_remains(job_log, artifacts, job.id)
    assert {message.kind for message in await stored(job_log.connection)} == {Kind.EXPIRED}
    assert (await stored(job_log.connection))[-1].seq == last.seq


def _with_spec(job: Job, **changes: Any) -> Job:
    return replace(job, spec=replace(job.spec, **changes))


async def test_a_retry_that_a_full_store_left_behind_an_end_makes_the_job_also_of_a_key_used_before(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog
) -> None:
    first = await job_with_remains(job_log, commands, JobStatus.QUEUED)
    await deletions.delete(first.id)
    again = (await commands.create(request(idempotency_key="k"))).job
    done = await bring_to(job_log, commands, again, JobStatus.DEAD_LETTER)
    # As an expiry begins in a full store.
    await job_log.delete([again.submission_seq])
    subject = codec.queued_subject(done.id, done.spec.queue, done.spec.priority)
    retry = Submission(spec=done.spec, event_seq=done.event_seq)
    await job_log.append(Write(done.id, subject, retry, whole_job(done.id, done.last_seq)))
    found = await commands.find(done.id)
    assert found is not None
    assert found.status is JobStatus.QUEUED


async def test_what_a_deletion_left_behind_is_removed_by_its_repetition(
    commands: JobCommands,
    deletions: JobDeletions,
    job_log: JobLog,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.COMPLETED)

    async def fails(*_: Any, **__: Any) -> None:
        raise QueueUnavailable("NATS is away.")

    with monkeypatch.context() as broken:
        broken.setattr(job_log, "delete", fails)
        with pytest.raises(QueueUnavailable, match="is deleted, but") as refusal:
            await deletions.delete(job.id)
    assert refusal.value.extensions["jobId"] == job.id
    assert await commands.find(job.id) is None
    assert len(await stored(connection)) > 1
    assert not (await deletions.delete(job.id)).deleted
    assert [message.kind for message in await stored(connection)] == [Kind.EXPIRED]


async def test_a_worker_that_was_handed_the_job_leaves_it_alone(
    commands: JobCommands, deletions: JobDeletions, job_log: JobLog
) -> None:
    job = await job_with_remains(job_log, commands, JobStatus.QUEUED)
    await deletions.delete(job.id)
    body = attempt_body(Started, 1, job.submission_seq)
    with pytest.raises(Superseded) as refused:
        await job_log.append(Write(job.id, codec.event_subject(job.id, Kind.STARTED), body, job_events(job.id, 0)))
    last: JobMessage | None = refused.value.last
    assert last is not None
    assert last.kind is Kind.EXPIRED
