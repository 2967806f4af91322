"""What API and worker processes need of a Django project: ``--import gql_jobs.django.project`` loads it.

The project is the one that ``DJANGO_SETTINGS_MODULE`` names. A job type is registered for each queue of those backends
of ``TASKS`` that are of gql-jobs; a worker runs their jobs here. Only what ``@task`` has made is run: whoever may
create jobs cannot call any other function of the project.
"""

import inspect
from asyncio import CancelledError
from collections.abc import Coroutine
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections, connections
from django.urls import set_script_prefix
from django.utils import timezone

from gql_jobs.django.queues import TaskCall, TaskReturn
from gql_jobs.django.results import (
    UNKNOWN_WORKER,
    KeptError,
    Task,
    TaskContext,
    TaskResult,
    TaskResultStatus,
    error_file,
    normalize_json,
    task_backends,
    task_finished,
    task_of,
    task_started,
)
from gql_jobs.jobs.errors import AttemptStoppedError, HandlerError, PermanentError, TransientError
from gql_jobs.jobs.handler import JobContext

_FROM_OUTSIDE = (AttemptStoppedError, CancelledError, KeyboardInterrupt)
"""What ends an attempt without a word of its task: the worker knows why."""


def _load() -> None:
    """Load the project, and have each of its backends register its queues.

    :raises ValueError: if there is none, its settings are not valid, or no backend is of gql-jobs.
    """
    try:
        if not apps.ready:
            # As django.setup() does, but for the setting LOGGING: the log of this process is not the project's.
            set_script_prefix(settings.FORCE_SCRIPT_NAME or "/")
            apps.populate(settings.INSTALLED_APPS)
        backends = task_backends.all()
    except ImproperlyConfigured as error:
        raise ValueError(f"The Django project cannot be loaded: {error}") from error
    if not any(hasattr(backend, "job_types") for backend in backends):
        raise ValueError("No backend in the setting TASKS is gql_jobs.django.backend.JobsBackend.")


_load()


def run_task(context: JobContext, call: TaskCall) -> TaskReturn | Coroutine[Any, Any, TaskReturn]:
    """Run a task: a plain function in this thread, a coroutine function on the event loop that awaits what is returned.

    :raises TransientError: if there is no such task here, as with code that is older than what has enqueued it.
    """
    try:
        task = task_of(call)
    except LookupError as error:
        raise TransientError(str(error)) from error
    attempt = _Attempt(context, call, task)
    return attempt.run_on_the_loop() if inspect.iscoroutinefunction(task.func) else attempt.run_in_this_thread()


class _Attempt:
    """One attempt to run a task. Django's signals tell of it: that it starts, and that its task has finished."""

    def __init__(self, context: JobContext, call: TaskCall, task: "Task[..., Any]") -> None:
        self._context = context
        self._task = task
        self._sender = type(task.get_backend())
        self._is_last = context.attempt > call.max_retries
        self._worker_id = str((context.log.extra or {}).get("worker", UNKNOWN_WORKER))
        now = timezone.now()
        self._result: TaskResult[Any] = TaskResult(
            task=task,
            id=context.job_id,
            status=TaskResultStatus.RUNNING,
            enqueued_at=call.enqueued_at,
            started_at=now,
            finished_at=None,
            last_attempted_at=now,
            args=call.args,
            kwargs=call.kwargs,
            backend=call.backend,
            errors=[],
            worker_ids=[*[UNKNOWN_WORKER] * (context.attempt - 1), self._worker_id],
        )
        first = [TaskContext(task_result=self._result)] if task.takes_context else []
        self._arguments = [*first, *self._result.args]

    def run_in_this_thread(self) -> TaskReturn:
        """Run a plain function; its connections to databases are closed behind it."""
        close_old_connections()
        try:
            task_started.send(sender=self._sender, task_result=self._result)
            try:
                returned = normalize_json(self._task.func(*self._arguments, **self._result.kwargs))
            except BaseException as error:
                if isinstance(error, _FROM_OUTSIDE):
                    raise
                self._context.wait(self._keep(error))
                if self._has_failed(error):
                    task_finished.send(sender=self._sender, task_result=self._result)
                raise
            self._has_succeeded(returned)
            task_finished.send(sender=self._sender, task_result=self._result)
            return TaskReturn(returned=returned)
        finally:
            # The thread ends here, and nobody else can use what it has opened.
            connections.close_all()

    async def run_on_the_loop(self) -> TaskReturn:
        """Run a coroutine function; the thread in which it asks databases closes what has broken or is too old."""
        await sync_to_async(close_old_connections)()
        try:
            await task_started.asend(sender=self._sender, task_result=self._result)
            try:
                returned = normalize_json(await self._task.func(*self._arguments, **self._result.kwargs))
            except BaseException as error:
                if isinstance(error, _FROM_OUTSIDE):
                    raise
                await self._keep(error)
                if self._has_failed(error):
                    await task_finished.asend(sender=self._sender, task_result=self._result)
                raise
            self._has_succeeded(returned)
            await task_finished.asend(sender=self._sender, task_result=self._result)
            return TaskReturn(returned=returned)
        finally:
            await sync_to_async(close_old_connections)()

    async def _keep(self, error: BaseException) -> None:
        """Keep what the attempt has failed by with its job, for the task's result."""
        kept = KeptError.of(error, self._worker_id)
        self._result.errors.append(kept.task_error())
        try:
            await self._context.save_artifact(error_file(self._context.attempt), msgspec.json.encode(kept))
        except HandlerError as failure:
            # The error of the task is what counts.
            self._context.log.warning("the traceback of the attempt was not kept: %s", failure)

    def _has_failed(self, error: BaseException) -> bool:
        """Return whether no attempt follows, so that the task has finished."""
        if not self._is_last and not isinstance(error, PermanentError):
            return False
        self._set(status=TaskResultStatus.FAILED, finished_at=timezone.now())
        return True

    def _has_succeeded(self, returned: Any) -> None:
        self._set(status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=returned)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self._result, name, value)
