"""The steps around a handler that are the same wherever it runs: finding it, reading its payload, taking its result."""

import importlib
import logging
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from gql_jobs.jobs.errors import AttemptStoppedError, HandlerError, PermanentError, TransientError
from gql_jobs.jobs.messages import AttemptBody
from gql_jobs.jobs.model import JobError
from gql_jobs.jobs.registry import JobType, canonical_json
from gql_jobs.log.codec import encode_body

# What handlers hand over, made fit to be stored or refused; the same on the event loop and in a process.

MAX_CHECKPOINT = 256 * 1024
"""Bytes of a checkpoint's JSON."""
MAX_MESSAGE = 1000
"""Characters of a progress message."""


def reported(percent: float, message: str | None) -> tuple[int, str | None]:
    """Progress as it is stored: whole percents from 0 to 100, a message cut to size.

    :raises ValueError: if ``percent`` is no number.
    """
    whole = round(min(max(percent, 0.0), 100.0))
    # Lone surrogates are no UTF-8 and would make this and the job's last event unstorable.
    return whole, None if message is None else message[:MAX_MESSAGE].encode("utf-8", "replace").decode()


def checkpoint_json(data: Any) -> bytes:
    """A checkpoint as it is stored.

    :raises ValueError: if the data is no JSON, or too large.
    """
    try:
        body = msgspec.json.encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The checkpoint is no JSON: {error}") from error
    if len(body) > MAX_CHECKPOINT:
        raise ValueError(f"The checkpoint has {len(body)} bytes; the limit is {MAX_CHECKPOINT}.")
    return body


# What came of an attempt, and how an exception of a handler becomes an error on the job.

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
    room = max_payload - HEADER_BYTES - len(encode_body(body))
    return msgspec.structs.replace(body, errors=fitting(errors, min(room, MAX_ERRORS_BYTES)))


def _cut(text: str, limit: int) -> str:
    # Lone surrogates are no UTF-8 and would make the whole event unstorable. Shortened first: it may be megabytes.
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    while len(msgspec.json.encode(text)) > limit:
        text = text[: max(len(text) * 3 // 4 - 1, 0)] + "…"
    return text


class Invocation(NamedTuple):
    """A handler and the payload it shall be called with."""

    handler: Callable[..., Any]
    payload: Any


def prepare(job_type: JobType, payload: bytes) -> Invocation | Failure:
    """The handler of a type, and a stored payload as its model; whatever goes wrong is a failure of the attempt."""
    try:
        read = job_type.payload.model_validate_json(payload)
    except Exception as error:  # noqa: BLE001  # models may run code of their own
        return Failure("InvalidPayload", f"The stored payload does not fit its model: {error}", retryable=False)
    try:
        return Invocation(load_handler(job_type.handler), read)
    except (Exception, SystemExit) as error:  # noqa: BLE001
        # Whatever a module does when it is imported; another worker may have what this one lacks.
        return Failure("HandlerNotFound", f"The handler {job_type.handler} cannot be loaded: {error}")


def lacking(handler: str) -> str | None:
    """What keeps a handler from being imported here, if another process may have it: a missing library or module.

    None if it can be loaded, or fails in a way of its own, which is a failure of its attempts.
    """
    try:
        load_handler(handler)
    except ImportError as error:
        return str(error)
    except (Exception, SystemExit):  # noqa: BLE001  # whatever a module does when it is imported
        return None
    return None


@cache
def load_handler(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names.

    :raises ImportError: | AttributeError: if there is none.
    """
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def raised(error: BaseException, log: "logging.LoggerAdapter[Any]") -> Failure:
    """What a handler's exception makes of its attempt; one that is not meant for clients is logged as well."""
    if not isinstance(error, HandlerError | AttemptStoppedError | SystemExit):
        log.error("the attempt failed unexpectedly", exc_info=error)
    return failure_of(error)


def result_of(job_type: JobType, value: Any, max_bytes: int) -> Succeeded | Failure:
    """A handler's return value as the JSON of its result model, at most ``max_bytes`` of it."""
    try:
        result = canonical_json(job_type.result.model_validate(value))
    except Exception as error:  # noqa: BLE001  # models may run code of their own, or hold what is no JSON
        message = f"The handler's result does not fit {job_type.result.__name__}: {error}"
        return Failure("InvalidResult", message, retryable=False)
    if len(result) > max_bytes:
        message = f"The result has {len(result)} bytes; the limit is {max_bytes}."
        return Failure("ResultTooLarge", message, retryable=False)
    return Succeeded(result)
