"""Documents: how they are parsed, limited, validated and cached.

A request becomes an operation in two steps. ``Documents.read`` finds or parses its document and chooses the operation
in it, so that a transport knows its type. ``Documents.check`` rejects what asks for too much and what is not valid: in
this order, because validation costs more than measuring. Front ends send the same few documents for as long as they
run: a text that was valid before is neither parsed nor validated again. Only valid documents are cached, and only so
many as fit into a budget of memory, because a client may send any number of texts.

The limits hold for every transport alike: the rejection is an error of the operation.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

import graphql
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    get_nullable_type,
    get_operation_ast,
    is_enum_type,
    is_input_object_type,
    is_list_type,
    type_from_ast,
    validate,
    visit,
)
from graphql.validation.rules import overlapping_fields_can_be_merged
from msgspec import Struct, field, json

from gql_jobs.graphql.engine.budget import OperationLimits, ReadingTimes, Refusals, TooComplex
from gql_jobs.graphql.engine.complexity import Complexity, Measurement, TooDeep, most_selections, without_repetitions
from gql_jobs.graphql.engine.errors import DocumentError, ErrorCodes, bounded, coded, located
from gql_jobs.jobs.errors import MAX_FAULTS, ErrorCode, shortened

MAX_CACHED_DOCUMENTS = 1000
"""Documents that are cached."""
MAX_CACHED_BYTES = 32 << 20
"""Bytes of memory that they may take, as ``_weight`` estimates it."""
MAX_CACHED_LENGTH = 16 * 1024
"""Characters of a document that is cached; its syntax tree is far larger (docs/decisions.md)."""
INTROSPECTION_DEPTH = 20
"""Levels of an introspection query; GraphiQL and graphql-codegen ask for 15."""
_TOKEN_BYTES = 1024
"""Bytes of memory for each token of a document, with its part of the syntax tree and of the plans."""
MAX_SELECTIONS = 500
"""Selections in one set, those of inline fragments in it included."""
MAX_DEFINITIONS = 150
"""Operations and fragments in a document."""
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 50_000
_EXHAUSTED = (
    "The documents of this client have taken too much time to be read. "
    "Send the same document each time, with values in its variables, or try again later."
)
MAX_LIST = 10_000
"""Items of a list in the variables, where nothing else is said."""
MAX_INPUT_VALUES = 100_000
"""Items of lists and fields of objects in the variables of one operation."""
_LONGEST_NAME = 255
"""Characters of the name of a field or an enum's value; to look for names like a longer one takes long."""
_ABORTED = "Parsing aborted."
"""The end of the parser's message where a document exceeds its limits, which is no syntax error."""


class OperationRejected(Exception):
    """An operation is not run. ``errors`` say why, each with its code; ``type`` is its type where that is known."""

    def __init__(self, errors: list[GraphQLError], operation_type: OperationType | None = None) -> None:
        super().__init__(*errors)
        self.errors = errors
        self.type = operation_type


class _SecretWritten(OperationRejected):
    """A secret stands in a document, whose text would be kept."""


class OperationRequest(Struct, frozen=True):
    """What a client asks to run."""

    query: str
    """The document; empty where ``sha256`` alone names it."""
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    sha256: str | None = None
    """The document's SHA-256 in hexadecimal digits, from a client of persisted queries; else None."""


# The sizes of variables, which are measured before they are coerced.


Size = Callable[[Any, int], int]
"""Given a value and how many values there may be, returns how many are left; raises ``TooMany``."""


class TooMany(Exception):
    """A value has more items, or a longer name, than is taken. ``path``: where it is, from the innermost part on."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str | int] = []


class InputSizes:
    """Measures the values of a schema's input types. What does not fit its type is left to coercion.

    :param lists: as ``Documents`` takes it.
    """

    def __init__(self, schema: GraphQLSchema, lists: Mapping[str, Mapping[str, int]]) -> None:
        self._schema = schema
        self._lists = lists
        self._objects: dict[str, Size] = {}

    def of(self, node: OperationDefinitionNode) -> list[tuple[str, Size]]:
        """Return how the values of an operation's variables are measured; those of single values are left out."""
        found = []
        for definition in node.variable_definitions or ():
            of = type_from_ast(self._schema, definition.type)
            size = self._size(of, MAX_LIST) if of is not None else None
            if size is not None:
                found.append((definition.variable.name.value, size))
        return found

    def _size(self, of: Any, most: int) -> Size | None:
        of = get_nullable_type(of)
        if is_list_type(of):
            return _list_size(self._size(of.of_type, MAX_LIST), most)
        if is_enum_type(of):
            return _enum_size
        if not is_input_object_type(of):
            return None
        if of.name not in self._objects:

            def of_itself(value: Any, left: int) -> int:
                return self._objects[of.name](value, left)

            # Set first, because an input object may have a field of its own type.
            self._objects[of.name] = of_itself
            caps = self._lists.get(of.name, {})
            sizes = {name: self._size(part.type, caps.get(name, MAX_LIST)) for name, part in of.fields.items()}
            self._objects[of.name] = _object_size(
                {name: size for name, size in sizes.items() if size is not None}, len(sizes) + MAX_FAULTS
            )
        return self._objects[of.name]


