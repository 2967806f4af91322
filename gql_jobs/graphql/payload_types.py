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
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
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
    Json,
    NaiveDatetime,
    NameEmail,
    PastDate,
    PastDatetime,
    RootModel,
    SecretStr,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError
from strawberry.scalars import JSON
from strawberry.tools import create_type

from gql_jobs.graphql.engine.strawberry_internals import GIVEN_AS, describe_enum, named_field
from gql_jobs.graphql.scalars_and_enums import WRITTEN, written_json, written_text
from gql_jobs.jobs.errors import Unrepresentable
from gql_jobs.jobs.payloads import shown_plain
from gql_jobs.jobs.registry import keys_of
from gql_jobs.jobs.secret_fields import REDACTED, has_secrets, secret_field_names, without_texts


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
}
_TEXTS = (AnyUrl, NaiveDatetime, NameEmail, SecretStr, PurePath, timedelta, bytes, IPv4Address, IPv6Address)


_JSON_TEXT: Any = Json


def kind_of(info: FieldInfo, *, is_input: bool = True) -> FieldKind:
    """Return the kind of a field's values. ``Json[…]`` is given as text and shown as what is in it."""
    if any(of is _JSON_TEXT or type(of) is _JSON_TEXT for of in info.metadata):
        return TextKind() if is_input else OptionalKind(JsonKind())
    return field_kind(info.annotation)


def field_kind(annotation: Any) -> FieldKind:
    """Return the kind of an annotation as pydantic has resolved it; constraints and aliases are ignored."""
    annotation = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in {Any, object, types.NoneType}:
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
        return EnumKind(cls) if all(map(_is_value_name, cls.__members__)) else JsonKind()
    if issubclass(cls, BaseModel):
        return ModelKind(cls)
    if issubclass(cls, _TEXTS):
        return TextKind()
    return next((scalar for scalar in _SCALARS if issubclass(cls, scalar)), JsonKind())


def _is_value_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in {"true", "false", "null"}


_NAME = re.compile(r"(?!__)[_A-Za-z][_0-9A-Za-z]*")

