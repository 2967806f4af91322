"""Edits of jobs that have not started, and where submissions that follow others are stored.

An edit is two writes: the event ``edited``, which has the whole spec and makes the submissions before it void, and
then a submission that names it. Who was killed in between leaves a job that waits: ``complete_edit`` submits it, as
does whoever repeats the edit. Only a job that passes the gate needs no second write: the gate releases it.

A schedule that the server holds is ended in the same commit as what takes its place: ``ended_schedule``.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from gql_jobs import clock
from gql_jobs.jetstream.client import (
    SCHEDULE_HEADER,
    SCHEDULE_NEXT_HEADER,
    SCHEDULE_TARGET_HEADER,
    SCHEDULER_HEADER,
)
from gql_jobs.jobs.changes import is_changeable
from gql_jobs.jobs.errors import InvalidState, QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import NEWEST_VERSION, VERSION, Edited, Kind, Submission
from gql_jobs.jobs.model import Job, JobStatus, Spec
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.job_log import (
    Contended,
    Fence,
    JobLog,
    Superseded,
    Write,
    after_write,
    decidable,
    job_events,
    last_event_seq,
    read_history,
    whole_job,
)
from gql_jobs.logs import job_fields

log = logging.getLogger(__name__)

_TRIES = 10
"""How often an edit is decided again because others have written to the job."""


def edited_event(
    job: Job, spec: Spec, changed: tuple[str, ...], actor: str | None, history: Sequence[JobMessage]
) -> Write:
    """Return the event that changes what is asked for; a schedule of the job ends with it.

    :param changed: the names of what is another, as clients know them.
    :param history: the job's messages, as the leader has them.
    """
    body = Edited(submission=job.submission_seq, spec=spec, changed=changed, actor=actor)
    subject = codec.event_subject(job.id, Kind.EDITED)
    fence = job_events(job.id, last_event_seq(history))
    return Write(job.id, subject, body, fence, ended_schedule(job.id, history))


def ended_schedule(job_id: str, history: Sequence[JobMessage]) -> Mapping[str, str]:
    """Return the headers of a message with which the schedule ends that the server holds of a job; none if it has none.

    If the schedule has fired meanwhile, they do nothing.
    """
    # The server refuses to end what is none: a job that waits for the gate has a plain message there.
    if not any(message.header(SCHEDULE_HEADER) for message in history):
        return {}
    return {SCHEDULE_NEXT_HEADER: "purge", SCHEDULER_HEADER: codec.scheduled_subject(job_id)}


def version_of_end(history: Sequence[JobMessage]) -> int:
    """Return the version of an event that ends a job's schedule: releases from before edits read no later schedule."""
    is_first = not any(message.is_event for message in history)
    return VERSION if is_first or not ended_schedule("", history) else NEWEST_VERSION


async def is_ahead(job_log: JobLog, run_at: datetime | None) -> bool:
    """Return whether a time lies ahead by the clock of the server, which holds what is not due.

    :raises QueueUnavailable: if it has passed by this machine's clock, and the server does not answer.
    """
    # If it has passed at the server alone, that fires at once.
    return run_at is not None and (run_at > clock.now() or run_at > await job_log.server_time())


def submission(job_id: str, body: Submission, fence: Fence, history: Sequence[JobMessage], *, held: bool) -> Write:
    """Return the write of a submission that follows others, stored where it waits for what it has to wait for.

    :param history: the job's messages, as the leader has them.
    :param held: whether the server holds it until its ``run_at``.
    """
    spec = body.spec
    if spec.gate is not None:
        return Write(job_id, codec.scheduled_subject(job_id), body, fence)
    target = codec.queued_subject(job_id, spec.queue, spec.priority)
    if not held:
        return Write(job_id, target, body, fence, ended_schedule(job_id, history))
    body = msgspec.structs.replace(body, held=True)
    return Write(job_id, codec.scheduled_subject(job_id), body, fence, schedule_headers(spec, target))


def schedule_headers(spec: Spec, target: str) -> dict[str, str]:
    """Return the headers by which the server holds a message until ``run_at``, and then stores it as ``target``."""
    assert spec.run_at is not None
    at = clock.for_server(spec.run_at).astimezone(UTC).isoformat().replace("+00:00", "Z")
    return {SCHEDULE_HEADER: f"@at {at}", SCHEDULE_TARGET_HEADER: target}


