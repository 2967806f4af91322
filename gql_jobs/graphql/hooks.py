"""The few places where Strawberry has no public way, each with its reason; nothing else may reach inside it."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

import strawberry
from graphql import GraphQLInputObjectType, GraphQLSchema

E = TypeVar("E", bound=type[Enum])


def core_schema(schema: Any) -> GraphQLSchema:
    """The graphql-core schema: its own diagnostics of values and literals need it."""
    core = schema._schema  # noqa: SLF001
    assert isinstance(core, GraphQLSchema)
    return core


def enforce_one_of(schema: Any, name: str) -> None:
    """Let graphql-core check the @oneOf input ``name`` itself.

    Strawberry checks it while it builds Python values: that error has no path and hides the ones beside it.
    """
    input_type = core_schema(schema).type_map[name]
    assert isinstance(input_type, GraphQLInputObjectType)
    input_type.is_one_of = True


def describe_enum(enum: E, description: str, values: Mapping[str, str], *, name: str | None = None) -> E:
    """Make a GraphQL enum of an existing one.

    Strawberry takes the descriptions of values only from classes written for it, and ours belong to ``jobs`` or to
    whoever wrote a job type.
    """
    described: Any = strawberry.enum(enum, name=name, description=description)
    for value in described.__strawberry_definition__.values:
        value.description = values[value.name]
    return enum
