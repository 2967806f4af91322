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
    Edited,
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
    (None, Kind.WAITING): _S.WAITING,
    (None, Kind.QUEUED): _S.QUEUED,
    (None, Kind.CANCELLED): _S.CANCELLED,
    (None, Kind.EDITED): _S.WAITING,
    (_S.SCHEDULED, Kind.QUEUED): _S.QUEUED,
    (_S.SCHEDULED, Kind.CANCELLED): _S.CANCELLED,
    (_S.SCHEDULED, Kind.EDITED): _S.WAITING,
    (_S.WAITING, Kind.SCHEDULED): _S.SCHEDULED,
    (_S.WAITING, Kind.QUEUED): _S.QUEUED,
    (_S.WAITING, Kind.CANCELLED): _S.CANCELLED,
    (_S.WAITING, Kind.EDITED): _S.WAITING,
    (_S.QUEUED, Kind.STARTED): _S.PROCESSING,
    (_S.QUEUED, Kind.CANCELLED): _S.CANCELLED,
    (_S.QUEUED, Kind.EDITED): _S.WAITING,
    (_S.PROCESSING, Kind.STARTED): _S.PROCESSING,
    (_S.PROCESSING, Kind.PROGRESS): _S.PROCESSING,
    (_S.PROCESSING, Kind.COMPLETED): _S.COMPLETED,
    (_S.PROCESSING, Kind.FAILED): _S.RETRYING,
    (_S.PROCESSING, Kind.DEAD_LETTER): _S.DEAD_LETTER,
    (_S.PROCESSING, Kind.CANCELLED): _S.CANCELLED,
    (_S.PROCESSING, Kind.RELEASED): _S.QUEUED,
    (_S.RETRYING, Kind.STARTED): _S.PROCESSING,
    (_S.RETRYING, Kind.QUEUED): _S.QUEUED,
    (_S.RETRYING, Kind.CANCELLED): _S.CANCELLED,
    (_S.DEAD_LETTER, Kind.QUEUED): _S.QUEUED,
    (_S.DEAD_LETTER, Kind.SCHEDULED): _S.SCHEDULED,
    (_S.DEAD_LETTER, Kind.WAITING): _S.WAITING,
    # What has ended the schedule of a retry, of which nothing else is left.
    (_S.DEAD_LETTER, Kind.CANCELLED): _S.CANCELLED,
    (_S.DEAD_LETTER, Kind.EDITED): _S.WAITING,
    (_S.CANCELLED, Kind.CANCELLED): _S.CANCELLED,
    (_S.CANCELLED, Kind.EDITED): _S.WAITING,
    (_S.CANCELLED, Kind.QUEUED): _S.QUEUED,
    (_S.CANCELLED, Kind.SCHEDULED): _S.SCHEDULED,
    (_S.CANCELLED, Kind.WAITING): _S.WAITING,
    # In every state: an index that was stopped meanwhile sees the expiry only, because the end of the job is deleted.
    **{(status, Kind.EXPIRED): None for status in _S},
}
"""The next status by present status and kind of message; None is that before the first message and after expiry."""


_NO_EVENTS = frozenset({Kind.SCHEDULED, Kind.WAITING, Kind.QUEUED, Kind.PROGRESS})
"""Kinds of messages that do not move ``Job.event_seq``."""


_ENDS_OF_SCHEDULES = frozenset({Kind.CANCELLED, Kind.EDITED})
"""Kinds of messages before which the message of a schedule is deleted, so that they carry the spec."""


