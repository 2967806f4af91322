"""GraphQL types of pydantic models: an output type that reads the model's attributes, and an input type.

What kind of value a field is stands in ``jobs.field_kinds``, what the types within payloads and results are called in
``type_names``; here the types are made. They are made anew for every schema, so that several registries can live in one
process.
"""

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Union

import strawberry
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python
from strawberry.scalars import JSON
from strawberry.schema_directives import OneOf
from strawberry.tools import create_type

from gql_jobs.graphql.engine.strawberry_internals import GIVEN_AS, describe_enum, named_field, read_as
from gql_jobs.graphql.scalars_and_enums import WRITTEN, BigIntValue, written_big_int, written_json, written_text
from gql_jobs.graphql.type_names import INPUT
from gql_jobs.jobs.errors import Unrepresentable
from gql_jobs.jobs.field_kinds import (
    BigIntKind,
    Choice,
    EnumKind,
    FieldKind,
    JsonKind,
    ListKind,
    ModelKind,
    OptionalKind,
    TextKind,
    UnionKind,
    field_name_of,
    input_kinds,
    is_object,
    literals_of,
    output_kinds,
)
from gql_jobs.jobs.graphql_input import constants_of, with_constants, with_tags
from gql_jobs.jobs.model_parts import keys_of
from gql_jobs.jobs.payloads import shown_plain
from gql_jobs.jobs.secret_fields import REDACTED, has_secrets, secret_field_names, without_texts

RESERVED = frozenset(
    {
        "Artifact",
        "BigInt",
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
        "DeleteJobPayload",
        "DeleteSchedulePayload",
        "DependencyPolicy",
        "Duration",
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
        "JobEdited",
        "JobEntered",
        "JobError",
        "JobEvent",
        "JobFailed",
        "JobFilter",
        "JobKeyInput",
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
        "JobWaiting",
        "JobsChange",
        "JobsSnapshot",
        "KeyPolicy",
        "Mutation",
        "OverlapPolicy",
        "PageInfo",
        "Query",
        "Queue",
        "QueueLimits",
        "QueueLimitsInput",
        "QueueMinute",
        "QueuePause",
        "QueuePayload",
        "RawJobInput",
        "RawScheduleInput",
        "RenewAccessPayload",
        "RetryJobPayload",
        "RetryJobsPayload",
        "RevokeTokenPayload",
        "Schedule",
        "ScheduleInput",
        "SchedulePayload",
        "ScheduleSkips",
        "Scope",
        "ServerStatus",
        "SkipReason",
        "SortDirection",
        "StatusCount",
        "String",
        "Subscription",
        "Time",
        "UUID",
        "UnableType",
        "UnknownJob",
        "UpdateJobInput",
        "UpdateJobPayload",
        "ViewLimits",
        "ViewLimitsInput",
        "ViewToken",
        "Viewer",
        "WaitReason",
        "Worker",
    }
)
"""The names of types that every schema has."""


class Shape(NamedTuple):
    """A Strawberry annotation, and what GraphQL is given for a value.

    ``show`` raises Unrepresentable for a number that is beyond the type, anything else for a value that is not of its
    kind.
    """

    type: Any
    show: Callable[[Any], Any]


class Shown:
    """An object for GraphQL, with an attribute for each field; one whose value cannot be written raises its error.

    :param type_name: the object type that it is of, for unions.
    """

    # It has no methods: the names of fields may be any.
    __slots__ = ("__dict__", "__typename", "_lacking", "_refused")

    def __init__(self, values: dict[str, Any], refused: frozenset[str], *, lacking: bool, type_name: str) -> None:
        self.__dict__ = values
        self._refused = refused
        self._lacking = lacking
        # Where graphql-core looks for it.
        self.__typename = type_name

    def __getattr__(self, name: str) -> Any:
        if name in self._refused:
            raise Unrepresentable(name)
        raise AttributeError(name)


_TYPE_NAME = "_Shown__typename"
"""What Python makes of ``__typename`` in that class."""


