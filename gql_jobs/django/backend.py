"""The backend that the setting ``TASKS`` names: tasks become jobs over the API, or over NATS itself.

TASKS = {
"default": {
"BACKEND": "gql_jobs.django.backend.JobsBackend",
"QUEUES": ["default", "emails"],
"OPTIONS": {"url": "http://127.0.0.1:8000", "token": "…", "max_retries": 0, "timeout": 300},
}
}
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from gql_jobs.client import Client
from gql_jobs.client.creation import JobOptions
from gql_jobs.client.errors import NotFound
from gql_jobs.django.queues import TaskCall, priority_of_task, queue_problem, type_of_queue
from gql_jobs.django.results import (
    BaseTaskBackend,
    KeptError,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    attempt_of_file,
    kept_error,
    task_enqueued,
    task_result_of,
)
from gql_jobs.jobs.model import MAX_RETRIES, MAX_TIMEOUT, MIN_TIMEOUT
from gql_jobs.jobs.registry import JobType, registry

_OPTIONS = frozenset({"url", "token", "max_retries", "timeout", "tags"})
_clients: dict[tuple[str | None, str | None], Client] = {}
"""By address and token. Django makes a backend for each thread; connections are for all of them."""
_making_clients = threading.Lock()


class JobsBackend(BaseTaskBackend):
    """Enqueues tasks as jobs of gql-jobs, and reads their results from the jobs.

    ``job_types``: the type of each of its queues, which are registered in this process.

    :param alias: its name in the setting ``TASKS``.
    :param params: what stands there: ``QUEUES``, and ``OPTIONS`` with ``url``, ``token``, ``max_retries``, ``timeout``
        (in seconds) and ``tags``, all of which may be left out.
    :raises ImproperlyConfigured: for a queue or an option that there cannot be.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, dict(params))
        problems = [*_problems_of_queues(self.queues), *_problems_of_options(self.options)]
        if problems:
            raise ImproperlyConfigured(f"The backend {alias!r} of the setting TASKS: {' '.join(problems)}")
        self.job_types: dict[str, JobType] = {}
        for queue in sorted(self.queues):
            try:
                self.job_types[queue] = type_of_queue(queue, registry)
            except ValueError as error:
                raise ImproperlyConfigured(f"The backend {alias!r} of the setting TASKS: {error}") from error

    def enqueue(self, task: "Task[..., Any]", args: Sequence[Any], kwargs: Mapping[str, Any]) -> "TaskResult[Any]":
        """Create the job of a task, and return its result as of now; the job is durable then.

        :raises InvalidTask: if the task is none for this backend.
        :raises TypeError: | ValueError: for an argument that JSON cannot hold.
        :raises ClientError: if the job is refused, or nothing answers.
        """
        call, result = self._call(task, args, kwargs)
        self._created(result, self._client.create(call, **self._options_of(task)).id)
        task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(
        self, task: "Task[..., Any]", args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> "TaskResult[Any]":
        """Create the job of a task without blocking the event loop; see ``enqueue``."""
        call, result = self._call(task, args, kwargs)
        # Not in the one thread for what must not run twice at a time: nothing of Django's is used.
        create = sync_to_async(self._client.create, thread_sensitive=False)
        self._created(result, (await create(call, **self._options_of(task))).id)
        await task_enqueued.asend(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> "TaskResult[Any]":
        """Return the result of a task as its job is now.

        :raises TaskResultDoesNotExist: if there is no such job (any more), or it is no task of this project.
        :raises ClientError: if nothing answers.
        """
        handle = self._client.job(result_id)
        try:
            job = handle.state()
            kept: dict[int, KeptError] = {}
            # An attempt that was stopped, or whose worker was lost, has left none.
            for file in handle.artifacts() if job.errors else []:
                attempt = attempt_of_file(file.name)
                if attempt is not None and (error := kept_error(file.read())) is not None:
                    kept[attempt] = error
        except NotFound as missing:
            raise TaskResultDoesNotExist(result_id) from missing
        return task_result_of(job, kept, self.alias)

    async def aget_result(self, result_id: str) -> "TaskResult[Any]":
        """Return the result of a task without blocking the event loop; see ``get_result``."""
        return await sync_to_async(self.get_result, thread_sensitive=False)(result_id)

    def check(self, **_: Any) -> Iterable[checks.CheckMessage]:
        """Yield what is wrong with the settings beyond what keeps the backend from being made."""
        if self.options.get("url") is None:
            yield checks.Info(
                f"The backend {self.alias!r} of TASKS has no option 'url': it takes GQL_JOBS_URL of the environment, "
                "else the gql-jobs dev that runs in the current folder.",
                id="gql_jobs.I001",
            )

    @property
    def _client(self) -> Client:
        """The client of this address and token, of this process."""
        key = (self.options.get("url"), self.options.get("token"))
        with _making_clients:
            if key not in _clients:
                _clients[key] = Client(*key)
            return _clients[key]

    def _call(
        self, task: "Task[..., Any]", args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[TaskCall, "TaskResult[Any]"]:
        """Return what is stored of a task that is called, and its result before that."""
        self.validate_task(task)
        result: TaskResult[Any] = TaskResult(
            task=task,
            id="",
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        call = TaskCall(
            task=task.module_path,
            args=result.args,
            kwargs=result.kwargs,
            backend=self.alias,
            queue=task.queue_name,
            priority=task.priority,
            enqueued_at=_aware(result.enqueued_at),
            max_retries=self.options.get("max_retries", 0),
        )
        return call, result

    def _created(self, result: "TaskResult[Any]", job_id: str) -> None:
        object.__setattr__(result, "id", job_id)

    def _options_of(self, task: "Task[..., Any]") -> JobOptions:
        options: JobOptions = {
            "type": self.job_types[task.queue_name].name,
            "priority": priority_of_task(task.priority),
            "run_at": None if task.run_after is None else _aware(task.run_after),
            "max_retries": self.options.get("max_retries", 0),
            "timeout": self.options.get("timeout"),
            "tags": self.options.get("tags"),
        }
        return options


def _aware(moment: datetime) -> datetime:
    """Return a moment with its offset; without one it is of Django's time zone (``USE_TZ = False``)."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def _problems_of_queues(queues: Iterable[str]) -> list[str]:
    if not queues:
        return ["QUEUES must name the queues, since each has a job type."]
    return [problem for queue in sorted(queues) if (problem := queue_problem(queue)) is not None]


def _problems_of_options(options: Mapping[str, Any]) -> list[str]:
    problems = [
        f"There is no option {name!r}; there are {', '.join(sorted(_OPTIONS))}."
        for name in sorted(options.keys() - _OPTIONS)
    ]
    retries, timeout = options.get("max_retries", 0), options.get("timeout")
    if type(retries) is not int or not 0 <= retries <= MAX_RETRIES:
        problems.append(f"The option 'max_retries' must be a whole number from 0 to {MAX_RETRIES}.")
    if timeout is not None and (type(timeout) not in (int, float) or not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT):
        problems.append(f"The option 'timeout' must be a number of seconds from {MIN_TIMEOUT:g} to {MAX_TIMEOUT:g}.")
    return problems
