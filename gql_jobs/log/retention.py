"""Expiry of jobs: a fenced ``expired`` event, which every index applies, then the deletion of their other messages.

Messages are deleted one by one, because a purge by subject is slow on the server's side. They are deleted after the
event, whose fence decides between a retry and an expiry; only a full store takes no event before something has been
deleted (docs/decisions.md).

``fire_overdue`` queues jobs whose schedule the server has not fired. Last comes the stream jobs-dlq: the server itself
copies ``dead_letter`` events into it, and what a retry or an expiry makes void of that is removed here.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from gql_jobs import clock
from gql_jobs.jetstream.client import TTL_HEADER
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError, Unavailable
from gql_jobs.jetstream.stored_messages import delete_message, last_message, messages_of, subjects_page
from gql_jobs.jobs.claim import TERMINAL
from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.fold import is_ghost
from gql_jobs.jobs.messages import Body, Expired, Kind, Submission
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import DEAD_LETTERS_STREAM, JobMessage
from gql_jobs.log.edits import complete_edit
from gql_jobs.log.job_log import (
    JobLog,
    Superseded,
    Write,
    folded,
    last_event_seq,
    queue_errors,
    read_history,
    whole_job,
)
from gql_jobs.log.keys import KeptKey, release_keys
from gql_jobs.logs import job_fields

log = logging.getLogger(__name__)

EXPIRED_EVENT_TTL = 7 * 86_400
"""Seconds for which the server keeps ``expired`` events. An index that missed more than that is built anew."""
_COPIED_WITHIN = timedelta(seconds=10)
"""The server copies a dead letter within that time; for an older one without a copy nothing is waited for."""
_COPY_DELAYS = (0.0, 0.02, 0.05, 0.1, 0.3, 0.6)
"""Seconds before each look for a copy: the server makes it shortly after the event is stored."""
_ENDS = TERMINAL - {Kind.EXPIRED}
SUBMISSIONS = frozenset({Kind.QUEUED, Kind.SCHEDULED})
"""Kinds of stored messages of which each alone would make a job."""


class Ended(NamedTuple):
    """A job that has ended, as an index has it: ``last_seq`` is its last event, ``messages`` sequences and kinds.

    ``key``: what it was created with, if no other job may have that at a time.
    """

    job_id: str
    finished_at: datetime
    last_seq: int
    has_artifacts: bool
    messages: Sequence[tuple[int, Kind]]
    key: KeptKey | None = None


def expired_event(job_id: str, event_seq: int, last_seq: int) -> Write:
    """Return the ``expired`` event of a job that ended with ``event_seq``, fenced by its ``last_seq``."""
    subject, headers = codec.event_subject(job_id, Kind.EXPIRED), {TTL_HEADER: f"{EXPIRED_EVENT_TTL}s"}
    return Write(job_id, subject, Expired(event_seq=event_seq), whole_job(job_id, last_seq), headers)


async def expire_ended(
    job_log: JobLog, artifacts: ArtifactStore, jobs: Sequence[Ended], finished_before: datetime
) -> list[int | BaseException]:
    """Expire jobs without reading them; the fence of each fails if it has changed since the index applied ``last_seq``.

    Such a job is read and then expired, if it still ended before ``finished_before``. Messages that the index does not
    know are left to ``delete_remains``.

    :returns: for each job the sequence of its ``expired`` event, 0 if it was not expired, or the error; the jobs whose
        key was claimed since for a retry are left out.
    :raises QueueUnavailable: if it is not known who has the keys of the jobs.
    """
    keyed = [(job.key, job.job_id, job.last_seq) for job in jobs if job.key is not None]
    if keyed and (retried := await release_keys(job_log, keyed)):
        jobs = [job for job in jobs if job.job_id not in retried]
    outcomes = await job_log.append_in_order([expired_event(job.job_id, job.last_seq, job.last_seq) for job in jobs])
    expired = [job for job, outcome in zip(jobs, outcomes, strict=True) if isinstance(outcome, int)]
    await _delete_known(job_log, [job for job in expired if not job.has_artifacts])
    await asyncio.gather(*(delete_remains(job_log, artifacts, job.job_id) for job in expired if job.has_artifacts))

    async def outcome_of(job: Ended, outcome: int | BaseException) -> int:
        if isinstance(outcome, int):
            return outcome
        if isinstance(outcome, Superseded) and (outcome.last is None or outcome.last.kind is Kind.EXPIRED):
            return 0
        if isinstance(outcome, Superseded | QueueFull):
            first_seq = min((seq for seq, _ in job.messages), default=1)
            return await expire(job_log, artifacts, job.job_id, finished_before, first_seq)
        raise outcome

    expiries = (outcome_of(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True))
    return await asyncio.gather(*expiries, return_exceptions=True)


async def expire(
    job_log: JobLog, artifacts: ArtifactStore, job_id: str, finished_before: datetime, first_seq: int = 1
) -> int:
    """Expire a job, if it ended before that moment.

    :param first_seq: where its history begins, 1 if unknown; spares the server a search.
    :returns: the sequence of its ``expired`` event; 0 if it was not expired.
    :raises QueueFull: if the store has no room for the event, although the job's submissions have been deleted.
    :raises QueueUnavailable: if the stream does not answer.
    """
    history = await job_log.history(job_id, first_seq)
    finished_at = _finished_at(history)
    if finished_at is None or finished_at >= finished_before:
        return 0
    last_event = last_event_seq(history)
    key = KeptKey.of(job) if (job := folded(history)) is not None else None
    if key is not None and await release_keys(job_log, [(key, job_id, last_event)]):
        return 0
    end = expired_event(job_id, last_event, history[-1].seq)
    try:
        try:
            seq = await job_log.append(end)
        except QueueFull:
            # A retry that crosses this carries the whole job, and the event that is left still allows the fence.
            await job_log.delete([message.seq for message in history if message.kind in SUBMISSIONS])
            seq = await job_log.append(end)
    except Superseded:
        return 0
    await _delete(job_log, artifacts, job_id, history)
    return seq


def half_expired(history: Sequence[JobMessage]) -> bool:
    """Return whether the job's submissions were deleted to make room in a full store, with no ``expired`` event yet."""
    events = [message for message in history if message.is_event]
    return bool(events) and events[-1].kind in _ENDS and not any(m.kind in SUBMISSIONS for m in history)