RESERVED = frozenset(
    {
        "Artifact",
        "Boolean",
        "BulkAction",
        "BulkPlan",
        "BulkRun",
        "BulkState",
        "CancelJobPayload",
        "Cancellation",
        "CancellationOutcome",
        "CreateJobInput",
        "CreateJobPayload",
        "CreateJobsPayload",
        "CreateViewTokenInput",
        "CreateViewTokenPayload",
        "Date",
        "DateTime",
        "DeadLetterGroup",
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
        "JobEntered",
        "JobError",
        "JobEvent",
        "JobFailed",
        "JobFilter",
        "JobLeft",
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
        "JobUpdated",
        "JobWait",
        "JobsChange",
        "JobsSnapshot",
        "Mutation",
        "PageInfo",
        "Query",
        "Queue",
        "QueueMinute",
        "RenewAccessPayload",
        "RetryJobPayload",
        "RetryJobsPayload",
        "RevokeTokenPayload",
        "Scope",
        "SortDirection",
        "StatusCount",
        "String",
        "Subscription",
        "Time",
        "UUID",
        "UnableType",
        "UnknownJob",
        "ViewLimits",
        "ViewLimitsInput",
        "ViewToken",
        "Viewer",
        "WaitReason",
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


def is_object(model: type[BaseModel]) -> bool:
    """Return whether a model is an object with fields in GraphQL; others are JSON."""
    return not issubclass(model, RootModel) and bool(model.model_fields)


class Shape(NamedTuple):
    """A Strawberry annotation, and what GraphQL is given for a value.

    ``show`` raises Unrepresentable for a number that is beyond the type, anything else for a value that is not of its
    kind.
    """

    type: Any
    show: Callable[[Any], Any]


class Shown:
    """An object for GraphQL, with an attribute for each field; one whose value cannot be written raises its error."""

    __slots__ = ("__dict__", "_lacking", "_refused")

    def __init__(self, values: dict[str, Any], refused: frozenset[str], *, lacking: bool) -> None:
        self.__dict__ = values
        self._refused = refused
        self._lacking = lacking

    def __getattr__(self, name: str) -> Any:
        if name in self._refused:
            raise Unrepresentable(name)
        raise AttributeError(name)


def is_lacking(shown: Any) -> bool:
    """Return whether a value lacks a field that may not be null, so that GraphQL would make all of it null."""
    if isinstance(shown, list):
        return any(map(is_lacking, shown))
    return isinstance(shown, Shown) and shown._lacking  # noqa: SLF001  # fields have no such names


def hide_in_shown(shown: Any, texts: Sequence[str]) -> Any:
    """Return what GraphQL is given for a value without the texts of secrets, wherever they stand in a text of it."""
    if isinstance(shown, Shown):
        values = {name: hide_in_shown(value, texts) for name, value in shown.__dict__.items()}
        return Shown(values, shown._refused, lacking=shown._lacking)  # noqa: SLF001
    if type(shown) is list:
        return [hide_in_shown(item, texts) for item in shown]
    return without_texts(shown, texts) if type(shown) in {str, dict} else shown


class PayloadTypes:
    """Makes the payload and result types of one schema."""

    def __init__(self, names: TypeNames) -> None:
        self._names = names
        self._made: dict[tuple[type, bool, str | None], Shape] = {}
        self._enums: dict[type[Enum], type[Enum]] = {}
        self._in_progress: set[type] = set()

    def output(self, model: type[BaseModel], name: str) -> Shape:
        """Return the output type ``name`` of a payload or result model; JSON for a model without fields."""
        return self._model(model, is_input=False, name=name, stem=name)

    def input(self, model: type[BaseModel], name: str) -> Shape:
        """Return the input type ``name`` of a payload model; JSON for a model without fields."""
        return self._model(model, is_input=True, name=name, stem=name.removesuffix("Input"))

    def _model(self, model: type[BaseModel], *, is_input: bool, name: str | None, stem: str) -> Shape:
        if not is_object(model) or model in self._in_progress:
            return Shape(JSON, shown_plain if has_secrets(model) else _dumped)
        key = (model, is_input, name)
        if key not in self._made:
            if name is None:
                name = self._names.choose(graphql_name(model.__name__) + ("Input" if is_input else ""), model, stem)
            self._in_progress.add(model)
            self._made[key] = self._make(model, name, stem, is_input=is_input)
            self._in_progress.discard(model)
        return self._made[key]

    def _make(self, model: type[BaseModel], name: str, stem: str, *, is_input: bool) -> Shape:
        make = _input_field if is_input else _output_field
        kinds = {name: kind_of(info, is_input=is_input) for name, info in model.model_fields.items()}
        if not is_input:
            kinds = {name: _null_beyond(kind, model.model_fields[name]) for name, kind in kinds.items()}
        secret = secret_field_names(model)
        shapes = {
            name: self._shape(kind, stem, is_input=is_input, secret=name in secret) for name, kind in kinds.items()
        }
        fields = [
            named_field(field_name, make(field_name, info, shapes[field_name], secret=field_name in secret))
            for field_name, info in model.model_fields.items()
        ]
        _check_shown_names(model)
        shown_fields = [
            _ShownField(name, shapes[name].show, isinstance(kind, OptionalKind), name in secret)
            for name, kind in kinds.items()
        ]
        return Shape(
            create_type(name, fields, is_input=is_input, description=_own_doc(model)),
            partial(_shown_model, shown_fields),
        )

    def _shape(self, kind: FieldKind, stem: str, *, is_input: bool, secret: bool) -> Shape:  # noqa: PLR0911
        match kind:
            case OptionalKind(of):
                inner = self._shape(of, stem, is_input=is_input, secret=secret)
                return Shape(inner.type | None, partial(_shown_or_null, inner.show))
            case ListKind(of):
                inner = self._shape(of, stem, is_input=is_input, secret=secret)
                return Shape(types.GenericAlias(list, inner.type), partial(_shown_list, inner.show))
            case ModelKind(model):
                return self._model(model, is_input=is_input, name=None, stem=stem)
            case EnumKind(enum):
                return Shape(self._enum(enum, stem), enum)
            case TextKind():
                return Shape(str, _shown_secret if secret else written_text)
            case JsonKind():
                return Shape(JSON, _shown_without_secrets if secret else written_json)
            case _:
                return Shape(kind, WRITTEN[kind])

    def _enum(self, enum: type[Enum], stem: str) -> type[Enum]:
        if enum not in self._enums:
            name = self._names.choose(graphql_name(enum.__name__), enum, stem)
            # A description that only repeats a name would stand in the way of those that say something.
            values = {each.name: f"The value `{each.value}`." for each in enum if each.value != each.name}
            self._enums[enum] = describe_enum(enum, _own_doc(enum), values | value_docs(enum), name=name)
        return enum


def field_name_of(field_name: str, info: FieldInfo) -> str:
    """Return the field's alias if it can be a GraphQL name, else its name in camelCase."""
    alias = info.alias
    return alias if alias is not None and _NAME.fullmatch(alias) else to_camel(field_name)


def shown_path(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str | int]:
    """Return a path in a payload's JSON as clients write it: with the names of fields in GraphQL."""
    shown: list[str | int] = []
    kind: FieldKind = ModelKind(model)
    above: set[type] = set()
    for part in path:
        while isinstance(kind, OptionalKind):
            kind = kind.of
        if isinstance(kind, ModelKind) and is_object(kind.model) and kind.model not in above:
            above.add(kind.model)
            known = kind.model.model_fields.items()
            found = [(name, info) for name, info in known if part in keys_of(name, info)]
            shown.append(field_name_of(*found[0]) if found else part)
            kind = kind_of(found[0][1]) if found else JsonKind()
        else:
            shown.append(part)
            kind = kind.of if isinstance(kind, ListKind) else JsonKind()
    return shown


def _check_shown_names(model: type[BaseModel]) -> None:
    shown = [field_name_of(name, info) for name, info in model.model_fields.items()]
    twice = next((name for name in shown if shown.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"Two fields of the model {model.__name__} are {twice!r} in GraphQL; rename one of them.")


def graphql_name(name: str) -> str:
    """Return the name of a class as one of GraphQL: ``Box[int]`` is ``BoxInt``."""
    if _NAME.fullmatch(name):
        return name
    words = re.split(r"[^0-9A-Za-z]+", name)
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return joined if _NAME.fullmatch(joined) else f"Type{joined}"


def _output_field(name: str, info: FieldInfo, shape: Shape, *, secret: bool) -> Any:  # noqa: ARG001
    return strawberry.field(name=field_name_of(name, info), graphql_type=shape.type, description=_description(info))


def _input_field(name: str, info: FieldInfo, shape: Shape, *, secret: bool) -> Any:
    """Return the field; one with a default may be left out, for pydantic knows the default."""
    shown, description = field_name_of(name, info), _description(info)
    metadata = {GIVEN_AS: keys_of(name, info)[0]}
    if info.is_required() and type(None) not in getattr(shape.type, "__args__", ()):
        return strawberry.field(name=shown, graphql_type=shape.type, description=description, metadata=metadata)
    if not info.is_required() and info.default_factory is None and info.default is not None and not secret:
        description = f"{description or ''} Default: `{_default_text(info.default)}`.".lstrip()
    return strawberry.field(
        name=shown,
        graphql_type=shape.type | None,
        description=description,
        default=strawberry.UNSET,
        metadata=metadata,
    )


# What GraphQL is given for a value. Models run code of their users, so nothing is taken for granted.


def _null_beyond(kind: FieldKind, info: FieldInfo) -> FieldKind:
    """Return the kind of a field in answers: it is null where a default is, or may be, a number beyond GraphQL's."""
    if info.default_factory is not None and info.default_factory not in _EMPTY and _of_ints(kind):
        return OptionalKind(kind)
    if kind in {int, float} and isinstance(info.default, int | float):
        try:
            WRITTEN[kind](info.default)
        except Unrepresentable:
            return OptionalKind(kind)
    return kind


_EMPTY = (list, set, frozenset, tuple)


def _of_ints(kind: FieldKind) -> bool:
    return kind is int or (isinstance(kind, ListKind) and _of_ints(kind.of))


class _ShownField(NamedTuple):
    name: str
    show: Callable[[Any], Any]
    may_be_null: bool
    secret: bool


def _shown_model(fields: list[_ShownField], value: Any) -> Shown:
    values: dict[str, Any] = {}
    refused: set[str] = set()
    for name, show, _, secret in fields:
        try:
            values[name] = show(getattr(value, name))
        except Unrepresentable:
            refused.add(name)
        except (PydanticSerializationError, UnicodeDecodeError):
            if secret:
                raise
            # Such as bytes that are no text, and that only their field knows how to write.
            written = type(value).__pydantic_serializer__.to_python(value, mode="json", include={name})
            values[name] = show(written[name])
    lacking = bool(refused) or any(is_lacking(values[name]) for name, _, may_be_null, _ in fields if not may_be_null)
    return Shown(values, frozenset(refused), lacking=lacking)


def _shown_or_null(show: Callable[[Any], Any], value: Any) -> Any:
    try:
        return None if value is None else show(value)
    except Unrepresentable:
        return None


def _shown_list(show: Callable[[Any], Any], value: Any) -> list[Any]:
    return [show(item) for item in value]


def _shown_secret(value: Any) -> str:
    if value is None:
        raise TypeError("null where none may be")
    return REDACTED


def _shown_without_secrets(value: Any) -> Any:
    """Return a value that may hold secrets as JSON; a text is one, also where a default was never validated."""
    if value is None:
        raise TypeError("null where none may be")
    return REDACTED if isinstance(value, str | bytes) else shown_plain(value)


def _dumped(value: BaseModel) -> Any:
    return value.model_dump(mode="json", by_alias=True, warnings=False)


def _default_text(value: Any) -> str:
    try:
        return value.name if isinstance(value, Enum) else str(value)
    except Exception:  # noqa: BLE001  # classes of users may fail to be written
        return type(value).__name__


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
