"""The end of a job's history: one fenced event that every index hears of, then the messages, one by one.

Never a purge by subject: the server manages a hundred of those a second. Never before the event: a retry and an expiry
cannot both win.
"""

import logging
from datetime import UTC, datetime, timedelta

from gql_jobs.jobs.messages import Expired, Kind
from gql_jobs.log import subjects
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.dead_letters import remove_dead_letter
from gql_jobs.log.job_log import JobLog, Superseded, Write, folded, whole_job
from gql_jobs.log.stored import StoredMessage, delete_message

log = logging.getLogger(__name__)

TOMBSTONE_TTL = 7 * 86_400
"""Seconds that ``expired`` events stay. An index that was away for longer is built anew."""
_COPIED_WITHIN = timedelta(seconds=10)
"""A dead letter that has no copy by then had one that was removed, at a retry or by hand."""


async def expire(job_log: JobLog, artifacts: ArtifactStore, job_id: str, finished_before: datetime) -> bool:
    """Expire a job that ended before that moment; False if it has changed since or is gone.

    :raises QueueUnavailable: if the stream does not answer.
    """
    history = await job_log.history(job_id)
    job = folded(history)
    if job is None or not job.status.is_terminal or job.finished_at is None or job.finished_at >= finished_before:
        return False
    body = Expired(submission=job.submission_seq)
    subject = subjects.event(job_id, Kind.EXPIRED)
    fence = whole_job(job_id, history[-1].seq)
    headers = {subjects.MESSAGE_TTL: f"{TOMBSTONE_TTL}s"}
    try:
        await job_log.append(Write(job_id, subject, body, fence, headers))
    except Superseded:
        return False
    await _delete(job_log, artifacts, job_id, history)
    return True


async def delete_remains(job_log: JobLog, artifacts: ArtifactStore, job_id: str) -> None:
    """Delete what a process that died in the middle of an expiry has left of a job; a renewed job is left alone."""
    history = await job_log.history(job_id)
    last_expiry = max((m.seq for m in history if m.kind is Kind.EXPIRED), default=0)
    await _delete(job_log, artifacts, job_id, [message for message in history if message.seq < last_expiry])


async def _delete(job_log: JobLog, artifacts: ArtifactStore, job_id: str, messages: list[StoredMessage]) -> None:
    """Submissions first: without one, what is left makes no job."""
    for message in sorted(messages, key=lambda m: (m.is_event, m.seq)):
        if message.kind is Kind.ARTIFACT:
            await artifacts.remove_recorded(message)
        if message.kind is Kind.DEAD_LETTER:
            # Before the event itself: whoever looks for the remains knows by the event that there is a copy.
            wait = message is messages[-1] and datetime.now(UTC) - message.at < _COPIED_WITHIN
            await remove_dead_letter(job_log.connection, job_id, message.seq, wait=wait)
        await delete_message(job_log.connection, message.seq)