async def delete_remains(job_log: JobLog, artifacts: ArtifactStore, job_id: str) -> None:
    """Delete all messages and files of an expired job but its ``expired`` event, not those of a job created since.

    These are messages that no index knows (checkpoints, notes), those that a process left which ended meanwhile, and
    submissions that have crossed the event. Of a job that was deleted the bytes are overwritten.

    :raises QueueUnavailable: if the stream does not answer.
    """
    with queue_errors():
        left = await subjects_page(job_log.connection, codec.JOBS_STREAM, codec.job_subjects(job_id))
    if left.subjects.keys() <= {codec.event_subject(job_id, Kind.EXPIRED)}:
        return
    history = await job_log.history(job_id)
    last_expiry = max((m.seq for m in history if m.kind is Kind.EXPIRED), default=0)
    ghosts = [message for message in history if _is_ghost(message, last_expiry)]
    if ghosts and folded(history) is None:
        # Releases from before deletions have made a job of it, which has to end there, too.
        again = expired_event(job_id, ghosts[-1].seq, history[-1].seq)
        body = Expired(event_seq=ghosts[-1].seq, deleted=was_deleted(history))
        with suppress(Superseded):
            await job_log.append(again._replace(body=body))
    gone = [message for message in history if message.seq < last_expiry or message in ghosts]
    await _delete(job_log, artifacts, job_id, gone, erase=was_deleted(history))


def was_deleted(history: Sequence[JobMessage]) -> bool:
    """Return whether somebody has deleted a job of this id, of which messages are left."""
    return any(isinstance(body := _body_of(message), Expired) and body.deleted for message in history)


def _is_ghost(stored: JobMessage, expired_seq: int) -> bool:
    try:
        message = stored.read()
    except codec.Unreadable:
        return False
    return message is not None and is_ghost(message, expired_seq)