def is_lacking(shown: Any) -> bool:
    """Return whether a value lacks a field that may not be null, so that GraphQL would make all of it null."""
    if isinstance(shown, list):
        return any(map(is_lacking, shown))
    return isinstance(shown, Shown) and shown._lacking  # noqa: SLF001  # fields have no such names


def hide_in_shown(shown: Any, texts: Sequence[str]) -> Any:
    """Return what GraphQL is given for a value without the texts of secrets, wherever they stand in a text of it."""
    if isinstance(shown, Shown):
        values = {name: hide_in_shown(value, texts) for name, value in shown.__dict__.items()}
        type_name = getattr(shown, _TYPE_NAME)
        return Shown(values, shown._refused, lacking=shown._lacking, type_name=type_name)  # noqa: SLF001
    if type(shown) is list:
        return [hide_in_shown(item, texts) for item in shown]
    return without_texts(shown, texts) if type(shown) in {str, dict} else shown


class PayloadTypes:
    """Makes the payload and result types of one schema.

    :param names: as ``type_names`` returns them for all these models.
    """

    def __init__(self, names: Mapping[Any, str]) -> None:
        self._names = names
        self._made: dict[tuple[Any, bool, str], Shape] = {}
        self._enums: set[type[Enum]] = set()

    def output(self, model: type[BaseModel], name: str) -> Shape:
        """Return the output type ``name`` of a payload or result model; JSON for a model without fields."""
        return self._model(model, name, is_input=False) if is_object(model) else _json_of(model)

    def input(self, model: type[BaseModel], name: str) -> Shape:
        """Return the input type ``name`` of a payload model; JSON for a model without fields."""
        return self._model(model, name, is_input=True) if is_object(model) else _json_of(model)

    def _model(self, model: type[BaseModel], name: str, *, is_input: bool) -> Shape:
        key = (model, is_input, name)
        if key not in self._made:
            self._made[key] = self._input(model, name) if is_input else self._output(model, name)
        return self._made[key]

    def _output(self, model: type[BaseModel], name: str) -> Shape:
        secret = secret_field_names(model)
        fields, shown_fields = [], []
        for field_name, kind in output_kinds(model).items():
            shape = self._shape(kind, is_input=False, secret=field_name in secret)
            info = model.model_fields[field_name]
            fields.append(named_field(field_name, _output_field(field_name, info, shape)))
            shown_fields.append(
                _ShownField(field_name, shape.show, isinstance(kind, OptionalKind), field_name in secret)
            )
        return Shape(create_type(name, fields, description=_own_doc(model)), partial(_shown_model, name, shown_fields))

    def _input(self, model: type[BaseModel], name: str) -> Shape:
        secret = secret_field_names(model)
        fields = []
        for field_name, kind in input_kinds(model).items():
            shape = self._shape(kind, is_input=True, secret=field_name in secret)
            info = model.model_fields[field_name]
            fields.append(named_field(field_name, _input_field(field_name, info, shape, secret=field_name in secret)))
        made = create_type(name, fields, is_input=True, description=_own_doc(model))
        if constants := constants_of(model):
            read_as(made, partial(with_constants, constants))
        return Shape(made, _not_shown)

    def _shape(self, kind: FieldKind, *, is_input: bool, secret: bool) -> Shape:  # noqa: PLR0911
        match kind:
            case OptionalKind(of):
                inner = self._shape(of, is_input=is_input, secret=secret)
                return Shape(inner.type | None, partial(_shown_or_null, inner.show))
            case ListKind(of):
                inner = self._shape(of, is_input=is_input, secret=secret)
                return Shape(types.GenericAlias(list, inner.type), partial(_shown_list, inner.show))
            case ModelKind(model):
                return self._model(model, self._name(model, is_input=is_input), is_input=is_input)
            case UnionKind():
                return self._union(kind, is_input=is_input)
            case EnumKind(enum):
                return Shape(self._enum(enum), enum)
            case BigIntKind():
                return Shape(BigIntValue, written_big_int)
            case TextKind():
                return Shape(str, _shown_secret if secret else written_text)
            case JsonKind(of) if of is not None:
                return _json_of(of)
            case JsonKind():
                return Shape(JSON, _shown_without_secrets if secret else written_json)
            case _:
                return Shape(kind, WRITTEN[kind])

    def _name(self, of: Any, *, is_input: bool) -> str:
        return self._names[of] + (INPUT if is_input else "")

    def _union(self, union: UnionKind, *, is_input: bool) -> Shape:
        name = self._name(union.named_by, is_input=is_input)
        key = (union.named_by, is_input, name)
        if key not in self._made:
            shapes = {
                choice: self._model(choice.model, self._name(choice.model, is_input=is_input), is_input=is_input)
                for choice in union.choices
            }
            self._made[key] = _union_input(name, shapes) if is_input else _union_output(name, shapes)
        return self._made[key]

    def _enum(self, enum: type[Enum]) -> type[Enum]:
        if enum not in self._enums:
            self._enums.add(enum)
            # A description that only repeats a name would stand in the way of those that say something.
            values = {each.name: f"The value `{each.value}`." for each in enum if each.value != each.name}
            describe_enum(enum, _own_doc(enum), values | value_docs(enum), name=self._names[enum])
        return enum


