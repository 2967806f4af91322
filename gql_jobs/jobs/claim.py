"""What a worker does with a delivery: decided on the job's last event, as the stream's leader has it.

Pure functions, tested with crashes, superseded workers, lost acknowledgements, cancels, retries and schedules.
"""

from datetime import datetime, timedelta

from msgspec import Struct

from gql_jobs.jobs.messages import AttemptBody, Failed, Kind, Message, Submission
from gql_jobs.jobs.model import JobError

TERMINAL = frozenset({Kind.COMPLETED, Kind.DEAD_LETTER, Kind.CANCELLED, Kind.EXPIRED})
"""Events after which an attempt cannot start, unless the job is submitted again."""
_VOIDING = TERMINAL | {Kind.EDITED}
"""Events after which the submissions before them do not start any more."""
_TOLERANCE = timedelta(milliseconds=20)
"""A retry that is due within that time may start: clocks of a worker and the server differ."""


class Start(Struct, frozen=True):
    """Publish ``started`` for ``attempt``, expecting ``event_seq`` as the job's last event.

    ``errors``, ``progress`` and ``message`` are carried over from the last event. If the job is taken over from a lost
    worker, ``lost_worker`` is its id and ``supersedes`` its attempt.
    """

    attempt: int
    event_seq: int
    errors: tuple[JobError, ...] = ()
    progress: int = 0
    message: str | None = None
    supersedes: int | None = None
    lost_worker: str | None = None


class Exhausted(Struct, frozen=True):
    """The worker of the last attempt was lost: publish ``dead_letter``, expecting ``event_seq`` as the last event."""

    attempt: int
    event_seq: int
    errors: tuple[JobError, ...]
    progress: int = 0
    message: str | None = None
    lost_worker: str | None = None


class Wait(Struct, frozen=True):
    """The retry is not due for ``delay`` seconds: nak with that delay."""

    delay: float


class Drop(Struct, frozen=True):
    """The submission needs no further attempt: ack it."""


class Leave(Struct, frozen=True):
    """Another worker has the job: neither ack nor nak, because either would end that one's lease."""


Decision = Start | Exhausted | Wait | Drop | Leave


def first_start(submission: Submission) -> Start:
    """Return the start for the first delivery of a submission, for which nothing has to be read."""
    if (continued := submission.continues) is None:
        return Start(attempt=1, event_seq=submission.event_seq)
    # The gate has let the job go again, after an attempt that failed.
    facts = continued.errors, continued.progress, continued.message
    return Start(continued.attempt + 1, submission.event_seq, *facts)


def decide(  # noqa: PLR0911 - a table of its rules, a line each
    submission: Submission, submission_seq: int, last: Message | None, *, redelivered: bool, now: datetime
) -> Decision:
    """Return what to do with a delivery.

    :param submission_seq: the sequence of the delivered message.
    :param last: the job's last event as the stream's leader has it, or None.
    :param redelivered: whether the submission has been delivered before.
    :param now: the time; that of the server if the last event is a failure, because a retry is due by its clock.
    """
    if last is None:
        return Start(attempt=1, event_seq=0)
    if last.seq == submission.event_seq:
        return first_start(submission)
    body = last.body
    if last.kind in _VOIDING or body.submission != submission_seq:
        return Drop()
    if last.kind is Kind.FAILED and submission.spec.gate is not None:
        # A job that passes the gate has given its place up: it takes another release to go on.
        return Drop()
    if last.kind is Kind.STARTED:
        return _take_over(submission, last, now) if redelivered else Leave()
    assert isinstance(body, AttemptBody)
    attempt = body.attempt
    if isinstance(body, Failed):
        attempt += 1
        if (early := _due(last, body) - now) > _TOLERANCE:
            return Wait(early.total_seconds())
    return Start(attempt, last.seq, body.errors, body.progress, body.message)


def _due(last: Message, failed: Failed) -> datetime:
    return due_again(last.at, failed.next_attempt_at, failed.errors)


def due_again(stored_at: datetime, next_attempt_at: datetime, errors: tuple[JobError, ...]) -> datetime:
    """Return when the retry after a failure is due, by the clock of the server.

    :param stored_at: when the server stored the failure.
    :param next_attempt_at: when the worker says that it is due.
    :param errors: the failures so far.
    """
    if not errors:
        return next_attempt_at
    # Both by the clock of the worker, which may have been wrong: the time between them is right.
    return min(next_attempt_at, stored_at + (next_attempt_at - errors[-1].at))


MISSED = "It became due during an outage, and it is too late for it now."
"""Why a tick of a schedule is cancelled that came later than it may be made up for."""


def too_late(start_before: datetime) -> str:
    """Return why a job was cancelled whose first attempt had not started by then, in a sentence."""
    return f"It had not started by {start_before:%Y-%m-%d %H:%M:%S} UTC."


def startable_since(stored_at: datetime, last: Message | None) -> datetime:
    """Return since when a job that could start now could have started: since it was stored, or since its last event.

    :param stored_at: when the submission was stored.
    :param last: the job's last event, or None.
    """
    if last is None:
        return stored_at
    return max(stored_at, _due(last, last.body) if isinstance(last.body, Failed) else last.at)


def _take_over(submission: Submission, last: Message, now: datetime) -> Start | Exhausted:
    """Return what follows an attempt whose lease has run out: its worker is lost, and the attempt counts as failed."""
    body = last.body
    final = body.attempt > submission.spec.max_retries
    lost = JobError(
        message=f"The worker {body.worker_id} was lost during attempt {body.attempt}.",
        type="WorkerLost",
        attempt=body.attempt,
        at=now,
        retryable=not final,
    )
    errors = (*body.errors, lost)
    if final:
        return Exhausted(body.attempt, last.seq, errors, body.progress, body.message, body.worker_id)
    return Start(body.attempt + 1, last.seq, errors, body.progress, body.message, body.attempt, body.worker_id)
