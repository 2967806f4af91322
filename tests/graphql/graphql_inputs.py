"""Stored payloads as clients write them."""

from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from gql_jobs.jobs.field_kinds import (
    EnumKind,
    FieldKind,
    ListKind,
    ModelKind,
    OptionalKind,
    UnionKind,
    field_name_of,
    input_kinds,
    is_object,
)
from gql_jobs.jobs.graphql_input import choice_of
from gql_jobs.jobs.model_parts import keys_of


def as_graphql_input(model: type[BaseModel], stored: Any) -> Any:
    """Return a payload's JSON as the API takes it: by the names of its inputs, enum values and members of unions."""
    if not isinstance(stored, dict) or not is_object(model):
        return stored
    names = {key: name for name, info in model.model_fields.items() for key in keys_of(name, info)}
    kinds = input_kinds(model)
    return {
        field_name_of(names[key], model.model_fields[names[key]]) if key in names else key: (
            _given(kinds[names[key]], value) if key in names else value
        )
        for key, value in stored.items()
    }


def _given(kind: FieldKind, value: Any) -> Any:
    match kind:
        case OptionalKind(of):
            return None if value is None else _given(of, value)
        case ListKind(of) if isinstance(value, list):
            return [_given(of, item) for item in value]
        case ModelKind(model):
            return as_graphql_input(model, value)
        case UnionKind() if (choice := choice_of(kind, value)) is not None:
            return {choice.member: as_graphql_input(choice.model, value)}
        case EnumKind(enum):
            return next((one.name for one in enum if to_jsonable_python(one) == value), value)
        case _:
            return value