def _json_of(model: type[BaseModel]) -> Shape:
    return Shape(JSON, shown_plain if has_secrets(model) else _dumped)


def _union_output(name: str, shapes: Mapping[Choice, Shape]) -> Shape:
    keys = dict.fromkeys(f"`{key}`" for choice in shapes for key, _, _ in choice.tags)
    description = f"Which one it is, {' and '.join(keys)} says, too."
    union: Any = Union[tuple(shape.type for shape in shapes.values())]  # noqa: UP007
    made = Annotated[union, strawberry.union(name, description=description)]
    return Shape(made, partial(_shown_choice, {choice.model: shape.show for choice, shape in shapes.items()}))


def _union_input(name: str, shapes: Mapping[Choice, Shape]) -> Shape:
    members = [
        named_field(
            choice.member,
            strawberry.field(
                name=choice.member,
                graphql_type=shape.type | None,
                description=_own_doc(choice.model),
                default=strawberry.UNSET,
            ),
        )
        for choice, shape in shapes.items()
    ]
    description = "One of these: exactly one member, which says which one it is."
    made = create_type(name, members, is_input=True, directives=[OneOf()], description=description)
    choices = {choice.member: choice for choice in shapes}

    def chosen(given: dict[str, Any]) -> dict[str, Any]:
        # GraphQL has made sure that there is exactly one member.
        ((member, inner),) = given.items()
        return with_tags(choices[member], inner)

    read_as(made, chosen)
    return Shape(made, _not_shown)


def _not_shown(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is given, not shown")


def _output_field(name: str, info: FieldInfo, shape: Shape) -> Any:
    return strawberry.field(name=field_name_of(name, info), graphql_type=shape.type, description=_description(info))


def _input_field(name: str, info: FieldInfo, shape: Shape, *, secret: bool) -> Any:
    """Return the field; one with a default may be left out, for pydantic knows the default."""
    shown, description = field_name_of(name, info), _description(info)
    metadata = {GIVEN_AS: keys_of(name, info)[0]}
    constant = literals_of(info) if info.is_required() else ()
    if len(constant) == 1:
        description = f"{description or ''} Can only be `{_default_text(constant[0])}`, and may be left out.".lstrip()
    elif info.is_required() and type(None) not in getattr(shape.type, "__args__", ()):
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


class _ShownField(NamedTuple):
    name: str
    show: Callable[[Any], Any]
    may_be_null: bool
    secret: bool


def _shown_model(type_name: str, fields: list[_ShownField], value: Any) -> Shown:
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
    return Shown(values, frozenset(refused), lacking=lacking, type_name=type_name)


def _shown_choice(shows: dict[type[BaseModel], Callable[[Any], Any]], value: Any) -> Any:
    show = shows.get(type(value))
    if show is None:
        raise TypeError(f"{type(value).__name__} where one of a union has to be")
    return show(value)


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
        if isinstance(value, timedelta):
            return str(to_jsonable_python(value))
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
