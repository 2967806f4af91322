"""How long operations take and what they are refused for, as plain counters. Streams are not timed: they may last."""

import time
from collections.abc import Iterator

from graphql import FieldNode, OperationDefinitionNode, OperationType, get_operation_ast
from strawberry.extensions import SchemaExtension

from gql_jobs.graphql.enums import ErrorCode
from gql_jobs.metrics.histogram import ANSWERS, Histogram

OTHER = "other"
"""The label of what a client may call as it likes: labels stay few whatever comes in."""
_CODES = frozenset(code.value for code in ErrorCode)


class OperationTimes:
    """Of one schema.

    :param names: names of operations that have a label of their own.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.fields: frozenset[str] = frozenset()
        """The root fields of the schema, which have a label of their own."""
        self.times: dict[tuple[str, ...], Histogram] = {}
        """By the operation's name and its first root field."""
        self.errors: dict[tuple[str, ...], int] = {(code,): 0 for code in sorted(_CODES)}
        """By ``extensions.code``."""

    def took(self, name: str | None, field: str, seconds: float) -> None:
        """Count an operation that has been answered."""
        label = (name if name in self._names else OTHER, field if field in self.fields else OTHER)
        found = self.times.get(label)
        if found is None:
            found = self.times[label] = Histogram(ANSWERS)
        found.observe(seconds)

    def refused(self, code: object) -> None:
        """Count an error."""
        if code in _CODES:
            self.errors[(str(code),)] += 1


class TimedOperation(SchemaExtension):
    """Times one operation; first of the extensions, so that errors have their codes when it is over."""

    def __init__(self, times: OperationTimes) -> None:
        super().__init__()
        self._times = times

    def on_operation(self) -> Iterator[None]:
        """From before the document is parsed until its result is made."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._count(time.perf_counter() - began)

    def _count(self, seconds: float) -> None:
        context = self.execution_context
        for error in getattr(context.result, "errors", None) or ():
            self._times.refused((error.extensions or {}).get("code"))
        if context.graphql_document is None:
            return
        operation = get_operation_ast(context.graphql_document, context.operation_name)
        if isinstance(operation, OperationDefinitionNode) and operation.operation is not OperationType.SUBSCRIPTION:
            name = operation.name.value if operation.name else None
            self._times.took(name, _first_field(operation), seconds)


def _first_field(operation: OperationDefinitionNode) -> str:
    first = operation.selection_set.selections[0] if operation.selection_set.selections else None
    return first.name.value if isinstance(first, FieldNode) else OTHER
