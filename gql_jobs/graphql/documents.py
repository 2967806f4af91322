"""The documents that have passed validation, by their text: front ends send the same few for as long as they run.

Parsing and validating a page's document costs 4 ms, executing it 5 ms; a text that is known costs neither of the first.
Only what is valid is kept, and no more than a browser that makes up texts could be allowed to cost.
"""

from collections import OrderedDict
from collections.abc import Iterator

from graphql import DocumentNode, OperationDefinitionNode, get_operation_ast
from msgspec import Struct, field
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from gql_jobs.graphql.complexity import Complexity
from gql_jobs.graphql.context import Context

MOST = 1000
"""Documents that are kept."""
LONGEST = 16 * 1024
"""Characters of a document that is kept; its syntax tree takes about a hundred times as many bytes."""


class Known(Struct):
    """A valid document, and what is known of its operations by their names."""

    document: DocumentNode
    complexity: dict[str | None, Complexity] = field(default_factory=dict)


def operation_type(document: DocumentNode | None, operation_name: str | None) -> OperationType | None:
    """What a request asks to run; None where the document cannot be read or leaves open which operation is meant."""
    operation = get_operation_ast(document, operation_name) if document is not None else None
    return OperationType(operation.operation.value) if isinstance(operation, OperationDefinitionNode) else None


class Documents:
    """The valid documents used last, for one schema."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Known] = OrderedDict()

    def find(self, text: str) -> Known | None:
        """The document of that text, if it was valid before."""
        known = self._kept.get(text)
        if known is not None:
            self._kept.move_to_end(text)
        return known

    def keep(self, text: str, document: DocumentNode) -> None:
        """Remember a document that is valid."""
        if len(text) > LONGEST or text in self._kept:
            return
        self._kept[text] = Known(document)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)


class KnownDocuments(SchemaExtension):
    """Neither parses nor validates a document that was valid before, nor parses one that the transport has parsed."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def on_parse(self) -> Iterator[None]:
        """Put the known document in place of its text."""
        context = self.execution_context
        known = self._documents.find(context.query or "")
        if known is not None:
            context.graphql_document = known.document
            # An empty list, unlike None, says that validation has been done.
            context.pre_execution_errors = []
        elif isinstance(context.context, Context):
            context.graphql_document = context.context.document
        yield

    def on_validate(self) -> Iterator[None]:
        """Remember a document without errors."""
        yield
        context = self.execution_context
        if context.query and context.graphql_document is not None and not context.pre_execution_errors:
            self._documents.keep(context.query, context.graphql_document)
