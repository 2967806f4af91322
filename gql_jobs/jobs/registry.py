"""The registered job types: payload model, result model and the handler's name.

Handlers are named, not imported, so that an API process needs none of their libraries.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import EllipsisType
from typing import Any, Generic, TypeVar

from msgspec import Struct
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from gql_jobs.jobs.field_kinds import check_kinds
from gql_jobs.jobs.installed_types import ALL, load_installed
from gql_jobs.jobs.limits import InvalidLimit, Limits, parse_rate
from gql_jobs.jobs.model import MAX_RETRIES, MAX_TIMEOUT, MIN_TIMEOUT
from gql_jobs.jobs.model_parts import check_model, check_result_model

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


_R = TypeVar("_R", bound=BaseModel | None)


class Payload(Model, Generic[_R]):
    """A payload model that names its result model, so that type checkers infer the type of a job's result from it.

    ``class SmsPayload(Payload[SmsResult])``; ``Payload[None]`` is that of a job whose handler returns nothing. A result
    model that is defined further down may be given as text. Adds no fields.
    """


class JobType(Struct, frozen=True):
    """One kind of work. ``handler`` is ``module:function``; ``cpu_bound``: it runs in a process of its own.

    ``result`` is None if the handler returns nothing. ``timeout`` is in seconds. If it or ``max_retries`` is None, the
    setting applies. ``concurrency``: how many of its jobs run at a time, of those with one key if it has a
    ``concurrency_key``; ``rate``: how many start in a time, as ``parse_rate`` reads it. ``concurrency_key`` is code of
    users: it may raise anything, and return what is no key.
    """

    name: str
    payload: type[BaseModel]
    result: type[BaseModel] | None
    handler: str
    queue: str = "default"
    max_retries: int | None = None
    timeout: float | None = None
    cpu_bound: bool = False
    description: str = ""
    concurrency: int | None = None
    concurrency_key: Callable[[Any], str | None] | None = None
    rate: str | None = None

    @property
    def limits(self) -> Limits:
        """What jobs of this type are limited to, as it is stored for whoever lets them go.

        :raises InvalidLimit: if that is outside its bounds, which ``Registry.add`` makes sure of.
        """
        per_second = parse_rate(self.rate) if self.rate is not None else None
        if self.concurrency_key is not None:
            return Limits.of(concurrency_per_key=self.concurrency, per_second=per_second)
        return Limits.of(concurrency=self.concurrency, per_second=per_second)


class Registry:
    """Job types by name, in the order of their registration."""

    def __init__(self) -> None:
        self._types: dict[str, JobType] = {}
        self.get: Callable[[str], JobType | None] = self._types.get
        """Returns the type of that name, or None."""

    def add(self, job_type: JobType) -> JobType:
        """Register a type and return it.

        :raises ValueError: for an invalid name, queue or handler, retries, a timeout or limits that no job may have, a
            name that another type has, or a model with a field that could not be stored and read back.
        """
        _check_kinds(job_type)
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
        _check_limits(job_type)
        for model in (job_type.payload, *([job_type.result] if job_type.result is not None else [])):
            check_model(model)
            check_kinds(model)
        if job_type.result is not None:
            check_result_model(job_type.result)
        known = self._types.get(job_type.name, job_type)
        if known != job_type:
            handlers = known.handler, job_type.handler
            is_bundled = any(handler.startswith("gql_jobs_worker.") for handler in handlers)
            advice = " GQL_JOBS_TYPES leaves out the one that comes with gql-jobs." if is_bundled else ""
            twice = f"The job type {job_type.name!r} is registered twice, with the handlers {' and '.join(handlers)}."
            raise ValueError(f"{twice}{advice}")
        self._types[job_type.name] = job_type
        return job_type

    def of_payload(self, model: type[BaseModel], name: str | None = None) -> JobType:
        """Return the type whose payloads are of this very model; ``name`` says which, if several are.

        :raises LookupError: in a sentence that says what to do, if there is none, or more than one and no name.
        """
        named = self._types.get(name) if name is not None else None
        if named is not None and named.payload is model:
            return named
        found = [job_type for job_type in self._types.values() if job_type.payload is model]
        if len(found) == 1 and name is None:
            return found[0]
        shown = f"{model.__module__}.{model.__qualname__}"
        if not found:
            raise LookupError(
                f"The payload model {shown} is that of no registered job type: import the module that calls job_type "
                "for it."
            )
        names = ", ".join(sorted(repr(job_type.name) for job_type in found))
        if name is None:
            raise LookupError(f"The payload model {shown} is that of several job types: say which is meant of {names}.")
        raise LookupError(f"The job type {name!r} has not the payload model {shown}, which is that of {names}.")

    def __iter__(self) -> Iterator[JobType]:
        return iter(self._types.values())

    @property
    def queues(self) -> list[str]:
        """The queues of all types, sorted."""
        return sorted({job_type.queue for job_type in self})


def _check_kinds(job_type: JobType) -> None:
    """Check that each fact of a type is of its kind; numbers and models have checks of their own.

    :raises ValueError: naming the first that is not.
    """
    for fact, kind, what in (
        *((name, str, "a text") for name in ("name", "queue", "handler", "description")),
        ("cpu_bound", bool, "True or False"),
    ):
        value = getattr(job_type, fact)
        if not isinstance(value, kind):
            problem = f"{fact} of the job type {job_type.name!r} is {value!r}; it must be {what}."
            raise ValueError(problem)  # noqa: TRY004 - as for all that is wrong with a type


def _check_limits(job_type: JobType) -> None:
    """Check what a type is limited to.

    :raises ValueError: naming what is wrong with it.
    """
    of_type = f"of the job type {job_type.name!r}"
    try:
        _ = job_type.limits
    except InvalidLimit as invalid:
        field = "rate" if invalid.field in {"rate", "per_second"} else "concurrency"
        value = getattr(job_type, field)
        raise ValueError(f"{field} {of_type} is {value!r}; {invalid.problem.format('it')}") from None
    key = job_type.concurrency_key
    if key is not None and (not callable(key) or inspect.iscoroutinefunction(key)):
        must = "it must be a plain function that returns the key of a payload"
        raise ValueError(f"concurrency_key {of_type} is {key!r}; {must}.")


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
    result: type[BaseModel] | EllipsisType | None = ...,
    handler: str,
    queue: str = "default",
    max_retries: int | None = None,
    timeout: float | None = None,
    cpu_bound: bool = False,
    description: str = "",
    concurrency: int | None = None,
    concurrency_key: Callable[[Any], str | None] | None = None,
    rate: str | None = None,
) -> JobType:
    """Register a job type and return it; the API's typed input and job object are made from it.

    :param name: snake_case; clients create a job of type ``sms`` with ``payload: {sms: {…}}`` and get an ``SmsJob``.
    :param payload: the pydantic model that a request is validated by.
    :param result: the pydantic model of what the handler returns; None if it returns nothing. May be left out if the
        payload is a ``Payload[…]``, which names it.
    :param handler: ``"my_app.sms_handler:send"``, called with ``(context, payload)`` in a worker. A coroutine
        function runs on the event loop, a plain one in a thread.
    :param queue: its queue; a worker may serve some queues only.
    :param max_retries: attempts after the first, 0 to 100; None takes the setting.
    :param timeout: seconds an attempt may take, 0.1 to 86400; None takes the setting.
    :param cpu_bound: the handler computes: it runs in a process of its own, which a timeout or a cancellation kills.
    :param concurrency: how many of its jobs may run at a time, on all workers together; with a ``concurrency_key``, how
        many of those with one key.
    :param concurrency_key: returns of a payload, as its model, what jobs that share a limit have in common, such as a
        customer's number: 1 to 255 printable characters, None for none. Called wherever jobs are created, unless the
        creation gives a key itself.
    :param rate: how many may start in a time, on all workers together: ``"10/s"``, ``"30/min"``, ``"5/h"``.
    :raises ValueError: for an invalid name, queue or handler, retries, a timeout or limits that no job may have, a name
        that another type has, a model with a field that could not be stored and read back, a result that is not named,
        or not the one that the payload names.
    """
    return registry.add(
        JobType(
            name=name,
            payload=payload,
            result=_result_model(name, payload, result),
            handler=handler,
            queue=queue,
            max_retries=max_retries,
            timeout=timeout,
            cpu_bound=cpu_bound,
            description=description,
            concurrency=concurrency,
            concurrency_key=concurrency_key,
            rate=rate,
        )
    )


def _result_model(
    name: str, payload: type[BaseModel], given: type[BaseModel] | EllipsisType | None
) -> type[BaseModel] | None:
    """Return the result model that is given, or that the payload names.

    :raises ValueError: if neither is, or they differ.
    """
    named = declared_result(payload)
    if isinstance(given, EllipsisType):
        if isinstance(named, EllipsisType):
            raise ValueError(  # noqa: TRY004 - as for all that is wrong with a type
                f"The job type {name!r} names no result model: give it as result, None if its handler returns nothing, "
                f"or make {getattr(payload, '__name__', payload)} a Payload[…] that names it."
            )
        return named
    if not isinstance(named, EllipsisType) and named is not given:
        raise ValueError(
            f"The result of the job type {name!r} is {_name_of(given)}, but its payload {payload.__name__} names "
            f"{_name_of(named)}: leave result out, or have them agree."
        )
    return given


def declared_result(payload: type[BaseModel]) -> type[BaseModel] | EllipsisType | None:
    """Return what a payload model names as its result, as ``Payload[…]``; ``...`` if it names nothing.

    :raises ValueError: if it names a model as text that its module has not, or no model at all.
    """
    named: Any = _R
    # From the base to the class: what stands for the result at each step.
    for cls in reversed([cls for cls in getattr(payload, "__mro__", ()) if issubclass(cls, Payload)]):
        generic = cls.__pydantic_generic_metadata__
        if isinstance(named, str):
            named = _model_named(named, cls)
        if generic["origin"] is not None and isinstance(named, TypeVar):
            stands_for = dict(
                zip(generic["origin"].__pydantic_generic_metadata__["parameters"], generic["args"], strict=True)
            )
            named = stands_for.get(named, named)
    if isinstance(named, str):
        raise ValueError(  # noqa: TRY004 - as for all that is wrong with a type
            f"{payload.__name__} has no module of its own to find {named!r} in: derive a class from it."
        )
    if isinstance(named, TypeVar):
        return ...
    return None if named is type(None) else named


def _model_named(text: str, cls: type[BaseModel]) -> Any:
    found = getattr(sys.modules.get(cls.__module__), text, ...)
    if found is ...:
        raise ValueError(
            f"The payload {cls.__name__} names {text!r} as its result, which the module {cls.__module__} does not have."
        )
    return found


def _name_of(result: type[BaseModel] | None) -> str:
    return "nothing" if result is None else getattr(result, "__name__", repr(result))


def load_job_types(imports: tuple[str, ...] = (), bundled: tuple[str, ...] = (ALL,)) -> Registry:
    """Import the modules that register job types, entry points first, then ``imports``; return the registry.

    :param bundled: which of the types that come with gql-jobs are wanted, as ``GQL_JOBS_TYPES`` says.
    :raises ImportError: naming the module that could not be imported.
    :raises ValueError: if no bundled type has such a name, or a type is not valid.
    """
    load_installed(bundled)
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
    "watchfiles": "dev",
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
