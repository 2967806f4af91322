"""The job types of Django's tasks, one for each queue: what of a task is stored, and what of its outcome.

A process learns of them where its backend is made, from the setting ``TASKS``: API and worker processes with
``--import gql_jobs.django.project``. Which function runs is a value of the payload, so a new task needs no new type.
"""

from typing import Any

from pydantic import AwareDatetime, Field

from gql_jobs.jobs.model import MAX_RETRIES, JobPriority
from gql_jobs.jobs.registry import JobType, Model, Payload, Registry, is_queue_name

_HANDLER = "gql_jobs.django.project:run_task"
_DEFAULT_QUEUE = "default"
_LONGEST_QUEUE = 50
"""Characters of a queue's name: the name of its job type is made of it."""
HIGH_PRIORITIES = range(1, 51)
"""Django's priorities that are HIGH here. Those below are LOW, those above CRITICAL, and its default, 0, is NORMAL."""


class TaskReturn(Model):
    """What a task has returned."""

    returned: Any = Field(None, description="Its return value, as JSON.")


class TaskCall(Payload[TaskReturn]):
    """A task of Django's, and what it is called with."""

    task: str = Field(description="The path of the task: shop.tasks.send_invoice.", min_length=1, max_length=500)
    args: list[Any] = Field(default_factory=list, description="Its positional arguments.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Its named arguments.")
    backend: str = Field("default", description="The alias of the backend in the setting TASKS.", max_length=200)
    queue: str = Field(_DEFAULT_QUEUE, description="The name of the queue.", max_length=_LONGEST_QUEUE)
    priority: int = Field(0, ge=-100, le=100, description="The priority that Django knows, -100 to 100.")
    enqueued_at: AwareDatetime = Field(description="When it was enqueued, by the clock of whoever did.")
    max_retries: int = Field(0, ge=0, le=MAX_RETRIES, description="Attempts after the first: those of the job.")


def queue_problem(name: str) -> str | None:
    """Return what is wrong with the name of a queue, in a sentence; None if jobs can be in such a queue."""
    if is_queue_name(name) and len(name) <= _LONGEST_QUEUE:
        return None
    return f"The queue {name!r} must have 1 to {_LONGEST_QUEUE} of the characters a-z, 0-9, _ and -."


def type_of_queue(queue: str, registry: Registry) -> JobType:
    """Return the job type of the tasks in a queue, registered if it is not yet.

    :raises ValueError: if there can be none of that name, or another queue has its type.
    """
    problem = queue_problem(queue)
    if problem is not None:
        raise ValueError(problem)
    name = "django_task" if queue == _DEFAULT_QUEUE else f"django_task_{queue.replace('-', '_')}"
    taken = registry.get(name)
    if taken is not None and taken.queue != queue:
        raise ValueError(f"The queues {taken.queue!r} and {queue!r} would both have the job type {name!r}; rename one.")
    return registry.add(
        JobType(
            name=name,
            payload=TaskCall,
            result=TaskReturn,
            handler=_HANDLER,
            queue=queue,
            # As Django has it: a task that fails has failed, unless the backend is told otherwise.
            max_retries=0,
            description=f"A task of Django's, in the queue {queue}.",
        )
    )


def priority_of_task(priority: int) -> JobPriority:
    """Return what a priority of Django's is here."""
    if priority < 0:
        return JobPriority.LOW
    if priority == 0:
        return JobPriority.NORMAL
    return JobPriority.HIGH if priority in HIGH_PRIORITIES else JobPriority.CRITICAL
