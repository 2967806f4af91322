"""The registered job types: payload model, result model and the handler's name.

Handlers are named, not imported, so that an API process needs none of their libraries.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any

from msgspec import Struct
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from gql_jobs.jobs.model import MAX_RETRIES, MAX_TIMEOUT, MIN_TIMEOUT
from gql_jobs.jobs.payloads import parts_of, reads_fields

ENTRY_POINTS = "gql_jobs.job_types"
"""The group of entry points that name modules which register job types."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_QUEUE = re.compile(r"[a-z0-9_-]{1,63}")


class Model(BaseModel):
    """A payload or result model. Its stored JSON has its fields in camelCase (``imageUrl``), as clients see them."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        allow_inf_nan=False,
    )


class JobType(Struct, frozen=True):
    """One kind of work. ``handler`` is ``module:function``; ``cpu_bound``: it runs in a process of its own.

    ``timeout`` is in seconds. If it or ``max_retries`` is None, the setting applies.
    """

    name: str
    payload: type[BaseModel]
    result: type[BaseModel]
    handler: str
    queue: str = "default"
    max_retries: int | None = None
    timeout: float | None = None
    cpu_bound: bool = False
    description: str = ""

    def validate(self, fields: dict[str, Any]) -> BaseModel:
        """Return the payload with these fields, which may have their names or their aliases.

        :raises pydantic.ValidationError: if they do not fit the model.
        """
        return self.payload.model_validate(fields, by_name=True)


# What cannot be stored and read back as it was validated is refused at registration.


def check_model(model: type[BaseModel]) -> None:
    """Check that whatever a payload or result model takes can be stored and read back, also by other versions of it.

    :raises ValueError: naming the field that could not.
    """
    for node, place in parts_of(model):
        if reads_fields(node) and place.union is not None:
            raise ValueError(
                f"{place.union} is a union with a model in it, whose choice depends on which fields are known: another "
                "version could choose another one. Give the union a discriminator, or make one model with optional "
                "fields of it."
            )
        if node.get("now_op") is not None:
            raise ValueError(
                f"{place} is relative to the present, but is read again when the job runs and whenever it is shown. "
                "Make it a plain date or datetime, and compare it in the handler."
            )


class Registry:
    """Job types by name, in the order of their registration."""

    def __init__(self) -> None:
        self._types: dict[str, JobType] = {}
        self.get: Callable[[str], JobType | None] = self._types.get
        """Returns the type of that name, or None."""

    def add(self, job_type: JobType) -> JobType:
        """Register a type and return it.

        :raises ValueError: for an invalid name, queue or handler, retries or a timeout that no job may have, a name
            that another type has, or a model with a field that could not be stored and read back.
        """
        if not _NAME.fullmatch(job_type.name):
            raise ValueError(f"The job type name {job_type.name!r} must match {_NAME.pattern}.")
        if not is_queue_name(job_type.queue):
            raise ValueError(f"The queue name {job_type.queue!r} must match {_QUEUE.pattern}.")
        if job_type.handler.count(":") != 1:
            raise ValueError(f"The handler {job_type.handler!r} must be written as module:function.")
        if job_type.max_retries is not None and not _is_within(job_type.max_retries, (int,), 0, MAX_RETRIES):
            raise ValueError(
                f"max_retries of the job type {job_type.name!r} is {job_type.max_retries!r}; it must be a whole number "
                f"from 0 to {MAX_RETRIES}."
            )
        if job_type.timeout is not None and not _is_within(job_type.timeout, (int, float), MIN_TIMEOUT, MAX_TIMEOUT):
            raise ValueError(
                f"timeout of the job type {job_type.name!r} is {job_type.timeout!r}; it must be a number of seconds "
                f"from {MIN_TIMEOUT:g} to {MAX_TIMEOUT:g}."
            )
        for model in (job_type.payload, job_type.result):
            check_model(model)
        if self._types.get(job_type.name, job_type) != job_type:
            raise ValueError(f"The job type {job_type.name!r} is registered twice.")
        self._types[job_type.name] = job_type
        return job_type

    def __iter__(self) -> Iterator[JobType]:
        return iter(self._types.values())

    @property
    def queues(self) -> list[str]:
        """The queues of all types, sorted."""
        return sorted({job_type.queue for job_type in self})


def _is_within(number: Any, kinds: tuple[type, ...], least: float, most: float) -> bool:
    return type(number) in kinds and bool(least <= number <= most)


def is_queue_name(text: str) -> bool:
    """Return whether a queue can have this name."""
    return _QUEUE.fullmatch(text) is not None


registry = Registry()
"""The job types of this process; ``job_type`` adds to it."""


def job_type(
    name: str,
    *,
    payload: type[BaseModel],
    result: type[BaseModel],
    handler: str,
    queue: str = "default",
    max_retries: int | None = None,
    timeout: float | None = None,
    cpu_bound: bool = False,
    description: str = "",
) -> JobType:
    """Register a job type and return it; the API's typed input and job object are made from it.

    :param name: snake_case; clients create a job of type ``sms`` with ``payload: {sms: {…}}`` and get an ``SmsJob``.
    :param payload: the pydantic model that a request is validated by.
    :param result: the pydantic model of what the handler returns.
    :param handler: ``"my_app.sms_handler:send"``, called with ``(context, payload)`` in a worker. A coroutine
        function runs on the event loop, a plain one in a thread.
    :param queue: its queue; a worker may serve some queues only.
    :param max_retries: attempts after the first, 0 to 100; None takes the setting.
    :param timeout: seconds an attempt may take, 0.1 to 86400; None takes the setting.
    :param cpu_bound: the handler computes: it runs in a process of its own, which a timeout or a cancellation kills.
    :raises ValueError: for an invalid name, queue or handler, retries or a timeout that no job may have, a name that
        another type has, or a model with a field that could not be stored and read back.
    """
    return registry.add(
        JobType(
            name=name,
            payload=payload,
            result=result,
            handler=handler,
            queue=queue,
            max_retries=max_retries,
            timeout=timeout,
            cpu_bound=cpu_bound,
            description=description,
        )
    )


def load_job_types(imports: tuple[str, ...] = ()) -> Registry:
    """Import the modules that register job types, entry points first, then ``imports``; return the registry.

    :raises ImportError: naming the module that could not be imported.
    """
    for entry_point in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
        entry_point.load()
    for module in imports:
        importlib.import_module(module)
    return registry


_EXTRAS = {
    "aiosmtplib": "email",
    "httpx": "images",
    "PIL": "images",
    "duckdb": "reports",
    "psycopg": "reports",
    "reportlab": "reports",
    "sqlalchemy": "reports",
    "xlsxwriter": "reports",
    "aiosmtpd": "dev",
    "gql": "demo",
    "rich": "demo",
}
"""Which extra of gql-jobs brings a module that is not part of every installation."""


def install_advice(modules: Iterable[str]) -> str:
    """Return a sentence about modules that are not installed here, with the command that installs what we know of."""
    names = list(dict.fromkeys(module.partition(".")[0] for module in modules))
    extras = sorted({_EXTRAS[name] for name in names if name in _EXTRAS})
    advice = f": run pip install 'gql-jobs[{','.join(extras)}]'" if extras else ""
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not installed{advice}."
