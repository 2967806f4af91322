"""What becomes of a failed attempt: what clients see of an exception, what the log does, and when to try again.

The same in the worker and in a process of ``sandbox``.
"""

import logging
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from math import isnan, nan
from typing import Any

from msgspec import Struct

from gql_jobs.jobs.errors import AttemptStoppedError, HandlerError, PermanentError, TransientError
from gql_jobs.jobs.model import JobError
from gql_jobs.log.codec import MAX_MESSAGE_BYTES, MAX_TYPE_BYTES, cut_text
from gql_jobs.logs import redact_beginning

MAX_RETRY_AFTER = 7 * 86_400.0
"""Seconds that a handler can ask to wait before the next attempt; a point in time instead of a delay is far above."""
_MAX_TEXT = 65_536
"""Characters of an exception's text that are looked at; far fewer are stored."""


class Failure(Struct, frozen=True):
    """The attempt failed. ``type`` names the exception or the reason; ``message`` is for clients.

    ``retryable``: false if no later attempt can succeed; ``retry_after``: seconds that the handler asked to wait.
    """

    type: str
    message: str
    retryable: bool = True
    retry_after: float | None = None


class HookFailed(Exception):
    """A function that ``worker_startup`` has marked has failed; the message is a sentence that names it."""


def failure_of(error: BaseException, handler_log: "logging.LoggerAdapter[Any]") -> Failure:
    """Return the failure of an attempt whose handler raised. It is retryable unless that was a ``PermanentError``.

    Only errors that are raised on purpose show their message: nobody wrote those of others for clients, and they may
    hold anything, such as the URL of a request. They are logged, under a reference that the message names.
    """
    try:
        return _failure_of(error, handler_log)
    except BaseException:  # noqa: BLE001  # an exception's own code may do anything, also end the whole worker
        return Failure("UnknownError", "The exception of the handler cannot be shown: its own code fails.")


def _failure_of(error: BaseException, handler_log: "logging.LoggerAdapter[Any]") -> Failure:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        # A group of tasks wraps what one of them has raised on purpose.
        (error,) = error.exceptions
    name = type(error).__name__[:_MAX_TEXT]
    on_purpose = isinstance(error, HandlerError | AttemptStoppedError)
    return Failure(
        type=name,
        message=text_of(error) or name if on_purpose else log_unexpected(error, handler_log),
        retryable=not isinstance(error, PermanentError),
        retry_after=_asked_delay(error, handler_log) if isinstance(error, TransientError) else None,
    )


def _asked_delay(error: TransientError, handler_log: "logging.LoggerAdapter[Any]") -> float | None:
    """Return the seconds that a handler asked to wait; None if it asked for nothing, or for what is no such time."""
    asked: Any = None
    try:
        asked = getattr(error, "retry_after", None)
        if asked is None:
            return None
        seconds = asked.total_seconds() if isinstance(asked, timedelta) else float(asked)
    except Exception:  # noqa: BLE001  # errors and numbers of users run code of their own
        seconds = nan
    if seconds <= MAX_RETRY_AFTER:
        if seconds >= 0:
            return seconds
        handler_log.warning("retry_after is %s; a negative delay is ignored", shown(asked))
        return None
    if isnan(seconds):
        handler_log.warning("retry_after is %s, which is no number of seconds, and is ignored", shown(asked))
        return None
    handler_log.warning("retry_after is %s s; it is cut to %g s, the longest delay", shown(asked), MAX_RETRY_AFTER)
    return MAX_RETRY_AFTER


def shown(value: Any, hide: Callable[[str], str] | None = None) -> str:
    """Return what a user's value looks like, for a sentence of the log: its ``repr``, or its type if that fails.

    :param hide: takes the secrets from a text; None for ``redact``.
    """
    try:
        return redact_beginning(repr(value), 100, hide)
    except Exception:  # noqa: BLE001  # a value's own code may fail as well
        return f"a {type(value).__name__}"


def log_unexpected(error: BaseException, handler_log: "logging.LoggerAdapter[Any]") -> str:
    """Log an exception with its traceback under a new reference; return a sentence that names its type and that."""
    reference = secrets.token_hex(4)
    fields = {"reference": reference}
    handler_log.error("the attempt failed unexpectedly: reference %s", reference, exc_info=error, extra=fields)
    name = redact_beginning(type(error).__name__, 100)
    return f"{name} was raised; the worker's log says more, under the reference {reference}."


def text_of(error: BaseException) -> str:
    """Return the beginning of an exception's text; nothing if it has none that can be had."""
    try:
        return str(error)[:_MAX_TEXT]
    except BaseException:  # noqa: BLE001  # an exception's own code may fail as well
        return ""


def job_error(failure: Failure, attempt: int, at: datetime) -> JobError:
    """Return the error as it is stored: without secrets, its message cut to size."""
    return JobError(
        message=cut_text(redact_beginning(failure.message, MAX_MESSAGE_BYTES + 1), MAX_MESSAGE_BYTES),
        type=cut_text(redact_beginning(failure.type, MAX_TYPE_BYTES + 1), MAX_TYPE_BYTES),
        attempt=attempt,
        at=at,
        retryable=failure.retryable,
    )
