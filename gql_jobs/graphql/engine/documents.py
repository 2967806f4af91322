"""Documents: read, limited, validated and remembered.

A request becomes an operation in two steps. ``Documents.read`` finds or parses its document and chooses the operation
that is meant, so that a transport knows what it has to do with. ``Documents.check`` refuses what asks for too much and
what is not valid: in this order, because the rules of validation cost more than measuring. Front ends send the same few
documents for as long as they run: a text that was valid before is neither parsed nor validated again. Only what is
valid is kept, and no more than a browser that makes up texts could be allowed to cost.

The limits hold for every transport alike: the refusal is an error of the operation.
"""

from collections import OrderedDict
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import graphql
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    get_operation_ast,
    validate,
)
from msgspec import Struct, field

from gql_jobs.graphql.engine.complexity import Complexity, Measurement, TooDeep
from gql_jobs.graphql.engine.errors import DocumentError, ErrorCodes, coded, located
from gql_jobs.jobs.errors import ErrorCode, GqlJobsError

MAX_REMEMBERED = 1000
"""Documents that are kept."""
MAX_REMEMBERED_LENGTH = 16 * 1024
"""Characters of a document that is kept; its syntax tree takes about a hundred times as many bytes."""
INTROSPECTION_DEPTH = 20
"""Levels of the introspection; GraphiQL and graphql-codegen ask for 15."""
_ABORTED = "Parsing aborted."
"""How the parser's refusals end, which are no syntax errors."""
_LARGEST_INT = 2**31 - 1
"""The largest number that an error can show: GraphQL's Int."""


class OperationLimits(Protocol):
    """The most that one operation may ask for, with every fragment counted at each of its spreads."""

    @property
    def max_operation_depth(self) -> int:
        """Levels of fields."""

    @property
    def max_operation_root_fields(self) -> int:
        """Fields at the first level."""

    @property
    def max_operation_aliases(self) -> int:
        """Fields that are given another name."""

    @property
    def max_operation_directives(self) -> int:
        """Directives, in all."""

    @property
    def max_operation_cost(self) -> int:
        """Values in the answer, with the sizes of lists counted."""

    @property
    def max_document_tokens(self) -> int:
        """Tokens, and comments likewise."""

    @property
    def max_document_length(self) -> int:
        """Characters."""

    @property
    def query_timeout(self) -> float:
        """Seconds that a query may take."""


class TooComplex(GqlJobsError):
    """An operation asks for more than one may: ``actual`` of a ``measure`` (its depth, its cost) above ``limit``."""

    code = ErrorCode.TOO_COMPLEX

    def __init__(self, measure: str, limit: int, actual: int) -> None:
        # Fragments that double can make a number of any length.
        shown = str(actual) if actual < _LARGEST_INT else f"more than {_LARGEST_INT}"
        message = f"The operation asks for too much: its {measure} may be {limit} at most, and it has {shown}."
        super().__init__(message, measure=measure, limit=limit, actual=min(actual, _LARGEST_INT))


class OperationRejected(Exception):
    """The operation is not run; each of the errors has its code."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(*errors)
        self.errors = errors


class OperationRequest(Struct, frozen=True):
    """What a client asks to run."""

    query: str
    """The document; empty where ``sha256`` alone names it."""
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    sha256: str | None = None
    """The document's digest, from a client of persisted queries."""


class KnownDocument(Struct):
    """A valid document, and what is known of its operations, by their names, and of the nodes of this very tree."""

    document: DocumentNode
    complexity: dict[str | None, Complexity] = field(default_factory=dict)
    plans: dict[str | None, Any] | None = None
    """How its fields are read; None where that may differ from one execution to the next."""
    is_shareable: bool | None = None
    """Whether its events are answered the same whoever asks; None until somebody wants to know."""


class ReadOperation(NamedTuple):
    """An operation that a client asks to run: its document, the operation in it, and the variables as sent."""

    text: str
    document: DocumentNode
    node: OperationDefinitionNode
    name: str | None
    variables: dict[str, Any]
    known: KnownDocument | None = None
    """What is kept with the document, which then is valid; there once it is checked."""