class Event(Struct, frozen=True, gc=False):
    """What clients see of a message, with the job as of that. If a message makes two events, their cursors differ."""

    kind: Kind
    cursor: Cursor
    job: Job

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended as of this event."""
        return self.job.status.is_terminal


def fold(job: Job | None, message: Message, expired_seq: int = 0) -> Job | None:
    """Return the job after ``message``.

    :param job: the job before it; None if there is none yet, or not any more.
    :param expired_seq: the last ``expired`` event of this id before the message, if that is known; 0 for none.
    :returns: None if there is no job after it; the same object if the message is not legal.
    """
    before = job.status if job is not None else None
    if (before, message.kind) not in MOVES or not _is_current(job, message, expired_seq):
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
        changed=(),
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
    if not _ends_schedule(before, message):
        return [Event(kind, Cursor(message.seq), after)]
    event = Event(kind, Cursor(message.seq, 1), after)
    is_seen = before is not None and before.status is _S.SCHEDULED
    return [event] if is_seen else [_scheduled_event(before, message, after), event]


def is_ghost(message: Message, expired_seq: int) -> bool:
    """Return whether a message is a submission that comes too late: of a job that an ``expired`` event has ended.

    What has crossed that event names an earlier one, or none: the firing of a schedule, a release of the gate, or a
    retry on another copy of the stream. A job that is created anew under the same key names the event itself.

    :param expired_seq: the last ``expired`` event of this id; 0 for none.
    """
    return isinstance(message.body, Submission) and message.body.event_seq < expired_seq < message.seq


def _is_current(job: Job | None, message: Message, expired_seq: int) -> bool:  # noqa: PLR0911 - one return for each kind of body
    """Return whether the message is about the submission and attempt that the job is at."""
    body = message.body
    if isinstance(body, Submission):
        # Without a job, earlier messages have been deleted: a submission then makes the job whatever it follows, unless
        # it comes too late.
        return not is_ghost(message, expired_seq) if job is None else body.event_seq == job.event_seq
    if isinstance(body, Cancelled | Edited):
        if job is None or job.status.is_terminal:
            # Of a submission since then, the schedule of a retry, which has been deleted with this one.
            return body.spec is not None and (job is None or body.submission > job.event_seq)
        # Of whatever submission: a release that crosses it is void, and its fence has seen all other events.
        return True
    if job is None or message.kind is Kind.EXPIRED:
        return job is not None
    if message.kind is Kind.STARTED and job.status is _S.QUEUED:
        # A late firing can store a second copy of a submission; the fence lets only one of them start.
        return bool(body.submission >= job.submission_seq)
    if body.submission != job.submission_seq:
        return False
    return message.kind is Kind.STARTED or body.attempt == job.attempt


def _was_scheduled(body: Submission) -> bool:
    """Return whether the server has held a submission until its time."""
    is_creation = body.event_seq == 0 or body.after_expiry
    return body.held or (body.spec.run_at is not None and is_creation)


def _ends_schedule(before: Job | None, message: Message) -> bool:
    """Return whether a message has come in the place of a schedule, the message of which is deleted since."""
    if message.kind is Kind.QUEUED:
        return _was_scheduled(message.body)
    if message.kind not in _ENDS_OF_SCHEDULES:
        return False
    if before is None or before.status is _S.SCHEDULED or before.status.is_terminal:
        return True
    # One that follows an edit: nothing else shows that there was a schedule where its message is deleted.
    return before.status is _S.WAITING and message.body.submission > before.submission_seq


def _is_retry(body: Submission) -> bool:
    """Return whether a submission is a retry by hand, and neither a creation nor one more of what was there already."""
    return body.event_seq != 0 and not (body.after_expiry or body.after_edit or body.release)


def _is_early(message: Message) -> bool:
    """Return whether a retry by hand was queued before the job's time, as earlier releases did."""
    body, earliest = message.body, message.body.spec.earliest
    return message.kind is Kind.QUEUED and _is_retry(body) and earliest is not None and message.at < earliest


def _new_job(message: Message) -> Job:
    """Return the job after its first message, which may be what has ended a schedule whose message is deleted."""
    cancelled, edited = message.kind is Kind.CANCELLED, message.kind is Kind.EDITED
    spec: Spec = message.body.spec
    return Job(
        id=message.job_id,
        spec=spec,
        status=MOVES[None, message.kind] or _S.QUEUED,
        submission_seq=message.body.submission if cancelled or edited else message.seq,
        last_seq=message.seq,
        updated_at=message.at,
        event_seq=message.seq if cancelled or edited else message.body.event_seq,
        finished_at=message.at if cancelled else None,
        retried=not (cancelled or edited) and _is_early(message),
        again=not (cancelled or edited) and _is_retry(message.body),
        actor=_first_actor(message),
        changed=message.body.changed if edited else (),
        cancel_reason=message.body.reason if cancelled else None,
    )


