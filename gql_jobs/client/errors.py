"""What goes wrong for a client: one class for each code of ``ErrorCode`` in the schema, and what has none.

    ClientError                      .code, .field, .extensions
    ├── InvalidPayload … ServerStopping      the API has refused, under a code of its own
    ├── Unreachable                  nothing answers at the address, or nothing that speaks this API
    ├── PartlyCreated                some of many were stored
    ├── JobFailed, JobCancelled      instead of a result
    ├── ResultTimeout                no result in time; also a TimeoutError
    ├── UnreadableResult             the result does not fit the model that it is read by
    └── DamagedArtifact              the bytes of a file are not those that were saved

A refusal under a code that this release does not know is a plain ``ClientError`` with that ``code``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gql_jobs.client.transport import CreatedJob, JobSnapshot
from gql_jobs.jobs.model import JobError


class ClientError(Exception):
    """Something a client asked for did not come about; the message is a sentence.

    ``code``: the stable code of the refusal, None for what the API did not say. ``field``: the argument or the field of
    the payload at fault, as ``payload.to``; None where it is about none. ``extensions``: all details as the API has
    them.
    """

    _CODE: ClassVar[str | None] = None
    _CLASSES: ClassVar[dict[str, "type[ClientError]"]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls._CODE is not None:
            cls._CLASSES.setdefault(cls._CODE, cls)

    def __init__(self, message: str, extensions: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.extensions: dict[str, Any] = dict(extensions or {})
        self.code: str | None = self.extensions.get("code", self._CODE)

    @property
    def field(self) -> str | None:
        """The argument or the field at fault; the first one, if there are several."""
        return next((fault["path"] for fault in self.fields), None) or self.extensions.get("argument")

    @property
    def fields(self) -> list[dict[str, str]]:
        """The ``path`` and the ``message`` of each field at fault; empty if it is about none."""
        return list(self.extensions.get("fields") or ())

    @property
    def retry_after(self) -> float:
        """Seconds after which it may be tried again, as the API says; 0 where it does not."""
        named = self.extensions.get("retryAfter")
        return float(named) if isinstance(named, int | float) else 0.0


def refusal(message: str, extensions: Mapping[str, Any]) -> ClientError:
    """Return the error of a refusal, of the class that its code has."""
    return ClientError._CLASSES.get(str(extensions.get("code")), ClientError)(message, extensions)  # noqa: SLF001


# One for each code of the API; what each means is said in the schema too.


class InvalidPayload(ClientError):
    """The payload does not fit its job type: ``fields`` has path and message of each fault. Nothing was stored."""

    _CODE = "INVALID_PAYLOAD"


class PayloadTooLarge(ClientError):
    """The payload or the request is too large: ``extensions`` has ``sizeBytes`` and ``limitBytes``."""

    _CODE = "PAYLOAD_TOO_LARGE"


class InvalidArgument(ClientError):
    """An option is out of range or unreadable; ``field`` names it."""

    _CODE = "INVALID_ARGUMENT"


class InvalidState(ClientError):
    """The job's state, ``extensions["status"]``, does not allow the move."""

    _CODE = "INVALID_STATE"


class NotFound(ClientError):
    """There is no such job, or it has expired, or it is not there for whoever asks."""

    _CODE = "NOT_FOUND"


class IdempotencyConflict(ClientError):
    """The key belongs to a job with another payload, ``extensions["existingJobId"]``."""

    _CODE = "IDEMPOTENCY_CONFLICT"


class KeyTaken(ClientError):
    """Another job that has not ended has the key: ``extensions["jobId"]``, if whoever asks may see it."""

    _CODE = "KEY_TAKEN"


class QueueFull(ClientError):
    """The store is nearly full; new jobs are refused until old ones have expired."""

    _CODE = "QUEUE_FULL"


class QueueUnavailable(ClientError):
    """The store of the jobs does not answer. With ``extensions["jobId"]`` it is not known whether that was stored."""

    _CODE = "QUEUE_UNAVAILABLE"


class Unauthenticated(ClientError):
    """There is no key or token, or it is not valid (any more)."""

    _CODE = "UNAUTHENTICATED"


class Forbidden(ClientError):
    """The key or token does not allow this."""

    _CODE = "FORBIDDEN"


