"""The stream jobs-dlq: removal of its copies of ``dead_letter`` events, which the server itself adds."""

import asyncio
import logging
from datetime import datetime

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError, Unavailable
from gql_jobs.jetstream.stored_messages import delete_message, last_message, messages_of
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job
from gql_jobs.log import codec
from gql_jobs.log.codec import DEAD_LETTERS_STREAM, JobMessage
from gql_jobs.log.job_log import JobLog, folded, queue_errors
from gql_jobs.logs import job_fields

log = logging.getLogger(__name__)

_DELAYS = (0.0, 0.02, 0.05, 0.1, 0.3, 0.6)
"""Seconds before each look for a copy: the server makes it shortly after the event is stored."""


async def remove_dead_letter(connection: Connection, job_id: str, event_seq: int, *, wait: bool = True) -> None:
    """Remove the copies of the job's dead letters up to the event ``event_seq`` from jobs-dlq.

    A failure is logged only, because no job depends on the copy.

    :param wait: whether to wait for a copy that the server may not have made yet.
    """
    subject = codec.event_subject(job_id, Kind.DEAD_LETTER)
    try:
        for delay in _DELAYS if wait else _DELAYS[:1]:
            await asyncio.sleep(delay)
            if await _remove_copies(connection, subject, event_seq):
                return
        if wait:
            message = "the dead letter of job %s was not found in %s"
            log.warning(message, job_id, DEAD_LETTERS_STREAM, extra=job_fields(job_id=job_id))
    except (Unavailable, ApiError) as error:
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
            await delete_message(connection, DEAD_LETTERS_STREAM, seq)
    return len(past)


def _is_past(origin: int, history: list[JobMessage], job: Job | None) -> bool:
    """Return whether the job has a message after its dead letter ``origin``, or has expired since.

    A history that ends earlier proves nothing: a leader that was just elected may not have all of it yet.
    """
    if job is None:
        return any(message.kind is Kind.EXPIRED and message.seq > origin for message in history)
    # A dead letter is the last that happens to a job before it is retried or expires.
    return job.last_seq > origin


async def _remove_copies(connection: Connection, subject: str, event_seq: int) -> bool:
    """Remove the copies up to ``event_seq``; return whether its own was found, or a newer one, which comes after it."""
    reached = False
    # The last message by subject takes no search. A retried job may have become a dead letter again meanwhile.
    while (copy := await last_message(connection, DEAD_LETTERS_STREAM, subject)) is not None:
        origin = copy.source_seq
        reached = reached or origin >= event_seq
        if origin > event_seq:
            break
        await delete_message(connection, DEAD_LETTERS_STREAM, copy.seq)
    if copy is not None:
        async for older in messages_of(connection, DEAD_LETTERS_STREAM, subject):
            if older.source_seq > event_seq:
                break
            await delete_message(connection, DEAD_LETTERS_STREAM, older.seq)
    return reached
