"""The few places where Strawberry has no public way, each with its reason; nothing else may reach inside it."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar, cast

import strawberry
from graphql import (
    Executor,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLOneOfDirective,
    GraphQLSchema,
    get_named_type,
    is_input_object_type,
)
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import CustomGraphQLEnumType, GraphQLCoreConverter
from strawberry.schema_directives import OneOf
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

E = TypeVar("E", bound=type[Enum])


def core_schema(schema: Any) -> GraphQLSchema:
    """The graphql-core schema: its own diagnostics of values and literals need it."""
    core = schema._schema  # noqa: SLF001
    assert isinstance(core, GraphQLSchema)
    return core


class EventExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes operations; each event of a subscription with a cache of its own.

    graphql-core caches the fields below a field by the identity of a list that it makes anew for each event, in a
    dictionary that all events of the subscription share: it would grow for as long as somebody watches.
    """

    def use_plan(self, plans: dict[str | None, Any]) -> None:
        """Go by what executions of this very document have kept, by the operation's name; this one keeps nothing.

        Only for a document in which no variable decides what is selected.
        """

    def data_of(self, event: Any) -> dict[str, Any] | None:
        """What a subscription answers to an event, where that is known without executing it."""

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """The executor of one event."""
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001
        return executor


def attribute_of(field: GraphQLField) -> str | None:
    """The attribute that a field reads; None for a field with a resolver, with arguments, or not of Strawberry's."""
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if not isinstance(definition, StrawberryField) or not definition.is_basic_field or field.args:
        return None
    return definition.python_name


def brings_events(field: GraphQLField) -> bool:
    """Whether the field is one of a subscription: of an event its value is the event itself."""
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return isinstance(definition, StrawberryField) and definition.is_subscription


def computed(description: str) -> Any:
    """A field whose value is a property of its class, which ``compute`` sets; the constructor does not take it.

    A job has twenty fields and most documents ask for few of them, of fifty jobs at a time.
    """
    field = strawberry.field(description=description)
    # A StrawberryField is one of dataclasses, but decides this by itself.
    field.init = False
    return field


def compute(cls: type, **readers: Callable[[Any], Any]) -> None:
    """Set the values of the fields that are ``computed``.

    Not in the class's own body: there the dataclass would take a property for the field's default.
    """
    for name, read in readers.items():
        setattr(cls, name, property(read))


def enum_class(enum: GraphQLEnumType) -> type[Enum]:
    """The Python class of an enum of the schema."""
    assert isinstance(enum, CustomGraphQLEnumType)
    return cast("type[Enum]", enum.wrapped_cls)


def object_name(cls: type) -> str | None:
    """The name of the object type that was made of exactly this class."""
    definition = cls.__dict__.get("__strawberry_definition__")
    return definition.name if isinstance(definition, StrawberryObjectDefinition) else None


def call_directly(schema: Any, type_name: str, field_name: str, resolver: Callable[..., Any]) -> None:
    """Let graphql-core call a root field's resolver itself: arguments by Python names, input objects as dictionaries.

    Strawberry would make an object of each, looking up the type of every field every time: a fifth of a creation, and
    of what a page costs beside its jobs.
    """
    root = core_schema(schema).type_map[type_name]
    assert isinstance(root, GraphQLObjectType)
    field = root.fields[field_name]
    definition = field.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
    field.resolve = lambda _root, info, **arguments: resolver(strawberry.Info(info, definition), **arguments)
    for argument in field.args.values():
        argument.out_name = argument.extensions[GraphQLCoreConverter.DEFINITION_BACKREF].python_name


def use_python_names(schema: Any, name: str) -> None:
    """Let the dictionaries of an input object, and of those in it, have Python names.

    Only for one that no resolver gets from Strawberry: that would take a member of another name for left out.
    """
    _use_python_names(core_schema(schema).type_map[name])


def _use_python_names(input_type: Any) -> None:
    if not is_input_object_type(input_type):
        return
    for field in input_type.fields.values():
        definition = field.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
        if field.out_name is None:
            field.out_name = definition.python_name
            _use_python_names(get_named_type(field.type))


def describe_one_of() -> None:
    """Have the directive @oneOf printed with its description; Strawberry knows the directive without."""
    definition: Any = OneOf.__strawberry_directive__  # type: ignore[attr-defined]
    definition.description = GraphQLOneOfDirective.description


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
