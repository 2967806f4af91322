"""The few places where Strawberry has no public way, each with its reason; nothing else may reach inside it."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

import strawberry
from graphql import Executor, GraphQLInputObjectType, GraphQLSchema, OperationDefinitionNode
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types import ExecutionContext

E = TypeVar("E", bound=type[Enum])


def core_schema(schema: Any) -> GraphQLSchema:
    """The graphql-core schema: its own diagnostics of values and literals need it."""
    core = schema._schema  # noqa: SLF001
    assert isinstance(core, GraphQLSchema)
    return core


def is_ambiguous(operation: ExecutionContext) -> bool:
    """Whether the document has several operations and the request does not say which to run: Strawberry runs the first.

    ``ExecutionContext.operation_name`` is the first operation's name where the request gave none.
    """
    if operation.graphql_document is None or operation._provided_operation_name is not None:  # noqa: SLF001
        return False
    definitions = operation.graphql_document.definitions
    return sum(isinstance(definition, OperationDefinitionNode) for definition in definitions) > 1


class EventExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes operations; each event of a subscription with a cache of its own.

    graphql-core caches the fields below a field by the identity of a list that it makes anew for each event, in a
    dictionary that all events of the subscription share: it would grow for as long as somebody watches.
    """

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """The executor of one event."""
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001
        return executor


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
