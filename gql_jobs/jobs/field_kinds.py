"""What kind of value each field of a model is in GraphQL, and what it is called there.

The kinds follow from the annotations alone, so whoever has the models (the API, a client, a worker) knows what the
schema says of them without having it. What GraphQL cannot say (mappings, unions without a discriminator, recursion,
models without fields) is JSON; pydantic validates it all the same.
"""

import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin
from uuid import UUID

from pydantic import (
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ByteSize,
    Discriminator,
    EmailStr,
    Field,
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
from pydantic_core import to_jsonable_python

from gql_jobs.jobs.model_parts import keys_of

BigInt = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""A whole number of 64 bits, such as the size of a file: a ``BigInt`` in GraphQL, whose ``Int`` has 32 bits."""

INT_END = 1 << 31
"""GraphQL's Int goes from minus this up to it, without it."""


class OptionalKind(NamedTuple):
    """A value of another kind, or null."""

    of: "FieldKind"


class ListKind(NamedTuple):
    """A list of values of one kind."""

    of: "FieldKind"


class ModelKind(NamedTuple):
    """A nested model."""

    model: type[BaseModel]


class Choice(NamedTuple):
    """A model of a union with a discriminator. ``member``: its name in the @oneOf input.

    ``tags``: for each key that tells it apart, the values that it may have there, and which it has where none is given;
    ``...`` if that has to be said.
    """

    member: str
    model: type[BaseModel]
    tags: tuple[tuple[str, tuple[Any, ...], Any], ...]


class UnionKind(NamedTuple):
    """One of several models, told apart by a discriminator.

    ``named_by``: what the union is named after: its alias, or the model and the name of the field that has it.
    """

    named_by: Any
    choices: tuple[Choice, ...]


class EnumKind(NamedTuple):
    """An enum, by its members' names."""

    enum: type[Enum]


class BigIntKind(NamedTuple):
    """A whole number that may have more than 32 bits."""


class TextKind(NamedTuple):
    """A value that is no string in Python but one in JSON, like a URL."""


class JsonKind(NamedTuple):
    """A value that no GraphQL type can describe but JSON. ``of``: the model, if it is one."""

    of: type[BaseModel] | None = None


FieldKind: TypeAlias = (
    OptionalKind | ListKind | ModelKind | UnionKind | EnumKind | BigIntKind | TextKind | JsonKind | type[Any]
)
"""A bare type is a scalar that Python and GraphQL share."""

# bool before int, datetime before date: the first is a subclass of the second.
_SCALARS: tuple[type[Any], ...] = (bool, str, int, float, datetime, date, time, timedelta, UUID, Decimal)
_SAME_AS: dict[Any, type[Any]] = {
    EmailStr: str,
    PastDate: date,
    FutureDate: date,
    PastDatetime: datetime,
    FutureDatetime: datetime,
    AwareDatetime: datetime,
}
_TEXTS = (AnyUrl, NaiveDatetime, NameEmail, SecretStr, PurePath, bytes, IPv4Address, IPv6Address)
_JSON_TEXT: Any = Json
_EMPTY = (list, set, frozenset, tuple)


# What a model is made of.


@cache
def input_kinds(model: type[BaseModel]) -> Mapping[str, FieldKind]:
    """Return the kinds of a model's fields as clients give them, by the fields' names.

    :raises ValueError: if two choices of a union would have one name.
    """
    return {name: _closed(model, kind) for name, kind in _declared_kinds(model).items()}


@cache
def output_kinds(model: type[BaseModel]) -> Mapping[str, FieldKind]:
    """Return the kinds of a model's fields as they are shown, by the fields' names.

    ``Json[…]`` is given as text and shown as what is in it. A field is null where a default is, or may be, a number
    that GraphQL cannot write.

    :raises ValueError: if two choices of a union would have one name.
    """
    shown = {
        name: OptionalKind(JsonKind()) if _is_json_text(model.model_fields[name]) else kind
        for name, kind in input_kinds(model).items()
    }
    return {name: _null_beyond(kind, model.model_fields[name]) for name, kind in shown.items()}


def check_kinds(model: type[BaseModel]) -> None:
    """Check that the fields of a model, and of those in it, can be told apart by their names in GraphQL.

    :raises ValueError: naming those that cannot.
    """
    for each in [model, *models_in(model)]:
        names = [field_name_of(name, info) for name, info in each.model_fields.items()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"Two fields of the model {each.__name__} are {twice!r} in GraphQL; rename one of them.")


def is_object(model: type[BaseModel]) -> bool:
    """Return whether a model is an object with fields in GraphQL; others are JSON."""
    return not issubclass(model, RootModel) and bool(model.model_fields)


def models_in(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the models below one that are objects in GraphQL, each once."""
    found: dict[type[BaseModel], None] = {}
    waiting = [model]
    for each in waiting:
        new = [one for kind in input_kinds(each).values() for one in _models_of(kind) if one not in found]
        found.update(dict.fromkeys(new))
        waiting.extend(new)
    return list(found)


def parts_of_kind(kind: FieldKind) -> Iterator[FieldKind]:
    """Yield a kind, and what it is an optional one or a list of."""
    yield kind
    if isinstance(kind, OptionalKind | ListKind):
        yield from parts_of_kind(kind.of)


def _models_of(kind: FieldKind) -> Iterator[type[BaseModel]]:
    for part in parts_of_kind(kind):
        if isinstance(part, ModelKind):
            yield part.model
        elif isinstance(part, UnionKind):
            yield from (choice.model for choice in part.choices)


@cache
def _declared_kinds(model: type[BaseModel]) -> Mapping[str, FieldKind]:
    if not model.__pydantic_complete__:
        # Below a model that is complete one may still have names in the place of annotations.
        model.model_rebuild(raise_errors=False)
    return {name: _declared_kind(model, name) for name in (model.model_fields if is_object(model) else ())}


def _declared_kind(model: type[BaseModel], name: str) -> FieldKind:
    info = model.model_fields[name]
    if _is_json_text(info):
        return TextKind()
    try:
        kind = field_kind(info.annotation, _Around(tuple(info.metadata), info.discriminator, (model, name)))
    except ValueError as problem:
        raise ValueError(f"The field {name!r} of the model {model.__name__} {problem}") from None
    return _wide_enough(kind, info.default)


def _wide_enough(kind: FieldKind, default: Any) -> FieldKind:
    """Return the kind of a field with this default: that of larger numbers if it is one."""
    if kind is int and isinstance(default, int) and not is_int(default):
        return BigIntKind()
    if isinstance(kind, OptionalKind):
        return OptionalKind(_wide_enough(kind.of, default))
    if isinstance(kind, ListKind) and isinstance(default, list | tuple | set | frozenset):
        kinds = [_wide_enough(kind.of, item) for item in default]
        return ListKind(next((wider for wider in kinds if wider != kind.of), kind.of))
    return kind


def is_int(number: int) -> bool:
    """Return whether GraphQL's Int can be this number."""
    return -INT_END <= number < INT_END


def _is_json_text(info: FieldInfo) -> bool:
    return any(of is _JSON_TEXT or type(of) is _JSON_TEXT for of in info.metadata)


def _closed(model: type[BaseModel], kind: FieldKind) -> FieldKind:
    """Return the kind of a field of a model; JSON where it would hold the model again."""
    match kind:
        case OptionalKind(of):
            closed = _closed(model, of)
            return closed if isinstance(closed, OptionalKind) else OptionalKind(closed)
        case ListKind(of):
            return ListKind(_closed(model, of))
        case ModelKind(below) if not is_object(below) or _holds(below, model):
            return JsonKind(below)
        case UnionKind(_, choices) if any(_holds(choice.model, model) for choice in choices):
            return JsonKind()
        case _:
            return kind


@cache
def _holds(model: type[BaseModel], wanted: type[BaseModel]) -> bool:
    """Return whether a model is the wanted one, or has it in it."""
    found = [model]
    for each in found:
        new = {one for kind in _declared_kinds(each).values() for one in _models_of(kind)}
        found.extend(new.difference(found))
    return wanted in found


def _null_beyond(kind: FieldKind, info: FieldInfo) -> FieldKind:
    if info.default_factory is not None and info.default_factory not in _EMPTY and _is_of_ints(kind):
        return OptionalKind(kind)
    return OptionalKind(kind) if kind is float and not is_float(info.default) else kind


def is_float(number: Any) -> bool:
    """Return whether GraphQL's Float can be this number; what is none is no matter."""
    try:
        return not isinstance(number, int | float) or math.isfinite(number)
    except OverflowError:
        return False


def _is_of_ints(kind: FieldKind) -> bool:
    return kind is int or (isinstance(kind, ListKind) and _is_of_ints(kind.of))


# The kind of an annotation.


class _Around(NamedTuple):
    """What stands around an annotation: constraints, a discriminator, and what a union there is named after."""

    metadata: tuple[Any, ...] = ()
    discriminator: Any = None
    named_by: Any = None
    aliases: tuple[Any, ...] = ()


def field_kind(annotation: Any, around: _Around = _Around()) -> FieldKind:  # noqa: B008  # immutable
    """Return the kind of an annotation as pydantic has resolved it, whatever holds it.

    :param around: what a field says beside its annotation.
    """
    # What an annotation says may be anything, also what has no hash.
    annotation, around = _bare(annotation, around)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if any(annotation is one for one in (Any, object, types.NoneType)):
        return OptionalKind(JsonKind())
    if origin in {Union, types.UnionType}:
        return _union(arguments, around)
    if origin is Literal:
        return _literal(arguments)
    if isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
        # A tuple of several kinds is JSON.
        items = [argument for argument in arguments if argument is not Ellipsis]
        below = _Around(named_by=around.named_by, aliases=around.aliases)
        is_even = bool(items) and all(item == items[0] for item in items)
        return ListKind(field_kind(items[0], below)) if is_even else JsonKind()
    if isinstance(annotation, type) and origin is None:
        return BigIntKind() if annotation is int and _is_beyond(around.metadata) else _class(annotation)
    return JsonKind()


def _bare(annotation: Any, around: _Around) -> tuple[Any, _Around]:
    """Return the annotation without ``Annotated``, ``type`` aliases and ``NewType``, and what those say."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *said = get_args(annotation)
            told = [getattr(one, "discriminator", None) for one in said if isinstance(one, FieldInfo | Discriminator)]
            around = around._replace(
                metadata=(*said, *around.metadata),
                discriminator=next((one for one in told if one is not None), around.discriminator),
            )
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__") and hasattr(annotation, "__type_params__"):
            if annotation in around.aliases:
                return Any, around  # an alias that holds itself
            around = around._replace(named_by=annotation, aliases=(*around.aliases, annotation))
            annotation = annotation.__value__
        else:
            return _SAME_AS.get(annotation, annotation) if isinstance(annotation, type) else annotation, around


def _is_beyond(metadata: Sequence[Any]) -> bool:
    """Return whether constraints name a whole number that GraphQL's Int has not."""
    for one in metadata:
        if isinstance(one, FieldInfo) and _is_beyond(one.metadata):
            return True
        for name, least, most in _INT_BOUNDS:
            bound = getattr(one, name, None)
            if isinstance(bound, int | float) and not least <= bound <= most:
                return True
    return False


_INT_BOUNDS = (
    ("ge", -INT_END, math.inf),
    ("gt", -INT_END - 1, math.inf),
    ("le", -math.inf, INT_END - 1),
    ("lt", -math.inf, INT_END),
)
"""The constraints of whole numbers, and between which bounds they leave room for nothing but GraphQL's Int."""


def _union(arguments: tuple[Any, ...], around: _Around) -> FieldKind:
    present = [argument for argument in arguments if argument is not types.NoneType]
    if len(present) == 1:
        kind = field_kind(present[0], around)
    else:
        choices = _choices(present, around)
        kind = UnionKind(around.named_by, choices) if choices else JsonKind()
    return OptionalKind(kind) if len(present) < len(arguments) and not isinstance(kind, OptionalKind) else kind


def _literal(values: tuple[Any, ...]) -> FieldKind:
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    kind: FieldKind = kinds.pop() if len(kinds) == 1 else JsonKind()
    if kind is int and not all(map(is_int, present)):
        kind = BigIntKind()
    elif isinstance(kind, type) and issubclass(kind, Enum):
        kind = _class(kind)
    elif kind not in {str, int, bool}:
        kind = JsonKind()
    return OptionalKind(kind) if len(present) < len(values) else kind


def _class(cls: type[Any]) -> FieldKind:
    if issubclass(cls, Enum):
        return EnumKind(cls) if all(map(_is_value_name, cls.__members__)) else JsonKind()
    if issubclass(cls, BaseModel):
        return ModelKind(cls)
    if issubclass(cls, ByteSize):
        return BigIntKind()
    if issubclass(cls, _TEXTS):
        return TextKind()
    return next((scalar for scalar in _SCALARS if issubclass(cls, scalar)), JsonKind())


# Unions with a discriminator.


def _choices(arguments: Sequence[Any], around: _Around) -> tuple[Choice, ...]:
    """Return the choices of a union, those of unions in it among them; none if it is JSON in GraphQL."""
    found = [choice for argument in arguments for choice in _choices_of(argument, around, ())]
    if None in found or len({choice.model for choice in found if choice}) < len(found):
        return ()
    choices = tuple(choice for choice in found if choice is not None)
    names = [choice.member for choice in choices]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        one, other, *_ = [choice.model.__name__ for choice in choices if choice.member == twice]
        raise ValueError(f"has two choices, {one} and {other}, that are both {twice!r} in GraphQL; rename one of them.")
    return choices


def _choices_of(argument: Any, around: _Around, above: tuple[str, ...]) -> Iterator[Choice | None]:
    told = (*above, around.discriminator)
    if not isinstance(around.discriminator, str):
        told = (*above, getattr(around.discriminator, "discriminator", None))
    if not all(isinstance(name, str) for name in told):
        yield None
        return
    annotation, inner = _bare(argument, _Around())
    if get_origin(annotation) in {Union, types.UnionType}:
        for below in get_args(annotation):
            yield from _choices_of(below, inner, told)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and is_object(annotation):
        tags = [_tags(annotation, name) for name in told]
        yield Choice(_member(annotation, tags[-1][1]), annotation, tuple(tags)) if all(t[1] for t in tags) else None
    else:
        yield None


def _tags(model: type[BaseModel], name: str) -> tuple[str, tuple[Any, ...], Any]:
    info = model.model_fields.get(name)
    if info is None:
        return name, (), ...
    values = tuple(map(to_jsonable_python, literals_of(info)))
    given = values[0] if len(values) == 1 else ... if info.is_required() else to_jsonable_python(info.get_default())
    return keys_of(name, info)[0], values, given


def _member(model: type[BaseModel], tags: tuple[Any, ...]) -> str:
    """Return the name of a choice: the tag that it is told apart by, or that of the model if it has no single one."""
    if len(tags) == 1 and isinstance(tags[0], str):
        name = _in_camel_case(tags[0])
        if _NAME.fullmatch(name):
            return name
    return _in_camel_case(graphql_name(model.__name__))


def _in_camel_case(text: str) -> str:
    return to_camel("_".join(re.findall(r"[0-9A-Za-z]+", text)))


def literals_of(info: FieldInfo) -> tuple[Any, ...]:
    """Return the values of a field that is a ``Literal``; none for any other."""
    annotation, _ = _bare(info.annotation, _Around())
    return get_args(annotation) if get_origin(annotation) is Literal else ()


# Names.

_NAME = re.compile(r"(?!__)[_A-Za-z][_0-9A-Za-z]*")


def _is_value_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in {"true", "false", "null"}


def field_name_of(field_name: str, info: FieldInfo) -> str:
    """Return the field's alias if it can be a GraphQL name, else its name in camelCase."""
    alias = info.alias
    return alias if alias is not None and _NAME.fullmatch(alias) else to_camel(field_name)


def graphql_name(name: str) -> str:
    """Return the name of a class as one of GraphQL: ``Box[int]`` is ``BoxInt``."""
    if _NAME.fullmatch(name):
        return name
    words = re.split(r"[^0-9A-Za-z]+", name)
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return joined if _NAME.fullmatch(joined) else f"Type{joined}"
