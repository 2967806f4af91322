"""The fold: a job's state follows from its messages. Legal moves between states are in the table ``MOVES`` only.

A message that is not legal in a state changes nothing: ``fold`` then returns the very same object.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gql_jobs.jobs.messages import (
    Cancelled,
    Completed,
    Failed,
    Kind,
    Message,
    Progress,
    Started,
    Submission,
)
from gql_jobs.jobs.model import Cursor, Job, JobStatus, Spec

_S = JobStatus

MOVES: dict[tuple[JobStatus | None, Kind], JobStatus | None] = {
    (None, Kind.SCHEDULED): _S.SCHEDULED,
    (None, Kind.QUEUED): _S.QUEUED,
    (None, Kind.CANCELLED): _S.CANCELLED,
    (_S.SCHEDULED, Kind.QUEUED): _S.QUEUED,
    (_S.SCHEDULED, Kind.CANCELLED): _S.CANCELLED,
    (_S.QUEUED, Kind.STARTED): _S.PROCESSING,
    (_S.QUEUED, Kind.CANCELLED): _S.CANCELLED,
    (_S.PROCESSING, Kind.STARTED): _S.PROCESSING,
    (_S.PROCESSING, Kind.PROGRESS): _S.PROCESSING,
    (_S.PROCESSING, Kind.COMPLETED): _S.COMPLETED,
    (_S.PROCESSING, Kind.FAILED): _S.RETRYING,
    (_S.PROCESSING, Kind.DEAD_LETTER): _S.DEAD_LETTER,
    (_S.PROCESSING, Kind.CANCELLED): _S.CANCELLED,
    (_S.PROCESSING, Kind.RELEASED): _S.QUEUED,
    (_S.RETRYING, Kind.STARTED): _S.PROCESSING,
    (_S.RETRYING, Kind.CANCELLED): _S.CANCELLED,
    (_S.DEAD_LETTER, Kind.QUEUED): _S.QUEUED,
    (_S.CANCELLED, Kind.QUEUED): _S.QUEUED,
    # In every state: an index that was stopped meanwhile sees the expiry only, because the end of the job is deleted.
    **{(status, Kind.EXPIRED): None for status in _S},
}
"""The next status by present status and kind of message; None is that before the first message and after expiry."""


_NO_EVENTS = frozenset({Kind.SCHEDULED, Kind.QUEUED, Kind.PROGRESS})
"""Kinds of messages that do not move ``Job.event_seq``."""


class Event(Struct, frozen=True, gc=False):
    """What clients see of a message, with the job as of that. If a message makes two events, their cursors differ."""

    kind: Kind
    cursor: Cursor
    job: Job

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended as of this event."""
        return self.job.status.is_terminal


def fold(job: Job | None, message: Message) -> Job | None:
    """Return the job after ``message``.

    :param job: the job before it; None if there is none yet.
    :returns: None if there is no job after it; the same object if the message is not legal.
    """
    before = job.status if job is not None else None
    if (before, message.kind) not in MOVES or not _is_current(job, message):
        return job
    after = MOVES[before, message.kind]
    if after is None:
        return None
    if job is None:
        return _new_job(message)
    moved = replace(
        job,
        status=after,
        last_seq=message.seq,
        updated_at=max(message.at, job.updated_at),
        event_seq=job.event_seq if message.kind in _NO_EVENTS else message.seq,
        actor=None,
    )
    apply = _APPLY.get(message.kind)
    return apply(moved, message) if apply is not None else moved


def events_of(before: Job | None, message: Message, after: Job | None) -> list[Event]:
    """Return the events that clients see of a message; empty if it was not legal, or the job has expired.

    :param before: the job before the message.
    :param after: what ``fold`` has returned for it.
    """
    if after is None or after is before:
        return []
    kind = Kind.QUEUED if message.kind is Kind.RELEASED else message.kind
    if message.kind is Kind.QUEUED and _was_scheduled(message.body):
        queued = Event(kind, Cursor(message.seq, 1), after)
        return [_scheduled_event(message, message.body.spec), queued] if before is None else [queued]
    if message.kind is Kind.CANCELLED and (before is None or before.status is _S.SCHEDULED):
        cancelled = Event(kind, Cursor(message.seq, 1), after)
        return [_scheduled_event(message, after.spec), cancelled] if before is None else [cancelled]
    return [Event(kind, Cursor(message.seq), after)]


