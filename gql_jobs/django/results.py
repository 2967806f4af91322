"""Jobs as Django's task results, and how the error of an attempt is kept so that it can be told in one.

All that is used of the framework comes from here: it is Django's own from 6.0 on, before that the package
``django-tasks``, which has the same names.
"""

import re
from collections.abc import Mapping
from traceback import format_exception
from typing import Any

import msgspec
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from msgspec import Struct

from gql_jobs.client.transport import JobSnapshot
from gql_jobs.django.queues import TaskCall, TaskReturn
from gql_jobs.jobs.model import JobError, JobStatus
from gql_jobs.jobs.payloads import ModelMismatch, read
from gql_jobs.logs import redact

try:
    from django.tasks import task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import TaskException, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
except ImportError:
    from django_tasks import task_backends
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import TaskException, TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started
    from django_tasks.utils import normalize_json

__all__ = [
    "BaseTaskBackend",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "normalize_json",
    "task_backends",
    "task_enqueued",
    "task_finished",
    "task_started",
]

_MOST_TRACEBACK = 64 * 1024
"""Characters of a traceback that are kept, its end."""
UNKNOWN_WORKER = "unknown"
"""In the place of the id of a worker that has left no word of its attempt."""
_ERROR_FILE = re.compile(r"error-(\d{1,6})\.json")
_STATUS = {
    JobStatus.SCHEDULED: TaskResultStatus.READY,
    JobStatus.WAITING: TaskResultStatus.READY,
    JobStatus.QUEUED: TaskResultStatus.READY,
    JobStatus.RETRYING: TaskResultStatus.READY,
    JobStatus.PROCESSING: TaskResultStatus.RUNNING,
    JobStatus.COMPLETED: TaskResultStatus.SUCCESSFUL,
    JobStatus.DEAD_LETTER: TaskResultStatus.FAILED,
    JobStatus.CANCELLED: TaskResultStatus.FAILED,
}


class TaskAttemptFailed(Exception):
    """The exception class of an attempt that did not end by an exception of its task: it was stopped, or lost."""


class TaskCancelled(Exception):
    """The exception class of a task whose job was cancelled."""


class KeptError(Struct, frozen=True):
    """What ended an attempt: a file of its job, because errors of jobs have neither a traceback nor a module."""

    exception_class_path: str
    traceback: str
    worker_id: str

    @classmethod
    def of(cls, error: BaseException, worker_id: str) -> "KeptError":
        """Return what is kept of an exception."""
        kind = type(error)
        try:
            traceback = redact("".join(format_exception(error)))
        except Exception as failure:  # noqa: BLE001  # an exception's own code may fail
            traceback = f"The traceback cannot be written: {type(failure).__name__} was raised."
        # What is no text, as half of a surrogate pair, could not be written.
        text = traceback[-_MOST_TRACEBACK:].encode(errors="replace").decode()
        return cls(_path(kind), text, worker_id)

    def task_error(self) -> TaskError:
        """Return the error as Django's results have it."""
        return TaskError(exception_class_path=self.exception_class_path, traceback=self.traceback)


def error_file(attempt: int) -> str:
    """Return the name of the file with the error of an attempt."""
    return f"error-{attempt}.json"


def attempt_of_file(name: str) -> int | None:
    """Return the attempt whose error a file has; None for any other file."""
    match = _ERROR_FILE.fullmatch(name)
    return int(match[1]) if match is not None else None


def kept_error(data: bytes) -> KeptError | None:
    """Return what such a file says; None if it is none."""
    try:
        return msgspec.json.decode(data, type=KeptError)
    except msgspec.DecodeError:
        return None


def task_of(call: TaskCall) -> "Task[..., Any]":
    """Return the task that was called, with the priority and the queue that it had.

    :raises LookupError: in a sentence, if there is no such task here.
    """
    try:
        found = import_string(call.task)
    except ImportError as error:
        raise LookupError(f"There is no task {call.task} here: {error}.") from error
    if not isinstance(found, Task):
        raise LookupError(f"{call.task} is no task: it must be what @task has made.")  # noqa: TRY004 - as above
    try:
        return found.using(priority=call.priority, queue_name=call.queue, backend=call.backend)
    except (TaskException, ImproperlyConfigured) as error:
        raise LookupError(f"The task {call.task} is none for its backend here: {error}") from error


def task_result_of(job: JobSnapshot, kept: Mapping[int, KeptError], backend: str) -> "TaskResult[Any]":
    """Return a job as the result of its task.

    :param job: with its payload and its result.
    :param kept: the errors that were kept, by attempt.
    :param backend: the alias of the backend that was asked.
    :raises TaskResultDoesNotExist: if it is no task of this project.
    """
    try:
        call = read(TaskCall, job.payload or b"")
        task = task_of(call)
    except (ModelMismatch, LookupError) as error:
        raise TaskResultDoesNotExist(f"The job {job.id} is no task here. {error}") from error
    errors = [_task_error(error, kept.get(error.attempt)) for error in job.errors]
    if job.status is JobStatus.CANCELLED:
        errors.append(TaskError(exception_class_path=_path(TaskCancelled), traceback="The job was cancelled.\n"))
    workers = [kept[number].worker_id if number in kept else UNKNOWN_WORKER for number in range(1, job.attempts + 1)]
    if workers and job.worker_id is not None:
        workers[-1] = job.worker_id
    result: TaskResult[Any] = TaskResult(
        task=task.using(run_after=job.run_at) if job.run_at is not None else task,
        id=job.id,
        status=_STATUS[job.status],
        enqueued_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        last_attempted_at=job.started_at,
        args=call.args,
        kwargs=call.kwargs,
        backend=backend,
        errors=errors,
        worker_ids=workers,
    )
    if job.result is not None:
        object.__setattr__(result, "_return_value", read(TaskReturn, job.result).returned)
    return result


def _task_error(error: JobError, kept: KeptError | None) -> TaskError:
    if kept is not None:
        return kept.task_error()
    return TaskError(exception_class_path=_path(TaskAttemptFailed), traceback=f"{error.type}: {error.message}\n")


def _path(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
