"""The steps around a handler that are the same wherever it runs: finding it, reading its payload, taking its result."""

import importlib
import logging
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from gql_jobs.jobs.errors import AttemptStoppedError, HandlerError
from gql_jobs.jobs.registry import JobType, canonical_json
from workers.outcome import Failure, Succeeded, failure_of


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
