"""The registered job types: payload model, result model and the handler's name.

Handlers are named, not imported, so that an API process needs none of their libraries.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from msgspec import Struct
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from gql_jobs.jobs.model import MAX_RETRIES, MAX_TIMEOUT, MIN_TIMEOUT

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


# The core schemas that pydantic makes of models: what kinds of values there are in a model, at any depth.

Node = Mapping[str, Any]
"""A core schema, or a part of one."""

_NO_INPUT = frozenset(
    {"serialization", "metadata", "python_schema", "strict_schema", "config", "default", "computed_fields", "members"}
)
"""The members of core schemas that have no part in reading JSON."""


class Place(NamedTuple):
    """Where a part of a model's core schema is: ``field`` of ``model``, the innermost ones.

    ``union``: the place of the union that it is a choice of, without a discriminator. ``converted``: whether code of
    users may have made its input of what the JSON has.
    """

    model: str
    field: str = ""
    union: "Place | None" = None
    converted: bool = False

    def __str__(self) -> str:
        return f"The field {self.field!r} of the model {self.model}" if self.field else f"The model {self.model}"


def parts_of(model: type[BaseModel]) -> Iterator[tuple[Node, Place]]:
    """Yield all parts of a model's core schema that JSON is read with; a definition once for each kind of place.

    :raises ValueError: if the model is not complete, because an annotation names what is not there.
    """
    if not model.__pydantic_complete__:
        try:
            model.model_rebuild()
        except Exception as error:
            raise ValueError(f"The model {model.__name__} is not complete: {error}") from error
    return _walk(model.__pydantic_core_schema__, Place(model.__name__), {}, set())


def _walk(
    node: Node, at: Place, definitions: dict[str, Node], seen: set[tuple[str, bool, bool]]
) -> Iterator[tuple[Node, Place]]:
    kind = node["type"]
    if kind == "definition-ref":
        key = (node["schema_ref"], at.union is not None, at.converted)
        if key not in seen and key[0] in definitions:
            seen.add(key)
            yield from _walk(definitions[key[0]], at, definitions, seen)
        return
    if kind == "definitions":
        definitions.update({one["ref"]: one for one in node["definitions"]})
        yield from _walk(node["schema"], at, definitions, seen)
        return
    yield node, at
    if kind in _OBJECTS and isinstance(node.get("cls"), type):
        at = at._replace(model=node["cls"].__name__)
    elif kind == "union":
        at = at._replace(union=at)
    elif kind in _CONVERSIONS:
        at = at._replace(converted=True)
    for field, below in _below(node):
        yield from _walk(below, at if field is None else at._replace(field=field), definitions, seen)


_OBJECTS = frozenset({"model", "dataclass", "typed-dict"})
"""The kinds of schemas that read a JSON object field by field."""
_CONVERSIONS = frozenset({"function-before", "function-wrap", "json"})


def _below(node: Node) -> Iterator[tuple[str | None, Node]]:
    """Yield the schemas in a schema, those of fields with their names."""
    for key, value in node.items():
        if key == "fields" and isinstance(value, dict):
            yield from value.items()
        elif key == "choices" and isinstance(value, dict):
            yield from ((None, choice) for choice in value.values())
        elif key not in _NO_INPUT:
            for one in value if isinstance(value, list) else [value]:
                # A choice of a union may have a label.
                inner = one[0] if isinstance(one, tuple) and one else one
                if isinstance(inner, dict) and isinstance(inner.get("type"), str):
                    yield (inner["name"] if inner["type"] == "dataclass-field" else None), inner


def reads_fields(node: Node) -> bool:
    """Return whether a schema reads a JSON object field by field: that of a model, a dataclass, a TypedDict."""
    return node["type"] in _OBJECTS and not node.get("root_model", False)


def keys_of(name: str, info: FieldInfo) -> tuple[str, ...]:
    """Return the keys of JSON that a field is read from; the first is the one under which it is stored."""
    alias = info.validation_alias if info.validation_alias is not None else info.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [] if alias is None else [alias]
    plain = [str(choice.path[0]) if isinstance(choice, AliasPath) else choice for choice in choices if _is_key(choice)]
    return tuple(dict.fromkeys((*plain, name)))


def _is_key(alias: str | AliasPath) -> bool:
    return isinstance(alias, str) or (len(alias.path) == 1 and isinstance(alias.path[0], str))


# What cannot be stored and read back as it was validated is refused at registration.


def check_model(model: type[BaseModel]) -> None:
    """Check that whatever a payload or result model takes can be stored and read back, also by other versions of it.

    :raises ValueError: naming the field that could not.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ValueError(  # noqa: TRY004  # all refusals of a registration are of one type
            f"A payload or result must be a pydantic model, not {model!r}. What has no fields can be an empty model."
        )
    for node, place in parts_of(model):
        problem = _problem(node, place)
        if problem is not None:
            raise ValueError(problem)
        if isinstance(cls := node.get("cls"), type) and issubclass(cls, BaseModel):
            _check_names(cls)


