"""What came of an attempt, and how an exception of a handler becomes an error on the job."""

from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import Struct

from gql_jobs.jobs.errors import PermanentError, TransientError
from gql_jobs.jobs.messages import AttemptBody
from gql_jobs.jobs.model import JobError
from gql_jobs.log.codec import encode

B = TypeVar("B", bound=AttemptBody)

MAX_MESSAGE_BYTES = 4000
"""Bytes of one error's message, as JSON."""
MAX_TYPE_BYTES = 200
"""Bytes of one error's type, as JSON."""
MAX_ERRORS_BYTES = 96 * 1024
"""Bytes of all errors of a submission, as JSON, where the message leaves room for so many."""
HEADER_BYTES = 1024
"""Bytes that the headers of an event never exceed."""
_SHORTEST = 60
"""Bytes of an error's message below which it says nothing any more."""


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


def fitting(errors: tuple[JobError, ...], room: int = MAX_ERRORS_BYTES) -> tuple[JobError, ...]:
    """The errors in ``room`` bytes of JSON: messages of older ones are cut shorter, then the oldest left out."""
    limit = MAX_MESSAGE_BYTES
    while len(msgspec.json.encode(errors)) > room and len(errors) > 1:
        limit //= 2
        if limit < _SHORTEST:
            errors = errors[1:]
        else:
            errors = (*(msgspec.structs.replace(e, message=_cut(e.message, limit)) for e in errors[:-1]), errors[-1])
    return errors


def with_errors(body: B, errors: tuple[JobError, ...], max_payload: int) -> B:
    """The event with as much of the errors as a message of ``max_payload`` bytes holds beside the rest of it."""
    room = max_payload - HEADER_BYTES - len(encode(body))
    return msgspec.structs.replace(body, errors=fitting(errors, min(room, MAX_ERRORS_BYTES)))


def _cut(text: str, limit: int) -> str:
    # Lone surrogates are no UTF-8 and would make the whole event unstorable. Shortened first: it may be megabytes.
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    while len(msgspec.json.encode(text)) > limit:
        text = text[: max(len(text) * 3 // 4 - 1, 0)] + "…"
    return text
