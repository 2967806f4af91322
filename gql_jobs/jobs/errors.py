"""Every failure the API names on purpose, and those a handler raises to decide what happens next.

    GqlJobsError                 .code, .extensions
    ├── InvalidPayload           INVALID_PAYLOAD        fields: [{path, message}]
    ├── PayloadTooLarge          PAYLOAD_TOO_LARGE      sizeBytes, limitBytes
    ├── InvalidArgument          INVALID_ARGUMENT       argument
    ├── InvalidState             INVALID_STATE          status
    ├── NotFound                 NOT_FOUND              jobId
    ├── IdempotencyConflict      IDEMPOTENCY_CONFLICT   existingJobId
    ├── KeyTaken                 KEY_TAKEN              jobId
    ├── QueueFull                QUEUE_FULL
    ├── QueueUnavailable         QUEUE_UNAVAILABLE      jobId, when the outcome of a write is unknown
    ├── Unauthenticated          UNAUTHENTICATED
    ├── Forbidden                FORBIDDEN
    ├── RateLimited              RATE_LIMITED           retryAfter
    ├── BadRequest               BAD_REQUEST
    └── Unrepresentable          UNREPRESENTABLE

    HandlerError                 raised by handlers
    ├── TransientError           the attempt failed, the next one may not: retried with backoff
    ├── PermanentError           no attempt can succeed: dead-lettered at once
    └── RefusedValue             raised by the context: a value that cannot be kept; counts as transient

    AttemptStoppedError          raised into a handler's thread whose attempt has been stopped

Any other exception of a handler counts as transient.
"""

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar


class ErrorCode(StrEnum):
    """The stable codes clients find in ``extensions.code``."""

    INVALID_PAYLOAD = "INVALID_PAYLOAD"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INVALID_STATE = "INVALID_STATE"
    NOT_FOUND = "NOT_FOUND"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    KEY_TAKEN = "KEY_TAKEN"
    QUEUE_FULL = "QUEUE_FULL"
    QUEUE_UNAVAILABLE = "QUEUE_UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    TOO_COMPLEX = "TOO_COMPLEX"
    TIMEOUT = "TIMEOUT"
    UNREPRESENTABLE = "UNREPRESENTABLE"
    BAD_REQUEST = "BAD_REQUEST"
    INTERNAL = "INTERNAL"


MAX_FAULTS = 50
"""Faults that one refusal tells of, at most."""
MAX_QUOTED = 100
"""Characters of a value or a path that a refusal shows, at most."""
_MAX_NAMES = 10
"""Names of queues that a refusal tells of, at most."""
_MAX_NAMES_LENGTH = 200
"""Characters of all these names, at most; they are ASCII, and have up to 63 each."""
_MAX_SENTENCE = 300
"""Characters of the message about one field, at most."""


def shortened(text: str, most: int = MAX_QUOTED) -> str:
    """Return the text, cut to ``most`` characters with ``…`` at its end if it is longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def no_such_job(named: str) -> str:
    """Return the sentence that no job has this id."""
    return f"There is no job {shortened(named)!r}."


def no_such_queue(named: str, known: Iterable[str]) -> str:
    """Return the sentence that no queue has this name, and which there are.

    :param known: the names of queues that whoever asks may see; the first of them are told, in their order.
    """
    names = list(known)
    told: list[str] = []
    for name in names[:_MAX_NAMES]:
        if sum(map(len, told)) + len(name) > _MAX_NAMES_LENGTH:
            break
        told.append(name)
    if not told:
        return f"There is no queue {shortened(named)!r}."
    more = f", and {len(names) - len(told)} more" if len(told) < len(names) else ""
    return f"There is no queue {shortened(named)!r}; known are: {', '.join(told)}{more}."


class GqlJobsError(Exception):
    """A failure that clients see: a sentence for people and ``code`` for programs; ``extensions`` holds the details."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __init__(self, message: str, **extensions: Any) -> None:
        super().__init__(message)
        self.message = message
        # Clients are shown this as it is.
        self.extensions: dict[str, Any] = {
            "code": self.code.value,
            **{key: value for key, value in extensions.items() if value is not None},
        }


class InvalidPayload(GqlJobsError):
    """The payload does not fit its model. ``fields`` is a list of ``{"path", "message"}``, of which 50 are shown."""

    code = ErrorCode.INVALID_PAYLOAD

    def __init__(self, fields: list[dict[str, str]]) -> None:
        fields = [
            {"path": shortened(field["path"]), "message": shortened(field["message"], _MAX_SENTENCE)}
            for field in fields[:MAX_FAULTS]
        ]
        listed = "; ".join(f"{f['path']}: {f['message']}" for f in fields[:3])
        more = f" (and {len(fields) - 3} more)" if len(fields) > 3 else ""  # noqa: PLR2004
        super().__init__(f"The payload is not valid. {listed}{more}", fields=fields)


class PayloadTooLarge(GqlJobsError):
    """A payload or a request body exceeds its limit. Sizes are in bytes: of the stored JSON, or of the HTTP body."""

    code = ErrorCode.PAYLOAD_TOO_LARGE

    def __init__(self, what: str, size_bytes: int | None, limit_bytes: int) -> None:
        size = f"has {size_bytes} bytes" if size_bytes is not None else "is larger"
        message = f"{what} {size}; the limit is {limit_bytes} bytes."
        super().__init__(message, sizeBytes=size_bytes, limitBytes=limit_bytes)


