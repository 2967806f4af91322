"""The use of Strawberry's private API, which no other module may use. docs/architecture.md lists each place.

Strawberry defines the schema (types, fields, resolvers, their documentation) and does not run it. ``core_schema``
returns its graphql-core schema and lets graphql-core itself coerce all inputs; from ``resolver_of`` and
``attribute_of``, ``fast_path`` learns how a field gets its value. Everything here runs while a schema is made, or once
for each document.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeVar, cast

import strawberry
from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLOneOfDirective,
    GraphQLSchema,
    GraphQLUnionType,
)
from strawberry.schema.schema_converter import CustomGraphQLEnumType, GraphQLCoreConverter
from strawberry.schema_directives import OneOf
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

_E = TypeVar("_E", bound=type[Enum])

GIVEN_AS = "given as"
"""The key of a field's metadata that names it in the dictionaries of input objects."""


_READ_AS = "__gql_jobs_read_as__"


class Resolver(NamedTuple):
    """The function behind a field, and what it is called with before the field's arguments, in this order."""

    function: Callable[..., Any]
    takes_source: bool
    takes_info: bool
    field: StrawberryField


def core_schema(schema: strawberry.Schema) -> GraphQLSchema:
    """Return the graphql-core schema of a Strawberry schema.

    Its inputs are coerced by graphql-core alone: arguments are named as the resolvers' parameters are, and an input
    object is a dictionary of what the client gave, by the Python names of its fields, or by the names in their metadata
    (``GIVEN_AS``). A @oneOf input is checked by
    graphql-core too: Strawberry's own check raises an error that has no path and hides the ones beside it.
    """
    core = schema._schema  # noqa: SLF001
    for named in core.type_map.values():
        if isinstance(named, GraphQLInputObjectType):
            definition = named.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
            named.is_one_of = definition.is_one_of
            named.out_type = getattr(definition.origin, _READ_AS, named.out_type)  # type: ignore[method-assign]
            for member in named.fields.values():
                definition = _definition(member)
                member.out_name = definition.metadata.get(GIVEN_AS, definition.python_name)
        elif isinstance(named, GraphQLUnionType):
            # Strawberry knows only objects of its own classes; graphql-core asks the object itself.
            named.resolve_type = None
        elif isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
            for field in named.fields.values():
                for argument in field.args.values():
                    if GraphQLCoreConverter.DEFINITION_BACKREF in argument.extensions:
                        argument.out_name = _definition(argument).python_name
    return core


def _definition(of: Any) -> Any:
    return of.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)


def attribute_of(field: GraphQLField) -> str | None:
    """Return the attribute that a field reads; None for one with a resolver, with arguments, or of GraphQL's own."""
    definition = _definition(field)
    if not isinstance(definition, StrawberryField) or not definition.is_basic_field or field.args:
        return None
    return definition.python_name


def resolver_of(field: GraphQLField) -> Resolver | None:
    """Return the resolver of a field; None for one that reads an attribute, has extensions, or is GraphQL's own."""
    definition = _definition(field)
    if not isinstance(definition, StrawberryField) or definition.base_resolver is None or definition.extensions:
        return None
    found = definition.base_resolver
    takes_source = found.self_parameter is not None or found.root_parameter is not None
    return Resolver(
        cast("Callable[..., Any]", found.wrapped_func), takes_source, found.info_parameter is not None, definition
    )


def brings_events(field: GraphQLField) -> bool:
    """Return whether the field is a root field of a subscription, whose value is the event itself."""
    definition = _definition(field)
    return isinstance(definition, StrawberryField) and definition.is_subscription


def enum_class(enum: GraphQLEnumType) -> type[Enum]:
    """Return the Python class of an enum of the schema."""
    assert isinstance(enum, CustomGraphQLEnumType)
    return cast("type[Enum]", enum.wrapped_cls)


def object_name(cls: type) -> str | None:
    """Return the name of the object type that was made of exactly this class, or None."""
    definition = cls.__dict__.get("__strawberry_definition__")
    return definition.name if isinstance(definition, StrawberryObjectDefinition) else None


def computed(description: str) -> Any:
    """Return a field whose value is a property of its class, which ``compute`` sets; the constructor does not take it.

    Its value is computed only if a document selects it: most documents select few of a job's fields.
    """
    field = strawberry.field(description=description)
    # A StrawberryField is one of dataclasses, but decides this by itself.
    field.init = False
    return field


def compute(cls: type, **readers: Callable[[Any], Any]) -> None:
    """Set the properties behind the ``computed`` fields of a class.

    This cannot be done in the class's body, where dataclasses would take a property for the field's default.

    :param readers: by the field's Python name, what returns its value for an object of the class.
    """
    for name, read in readers.items():
        setattr(cls, name, property(read))


def named_field(python_name: str, field: Any) -> StrawberryField:
    """Set the Python name of a field for ``create_type``, and return the field."""
    assert isinstance(field, StrawberryField)
    field.python_name = python_name
    return field


def read_as(input_type: type, convert: Callable[[dict[str, Any]], Any]) -> None:
    """Have an input object read as what ``convert`` makes of the dictionary that was given."""
    setattr(input_type, _READ_AS, staticmethod(convert))


def selection_below(info: "strawberry.Info[Any, Any]") -> tuple[list[FieldNode], dict[str, FragmentDefinitionNode]]:
    """Return the nodes of the field that a resolver is called for, and the fragments of its document by name.

    Strawberry's own view of a selection is made anew at each call, as a whole.
    """
    raw = info._raw_info  # noqa: SLF001
    return raw.field_nodes, raw.fragments


def describe_enum(enum: _E, description: str | None, values: Mapping[str, str], *, name: str | None = None) -> _E:
    """Make a GraphQL enum of an existing class, in place, and return the class.

    Strawberry takes the descriptions of values only from classes written for it, and ours belong to ``jobs`` or to
    whoever wrote a job type.

    :param values: the descriptions by the values' names, of those that have one.
    :param name: of the GraphQL enum, where it is not the class's own.
    """
    described: Any = strawberry.enum(enum, name=name, description=description)
    for value in described.__strawberry_definition__.values:
        value.description = values.get(value.name)
    return enum


def describe_one_of() -> None:
    """Have the directive @oneOf printed with its description; Strawberry knows the directive without."""
    definition: Any = OneOf.__strawberry_directive__  # type: ignore[attr-defined]
    definition.description = GraphQLOneOfDirective.description