def _first_actor(message: Message) -> str | None:
    """Return who caused the first message of a job that is known of it."""
    body: Submission | Cancelled | Edited = message.body
    if not isinstance(body, Submission):
        return body.actor
    # It is the server that queues a job whose time has come, and the gate that releases one.
    if body.release or body.after_edit or (message.kind is Kind.QUEUED and _was_scheduled(body)):
        return None
    return body.actor if _is_retry(body) else body.spec.created_by


def _scheduled_event(before: Job | None, message: Message, after: Job) -> Event:
    """Return the event ``scheduled`` for a message that ends a schedule whose own message has been deleted."""
    body: Submission | Cancelled | Edited = message.body
    scheduled = Job(
        id=message.job_id,
        spec=after.spec,
        status=_S.SCHEDULED,
        submission_seq=message.seq if isinstance(body, Submission) else body.submission,
        last_seq=message.seq,
        updated_at=after.spec.created_at if before is None else before.updated_at,
        event_seq=before.event_seq if before is not None else 0,
        actor=after.spec.created_by if before is None else body.actor if isinstance(body, Submission) else None,
    )
    return Event(Kind.SCHEDULED, Cursor(message.seq), scheduled)


def _submitted(job: Job, message: Message) -> Job:
    """Return the job as a submission makes it: begun anew, but for what a release goes on from."""
    body: Submission = message.body
    submitted = Job(
        id=job.id,
        spec=body.spec,
        status=job.status,
        submission_seq=message.seq,
        last_seq=message.seq,
        updated_at=job.updated_at,
        event_seq=job.event_seq,
        retried=_is_early(message),
        again=job.again if body.release or body.after_edit else _is_retry(body),
        # It is the server that queues what it has held.
        actor=None if body.held and message.kind is Kind.QUEUED else body.actor,
    )
    if (continued := body.continues) is None:
        return submitted
    return replace(
        submitted,
        attempt=continued.attempt,
        errors=continued.errors,
        progress=continued.progress,
        progress_message=continued.message,
    )


def _edited(job: Job, message: Message) -> Job:
    body: Edited = message.body
    edited = replace(_after_schedule(job, message), spec=body.spec, changed=body.changed, actor=body.actor)
    # What is asked for says when it is to run, whatever a retry before has made of it.
    return replace(edited, retried=False)


def _after_schedule(job: Job, message: Message) -> Job:
    """Return the job as a schedule has left it that has ended with a message, where nothing else tells of that one."""
    body: Cancelled | Edited = message.body
    if body.spec is None or body.submission <= job.submission_seq:
        return job
    return Job(
        id=job.id,
        spec=body.spec,
        status=job.status,
        submission_seq=body.submission,
        last_seq=job.last_seq,
        updated_at=job.updated_at,
        event_seq=job.event_seq,
        again=job.again or job.finished_at is not None,
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
    body: Cancelled = message.body
    job = _after_schedule(job, message)
    if body.spec is not None:
        # The message that said more is deleted: an earlier release has not kept what it does not know.
        job = replace(job, spec=body.spec)
    return replace(job, finished_at=message.at, next_attempt_at=None, actor=body.actor, cancel_reason=body.reason)


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
    Kind.SCHEDULED: _submitted,
    Kind.WAITING: _submitted,
    Kind.QUEUED: _submitted,
    Kind.EDITED: _edited,
    Kind.STARTED: _started,
    Kind.PROGRESS: _progress,
    Kind.COMPLETED: _completed,
    Kind.FAILED: _failed,
    Kind.DEAD_LETTER: _dead_letter,
    Kind.CANCELLED: _cancelled,
    Kind.RELEASED: _released,
}
