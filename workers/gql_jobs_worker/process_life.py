"""The life of a process that runs handlers: what it does once before the first of them, and once after the last.

A worker's own process runs the functions that ``worker_startup`` and ``worker_shutdown`` have marked on its event loop,
or in a thread if they are plain; a process of CPU-bound handlers (``sandbox.child``) calls them itself. A function that
a module marks later, because it is imported later, runs before the next handler.
"""

import asyncio
import contextvars
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from gql_jobs.jobs.errors import HandlerError
from gql_jobs.jobs.registry import Registry
from gql_jobs.jobs.worker_hooks import WorkerHook, WorkerHooks, WorkerState, worker_hooks
from gql_jobs_worker.execution import awaited, is_coroutine_function, missing_import, must_be_awaited, run_in_thread
from gql_jobs_worker.failures import HookFailed, text_of

log = logging.getLogger(__name__)

SHUTDOWN_WITHIN = 5.0
"""Seconds that the functions of a process that run at its end have together."""


def import_handlers(registry: Registry, queues: tuple[str, ...]) -> None:
    """Import the handlers that will run in this process, so that their modules have marked their functions.

    Those of CPU-bound types are imported in their processes. What cannot be imported is found when a job needs it.

    :param queues: those that are served.
    """
    for job_type in registry:
        if job_type.queue in queues and not job_type.cpu_bound:
            missing_import(job_type.handler)


class ProcessLife:
    """The functions of this process that have run, and what they have made.

    :param timeout: seconds that each function has at the start.
    :param hooks: the functions; by default those of the modules that the process has imported.
    """

    def __init__(self, timeout: float, hooks: WorkerHooks = worker_hooks) -> None:
        self.state: Any = WorkerState()
        self.has_begun = False
        """Whether any function has run."""
        self.startup = hooks.startup
        """The functions of the start; more of them as modules are imported."""
        self.done = 0
        """How many of them have run."""
        self._timeout = timeout
        self._shutdown = hooks.shutdown
        self._starting: asyncio.Task[None] | None = None

    @property
    def is_behind(self) -> bool:
        """Return whether functions were marked that have not run yet."""
        return len(self.startup) > self.done

    @property
    def has_end(self) -> bool:
        """Return whether there are functions to be run at the end."""
        return bool(self._shutdown)

    async def start(self) -> None:
        """Run the functions that have not run yet, in their order; whoever waits for them waits together.

        Once this is cancelled, the one that runs goes on until the event loop ends.

        :raises HookFailed: if one raises or takes too long; it runs again when this is called again.
        """
        while self.is_behind:
            if self._starting is None or self._starting.done():
                # Not in the context of an attempt, whose fields its log lines would have.
                context = contextvars.Context()
                self._starting = asyncio.create_task(self._start_next(), name="worker startup", context=context)
            await asyncio.shield(self._starting)

    async def _start_next(self) -> None:
        hook = self.startup[self.done]
        with self._beginning(hook):
            limit = asyncio.timeout(self._timeout)
            try:
                async with limit:
                    value = await self._value(hook)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise HookFailed(late_hook(hook.name, self._timeout)) from None
            _refuse_value(hook, value)

    async def _value(self, hook: WorkerHook) -> Any:
        if is_coroutine_function(hook.function):
            value = hook.function(self.state)
        else:
            call = partial(hook.function, self.state)
            value = await run_in_thread(call, f"worker hook {hook.name}", is_left=True)
        return await awaited(value) if must_be_awaited(value) else value

    def start_here(self, hooks_began: Callable[[str], None], run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        """Run the functions that have not run yet in this thread, in their order; nothing bounds their time.

        :param hooks_began: called with the name of each before it runs.
        :param run: runs a coroutine to its end.
        :raises HookFailed: if one raises; it is the next one when this is called again.
        """
        while self.is_behind:
            hook = self.startup[self.done]
            hooks_began(hook.name)
            with self._beginning(hook):
                _refuse_value(hook, self._value_here(hook, run))

    def _value_here(self, hook: WorkerHook, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
        value = hook.function(self.state)
        return run(_finished(value)) if must_be_awaited(value) else value

    @contextmanager
    def _beginning(self, hook: WorkerHook) -> Iterator[None]:
        """Count a function as done, or say which one has failed.

        :raises HookFailed: if it raises.
        """
        self.has_begun = True
        try:
            yield
        except HookFailed as failure:
            log.error("%s", failure)  # noqa: TRY400  # it says all
            raise
        except asyncio.CancelledError:
            if (task := _current_task()) is not None and task.cancelling():
                raise
            raise HookFailed(f"{hook.name} (@worker_startup) was cancelled from within.") from None
        except BaseException as error:
            raise HookFailed(_told(hook, error)) from error
        self.done += 1

    async def stop(self) -> None:
        """Run the functions of the end in reverse order; what they raise, and which ran out of time, is logged."""
        left = self._shutdown[::-1]
        try:
            async with asyncio.timeout(SHUTDOWN_WITHIN):
                while left:
                    with _logged(left[0]):
                        await self._value(left[0])
                    del left[0]
        except TimeoutError:
            log.error("the worker ends without %s, for which there is no time left", _names(left))  # noqa: TRY400

    def stop_here(self, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        """Run the functions of the end in this thread, in reverse order; what they raise is logged.

        :param run: runs a coroutine to its end.
        """
        for hook in self._shutdown[::-1]:
            with _logged(hook):
                self._value_here(hook, run)


def late_hook(name: str, seconds: float) -> str:
    """Return the sentence about a function that has not ended within its time."""
    return f"{name} (@worker_startup) took longer than {seconds:g} s (GQL_JOBS_STARTUP_TIMEOUT)."


async def _finished(value: Any) -> Any:
    return await awaited(value)


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _refuse_value(hook: WorkerHook, value: Any) -> None:
    if value is not None:
        raise HookFailed(
            f"{hook.name} (@worker_startup) returned a value of {type(value).__name__}, which nobody keeps: set it as "
            "an attribute of the state that the function is called with."
        )


def _told(hook: WorkerHook, error: BaseException) -> str:
    """Return a sentence about what a function has raised; log what it does not show, under a reference."""
    if isinstance(error, HandlerError):
        return f"{hook.name} (@worker_startup) failed: {text_of(error)}"
    reference = secrets.token_hex(4)
    log.error("%s (@worker_startup) failed: reference %s", hook.name, reference, exc_info=error)
    said = f"{type(error).__name__} was raised; the worker's log says more, under the reference {reference}."
    return f"{hook.name} (@worker_startup) failed: {said}"


@contextmanager
def _logged(hook: WorkerHook) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        # Out of time, if it was not its own doing.
        if (task := _current_task()) is not None and task.cancelling():
            raise
        log.error("%s (@worker_shutdown) was cancelled from within", hook.name)  # noqa: TRY400
    except BaseException:
        log.exception("%s (@worker_shutdown) failed", hook.name)


def _names(hooks: list[WorkerHook]) -> str:
    return ", ".join(hook.name for hook in hooks)