class Documents:
    """The documents of one schema, those that were valid last remembered.

    :param limits: what one operation may ask for; None for a schema that is only read.
    """

    def __init__(self, schema: GraphQLSchema, codes: ErrorCodes, limits: OperationLimits | None) -> None:
        self._schema = schema
        self._codes = codes
        self._limits = limits
        self._parse_options = _parse_options(limits) if limits is not None else {}
        self._kept: OrderedDict[str, KnownDocument] = OrderedDict()
        self._texts: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, request: OperationRequest) -> ReadOperation:
        """Return the operation that a request asks for.

        :raises OperationRejected: if its document cannot be read or found, or it leaves open which operation is meant.
        """
        text = self._text_of(request)
        known = self.find(text)
        document = known.document if known is not None else self._parse(text)
        node = _chosen(document, request.operation_name)
        name = node.name.value if node.name else None
        return ReadOperation(text, document, node, name, request.variables or {}, known)

    def check(self, operation: ReadOperation) -> ReadOperation:
        """Return the operation, valid and within the limits, with what is kept with its document.

        :raises OperationRejected: if it is not.
        """
        if self._limits is not None:
            too_much = self._excess(operation, self._limits)
            if too_much is not None:
                raise OperationRejected([located(too_much)])
        if operation.known is not None:
            return operation
        errors = validate(self._schema, operation.document, self._codes.rules)
        if errors:
            raise OperationRejected(self._codes.of_validation(errors))
        return operation._replace(known=self._remember(operation.text, operation.document))

    def find(self, text: str) -> KnownDocument | None:
        """Return the document of that text, if it was valid before."""
        known = self._kept.get(text)
        if known is not None:
            self._kept.move_to_end(text)
        return known

    def _text_of(self, request: OperationRequest) -> str:
        if request.sha256 is None:
            return request.query
        if request.query:
            if digest(request.query) != request.sha256:
                raise rejection("`sha256Hash` is not the digest of `query`.", DocumentError.BAD_REQUEST)
            return request.query
        text = self._texts.get(request.sha256)
        if text is None:
            # The words and the code that clients wait for, to send the document after all.
            raise rejection("PersistedQueryNotFound", DocumentError.PERSISTED_QUERY_NOT_FOUND)
        return text

    def _parse(self, text: str) -> DocumentNode:
        try:
            return graphql.parse(text, **self._parse_options)
        except GraphQLSyntaxError as error:
            raise OperationRejected([_aborted(error) or coded(error, DocumentError.GRAPHQL_PARSE_FAILED)]) from None
        except RecursionError:
            message = "The document is nested too deeply to be read."
            raise rejection(message, DocumentError.GRAPHQL_PARSE_FAILED) from None

    def _excess(self, operation: ReadOperation, limits: OperationLimits) -> TooComplex | None:
        """Return what an operation asks too much of; what a known document comes to is measured once."""
        known = operation.known
        found = known.complexity.get(operation.name) if known is not None else None
        if found is None:
            definitions = operation.document.definitions
            fragments = {d.name.value: d for d in definitions if isinstance(d, FragmentDefinitionNode)}
            walk = Measurement(self._schema, fragments, operation.variables)
            try:
                found = walk.operation(operation.node)
            except TooDeep as error:
                return TooComplex("depth", limits.max_operation_depth, error.depth)
            if known is not None and not walk.used_variables:
                known.complexity[operation.name] = found
        return excess_of(found, limits)

    def _remember(self, text: str, document: DocumentNode) -> KnownDocument:
        """Return what is kept with a valid document: for all who send it, or for this operation alone."""
        # Only directives make variables decide what is selected, and there is none without its sign.
        known = KnownDocument(document, plans=None if "@" in text else {})
        # Two requests may bring a text at once: the other's tree is the one that is kept.
        if len(text) > MAX_REMEMBERED_LENGTH or text in self._kept:
            return known
        self._kept[text] = known
        self._texts[digest(text)] = text
        if len(self._kept) > MAX_REMEMBERED:
            oldest, _ = self._kept.popitem(last=False)
            del self._texts[digest(oldest)]
        return known


def digest(text: str) -> str:
    """Return what clients name a document by that they do not send: SHA-256 of its UTF-8, in hexadecimal digits."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def excess_of(found: Complexity, limits: OperationLimits) -> TooComplex | None:
    """Return the first limit that a complexity exceeds, as an error; None where there is none."""
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


def rejection(message: str, code: DocumentError = DocumentError.GRAPHQL_VALIDATION_FAILED) -> OperationRejected:
    """Return the rejection of an operation for one reason."""
    return OperationRejected([coded(GraphQLError(message), code)])


def _parse_options(limits: OperationLimits) -> dict[str, Any]:
    return {
        "max_lexical_tokens": limits.max_document_tokens,
        "max_comments": limits.max_document_tokens,
        "max_source_length": limits.max_document_length,
    }


def _aborted(error: GraphQLSyntaxError) -> GraphQLError | None:
    """Return the refusal of a document that the parser gave up midway, so that the rest of it cost nothing."""
    if not error.message.endswith(_ABORTED):
        return None
    error.message = error.message.removeprefix("Syntax Error: ")
    error.extensions = {"code": TooComplex.code.value}
    return error


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """Return the operation that is meant; reject a request that leaves that open or names none of them."""
    node = get_operation_ast(document, name)
    if isinstance(node, OperationDefinitionNode):
        return node
    if name is not None:
        message = f'Unknown operation named "{name}".'
    elif any(isinstance(definition, OperationDefinitionNode) for definition in document.definitions):
        message = "The document has several operations; operationName must say which of them to run."
    else:
        message = "The document has no operation."
    raise rejection(message)
