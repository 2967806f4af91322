"""What one operation may ask for, and the refusal of what asks for more, before validation and execution.

Holds for every transport alike: the refusal is an error of the operation.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    get_operation_ast,
)
from strawberry.extensions import SchemaExtension

from gql_jobs.graphql.complexity import Complexity, Measurement, TooDeep
from gql_jobs.graphql.documents import Documents
from gql_jobs.graphql.hooks import core_schema
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


class EnforcedLimits(SchemaExtension):
    """Refuses the operation of one request; made anew for each, as its execution context is."""

    def __init__(self, limits: OperationLimits, documents: Documents) -> None:
        super().__init__()
        self._limits = limits
        self._documents = documents

    def on_operation(self) -> Iterator[None]:
        """Bound what the parser reads. It is given up midway, so the rest of an endless document costs nothing."""
        self.execution_context.parse_options.update(parse_options(self._limits))  # type: ignore[typeddict-item]
        yield

    def on_parse(self) -> Iterator[None]:
        """Say what was too much, where the parser gave up."""
        yield
        for error in self.execution_context.pre_execution_errors or ():
            if isinstance(error, GraphQLSyntaxError) and error.message.endswith(_ABORTED):
                error.message = error.message.removeprefix("Syntax Error: ")
                error.extensions = {"code": TooComplex.code.value}

    def on_validate(self) -> Iterator[None]:
        """Measure the operation first: validation is skipped where there is an error already."""
        refusal = self._refusal()
        if refusal is not None:
            self.execution_context.pre_execution_errors = [GraphQLError(refusal.message, original_error=refusal)]
        yield

    def _refusal(self) -> TooComplex | None:
        context = self.execution_context
        document = context.graphql_document
        operation = get_operation_ast(document, context.operation_name) if document is not None else None
        if document is None or not isinstance(operation, OperationDefinitionNode):
            return None
        known = self._documents.find(context.query or "")
        found = known.complexity.get(context.operation_name) if known is not None else None
        if found is None:
            walk = self._walk(document)
            try:
                found = walk.operation(operation)
            except TooDeep as error:
                return TooComplex("depth", self._limits.max_operation_depth, error.depth)
            if known is not None and not walk.used_variables:
                known.complexity[context.operation_name] = found
        return refusal_of(found, self._limits)

    def _walk(self, document: DocumentNode) -> Measurement:
        context = self.execution_context
        fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        return Measurement(core_schema(context.schema), fragments, context.variables or {}, LARGEST_PAGE)