def _body_of(stored: JobMessage) -> Body | None:
    try:
        message = stored.read()
    except codec.Unreadable:
        return None
    return message.body if message is not None else None


async def _delete_known(job_log: JobLog, jobs: list[Ended]) -> None:
    dead_letters = [
        (job, max(seqs)) for job in jobs if (seqs := [seq for seq, kind in job.messages if kind is Kind.DEAD_LETTER])
    ]
    await asyncio.gather(
        *(
            remove_dead_letter(
                job_log.connection, job.job_id, seq, wait=seq == job.last_seq and may_be_copied_yet(job.finished_at)
            )
            for job, seq in dead_letters
        )
    )
    await _delete_messages(job_log, [message for job in jobs for message in job.messages])


async def _delete(
    job_log: JobLog, artifacts: ArtifactStore, job_id: str, messages: list[JobMessage], *, erase: bool = False
) -> None:
    if erase:
        # Before all else, so that nothing of them starts; of a job that has ended none is there.
        await job_log.delete([message.seq for message in messages if message.kind in SUBMISSIONS], erase=True)
    for message in messages:
        if message.kind is Kind.ARTIFACT:
            await artifacts.remove_recorded(message, erase=erase)
        if message.kind is Kind.DEAD_LETTER:
            # Before the event itself, which shows a later try that there may be a copy.
            wait = message is messages[-1] and may_be_copied_yet(message.at)
            await remove_dead_letter(job_log.connection, job_id, message.seq, wait=wait, erase=erase)
    await _delete_messages(job_log, [(message.seq, message.kind) for message in messages], erase=erase)


async def _delete_messages(
    job_log: JobLog, messages: Sequence[tuple[int, Kind | None]], *, erase: bool = False
) -> None:
    """Delete messages, submissions first, because each of those alone would make a job."""
    await job_log.delete([seq for seq, kind in messages if kind in SUBMISSIONS], erase=erase)
    await job_log.delete([seq for seq, kind in messages if kind not in SUBMISSIONS], erase=erase)


def _finished_at(history: list[JobMessage]) -> datetime | None:
    """Return when the job ended; None if it has not ended, or does not exist."""
    job, _, _, is_newer = read_history(history)
    if is_newer:
        # A newer release may have retried it.
        return None
    if job is not None:
        return job.finished_at if job.status.is_terminal else None
    return next(m.at for m in reversed(history) if m.is_event) if half_expired(history) else None


async def fire_overdue(job_log: JobLog, job_id: str, before: datetime) -> bool:
    """Queue a job that is still scheduled although its ``run_at`` is before that moment.

    The server fires schedules itself, except some that became due while its store was full or it restarted.

    :returns: whether the job was queued.
    :raises QueueUnavailable: if the stream does not answer.
    """
    history = await job_log.history(job_id)
    job, _, _, is_newer = read_history(history)
    if job is not None and job.lacks_submission:
        # A firing of the schedule before an edit has come so late that it has ended the one after that.
        return await complete_edit(job_log, job_id, history[0].seq)
    if is_newer or job is None or job.status is not JobStatus.SCHEDULED:
        return False
    if job.spec.run_at is None or job.spec.run_at >= before:
        return False
    scheduled = history[-1].read()
    if scheduled is None or scheduled.kind is not Kind.SCHEDULED:
        return False
    body = scheduled.body
    assert isinstance(body, Submission)
    subject = codec.queued_subject(job_id, job.spec.queue, job.spec.priority)
    try:
        await job_log.append(Write(job_id, subject, body, whole_job(job_id, scheduled.seq)))
    except Superseded:
        return False
    # A firing that comes in between makes a second submission, of which the fence lets only one start.
    await job_log.delete_one(scheduled.seq)
    log.info("job %s was overdue and is queued now", job_id, extra=job_fields(job_id=job_id, type=job.spec.type))
    return True