def _list_size(of_item: Size | None, most: int) -> Size:
    def size(value: Any, left: int) -> int:
        if not isinstance(value, list):
            # A single value stands for a list of one.
            return of_item(value, left) if of_item is not None else left
        if len(value) > most:
            raise TooMany(f"The list has {len(value)} items; {most} are taken at most.")
        left = _less(left, len(value))
        if of_item is not None:
            for number, item in enumerate(value):
                try:
                    left = of_item(item, left)
                except TooMany as excess:
                    excess.path.append(number)
                    raise
        return left

    return size


def _enum_size(value: Any, left: int) -> int:
    if isinstance(value, str) and len(value) > _LONGEST_NAME:
        raise TooMany(f"There is no value with a name of {len(value)} characters.")
    return left


def _object_size(fields: dict[str, Size], most: int) -> Size:
    def size(value: Any, left: int) -> int:
        if not isinstance(value, dict):
            return left
        if len(value) > most:
            raise TooMany(f"The object has {len(value)} fields, far more than there are.")
        if value and max(map(len, value)) > _LONGEST_NAME:
            longest = max(value, key=len)
            excess = TooMany(f"There is no field with a name of {len(longest)} characters.")
            excess.path.append(shortened(longest))
            raise excess
        left = _less(left, len(value))
        for name, measure in fields.items():
            part = value.get(name)
            if part is not None:
                try:
                    left = measure(part, left)
                except TooMany as excess:
                    excess.path.append(name)
                    raise
        return left

    return size


def _less(left: int, number: int) -> int:
    if number > left:
        raise TooMany(f"The variables have more than {MAX_INPUT_VALUES} values.")
    return left - number


class KnownDocument(Struct):
    """A valid document, and what is cached for its operations (by their names) and for the nodes of this very tree."""

    document: DocumentNode
    complexity: dict[str | None, Complexity] = field(default_factory=dict)
    plans: dict[str | None, Any] | None = None
    """How its fields are read; None where a variable may decide which fields are selected."""
    weight: int = 0
    """About how many bytes of memory it takes, with all that is cached for it."""
    sizes: dict[str | None, list[tuple[str, Size]]] = field(default_factory=dict)
    """How the values of its variables are measured, by the variables' names."""
    is_shareable: bool | None = None
    """Whether all subscribers get the same result of an event; None until that has been found out."""


class ReadOperation(NamedTuple):
    """An operation that a client asks to run: its document, the operation in it, and the variables as sent."""

    text: str
    document: DocumentNode
    node: OperationDefinitionNode
    name: str | None
    variables: dict[str, Any]
    known: KnownDocument | None = None
    """The valid document with what is cached for it; None until the operation is checked, if it was not cached."""
    client: str | None = None
    """For whom a new document is read."""
    is_named: bool = False
    """Whether the request names the operation."""


def _nobody() -> None:
    return None


