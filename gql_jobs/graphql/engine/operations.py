"""Operations from their text to their results: parsed, measured, validated, run on graphql-core.

Strawberry makes the schema and calls the resolvers; running an operation through it as well costs more than running
the operation (its extension hooks alone take 0.1 ms). Every error that leaves here has its code.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakValueDictionary

import graphql
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    validate,
)
from graphql.execution import create_source_event_stream
from msgspec import Struct, json
from msgspec.structs import replace
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.documents import Documents, digest
from gql_jobs.graphql.engine.errors import RULES, Asked, ErrorCodes, coded
from gql_jobs.graphql.engine.limits import OperationLimits, gave_up, parse_options, refusal
from gql_jobs.graphql.engine.strawberry_internals import EventExecutor
from gql_jobs.graphql.scalars_and_enums import DocumentError, ErrorCode
from gql_jobs.metrics import ANSWERS, Histogram

# Who watches the same: operations with one text, name and variables share the results of their events.
#
# A result is made once an event and not once a subscriber. Only results that follow from the event alone are shared:
# one for which a resolver has looked at anything else (the job's files, its history) may be another one a moment later.
# Nothing an operation shows depends on who asks; when something does, the asker becomes part of the key.

_KEPT = 64
"""Results that are kept of one operation: what its subscribers lie apart, at most."""


@dataclass
class EventResult(ExecutionResult):
    """A result that several subscribers are sent. ``rendered``: what the transports have made of it, once one has."""

    rendered: Any = None


class Audience:
    """The subscribers of one operation; it ends with the last of them."""

    def __init__(self) -> None:
        self._results: OrderedDict[str, EventResult] = OrderedDict()

    def result(self, event: Any) -> ExecutionResult | None:
        """What another subscriber was sent for this event."""
        return self._results.get(event.cursor)

    def keep(self, event: Any, result: ExecutionResult) -> EventResult:
        """Share a result with the others."""
        shared = self._results[event.cursor] = EventResult(data=result.data, errors=result.errors)
        if len(self._results) > _KEPT:
            self._results.popitem(last=False)
        return shared


class Audiences:
    """Of one schema."""

    def __init__(self) -> None:
        self._by_operation: WeakValueDictionary[tuple[str, str | None, bytes], Audience] = WeakValueDictionary()

    def of(self, text: str, name: str | None, variables: dict[str, Any]) -> Audience:
        """Those who watch the same. Whoever holds it belongs to it."""
        key = (text, name, json.encode(variables, order="sorted"))
        return self._by_operation.setdefault(key, Audience())


# How long operations take and what they are refused for, as plain counters. Streams are not timed: they may last.

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


Variables = dict[str, Any]


class Refused(Exception):
    """The operation is not run; each of the errors has its code."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(*errors)
        self.errors = errors


class OperationRequest(Struct, frozen=True):
    """What a client asks to run."""

    query: str
    """The document; empty where ``sha256`` alone names it."""
    variables: Variables | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    sha256: str | None = None
    """The document's digest, from a client of persisted queries."""


class Operation(Struct, frozen=True):
    """One operation, ready to be run once."""

    request: OperationRequest
    context: Context
    asked: Asked | Refused
    """The syntax trees of the document and of the operation that is meant; or why there are none."""

    @property
    def type(self) -> OperationType | None:
        """None where the document cannot be read or leaves open which operation is meant: running it says so."""
        return None if isinstance(self.asked, Refused) else self.asked.node.operation