def may_be_copied_yet(stored_at: datetime) -> bool:
    """Return whether the server may not have copied the dead letter yet that was stored then."""
    # Where the clocks of this machine and the server differ by more, nothing is waited for either: of a copy that comes
    # later, maintenance takes care.
    return abs(clock.now() - stored_at) < _COPIED_WITHIN


async def remove_dead_letter(
    connection: Connection, job_id: str, event_seq: int, *, wait: bool = True, erase: bool = False
) -> None:
    """Remove the copies of the job's dead letters up to the event ``event_seq`` from jobs-dlq.

    A failure is logged only, because no job depends on the copy; not where its bytes have to go.

    :param wait: whether to wait for a copy that the server may not have made yet.
    :param erase: whether the bytes of the copies are overwritten where the server has stored them.
    :raises QueueUnavailable: if the bytes have to go and could not be removed.
    """
    subject = codec.event_subject(job_id, Kind.DEAD_LETTER)
    try:
        for delay in _COPY_DELAYS if wait else _COPY_DELAYS[:1]:
            await asyncio.sleep(delay)
            if await _remove_copies(connection, subject, event_seq, erase=erase):
                return
        if wait:
            message = "the dead letter of job %s was not found in %s"
            log.warning(message, job_id, DEAD_LETTERS_STREAM, extra=job_fields(job_id=job_id))
    except (Unavailable, ApiError) as error:
        if erase:
            raise QueueUnavailable(f"The dead letter of job {job_id} was not removed: {error}") from error
        message = "the dead letter of job %s stays in %s: %s"
        log.warning(message, job_id, DEAD_LETTERS_STREAM, error, extra=job_fields(job_id=job_id))


async def remove_left_over(job_log: JobLog, job_id: str, copied_before: datetime) -> int:
    """Remove the copies that a retry or an expiry has left behind because NATS went away in between.

    The copies are listed before the job is read from the leader, so that a dead letter that is written meanwhile is not
    among them. A copy is removed only if the job's history proves that the job has gone on since.

    :param copied_before: younger copies are kept: the command that has just moved the job removes them itself.
    :returns: the number of copies that were removed.
    :raises ApiError: if the server refuses.
    :raises QueueUnavailable: if it does not answer.
    """
    connection, subject = job_log.connection, codec.event_subject(job_id, Kind.DEAD_LETTER)
    with queue_errors():
        copies = [
            (copy.seq, copy.source_seq)
            async for copy in messages_of(connection, DEAD_LETTERS_STREAM, subject)
            if copy.at < copied_before
        ]
    history = await job_log.history(job_id) if copies else []
    job = folded(history)
    past = [seq for seq, origin in copies if _is_past(origin, history, job)]
    with queue_errors():
        for seq in past:
            await delete_message(connection, DEAD_LETTERS_STREAM, seq, erase=was_deleted(history))
    return len(past)


def _is_past(origin: int, history: list[JobMessage], job: Job | None) -> bool:
    """Return whether the job has a message after its dead letter ``origin``, or has expired since.

    A history that ends earlier proves nothing: a leader that was just elected may not have all of it yet.
    """
    if job is None:
        return any(message.kind is Kind.EXPIRED and message.seq > origin for message in history)
    # A dead letter is the last that happens to a job before it is retried or expires.
    return job.last_seq > origin


async def _remove_copies(connection: Connection, subject: str, event_seq: int, *, erase: bool) -> bool:
    """Remove the copies up to ``event_seq``; return whether its own was found, or a newer one, which comes after it."""
    reached = False
    # The last message by subject takes no search. A retried job may have become a dead letter again meanwhile.
    while (copy := await last_message(connection, DEAD_LETTERS_STREAM, subject)) is not None:
        origin = copy.source_seq
        reached = reached or origin >= event_seq
        if origin > event_seq:
            break
        await delete_message(connection, DEAD_LETTERS_STREAM, copy.seq, erase=erase)
    if copy is not None:
        async for older in messages_of(connection, DEAD_LETTERS_STREAM, subject):
            if older.source_seq > event_seq:
                break
            await delete_message(connection, DEAD_LETTERS_STREAM, older.seq, erase=erase)
    return reached