def _is_current(job: Job | None, message: Message) -> bool:
    """Return whether the message is about the submission and attempt that the job is at."""
    body = message.body
    if isinstance(body, Submission):
        # Without a job, earlier messages have been deleted: a submission then makes the job whatever it follows.
        return job is None or body.event_seq == job.event_seq
    if isinstance(body, Cancelled):
        return job is not None or body.spec is not None
    if job is None or message.kind is Kind.EXPIRED:
        return job is not None
    if message.kind is Kind.STARTED and job.status is _S.QUEUED:
        # A late firing can store a second copy of a submission; the fence lets only one of them start.
        return bool(body.submission >= job.submission_seq)
    if body.submission != job.submission_seq:
        return False
    return message.kind is Kind.STARTED or body.attempt == job.attempt


def _was_scheduled(body: Submission) -> bool:
    return body.spec.run_at is not None and (body.event_seq == 0 or body.after_expiry)


def _is_retry(body: Submission) -> bool:
    """Return whether a submission is a retry by hand, and not a creation under the key of a job that has expired."""
    return body.event_seq != 0 and not body.after_expiry


def _new_job(message: Message) -> Job:
    """Return the job after its first message, which may be the cancellation of a schedule that has been deleted."""
    cancelled = message.kind is Kind.CANCELLED
    spec: Spec = message.body.spec
    return Job(
        id=message.job_id,
        spec=spec,
        status=MOVES[None, message.kind] or _S.QUEUED,
        submission_seq=message.body.submission if cancelled else message.seq,
        last_seq=message.seq,
        updated_at=message.at,
        event_seq=message.seq if cancelled else message.body.event_seq,
        finished_at=message.at if cancelled else None,
        retried=message.kind is Kind.QUEUED and _is_retry(message.body),
        actor=_first_actor(message),
    )


def _first_actor(message: Message) -> str | None:
    """Return who caused the first message of a job that is known of it."""
    body: Submission | Cancelled = message.body
    if isinstance(body, Cancelled) or _is_retry(body):
        return body.actor
    # It is the server that queues a job whose time has come.
    return None if message.kind is Kind.QUEUED and _was_scheduled(body) else body.spec.created_by


def _scheduled_event(message: Message, spec: Spec) -> Event:
    """Return the event ``scheduled`` for a message that ends a schedule whose own message has been deleted."""
    scheduled = Job(
        id=message.job_id,
        spec=spec,
        status=_S.SCHEDULED,
        submission_seq=message.seq,
        last_seq=message.seq,
        updated_at=spec.created_at,
        actor=spec.created_by,
    )
    return Event(Kind.SCHEDULED, Cursor(message.seq), scheduled)


def _queued(job: Job, message: Message) -> Job:
    return Job(
        id=job.id,
        spec=message.body.spec,
        status=job.status,
        submission_seq=message.seq,
        last_seq=message.seq,
        updated_at=job.updated_at,
        event_seq=job.event_seq,
        retried=_is_retry(message.body),
        actor=message.body.actor,
    )


def _started(job: Job, message: Message) -> Job:
    body: Started = message.body
    return replace(
        job,
        submission_seq=body.submission,
        attempt=body.attempt,
        worker_id=body.worker_id,
        errors=body.errors,
        progress=body.progress,
        progress_message=body.message,
        started_at=message.at,
        failed_at=None,
        next_attempt_at=None,
        superseded_attempt=body.supersedes,
    )


def _progress(job: Job, message: Message) -> Job:
    body: Progress = message.body
    return replace(job, progress=body.progress, progress_message=body.message)


def _completed(job: Job, message: Message) -> Job:
    body: Completed = message.body
    return replace(
        job,
        progress=100,
        progress_message=body.message,
        result_json=body.result,
        result_encoded=body.encoded,
        finished_at=message.at,
    )


def _failed(job: Job, message: Message) -> Job:
    body: Failed = message.body
    return replace(
        job,
        errors=body.errors,
        progress=body.progress,
        progress_message=body.message,
        failed_at=message.at,
        next_attempt_at=body.next_attempt_at,
        worker_id=None,
    )


def _dead_letter(job: Job, message: Message) -> Job:
    body = message.body
    return replace(
        job,
        errors=body.errors,
        progress=body.progress,
        progress_message=body.message,
        finished_at=message.at,
    )


def _cancelled(job: Job, message: Message) -> Job:
    return replace(job, finished_at=message.at, next_attempt_at=None, actor=message.body.actor)


def _released(job: Job, message: Message) -> Job:
    body = message.body
    return replace(
        job,
        attempt=max(body.attempt - 1, 0),
        errors=body.errors,
        progress=body.progress,
        progress_message=body.message,
        worker_id=None,
        started_at=None,
    )


_APPLY: dict[Kind, Callable[[Job, Message], Any]] = {
    Kind.QUEUED: _queued,
    Kind.STARTED: _started,
    Kind.PROGRESS: _progress,
    Kind.COMPLETED: _completed,
    Kind.FAILED: _failed,
    Kind.DEAD_LETTER: _dead_letter,
    Kind.CANCELLED: _cancelled,
    Kind.RELEASED: _released,
}