class Operations:
    """Runs operations against one schema."""

    def __init__(
        self,
        schema: GraphQLSchema,
        executor: type[EventExecutor],
        limits: OperationLimits | None,
        times: OperationTimes,
    ) -> None:
        self._schema = schema
        self._executor = executor
        self._limits = limits
        self._parse_options = parse_options(limits) if limits is not None else {}
        self._times = times
        self._codes = ErrorCodes(schema)
        self._audiences = Audiences()
        self.documents = Documents()

    def operation(self, request: OperationRequest, context: Context) -> Operation:
        """The operation that a request asks for; ``context`` is for this operation alone."""
        try:
            request = self._with_text(request)
            known = self.documents.find(request.query)
            document = known.document if known is not None else self._parse(request.query)
            node = _chosen(document, request.operation_name)
            return Operation(request, context, Asked(document, node, request.variables or {}, known))
        except Refused as refused:
            return Operation(request, context, refused)

    def _with_text(self, request: OperationRequest) -> OperationRequest:
        if request.sha256 is None:
            return request
        if request.query:
            if digest(request.query) != request.sha256:
                raise _refusal("`sha256Hash` is not the digest of `query`.", DocumentError.BAD_REQUEST)
            return request
        text = self.documents.text(request.sha256)
        if text is None:
            # The words and the code that clients wait for, to send the document after all.
            raise _refusal("PersistedQueryNotFound", DocumentError.PERSISTED_QUERY_NOT_FOUND)
        return replace(request, query=text)

    def _parse(self, text: str) -> DocumentNode:
        try:
            return graphql.parse(text, **self._parse_options)
        except GraphQLSyntaxError as error:
            raise Refused([gave_up(error) or coded(error, DocumentError.GRAPHQL_PARSE_FAILED)]) from None
        except RecursionError:
            message = "The document is nested too deeply to be read."
            raise _refusal(message, DocumentError.GRAPHQL_PARSE_FAILED) from None

    def _prepare(self, operation: Operation) -> Asked:
        """The operation, allowed and valid. Measured before it is validated, whose rules cost more.

        :raises Refused: if it is not.
        """
        asked = operation.asked
        if isinstance(asked, Refused):
            raise asked
        too_much = refusal(self._schema, asked, self._limits) if self._limits is not None else None
        if too_much is not None:
            raise Refused([_located(too_much)])
        if asked.known is None:
            errors = validate(self._schema, asked.document, RULES)
            if errors:
                raise Refused(self._codes.of_validation(errors))
            asked = asked._replace(known=self.documents.keep(operation.request.query, asked.document))
        return asked

    async def execute(self, operation: Operation) -> ExecutionResult:
        """The one result of a query or a mutation; a ``PreExecutionError`` if it was not run."""
        began = time.perf_counter()
        try:
            asked = self._prepare(operation)
            executor = self._single(asked, operation)
        except Refused as refused:
            return self._refused(refused.errors)
        result = await self._run(executor, asked)
        self._times.took(asked.node, time.perf_counter() - began)
        return result

    def _single(self, asked: Asked, operation: Operation) -> EventExecutor:
        if asked.node.operation is OperationType.SUBSCRIPTION:
            raise _refusal("A subscription has many results, for which there is no room here.")
        return self._build(asked, operation)

    async def subscribe(self, operation: Operation) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription, one an event; a ``PreExecutionError`` alone if it was not run."""
        try:
            asked = self._prepare(operation)
            source = await self._source(self._build(asked, operation), asked)
        except Refused as refused:
            yield self._refused(refused.errors)
            return
        request = operation.request
        audience = self._audiences.of(request.query, request.operation_name, asked.variables)
        # Made at the first event that is nobody else's yet: most subscribers of a busy operation never need one.
        executor: EventExecutor | None = None
        try:
            async with aclosing(source) as events:
                async for event in events:
                    result = audience.result(event)
                    if result is None:
                        executor = executor or self._build(asked, operation)
                        data = executor.data_of(event)
                        if data is None:
                            result = await self._event(executor, asked, event, audience)
                        else:
                            result = audience.keep(event, ExecutionResult(data=data, errors=None))
                    yield result
        except Exception as error:  # noqa: BLE001
            yield self._refused(self._codes.of_execution([_located(error)], asked))

    async def _event(self, executor: EventExecutor, asked: Asked, event: Any, audience: Audience) -> ExecutionResult:
        context: Context = executor.context_value
        context.looked = False
        result = await self._run(cast("EventExecutor", executor.build_per_event_executor(event)), asked)
        return result if context.looked else audience.keep(event, result)

    async def _source(self, executor: EventExecutor, asked: Asked) -> AsyncGenerator[Any, None]:
        """The events that a subscription's resolver brings.

        :raises Refused: by the resolver.
        """
        source: Any = create_source_event_stream(executor)
        if executor.is_awaitable(source):
            source = await source
        if isinstance(source, graphql.ExecutionResult):
            raise Refused(self._codes.of_execution(source.errors or [], asked))
        return cast("AsyncGenerator[Any, None]", source)

    def _build(self, asked: Asked, operation: Operation) -> EventExecutor:
        """:raises Refused: for variables that do not fit."""
        executor = self._executor.build(
            self._schema,
            asked.document,
            context_value=operation.context,
            raw_variable_values=asked.variables,
            operation_name=asked.node.name.value if asked.node.name else None,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
            operation_extensions=operation.request.extensions,
        )
        if isinstance(executor, list):
            raise Refused(self._codes.of_execution(executor, asked))
        if asked.known is not None and asked.known.plans is not None:
            cast("EventExecutor", executor).use_plan(asked.known.plans)
        return cast("EventExecutor", executor)

    def _refused(self, errors: list[GraphQLError]) -> PreExecutionError:
        self._times.refused(errors)
        return PreExecutionError(data=None, errors=errors)

    async def _run(self, executor: EventExecutor, asked: Asked) -> ExecutionResult:
        try:
            found = executor.execute_operation()
            result = cast("graphql.ExecutionResult", await found if isinstance(found, Awaitable) else found)
        except Exception as error:  # noqa: BLE001
            result = graphql.ExecutionResult(None, [_located(error)])
        errors = result.errors
        if errors:
            errors = self._codes.of_execution(errors, asked)
            self._times.refused(errors)
        return ExecutionResult(data=result.data, errors=errors)


def _located(error: Exception) -> GraphQLError:
    return error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)


def _refusal(message: str, code: DocumentError = DocumentError.GRAPHQL_VALIDATION_FAILED) -> Refused:
    return Refused([coded(GraphQLError(message), code)])


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """:raises Refused: if the request leaves open which operation is meant, or names none of them."""
    node = get_operation_ast(document, name)
    if isinstance(node, OperationDefinitionNode):
        return node
    if name is not None:
        message = f'Unknown operation named "{name}".'
    elif any(isinstance(definition, OperationDefinitionNode) for definition in document.definitions):
        message = "The document has several operations; operationName must say which of them to run."
    else:
        message = "The document has no operation."
    raise _refusal(message)