class InvalidArgument(GqlJobsError):
    """An argument is out of range or unreadable."""

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(self, argument: str, message: str, **extensions: Any) -> None:
        super().__init__(message, argument=argument, **extensions)


class InvalidState(GqlJobsError):
    """The job's status does not allow the command."""

    code = ErrorCode.INVALID_STATE

    def __init__(self, job_id: str, status: str, move: str, advice: str = "") -> None:
        """:param advice: a sentence about what to do instead."""
        message = f"Job {job_id} is {status} and cannot be {move}. {advice}".rstrip()
        super().__init__(message, jobId=job_id, status=status)


class NotFound(GqlJobsError):
    """No job has this id."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(no_such_job(job_id), jobId=shortened(job_id))


class UnknownRun(GqlJobsError):
    """No run of a bulk action has this id, or it is somebody else's: which of these is not said."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, run_id: str) -> None:
        shown = shortened(run_id)
        super().__init__(f"There is no run {shown!r}; a run is known for a day, to whoever began it.", runId=shown)


class IdempotencyConflict(GqlJobsError):
    """The key is taken by a job with another payload or of somebody else, or stands for two payloads in one batch."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT

    def __init__(self, key: str, existing_job_id: str | None, *, is_hidden: bool = False) -> None:
        """Describe the conflict.

        :param existing_job_id: None if there is no such job: the key repeats within a batch.
        :param is_hidden: whether there is one that is not there for whoever asks; its id is not told then.
        """
        taken = f"belongs to job {existing_job_id}, which has another payload"
        if is_hidden:
            existing_job_id, taken = None, "is taken by a job that this key or token cannot see"
        elif existing_job_id is None:
            taken = "comes twice in this batch, with different payloads; nothing was stored"
        super().__init__(f"The idempotency key {shortened(key)!r} {taken}.", existingJobId=existing_job_id)


class KeyTaken(GqlJobsError):
    """The key belongs to a job that has not ended. ``job_id``: None if that is not there for whoever asks."""

    code = ErrorCode.KEY_TAKEN

    def __init__(self, key: str, job_id: str | None, why: str = "which has not ended") -> None:
        """Describe the refusal.

        :param why: what else there is to say of the job.
        """
        taken = f"job {job_id}, {why}" if job_id is not None else "a job that this key or token cannot see"
        super().__init__(f"The key {shortened(key)!r} belongs to {taken}.", jobId=job_id)


class QueueFull(GqlJobsError):
    """The store has no room; a creation is refused with it already at the share ``queue_full_ratio``."""

    code = ErrorCode.QUEUE_FULL

    def __init__(self, why: str) -> None:
        super().__init__(f"The queue is full. {why} Try again when jobs have expired.")


class QueueUnavailable(GqlJobsError):
    """NATS did not answer in time. If ``job_id`` is given, a write for that job may or may not have been stored."""

    code = ErrorCode.QUEUE_UNAVAILABLE

    def __init__(self, message: str, job_id: str | None = None) -> None:
        super().__init__(message, jobId=job_id)


class Unauthenticated(GqlJobsError):
    """Nobody says who asks, or the key or token is not valid (any more). The message does not say which of these."""

    code = ErrorCode.UNAUTHENTICATED

    def __init__(self, message: str = "This needs a valid key or token.") -> None:
        super().__init__(message)


class Forbidden(GqlJobsError):
    """The viewer is known and may not do this."""

    code = ErrorCode.FORBIDDEN


class RateLimited(GqlJobsError):
    """Somebody asks too often. ``retry_after``: whole seconds after which it may be tried again."""

    code = ErrorCode.RATE_LIMITED

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, retryAfter=retry_after)
        self.retry_after = retry_after


class BadRequest(GqlJobsError):
    """What was asked for makes no sense over this transport."""

    code = ErrorCode.BAD_REQUEST


class Unrepresentable(GqlJobsError):
    """A number of a payload or a result is beyond what GraphQL's Int or Float can hold."""

    code = ErrorCode.UNREPRESENTABLE

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The value of {name} is beyond this type of GraphQL; rawPayload or rawResult has it."
            " A whole number of up to 64 bits is shown where the field is a gql_jobs.BigInt."
        )


class HandlerError(Exception):
    """Raised by handlers; the message is shown to clients as ``JobError.message``, which no other exception's is."""


class TransientError(HandlerError):
    """This attempt failed, the next may succeed.

    ``retry_after``: seconds to wait before the next attempt, or a ``timedelta``, where the outside system named them.
    At most seven days are waited. What is no such time is ignored and logged: the error itself is what counts.
    """

    def __init__(self, message: str, *, retry_after: float | timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(HandlerError):
    """No attempt can succeed: the job is dead-lettered at once."""


class RefusedValue(HandlerError, ValueError):
    """What a handler has given to its context cannot be kept: a checkpoint that is no JSON, or a file too large."""


class AttemptStoppedError(Exception):
    """The attempt was cancelled, timed out or superseded: a handler in a thread should end."""