class RateLimited(ClientError):
    """Too many requests; ``retry_after`` says in how many seconds it may be tried again."""

    _CODE = "RATE_LIMITED"


class TooComplex(ClientError):
    """It asks for too much at once."""

    _CODE = "TOO_COMPLEX"


class TimedOut(ClientError):
    """The server gave the operation up, because it took too long."""

    _CODE = "TIMEOUT"


class Unrepresentable(ClientError):
    """A number is beyond what GraphQL can hold."""

    _CODE = "UNREPRESENTABLE"


class BadRequest(ClientError):
    """The server cannot make sense of the request."""

    _CODE = "BAD_REQUEST"


class InternalError(ClientError):
    """Something unexpected went wrong in the server, whose log has the details."""

    _CODE = "INTERNAL"


class ParseFailed(ClientError):
    """The document of a request is no GraphQL."""

    _CODE = "GRAPHQL_PARSE_FAILED"


class ValidationFailed(ClientError):
    """The server's schema lacks what was asked for: it is older than this client."""

    _CODE = "GRAPHQL_VALIDATION_FAILED"


class UnknownDocument(ClientError):
    """The server has no document of that digest."""

    _CODE = "PERSISTED_QUERY_NOT_FOUND"


class ServerStopping(ClientError):
    """The process that served a subscription stops."""

    _CODE = "SERVER_STOPPING"


# What has no code.


class Unreachable(ClientError):
    """Nothing answers at the address, or nothing that speaks this API.

    ``uncertain``: whether what was asked for may have been done all the same. ``lasting``: whether it is of no use to
    try again, because something else answers.
    """

    def __init__(self, message: str, *, uncertain: bool = False, lasting: bool = False) -> None:
        super().__init__(message)
        self.uncertain = uncertain
        self.lasting = lasting


def leaves_doubt(error: ClientError) -> bool:
    """Return whether what was not answered, or was refused, may have been done all the same."""
    if isinstance(error, Unreachable):
        return error.uncertain
    return error.code == "TIMEOUT" or "jobId" in error.extensions or "uncertainIds" in error.extensions


class PartlyCreated(ClientError):
    """Some of many jobs were stored, and others were not.

    ``created``: for each creation, in order, its job; None where there is none, or where that is not known.
    ``uncertain``: the places, from 0, of those of which it is not known. The cause is the error of the first that was
    not stored. Repeated with the keys that they had, what was stored makes no second job.
    """

    def __init__(self, message: str, created: Sequence[CreatedJob | None], uncertain: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.created = list(created)
        self.uncertain = list(uncertain)


class JobFailed(ClientError):
    """The job failed for good, or its result cannot be had: ``job`` is the dead letter.

    ``error``: what went wrong last; ``attempts``: what went wrong in each attempt since the creation or the last retry
    by hand, oldest first.
    """

    def __init__(self, job: JobSnapshot) -> None:
        error = job.error
        said = f"{error.type}: {error.message}" if error is not None else "nothing is known of why"
        super().__init__(f"The job {job.id} failed in attempt {job.attempts}: {said}")
        self.job = job
        self.error: JobError | None = error
        self.attempts: list[JobError] = list(job.errors)


class JobCancelled(ClientError):
    """The job was cancelled before it had a result: ``job``."""

    def __init__(self, job: JobSnapshot) -> None:
        why = f": {job.cancel_reason}" if job.cancel_reason is not None else "."
        super().__init__(f"The job {job.id} was cancelled{why}")
        self.job = job


class ResultTimeout(ClientError, TimeoutError):
    """The job has not ended within the time that was given; it goes on."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"The job {job_id} has not ended within {seconds:g} s.")
        self.job_id = job_id


class UnreadableResult(ClientError):
    """The stored result does not fit the model that it is read by: ``fields`` says where, ``result`` is its JSON."""

    def __init__(self, job_id: str, result: bytes, fields: list[dict[str, str]]) -> None:
        said = "; ".join(f"{one['path']}: {one['message']}" if one["path"] else one["message"] for one in fields[:3])
        super().__init__(f"The result of the job {job_id} does not fit its model: {said}", {"fields": fields})
        self.result = result


class DamagedArtifact(ClientError):
    """What was received of a file is not what was saved."""
