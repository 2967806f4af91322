"""What sort of GraphQL type a Python annotation of a model becomes. Knows neither Strawberry nor names."""

import types
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin
from uuid import UUID

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
    SecretStr,
)


class OptionalKind(NamedTuple):
    """The value or null."""

    of: "Kind"


class ListKind(NamedTuple):
    """Any number of values of one kind."""

    of: "Kind"


class ModelKind(NamedTuple):
    """A nested model."""

    model: type[BaseModel]


class EnumKind(NamedTuple):
    """An enum, by its members' names."""

    enum: type[Enum]


class TextKind(NamedTuple):
    """Something that is not a string in Python but is one in JSON, like a URL."""


class JsonKind(NamedTuple):
    """Whatever GraphQL cannot say more precisely."""


Kind: TypeAlias = OptionalKind | ListKind | ModelKind | EnumKind | TextKind | JsonKind | type[Any]
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


def kind_of(annotation: Any) -> Kind:
    """The kind of an annotation as pydantic resolved it, constraints and aliases looked through."""
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
    """Without ``Annotated``, ``type`` aliases and ``NewType``."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__") and hasattr(annotation, "__type_params__"):
            annotation = annotation.__value__
        else:
            return _SAME_AS.get(annotation, annotation) if isinstance(annotation, type) else annotation


def _union(arguments: tuple[Any, ...]) -> Kind:
    present = [argument for argument in arguments if argument is not type(None)]
    kind = kind_of(present[0]) if len(present) == 1 else JsonKind()
    return OptionalKind(kind) if len(present) < len(arguments) and not isinstance(kind, OptionalKind) else kind


def _list(arguments: tuple[Any, ...]) -> Kind:
    """A tuple of several kinds is JSON."""
    items = {argument for argument in arguments if argument is not Ellipsis}
    return ListKind(kind_of(items.pop())) if len(items) == 1 else JsonKind()


def _class(cls: type[Any]) -> Kind:
    if issubclass(cls, Enum):
        return EnumKind(cls)
    if issubclass(cls, BaseModel):
        return ModelKind(cls)
    if issubclass(cls, _TEXTS):
        return TextKind()
    return next((scalar for scalar in _SCALARS if issubclass(cls, scalar)), JsonKind())
