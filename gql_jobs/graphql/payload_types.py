"""GraphQL types of pydantic models: an output type that reads the model's attributes, and an input type.

Three steps: what kind of value an annotation means (``field_kind``), which names the schema has left (``TypeNames``),
and the types themselves (``PayloadTypes``). Types are made anew for every schema, so that several registries can live
in one process. What GraphQL cannot say (mappings, unions, recursion, models without fields) is JSON; pydantic still
validates it.
"""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from pathlib import PurePath
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin
from uuid import UUID

import strawberry
from pydantic import (
    AnyUrl,
    AwareDatetime,
    BaseModel,
    EmailStr,
    FutureDate,
    FutureDatetime,
    NaiveDatetime,
    NameEmail,
    PastDate,
    PastDatetime,
    RootModel,
    SecretStr,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python
from strawberry.scalars import JSON
from strawberry.tools import create_type

from gql_jobs.graphql.engine.strawberry_internals import describe_enum, named_field


class OptionalKind(NamedTuple):
    """A value of another kind, or null."""

    of: "FieldKind"


class ListKind(NamedTuple):
    """A list of values of one kind."""

    of: "FieldKind"


class ModelKind(NamedTuple):
    """A nested model."""

    model: type[BaseModel]


class EnumKind(NamedTuple):
    """An enum, by its members' names."""

    enum: type[Enum]


class TextKind(NamedTuple):
    """A value that is no string in Python but one in JSON, like a URL."""


class JsonKind(NamedTuple):
    """A value that no GraphQL type can describe but JSON."""


FieldKind: TypeAlias = OptionalKind | ListKind | ModelKind | EnumKind | TextKind | JsonKind | type[Any]
"""A bare type is a scalar that Python and GraphQL share."""

# bool before int, datetime before date: the first is a subclass of the second.
_SCALARS: tuple[type[Any], ...] = (bool, str, int, float, datetime, date, time, UUID, Decimal)
_SAME_AS: dict[Any, type[Any]] = {
    EmailStr: str,
    PastDate: date,
    FutureDate: date,
    PastDatetime: datetime,
    FutureDatetime: datetime,
    AwareDatetime: datetime,
    NaiveDatetime: datetime,
}
_TEXTS = (AnyUrl, NameEmail, SecretStr, PurePath, timedelta, bytes, IPv4Address, IPv6Address)


def field_kind(annotation: Any) -> FieldKind:
    """Return the kind of an annotation as pydantic has resolved it; constraints and aliases are ignored."""
    annotation = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return OptionalKind(JsonKind())
    if origin in {Union, types.UnionType}:
        return _union(arguments)
    if origin is Literal:
        kinds = {type(value) for value in arguments}
        return kinds.pop() if len(kinds) == 1 and kinds <= {str, int, bool} else JsonKind()
    if isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
        return _list(arguments)
    return _class(annotation) if isinstance(annotation, type) and origin is None else JsonKind()


def _bare(annotation: Any) -> Any:
    """Return the annotation without ``Annotated``, ``type`` aliases and ``NewType``."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__") and hasattr(annotation, "__type_params__"):
            annotation = annotation.__value__
        else:
            return _SAME_AS.get(annotation, annotation) if isinstance(annotation, type) else annotation


def _union(arguments: tuple[Any, ...]) -> FieldKind:
    present = [argument for argument in arguments if argument is not type(None)]
    kind = field_kind(present[0]) if len(present) == 1 else JsonKind()
    return OptionalKind(kind) if len(present) < len(arguments) and not isinstance(kind, OptionalKind) else kind


def _list(arguments: tuple[Any, ...]) -> FieldKind:
    # A tuple of several kinds is JSON.
    items = {argument for argument in arguments if argument is not Ellipsis}
    return ListKind(field_kind(items.pop())) if len(items) == 1 else JsonKind()


def _class(cls: type[Any]) -> FieldKind:
    if issubclass(cls, Enum):
        return EnumKind(cls)
    if issubclass(cls, BaseModel):
        return ModelKind(cls)
    if issubclass(cls, _TEXTS):
        return TextKind()
    return next((scalar for scalar in _SCALARS if issubclass(cls, scalar)), JsonKind())


RESERVED = frozenset(
    {
        "Boolean",
        "CancelJobPayload",
        "Cancellation",
        "CancellationOutcome",
        "CreateJobInput",
        "CreateJobPayload",
        "CreateJobsPayload",
        "Date",
        "DateTime",
        "Decimal",
        "ErrorCode",
        "Float",
        "ID",
        "Int",
        "JSON",
        "Job",
        "JobCancelled",
        "JobCompleted",
        "JobConnection",
        "JobDeadLetter",
        "JobEdge",
        "Artifact",
        "JobError",
        "JobEvent",
        "JobFailed",
        "JobFilter",
        "JobOrder",
        "JobOrderField",
        "JobPayloadInput",
        "JobPriority",
        "JobProgress",
        "JobQueued",
        "JobScheduled",
        "JobStarted",
        "JobStatus",
        "JobType",
        "Mutation",
        "PageInfo",
        "Query",
        "Queue",
        "RetryJobPayload",
        "RetryJobsPayload",
        "SortDirection",
        "StatusCount",
        "String",
        "Subscription",
        "Time",
        "UUID",
        "UnableType",
        "UnknownJob",
        "Worker",
    }
)
"""The names of types that every schema has."""


class TypeNames:
    """Who has which type name in one schema: what every schema holds first, then what job types bring."""

    def __init__(self) -> None:
        self._owners: dict[str, object] = dict.fromkeys(RESERVED)

    def reserve(self, name: str, owner: object) -> None:
        """Reserve a name that follows from a job type's own.

        :raises ValueError: if it is taken; the job type needs another name.
        """
        if name in self._owners:
            raise ValueError(f"The GraphQL type {name!r} of a job type is taken; give the job type another name.")
        self._owners[name] = owner

    def choose(self, name: str, owner: object, stem: str) -> str:
        """Reserve and return a name for a nested model or enum.

        It is the owner's own, or, if that is taken, prefixed with the stem of the type it is part of.

        :raises ValueError: if both are taken.
        """
        for candidate in (name, f"{stem}{name}"):
            if candidate not in self._owners:
                self._owners[candidate] = owner
                return candidate
        raise ValueError(f"The GraphQL type names {name!r} and '{stem}{name}' are both taken; rename {owner!r}.")


class Shape(NamedTuple):
    """A Strawberry annotation; ``plain``: whether values have to be converted to plain JSON values for an answer."""

    type: Any
    plain: bool = False


class PayloadTypes:
    """Makes the payload and result types of one schema."""

    def __init__(self, names: TypeNames) -> None:
        self._names = names
        self._made: dict[tuple[type, bool, str | None], Any] = {}
        self._in_progress: set[type] = set()

    def output(self, model: type[BaseModel], name: str) -> Shape:
        """Return the output type ``name`` of a payload or result model; JSON for a model without fields."""
        return self._model(model, is_input=False, name=name, stem=name)

    def input(self, model: type[BaseModel], name: str) -> Shape:
        """Return the input type ``name`` of a payload model; JSON for a model without fields."""
        return self._model(model, is_input=True, name=name, stem=name.removesuffix("Input"))

    def _model(self, model: type[BaseModel], *, is_input: bool, name: str | None, stem: str) -> Shape:
        if issubclass(model, RootModel) or not model.model_fields or model in self._in_progress:
            return Shape(JSON, plain=True)
        key = (model, is_input, name)
        if key not in self._made:
            if name is None:
                name = self._names.choose(model.__name__ + ("Input" if is_input else ""), model, stem)
            self._in_progress.add(model)
            self._made[key] = self._make(model, name, stem, is_input=is_input)
            self._in_progress.discard(model)
        return Shape(self._made[key])

    def _make(self, model: type[BaseModel], name: str, stem: str, *, is_input: bool) -> type:
        make = _input_field if is_input else _output_field
        fields = [
            named_field(
                field_name, make(field_name, info, self._shape(field_kind(info.annotation), stem, is_input=is_input))
            )
            for field_name, info in model.model_fields.items()
        ]
        return create_type(name, fields, is_input=is_input, description=_own_doc(model))

    def _shape(self, kind: FieldKind, stem: str, *, is_input: bool) -> Shape:
        match kind:
            case OptionalKind(of) | ListKind(of):
                inner, plain = self._shape(of, stem, is_input=is_input)
                return Shape(types.GenericAlias(list, inner) if isinstance(kind, ListKind) else inner | None, plain)
            case ModelKind(model):
                return self._model(model, is_input=is_input, name=None, stem=stem)
            case EnumKind(enum):
                return Shape(self._enum(enum, stem))
            case TextKind() | JsonKind():
                return Shape(str if isinstance(kind, TextKind) else JSON, plain=True)
            case _:
                return Shape(kind)

    def _enum(self, enum: type[Enum], stem: str) -> type[Enum]:
        key = (enum, False, None)
        if key not in self._made:
            name = self._names.choose(enum.__name__, enum, stem)
            # A description that only repeats a name would stand in the way of those that say something.
            values = {each.name: f"The value `{each.value}`." for each in enum if each.value != each.name}
            self._made[key] = describe_enum(enum, _own_doc(enum), values | value_docs(enum), name=name)
        return enum


_NAME = re.compile(r"(?!__)[_A-Za-z][_0-9A-Za-z]*")


def field_name_of(field_name: str, info: FieldInfo) -> str:
    """Return the field's alias if it can be a GraphQL name, else its name in camelCase."""
    alias = info.alias
    return alias if alias is not None and _NAME.fullmatch(alias) else to_camel(field_name)


def _output_field(name: str, info: FieldInfo, shape: Shape) -> Any:
    shown, description = field_name_of(name, info), _description(info)
    if not shape.plain:
        return strawberry.field(name=shown, graphql_type=shape.type, description=description)

    def resolve(root: Any) -> Any:
        return to_jsonable_python(getattr(root, name), by_alias=True)

    return strawberry.field(resolver=resolve, graphql_type=shape.type, name=shown, description=description)


def _input_field(name: str, info: FieldInfo, shape: Shape) -> Any:
    """Return the field; one with a default may be left out, for pydantic knows the default."""
    shown, description = field_name_of(name, info), _description(info)
    if info.is_required() and type(None) not in getattr(shape.type, "__args__", ()):
        return strawberry.field(name=shown, graphql_type=shape.type, description=description)
    if not info.is_required() and info.default_factory is None and info.default is not None:
        value = info.default.name if isinstance(info.default, Enum) else info.default
        description = f"{description or ''} Default: `{value}`.".lstrip()
    return strawberry.field(
        name=shown, graphql_type=shape.type | None, description=description, default=strawberry.UNSET
    )


def _description(info: FieldInfo) -> str | None:
    """Return what the model says of a field, or None: its name would say no more than it does already."""
    return info.description or (f"{info.title.removesuffix('.')}." if info.title else None)


def _own_doc(cls: type) -> str | None:
    """Return the class's own docstring in one paragraph, or None; an inherited one would describe its base class."""
    doc = cls.__dict__.get("__doc__")
    return " ".join(str(doc).split()) if doc else None


def value_docs(enum: type[Enum]) -> dict[str, str]:
    """Return the docstrings below the members of an enum, by the members' names.

    Python does not keep them, so they are read from the source; none are found where there is no source.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(enum)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    for statement, below in pairwise(tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []):
        match statement, below:
            case ast.Assign(targets=[ast.Name(name)]), ast.Expr(ast.Constant(str(text))) if name in enum.__members__:
                found[name] = " ".join(text.split())
    return found