def kind_of(write: Write) -> Kind:
    """Return the kind of the message that a submission is stored as."""
    if SCHEDULE_HEADER in write.headers:
        return Kind.SCHEDULED
    return Kind.WAITING if write.subject == codec.scheduled_subject(write.job_id) else Kind.QUEUED


async def submission_after_edit(job_log: JobLog, job: Job, history: Sequence[JobMessage], last_seq: int) -> Write:
    """Return the submission that a changed job lacks.

    :param history: the job's messages, as the leader has them.
    :param last_seq: the last of them, or one that was stored since.
    :raises QueueUnavailable: if the server does not answer whether the job is due.
    """
    body = Submission(spec=job.spec, event_seq=job.event_seq, after_edit=True)
    held = await is_ahead(job_log, job.spec.run_at)
    return submission(job.id, body, whole_job(job.id, last_seq), history, held=held)


async def edit(
    job_log: JobLog,
    existing: Callable[[int], Awaitable[tuple[list[JobMessage], Job]]],
    changed: Callable[[Job, datetime], tuple[Spec, tuple[str, ...]]],
    actor: str | None,
) -> Job:
    """Change a job that has not started, and return it as it is then.

    :param existing: returns the messages of the job and the job, given how often that has been asked before.
    :param changed: returns what is asked for then and the names of what is another, given the time of the server.
    :raises InvalidState: if it has started, or ended.
    :raises QueueUnavailable: if the server does not answer, or others keep writing to the job.
    """
    for number in range(_TRIES):
        history, job = await existing(number)
        if not is_changeable(job):
            is_waiting = job.status is JobStatus.QUEUED
            move = "edited: it has started before" if is_waiting else "edited"
            raise InvalidState(job.id, job.status.name, move)
        spec, names = changed(job, await job_log.server_time())
        if names:
            write = edited_event(job, spec, names, actor, history)
            try:
                seq = await job_log.append(write)
            except Superseded:
                continue
            job = after_write(job, Kind.EDITED, seq, write.body)
        return await _resubmitted(job_log, job, history) if job.lacks_submission else job
    raise Contended(f"Job {job.id} keeps changing; it was not edited. Try again.")


async def _resubmitted(job_log: JobLog, job: Job, history: list[JobMessage]) -> Job:
    """Return a job that was changed as it is after the submission that it lacks, whoever has stored that.

    :param history: its messages before that, as the leader has them.
    :raises QueueUnavailable: if it could not be stored; maintenance will do it.
    """
    try:
        for _ in range(_TRIES):
            write = await submission_after_edit(job_log, job, history, max(job.last_seq, history[-1].seq))
            try:
                seq = await job_log.append(write)
            except Superseded:
                history = await job_log.history(job.id, history[0].seq)
                found = decidable(job.id, history)
                if found is None or not found.lacks_submission:
                    return found or job
                job = found
            else:
                return after_write(job, kind_of(write), seq, write.body)
    except (QueueFull, QueueUnavailable) as error:
        message = f"Job {job.id} was edited, and is submitted again as soon as NATS allows it. {error.message}"
        raise QueueUnavailable(message, job.id) from error
    raise QueueUnavailable(f"Job {job.id} was edited, and keeps changing.", job.id)


async def complete_edit(job_log: JobLog, job_id: str, first_seq: int = 1) -> bool:
    """Submit a job that was changed and whose submission has never been stored.

    :param first_seq: where its history begins, 1 if unknown; spares the server a search.
    :returns: whether it was submitted here.
    :raises QueueUnavailable: if the stream does not answer.
    """
    history = await job_log.history(job_id, first_seq)
    job, _, _, is_newer = read_history(history)
    if is_newer or job is None or not job.lacks_submission:
        return False
    write = await submission_after_edit(job_log, job, history, history[-1].seq)
    try:
        await job_log.append(write)
    except Superseded:
        return False
    log.info("job %s was edited and is submitted now", job_id, extra=job_fields(job_id=job_id, type=job.spec.type))
    return True
