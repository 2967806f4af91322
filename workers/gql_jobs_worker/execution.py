"""Running one handler: payload in, result out, with a timeout, and stopped when the attempt is told to."""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from gql_jobs.jobs.messages import Receipt
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs_worker.attempt import Attempt, Stop
from gql_jobs_worker.context import AttemptContext
from gql_jobs_worker.invocation import Failure, Invocation, Succeeded, prepare, raised, result_of
from gql_jobs_worker.sandbox.processes import CpuProcesses

log = logging.getLogger(__name__)

HANDLER = "job "
"""What the names of handlers' tasks and threads begin with."""
STOP_GRACE = 5.0
"""Seconds that a handler has to end after it was told to stop."""


Outcome = Succeeded | Failure | Stop


class Execution:
    """Runs handlers: CPU-bound ones in processes, others on the event loop or in a thread."""

    def __init__(self, registry: Registry, processes: CpuProcesses) -> None:
        self._registry = registry
        self._processes = processes

    async def run(self, attempt: Attempt, context: AttemptContext, max_result: int) -> Outcome:
        """Run the attempt's handler; ``max_result`` in bytes of its JSON. Never raises for what a handler does."""
        job_type = self._registry.get(attempt.spec.type)
        if job_type is None:
            return Failure("UnknownJobType", f"No job type {attempt.spec.type!r} is registered here.", retryable=False)
        payload = bytes(attempt.spec.payload)
        if job_type.cpu_bound:
            running = self._processes.run(job_type, payload, context, max_result)
            return await _supervised(attempt, context, running, stopped=Receipt.KILLED)
        invocation = prepare(job_type, payload)
        if isinstance(invocation, Failure):
            return invocation
        running = _here(invocation, job_type, context, max_result)
        return await _supervised(attempt, context, running, stopped=Receipt.STOPPED)


async def _here(
    invocation: Invocation, job_type: JobType, context: AttemptContext, max_result: int
) -> Succeeded | Failure:
    handler, payload = invocation
    try:
        if inspect.iscoroutinefunction(handler):
            value = await handler(context, payload)
        else:
            value = await _in_thread(handler, context, payload)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return Failure("CancelledError", "The handler was cancelled from within.")
    except BaseException as error:  # noqa: BLE001  # KeyboardInterrupt and its like would end the whole worker
        return raised(error, context.log)
    return result_of(job_type, value, max_result)


async def _in_thread(handler: Callable[..., Any], context: AttemptContext, payload: Any) -> Any:
    """Run a plain handler in a thread of its own.

    Not in asyncio's pool of few threads: one that never ends would be missing from it, and would keep the process.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    outcome: list[Callable[[], Any]] = []

    def run() -> None:
        try:
            value = handler(context, payload)
            outcome.append(lambda: value)
        except BaseException as error:  # noqa: BLE001  # no future can carry a StopIteration
            outcome.append(partial(_raise, error))
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    name = f"{HANDLER}{context.job_id}"
    threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True).start()
    try:
        await ended.wait()
    except asyncio.CancelledError:
        # The thread hears of it at its next report, if it makes one.
        await ended.wait()
        raise
    return outcome[0]()


def _raise(error: BaseException) -> None:
    raise RuntimeError("The handler raised StopIteration.") if isinstance(error, StopIteration) else error


async def _supervised(
    attempt: Attempt, context: AttemptContext, running: Coroutine[Any, Any, Succeeded | Failure], *, stopped: Receipt
) -> Outcome:
    """The handler's own outcome, unless the timeout or a stop comes first; ``stopped``: how it ends then."""
    task = asyncio.create_task(running, name=f"{HANDLER}{attempt.job_id}")
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
            context.stopping()
            attempt.ending = stopped if await _ends(task) else Receipt.IGNORED
            if attempt.ending is Receipt.IGNORED:
                log.warning("the handler of job %s ignores its cancellation and is abandoned", attempt.job_id)


async def _ends(task: "asyncio.Task[Any]") -> bool:
    """Whether the handler ends within the grace period, now that it is told to."""
    task.cancel()
    _, unfinished = await asyncio.wait({task}, timeout=STOP_GRACE)
    if unfinished:
        # Once more, for what only waits for a thread.
        task.cancel()
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
    return not unfinished
