"""Running one handler: payload in, result out, with a timeout, and stopped when the attempt is told to."""

import asyncio
import importlib
import inspect
import logging
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

from pydantic import ValidationError

from gql_jobs.jobs.errors import AttemptStoppedError, HandlerError
from gql_jobs.jobs.registry import JobType, Registry, canonical_json
from workers.attempt import Attempt, Stop
from workers.context import AttemptContext
from workers.outcome import Failure, Succeeded, failure_of

log = logging.getLogger(__name__)

STOP_GRACE = 5.0
"""Seconds that a handler has to end after it was told to stop."""


@cache
def load_handler(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names.

    :raises ImportError: | AttributeError: if there is none.
    """
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


Outcome = Succeeded | Failure | Stop
_Returned = tuple[Any] | Failure


async def execute(registry: Registry, attempt: Attempt, context: AttemptContext, max_result: int) -> Outcome:
    """Run the attempt's handler; ``max_result`` in bytes of its JSON. Never raises for what a handler does."""
    job_type = registry.get(attempt.spec.type)
    if job_type is None:
        return Failure("UnknownJobType", f"No job type {attempt.spec.type!r} is registered here.", retryable=False)
    try:
        payload = job_type.payload.model_validate_json(bytes(attempt.spec.payload))
    except ValidationError as error:
        return Failure("InvalidPayload", f"The stored payload does not fit its model: {error}", retryable=False)
    try:
        handler = load_handler(job_type.handler)
    except (ImportError, AttributeError) as error:
        # Another worker may have what this one lacks.
        return Failure("HandlerNotFound", f"The handler {job_type.handler} cannot be loaded: {error}")
    outcome = await _supervised(attempt, _call(handler, context, payload))
    if isinstance(outcome, Failure | Stop):
        return outcome
    return _result(job_type, outcome[0], max_result)


async def _call(handler: Callable[..., Any], context: AttemptContext, payload: Any) -> _Returned:
    try:
        if inspect.iscoroutinefunction(handler):
            return (await handler(context, payload),)
        return (await asyncio.to_thread(handler, context, payload),)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return Failure("CancelledError", "The handler was cancelled from within.")
    except (AttemptStoppedError, HandlerError, SystemExit) as error:
        return failure_of(error)
    except Exception as error:
        context.log.exception("attempt %d of job %s failed unexpectedly", context.attempt, context.job_id)
        return failure_of(error)


async def _supervised(attempt: Attempt, running: Coroutine[Any, Any, _Returned]) -> _Returned | Stop:
    """The handler's own outcome, unless the timeout or a stop comes first."""
    task = asyncio.create_task(running, name=f"job {attempt.job_id}")
    either: set[asyncio.Future[Any]] = {task, attempt.stopped}
    timeout = attempt.spec.timeout
    try:
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if attempt.stopped.done():
            return attempt.stopped.result()
        return Failure("Timeout", f"The attempt took longer than {timeout:g} s.")
    finally:
        if not task.done():
            await _end(task, attempt)


async def _end(task: "asyncio.Task[Any]", attempt: Attempt) -> None:
    task.cancel()
    _, unfinished = await asyncio.wait({task}, timeout=STOP_GRACE)
    if unfinished:
        log.warning("the handler of job %s ignores its cancellation and is abandoned", attempt.job_id)
        task.add_done_callback(lambda late: late.cancelled() or late.exception())


def _result(job_type: JobType, value: Any, max_result: int) -> Succeeded | Failure:
    try:
        result = canonical_json(job_type.result.model_validate(value))
    except ValidationError as error:
        message = f"The handler's result does not fit {job_type.result.__name__}: {error}"
        return Failure("InvalidResult", message, retryable=False)
    if len(result) > max_result:
        message = f"The result has {len(result)} bytes; the limit is {max_result}."
        return Failure("ResultTooLarge", message, retryable=False)
    return Succeeded(result)
