"""How long operations take and what they are refused for, as plain counters. Streams are not timed: they may last."""

from collections.abc import Iterable

from graphql import FieldNode, GraphQLError, OperationDefinitionNode

from gql_jobs.graphql.enums import ErrorCode
from gql_jobs.metrics.histogram import ANSWERS, Histogram

OTHER = "other"
"""The label of what a client may call as it likes: labels stay few whatever comes in."""
_CODES = frozenset(code.value for code in ErrorCode)


class OperationTimes:
    """Of one schema.

    :param names: names of operations that have a label of their own.
    :param fields: the root fields of the schema, which have one too.
    """

    def __init__(self, names: frozenset[str], fields: frozenset[str]) -> None:
        self._names = names
        self._fields = fields
        self.times: dict[tuple[str, ...], Histogram] = {}
        """By the operation's name and its first root field."""
        self.errors: dict[tuple[str, ...], int] = {(code,): 0 for code in sorted(_CODES)}
        """By ``extensions.code``."""

    def took(self, operation: OperationDefinitionNode, seconds: float) -> None:
        """Count an operation that has been answered, from before its document was parsed until its result was made."""
        name, field = operation.name.value if operation.name else None, _first_field(operation)
        label = (name if name in self._names else OTHER, field if field in self._fields else OTHER)
        found = self.times.get(label)
        if found is None:
            found = self.times[label] = Histogram(ANSWERS)
        found.observe(seconds)

    def refused(self, errors: Iterable[GraphQLError]) -> None:
        """Count the errors of an answer."""
        for error in errors:
            code = (error.extensions or {}).get("code")
            if code in _CODES:
                self.errors[(str(code),)] += 1


def _first_field(operation: OperationDefinitionNode) -> str:
    first = operation.selection_set.selections[0] if operation.selection_set.selections else None
    return first.name.value if isinstance(first, FieldNode) else OTHER
