"""The stream jobs-dlq, which the server fills by itself from the dead_letter events."""

import asyncio
import logging

from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Kind
from gql_jobs.log import subjects
from gql_jobs.log.connection import ApiError, Connection
from gql_jobs.log.stored import delete_message, messages_of

log = logging.getLogger(__name__)

_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.3, 0.6)
"""Seconds; the server copies a dead letter a moment after the event itself is stored."""


async def remove_dead_letter(connection: Connection, job_id: str, event_seq: int) -> None:
    """Take the copy of the event ``event_seq`` out of jobs-dlq; a failure is logged, for the job itself is safe."""
    subject = subjects.event(job_id, Kind.DEAD_LETTER)
    try:
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            # All of them: a job that was retried may have become a dead letter again in the meantime.
            async for copy in messages_of(connection, subject, stream=subjects.DEAD_LETTERS):
                origin = _origin(copy.header(subjects.SOURCE))
                if origin == event_seq:
                    await delete_message(connection, copy.seq, subjects.DEAD_LETTERS)
                if origin >= event_seq:
                    return
        log.warning("the dead letter of job %s was not found in %s", job_id, subjects.DEAD_LETTERS)
    except (QueueUnavailable, ApiError) as error:
        log.warning("the dead letter of job %s stays in %s: %s", job_id, subjects.DEAD_LETTERS, error)


def _origin(source: str | None) -> int:
    """The sequence in the stream JOBS that a ``Nats-Stream-Source`` header names (``JOBS <seq> …``)."""
    parts = (source or "").split()
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
