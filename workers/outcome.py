"""What came of an attempt, and how an exception of a handler becomes an error on the job."""

from datetime import datetime

import msgspec
from msgspec import Struct

from gql_jobs.jobs.errors import PermanentError, TransientError
from gql_jobs.jobs.model import JobError

MAX_MESSAGE_BYTES = 4000
"""Bytes of one error's message, as JSON."""
MAX_TYPE_BYTES = 200
"""Bytes of one error's type, as JSON."""
MAX_ERRORS_BYTES = 96 * 1024
"""Bytes of all errors of a submission, as JSON: within the room that every payload leaves."""


class Succeeded(Struct, frozen=True):
    """``result`` is the JSON of the result model."""

    result: bytes


class Failure(Struct, frozen=True):
    """``retryable`` is false for what no attempt can mend; ``retry_after`` in seconds, where it is known."""

    type: str
    message: str
    retryable: bool = True
    retry_after: float | None = None


def failure_of(error: BaseException) -> Failure:
    """Permanent if the handler says so; everything else may succeed the next time."""
    return Failure(
        type=type(error).__name__,
        message=_words(error) or type(error).__name__,
        retryable=not isinstance(error, PermanentError),
        retry_after=error.retry_after if isinstance(error, TransientError) else None,
    )


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # an exception's own code may fail as well
        return ""


def job_error(failure: Failure, attempt: int, at: datetime) -> JobError:
    """The error as it is stored, its message cut to size."""
    return JobError(
        message=_cut(failure.message, MAX_MESSAGE_BYTES),
        type=_cut(failure.type, MAX_TYPE_BYTES),
        attempt=attempt,
        at=at,
        retryable=failure.retryable,
    )


def fitting(errors: tuple[JobError, ...]) -> tuple[JobError, ...]:
    """All errors, the messages of older ones cut shorter until they fit together."""
    limit = MAX_MESSAGE_BYTES
    while len(msgspec.json.encode(errors)) > MAX_ERRORS_BYTES:
        limit //= 2
        errors = (*(msgspec.structs.replace(e, message=_cut(e.message, limit)) for e in errors[:-1]), errors[-1])
    return errors


def _cut(text: str, limit: int) -> str:
    # Lone surrogates are no UTF-8 and would make the whole event unstorable. Shortened first: it may be megabytes.
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    while len(msgspec.json.encode(text)) > limit:
        text = text[: max(len(text) * 3 // 4 - 1, 0)] + "…"
    return text