def _problem(node: Node, place: Place) -> str | None:
    kind, told_apart = node["type"], place.union is not None
    problem = None
    if reads_fields(node) and told_apart:
        place = place.union or place
        problem = (
            "is a union with a model in it, whose choice depends on which fields are known: another version could "
            "choose another one. Give the union a discriminator, or make one model with optional fields of it."
        )
    elif node.get("now_op") is not None:
        problem = (
            "is relative to the present, but is read again when the job runs and whenever it is shown. Make it a plain "
            "date or datetime, and compare it in the handler."
        )
    elif kind == "generator":
        problem = "is checked only while it is read. Make it a list."
    elif kind in _PYTHON_ONLY and not told_apart and not place.converted:
        problem = "takes only objects of Python, which JSON cannot hold."
    elif kind == "enum" and not place.converted and not all(_reads_back(node["cls"], one) for one in node["members"]):
        problem = "has an enum with a value that JSON cannot hold."
    elif kind == "function-after" and getattr(node["function"]["function"], "__qualname__", "") in _ON_THIS_MACHINE:
        problem = "is a path that must or must not exist, but is read on several machines. Make it a plain Path."
    return f"{place} {problem}" if problem is not None else None


_PYTHON_ONLY = frozenset({"is-instance", "is-subclass", "callable"})
_ON_THIS_MACHINE = frozenset(
    {"PathType.validate_file", "PathType.validate_directory", "PathType.validate_new", "PathType.validate_socket"}
)
"""The validators of pydantic's ``FilePath`` and its like."""


def _reads_back(enum: type[Enum], member: Enum) -> bool:
    try:
        return TypeAdapter(enum).validate_json(to_json(member)) is member
    except Exception:  # noqa: BLE001  # enums may run code of their own
        return False


def _check_names(model: type[BaseModel]) -> None:
    """Check that no key of JSON can mean two fields, since fields are read by their aliases and by their names.

    :raises ValueError: naming the fields.
    """
    owners: dict[str, str] = {}
    for name, info in model.model_fields.items():
        for key in keys_of(name, info):
            other = owners.setdefault(key, name)
            if other != name:
                raise ValueError(
                    f"The fields {other!r} and {name!r} of the model {model.__name__} are both read from {key!r}; "
                    "rename one of them, or its alias."
                )


def _check_result(model: type[BaseModel]) -> None:
    """Check that a result that is stored has all that is needed for reading it.

    :raises ValueError: naming a field that is needed and never written.
    """
    for node, _ in parts_of(model):
        cls = node.get("cls")
        if not (isinstance(cls, type) and issubclass(cls, BaseModel)) or cls.__pydantic_decorators__.model_serializers:
            continue
        for name, info in cls.model_fields.items():
            if info.exclude and info.is_required():
                raise ValueError(
                    f"The field {name!r} of the model {cls.__name__} is excluded from what is stored of a result, "
                    "which could not be read without it. Give it a default."
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
        for model in (job_type.payload, job_type.result):
            check_model(model)
        _check_result(job_type.result)
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
    _load_installed()
    for module in imports:
        importlib.import_module(module)
    return registry


@cache
def _load_installed() -> None:
    """Import the modules of entry points, once: to look for them is to read the metadata of all packages."""
    for entry_point in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
        entry_point.load()


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
