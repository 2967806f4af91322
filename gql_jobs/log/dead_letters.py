"""Copies in the stream jobs-dlq, which the server fills by itself from the dead_letter events."""

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

log = logging.getLogger(__name__)

_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.3, 0.6)
"""Seconds; the server copies a dead letter a moment after the event itself is stored."""


async def remove_dead_letter(connection: Connection, job_id: str, event_seq: int, *, wait: bool = True) -> None:
    """Take the copies of the job's dead letters up to the event ``event_seq`` out of jobs-dlq.

    A failure is logged, for the job itself is safe.

    :param wait: whether the copy may still be on its way; if not, one that is missing has been removed before.
    """
    subject = codec.event_subject(job_id, Kind.DEAD_LETTER)
    try:
        for pause in _PAUSES if wait else _PAUSES[:1]:
            await asyncio.sleep(pause)
            if await _remove_copies(connection, subject, event_seq):
                return
        if wait:
            log.warning("the dead letter of job %s was not found in %s", job_id, DEAD_LETTERS_STREAM)
    except (Unavailable, ApiError) as error:
        log.warning("the dead letter of job %s stays in %s: %s", job_id, DEAD_LETTERS_STREAM, error)


async def remove_left_over(job_log: JobLog, job_id: str, copied_before: datetime) -> int:
    """Take out copies that a retry or an expiry has left behind because NATS went away in between.

    The copies are listed first and the job is read from the leader after them, so that a dead letter that is written
    meanwhile is not among them. One goes only if the job's history proves that it is past.

    :param copied_before: younger copies are left, for whoever has just moved the job removes them.
    :returns: how many have been removed.
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
    """Whether the job has gone on since its dead letter ``origin``, or has expired.

    A history without anything newer proves nothing: a leader that has just been chosen may know less.
    """
    if job is None:
        return any(message.kind is Kind.EXPIRED and message.seq > origin for message in history)
    # A dead letter is the last that happens to a job before it is retried or expires.
    return job.last_seq > origin


async def _remove_copies(connection: Connection, subject: str, event_seq: int) -> bool:
    """Remove them; whether the copy of ``event_seq`` has been there, or must have been: a newer one is."""
    reached = False
    # The last one by subject takes no search. A job that was retried may have become a dead letter again meanwhile.
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
