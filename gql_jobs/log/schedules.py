"""Scheduled jobs whose time has come without the server firing them: after its store was full, or a restart."""

import logging
from datetime import datetime

from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log import subjects
from gql_jobs.log.history import folded
from gql_jobs.log.job_log import JobLog, Superseded, Write, whole_job
from gql_jobs.log.stored import delete_message

log = logging.getLogger(__name__)


async def fire_overdue(job_log: JobLog, job_id: str, before: datetime) -> bool:
    """Queue a job that was to run before that moment and is still scheduled; False if there is nothing to do.

    :raises QueueUnavailable: if the stream does not answer.
    """
    history = await job_log.history(job_id)
    job = folded(history)
    if job is None or job.status is not JobStatus.SCHEDULED or job.spec.run_at is None or job.spec.run_at >= before:
        return False
    scheduled = history[-1].read()
    if scheduled is None or scheduled.kind is not Kind.SCHEDULED:
        return False
    body = scheduled.body
    assert isinstance(body, Submission)
    subject = subjects.queued(job_id, job.spec.queue, job.spec.priority)
    try:
        await job_log.append(Write(job_id, subject, body, whole_job(job_id, scheduled.seq)))
    except Superseded:
        return False
    # A firing that comes in between makes a second submission, of which the fence lets only one start.
    await delete_message(job_log.connection, scheduled.seq)
    log.info("job %s was overdue and is queued now", job_id)
    return True
