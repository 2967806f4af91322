"""What one operation may ask for, and the refusal of what asks for more, before validation and execution.

Holds for every transport alike: the refusal is an error of the operation.
"""

from typing import Any, Protocol

from graphql import FragmentDefinitionNode, GraphQLError, GraphQLSchema, GraphQLSyntaxError

from gql_jobs.graphql.engine.complexity import Complexity, Measurement, TooDeep
from gql_jobs.graphql.engine.errors import Asked
from gql_jobs.graphql.queries import LARGEST_PAGE
from gql_jobs.jobs.errors import TooComplex

INTROSPECTION_DEPTH = 20
"""Levels of the introspection; GraphiQL and graphql-codegen ask for 15."""
_ABORTED = "Parsing aborted."
"""How the parser's refusals end, which are no syntax errors."""


class OperationLimits(Protocol):
    """The most that one operation may ask for, with every fragment counted at each of its spreads."""

    @property
    def max_operation_depth(self) -> int:
        """Levels of fields."""

    @property
    def max_operation_root_fields(self) -> int: ...
    @property
    def max_operation_aliases(self) -> int: ...
    @property
    def max_operation_directives(self) -> int: ...
    @property
    def max_operation_cost(self) -> int:
        """Values in the answer, with the sizes of lists counted."""

    @property
    def max_document_tokens(self) -> int:
        """Tokens, and comments likewise."""

    @property
    def max_document_length(self) -> int:
        """Characters."""


def parse_options(limits: OperationLimits) -> dict[str, Any]:
    """The bounds of what ``graphql.parse`` reads."""
    return {
        "max_lexical_tokens": limits.max_document_tokens,
        "max_comments": limits.max_document_tokens,
        "max_source_length": limits.max_document_length,
    }


def refusal_of(found: Complexity, limits: OperationLimits) -> TooComplex | None:
    """The refusal of an operation that asks for too much."""
    for measure, actual, limit in (
        ("depth", found.depth, limits.max_operation_depth),
        ("introspection depth", found.introspection_depth, INTROSPECTION_DEPTH),
        ("number of root fields", found.fields, limits.max_operation_root_fields),
        ("number of aliases", found.aliases, limits.max_operation_aliases),
        ("number of directives", found.directives, limits.max_operation_directives),
        ("cost", found.cost, limits.max_operation_cost),
    ):
        if actual > limit:
            return TooComplex(measure, limit, actual)
    return None


def gave_up(error: GraphQLSyntaxError) -> GraphQLError | None:
    """The refusal of a document that the parser gave up midway, so that the rest of it cost nothing."""
    if not error.message.endswith(_ABORTED):
        return None
    error.message = error.message.removeprefix("Syntax Error: ")
    error.extensions = {"code": TooComplex.code.value}
    return error


def refusal(schema: GraphQLSchema, asked: Asked, limits: OperationLimits) -> TooComplex | None:
    """The refusal of an operation that asks for too much; what a known document comes to is measured once."""
    name = asked.node.name.value if asked.node.name else None
    known = asked.known
    found = known.complexity.get(name) if known is not None else None
    if found is None:
        fragments = {d.name.value: d for d in asked.document.definitions if isinstance(d, FragmentDefinitionNode)}
        walk = Measurement(schema, fragments, asked.variables, LARGEST_PAGE)
        try:
            found = walk.operation(asked.node)
        except TooDeep as error:
            return TooComplex("depth", limits.max_operation_depth, error.depth)
        if known is not None and not walk.used_variables:
            known.complexity[name] = found
    return refusal_of(found, limits)