class Documents:
    """The documents of one schema, with a cache of the valid ones that were used last.

    :param limits: what one operation may ask for; None for a schema that is only read.
    :param lists: items that lists in inputs may have, by the names of the input object and of its field.
    :param secrets: the arguments, by the names of their fields, that only variables may give: nothing is kept of a
        document that has the value of one.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        codes: ErrorCodes,
        limits: OperationLimits | None,
        lists: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._secrets = secrets
        self._schema = schema
        self._codes = codes
        self._limits = limits
        self._parse_options = _parse_options(limits) if limits is not None else {}
        self._times = ReadingTimes(limits.max_reading_time if limits is not None else 0)
        self._refusals: Refusals[OperationRejected] = Refusals()
        self._sizes = InputSizes(schema, lists)
        self._cached: OrderedDict[str, KnownDocument] = OrderedDict()
        self._cached_bytes = 0
        self._texts: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._cached)

    def read(self, request: OperationRequest, client: Callable[[], str | None] = _nobody) -> ReadOperation:
        """Return the operation that a request asks for.

        :param client: returns who asks, for whom new documents are read only so much of the time; None for nobody.
        :raises OperationRejected: if its document cannot be read or found, or it leaves open which operation is meant,
            or was rejected before.
        """
        text = self._text_of(request)
        known = self.find(text)
        if known is not None:
            return self._read(request, text, known.document, known)
        key = _refusal_key(text, request.operation_name)
        refusal = self._refusals.find(key)
        if refusal is not None:
            raise OperationRejected(refusal.errors, refusal.type)
        who = client()
        if who is not None and self._times.is_exhausted(who):
            raise OperationRejected([coded(GraphQLError(_EXHAUSTED), ErrorCode.RATE_LIMITED, retryAfter=1)])
        try:
            with self._times.spent(who):
                document = self._parse(text)
                if self._may_have_secret(text):
                    _refuse_secrets(document, self._secrets)
                return self._read(request, text, document, None, who)
        except _SecretWritten:
            raise
        except OperationRejected as rejected:
            raise self._kept(key, rejected, text) from None

    def _may_have_secret(self, text: str) -> bool:
        return any(name in text for name in self._secrets)

    def _read(
        self,
        request: OperationRequest,
        text: str,
        document: DocumentNode,
        known: KnownDocument | None,
        client: str | None = None,
    ) -> ReadOperation:
        node = _chosen(document, request.operation_name)
        name = node.name.value if node.name else None
        declared = _declared(node, request.variables or {})
        return ReadOperation(text, document, node, name, declared, known, client, request.operation_name is not None)

    def _kept(self, key: bytes, rejected: OperationRejected, text: str) -> OperationRejected:
        """Keep a refusal that follows from the text alone, without the document, and return one to raise.

        The one that is raised gets a traceback, and with it the whole request. Of a text that may have a secret nothing
        is kept: what could not be read is quoted.
        """
        if self._may_have_secret(text):
            return rejected
        kept = OperationRejected(bounded(rejected.errors), rejected.type)
        self._refusals.keep(key, kept, sum(len(json.encode(error.formatted)) for error in kept.errors))
        return OperationRejected(kept.errors, kept.type)

    def check(self, operation: ReadOperation) -> ReadOperation:
        """Return the operation with what is cached for its document, once it is valid and within the limits.

        :raises OperationRejected: if it is not.
        """
        if operation.known is not None:
            self._refuse_excess(operation)
        else:
            with self._times.spent(operation.client):
                self._refuse_excess(operation)
                operation = operation._replace(known=self._valid(operation))
        if operation.variables:
            self._measure_variables(operation)
        return operation

    def _refuse_excess(self, operation: ReadOperation) -> None:
        if self._limits is not None:
            too_much = self._excess(operation, self._limits)
            if too_much is not None:
                raise OperationRejected([located(too_much)])

    def _valid(self, operation: ReadOperation) -> KnownDocument:
        errors = validate(self._schema, operation.document, self._codes.rules, max_errors=MAX_FAULTS)
        if errors:
            rejected = OperationRejected(self._codes.of_validation(errors), operation.node.operation)
            given_name = operation.name if operation.is_named else None
            raise self._kept(_refusal_key(operation.text, given_name), rejected, operation.text)
        return self._cache(operation.text, operation.document)

    def _measure_variables(self, operation: ReadOperation) -> None:
        """Reject values of variables that are too many to be coerced, which takes a microsecond or more for each."""
        assert operation.known is not None
        sizes = operation.known.sizes.get(operation.name)
        if sizes is None:
            sizes = operation.known.sizes[operation.name] = self._sizes.of(operation.node)
        left = MAX_INPUT_VALUES
        for name, measure in sizes:
            value = operation.variables.get(name)
            if value is not None:
                try:
                    left = measure(value, left)
                except TooMany as excess:
                    faults = self._codes.of_variable(operation.document, name, excess.path[::-1], str(excess))
                    raise OperationRejected(faults) from None

    def find(self, text: str) -> KnownDocument | None:
        """Return the cached document of a text, or None; it then counts as used."""
        known = self._cached.get(text)
        if known is not None:
            self._cached.move_to_end(text)
        return known

    def _text_of(self, request: OperationRequest) -> str:
        if request.sha256 is None:
            return request.query
        if request.query:
            if digest(request.query) != request.sha256:
                raise rejection("`sha256Hash` is not the digest of `query`.", ErrorCode.BAD_REQUEST)
            return request.query
        text = self._texts.get(request.sha256)
        if text is None:
            # Clients that see this message and code send the document.
            raise rejection("PersistedQueryNotFound", DocumentError.PERSISTED_QUERY_NOT_FOUND)
        return text

    def _parse(self, text: str) -> DocumentNode:
        try:
            document = graphql.parse(text, **self._parse_options)
        except GraphQLSyntaxError as error:
            raise OperationRejected([_aborted(error) or coded(error, DocumentError.GRAPHQL_PARSE_FAILED)]) from None
        except RecursionError:
            message = "The document is nested too deeply to be read."
            raise rejection(message, DocumentError.GRAPHQL_PARSE_FAILED) from None
        document = without_repetitions(document)
        for measure, actual, limit in (
            ("number of operations and fragments", len(document.definitions), MAX_DEFINITIONS),
            ("number of selections in one set", most_selections(document), MAX_SELECTIONS),
        ):
            if actual > limit:
                raise OperationRejected([located(TooComplex(measure, limit, actual))])
        return document

    def _excess(self, operation: ReadOperation, limits: OperationLimits) -> TooComplex | None:
        """Return the limit that an operation exceeds, or None; an operation of a cached document is measured once."""
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

    def _cache(self, text: str, document: DocumentNode) -> KnownDocument:
        """Return a valid document with room for what is cached for it; cache it unless it is too long."""
        # Variables decide what is selected only through directives, and those begin with this sign.
        known = KnownDocument(document, plans=None if "@" in text else {})
        # Two requests may send a new text at the same time: the first tree stays.
        if len(text) > MAX_CACHED_LENGTH or text in self._cached:
            return known
        known.weight = _weight(text, document)
        self._cached[text] = known
        self._cached_bytes += known.weight
        self._texts[digest(text)] = text
        while len(self._cached) > MAX_CACHED_DOCUMENTS or self._cached_bytes > MAX_CACHED_BYTES:
            oldest, dropped = self._cached.popitem(last=False)
            self._cached_bytes -= dropped.weight
            del self._texts[digest(oldest)]
        return known


def _weight(text: str, document: DocumentNode) -> int:
    """Return about how many bytes a document takes in memory, with its plans.

    The tokens make nearly all of it: each is kept, with the nodes and the readers that it is part of.
    """
    token = document.loc.start_token if document.loc is not None else None
    tokens = 0
    while token is not None:
        tokens += 1
        token = token.next
    return (tokens or len(text)) * _TOKEN_BYTES + sys.getsizeof(text) * 2


def _refusal_key(text: str, name: str | None) -> bytes:
    return sha256(json.encode([text.encode("utf-8", "surrogatepass"), name])).digest()


def digest(text: str) -> str:
    """Return the digest by which clients name a document: SHA-256 of its UTF-8, in hexadecimal digits."""
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


def rejection(
    message: str, code: DocumentError | ErrorCode = DocumentError.GRAPHQL_VALIDATION_FAILED
) -> OperationRejected:
    """Return an ``OperationRejected`` with one error of that message and code."""
    return OperationRejected([coded(GraphQLError(message), code)])


def _refuse_secrets(document: DocumentNode, secrets: Mapping[str, str]) -> None:
    """Reject a document with the value of a secret in it, or with a default of the variable that gives one."""
    found: list[tuple[str, str | None]] = []
    with_default: set[str] = set()

    class Finder(Visitor):
        def enter_field(self, node: FieldNode, *_args: Any) -> None:
            secret = secrets.get(node.name.value)
            for argument in node.arguments or ():
                if argument.name.value == secret:
                    variable = argument.value.name.value if isinstance(argument.value, VariableNode) else None
                    found.append((f"{node.name.value}({secret})", variable))

        def enter_variable_definition(self, node: VariableDefinitionNode, *_args: Any) -> None:
            if node.default_value is not None:
                with_default.add(node.variable.name.value)

    visit(document, Finder())
    for place, variable in found:
        if variable is None or variable in with_default:
            message = f"The value of {place} is a secret, and documents are kept: give a variable without a default."
            raise _SecretWritten([coded(GraphQLError(message), ErrorCode.BAD_REQUEST)])


def _parse_options(limits: OperationLimits) -> dict[str, Any]:
    return {
        "max_lexical_tokens": limits.max_document_tokens,
        "max_comments": limits.max_document_tokens,
        "max_source_length": limits.max_document_length,
    }


def _aborted(error: GraphQLSyntaxError) -> GraphQLError | None:
    """Return the error of a document that the parser has given up because of a limit; None for a syntax error."""
    if not error.message.endswith(_ABORTED):
        return None
    error.message = error.message.removeprefix("Syntax Error: ")
    error.extensions = {"code": TooComplex.code.value}
    return error


def _declared(node: OperationDefinitionNode, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the variables that the operation declares: a subscription keeps them for as long as it runs."""
    if not variables:
        return variables
    names = {definition.variable.name.value for definition in node.variable_definitions or ()}
    return variables if variables.keys() <= names else {name: variables[name] for name in variables if name in names}


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """Return the operation of that name, or the only one; reject a request that names none or leaves it open."""
    node = get_operation_ast(document, name)
    if isinstance(node, OperationDefinitionNode):
        return node
    if name is not None:
        message = f'Unknown operation named "{shortened(name)}".'
    elif any(isinstance(definition, OperationDefinitionNode) for definition in document.definitions):
        message = "The document has several operations; operationName must say which of them to run."
    else:
        message = "The document has no operation."
    raise rejection(message)
