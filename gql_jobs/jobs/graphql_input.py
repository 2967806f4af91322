"""What is made of an input for a payload, where a part of the payload stands in it, and which numbers it cannot have.

A union with a discriminator is a @oneOf input there: the member that is given says which choice it is, so that the
fields that tell the choices apart need not be given.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from gql_jobs.jobs.field_kinds import (
    Choice,
    FieldKind,
    JsonKind,
    ListKind,
    ModelKind,
    OptionalKind,
    UnionKind,
    field_name_of,
    input_kinds,
    is_float,
    is_int,
    is_object,
    literals_of,
    output_kinds,
    parts_of_kind,
)
from gql_jobs.jobs.model_parts import keys_of


def shown_path(model: type[BaseModel], path: tuple[str | int, ...], stored: Any = None) -> list[str | int]:
    """Return a path in a payload's JSON as clients write it: with the names of inputs.

    :param stored: the JSON, as far as it is known: it says which choices of unions it has.
    """
    shown: list[str | int] = []
    kind: FieldKind = ModelKind(model) if is_object(model) else JsonKind()
    for part in path:
        while isinstance(kind, OptionalKind):
            kind = kind.of
        if isinstance(kind, UnionKind):
            choice = choice_of(kind, stored)
            shown.extend([choice.member] if choice is not None else ())
            kind = ModelKind(choice.model) if choice is not None else JsonKind()
        if isinstance(kind, ModelKind):
            fields = kind.model.model_fields
            name = next((name for name, info in fields.items() if part in keys_of(name, info)), None)
            shown.append(part if name is None else field_name_of(name, fields[name]))
            kind = JsonKind() if name is None else input_kinds(kind.model)[name]
        else:
            shown.append(part)
            kind = kind.of if isinstance(kind, ListKind) else JsonKind()
        stored = _part(stored, part)
    return shown


def _part(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def choice_of(kind: UnionKind, value: Any) -> Choice | None:
    """Return the choice that a JSON object is one of; None if it is none."""
    if not isinstance(value, dict):
        return None
    return next((one for one in kind.choices if all(value.get(key) in tags for key, tags, _ in one.tags)), None)


def with_tags(choice: Choice, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a client has given for a choice, with what tells it apart; the model refuses what is of another."""
    tagged = dict(given)
    for key, tags, usual in choice.tags:
        if tagged.get(key) is None and usual is not ...:
            tagged[key] = usual
        elif key in tagged and to_jsonable_python(tagged[key]) not in tags:
            tagged[key] = f"{to_jsonable_python(tagged[key])} in the place of {choice.member}"
    return tagged


def with_constants(constants: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return what a client has given for a model, with those of its constants that were left out."""
    return constants | {key: item for key, item in given.items() if item is not None or key not in constants}


def constants_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the values of the fields that have to be there and can have one value only, by the keys of JSON."""
    return {
        keys_of(name, info)[0]: to_jsonable_python(values[0])
        for name, info in model.model_fields.items()
        if info.is_required() and len(values := literals_of(info)) == 1
    }


# What GraphQL cannot write.


def numbers_beyond(value: BaseModel, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the places, in the JSON of a payload, of numbers that are beyond GraphQL's in fields that have been given.

    Whatever a default or its factory makes is left out: it has a kind of its own, or is shown as null.
    """
    for name, key, kind in _with_numbers(type(value)):
        if name in value.model_fields_set:
            yield from _beyond(kind, getattr(value, name), (*path, key))


@cache
def _with_numbers(model: type[BaseModel]) -> tuple[tuple[str, str, FieldKind], ...]:
    """Return the fields of a model that may have such numbers: their names, their keys in JSON, and their kinds."""
    shown = output_kinds(model)
    return tuple(
        (name, keys_of(name, model.model_fields[name])[0], kind)
        for name, kind in input_kinds(model).items()
        if shown[name] == kind and any(map(_may_have_numbers, parts_of_kind(kind)))
    )


@cache
def may_have_numbers(model: type[BaseModel]) -> bool:
    """Return whether ``numbers_beyond`` could find any in a value of a model."""
    return bool(_with_numbers(model))


def _may_have_numbers(kind: FieldKind) -> bool:
    if isinstance(kind, UnionKind):
        return any(may_have_numbers(choice.model) for choice in kind.choices)
    return kind in {int, float} or (isinstance(kind, ModelKind) and may_have_numbers(kind.model))


def _beyond(kind: FieldKind, value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(kind, OptionalKind):
        yield from _beyond(kind.of, value, path)
    elif isinstance(kind, ListKind) and not _fits(kind.of, value):
        for number, item in enumerate(value or ()):
            yield from _beyond(kind.of, item, (*path, number) if isinstance(value, Sequence) else path)
    elif isinstance(kind, ModelKind | UnionKind) and isinstance(value, BaseModel):
        yield from numbers_beyond(value, path)
    elif (kind is int and isinstance(value, int) and not is_int(value)) or (kind is float and not is_float(value)):
        yield path


def _fits(kind: FieldKind, items: Any) -> bool:
    """Return whether all of many numbers can be written, if that can be told at once."""
    try:
        if kind is int:
            return not items or (is_int(min(items)) and is_int(max(items)))
        return kind is float and all(map(math.isfinite, items))
    except (TypeError, OverflowError):
        return False
