"""Operations, from a request to the bytes of its results: what every transport does between the two.

``Operations`` is the one entry of the engine. It takes a schema that Strawberry has defined and runs operations against
it on graphql-core, past Strawberry's own ``execute``: what that does around an operation costs more than the operation.
The way of one: ``operation`` reads the document, so that a transport knows what it deals with; ``result`` or
``results`` checks it, runs it (``fast_path``) and makes its JSON. Every error that leaves here has its code.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import aclosing
from typing import Any, Protocol, cast
from weakref import WeakValueDictionary

import graphql
import strawberry
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, OperationType
from graphql.execution import create_source_event_stream
from msgspec import Struct, json
from strawberry.execution.is_awaitable import optimized_is_awaitable

from gql_jobs.graphql.engine.documents import (
    Documents,
    OperationLimits,
    OperationRejected,
    OperationRequest,
    ReadOperation,
    rejection,
)
from gql_jobs.graphql.engine.errors import CODES, ErrorCodes, PayloadArguments, located
from gql_jobs.graphql.engine.fast_path import EventExecutor, PlainExecutor, call_resolvers, is_shareable
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.jobs.errors import ErrorCode
from gql_jobs.metrics import ANSWER_SECONDS, Histogram

_MAX_CACHED = 64
"""Results that are kept of one operation: what its subscribers lie apart, at most."""
_OTHER = "other"
"""The label of what a client may call as it likes: labels stay few whatever comes in."""


class SourceEvent(Protocol):
    """What the resolver of a subscription brings."""

    @property
    def cursor(self) -> str:
        """The event's place among all events; two events have the same only if they are the same."""


class Operation(Struct, frozen=True):
    """One operation, ready to be run once."""

    context: Any
    """What resolvers find as ``info.context``; for this operation alone."""
    read: ReadOperation | OperationRejected
    """The operation as it was read; or why it cannot be."""

    @property
    def type(self) -> OperationType | None:
        """None where the document cannot be read or leaves open which operation is meant: running it says so."""
        return None if isinstance(self.read, OperationRejected) else self.read.node.operation


class Result:
    """What came of an operation, or of one event of a subscription. Subscribers who watch the same share one.

    :param refused: nothing was run, so that there is no ``data``: nothing follows such a result.
    :param cursor: of the event, where the result is one of a subscription.
    """

    __slots__ = ("_payload", "cursor", "data", "errors", "refused")

    def __init__(
        self,
        data: dict[str, Any] | None,
        errors: list[GraphQLError] | None = None,
        *,
        refused: bool = False,
        cursor: str | None = None,
    ) -> None:
        self.data = data
        self.errors = errors
        self.refused = refused
        self.cursor = cursor
        self._payload: bytes | None = None

    @property
    def formatted_errors(self) -> list[dict[str, Any]]:
        """The errors as JSON has them."""
        return [dict(error.formatted) for error in self.errors or ()]

    @property
    def payload(self) -> bytes:
        """The JSON: ``data`` (unless the operation was refused) and ``errors`` (if there are any). Made once."""
        if self._payload is None:
            body: dict[str, Any] = {} if self.refused else {"data": self.data}
            if self.errors:
                body["errors"] = self.formatted_errors
            self._payload = json.encode(body)
        return self._payload


class Operations:
    """Runs operations against one schema.

    :param schema: as Strawberry has defined it. The engine takes it over: it cannot be run by Strawberry afterwards.
    :param payloads: the arguments whose faults are those of a payload.
    :param limits: what one operation may ask for; None for a schema that is only read.
    :param plain_fields: read plain fields past graphql-core's executor.
    :param named: names of operations that are timed one by one.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        payloads: PayloadArguments,
        limits: OperationLimits | None = None,
        *,
        plain_fields: bool = True,
        named: Iterable[str] = (),
    ) -> None:
        self._schema = core = core_schema(schema)
        call_resolvers(core)
        self._executor: type[EventExecutor] = PlainExecutor if plain_fields else EventExecutor
        self._codes = ErrorCodes(core, payloads)
        # Mutations are not cut short: half of one would be neither done nor refused, and each write has its time.
        self._query_timeout = limits.query_timeout if limits is not None else None
        self._caches = ResultCaches()
        roots = (core.query_type, core.mutation_type)
        fields = frozenset(name for root in roots if root is not None for name in root.fields)
        self.documents = Documents(core, self._codes, limits)
        self.times = OperationTimes(frozenset(named), fields)

    def operation(self, request: OperationRequest, context: Any) -> Operation:
        """Return the operation that a request asks for. What cannot be read is refused when it is run.

        :param context: what resolvers find as ``info.context``; for this operation alone.
        """
        try:
            return Operation(context, self.documents.read(request))
        except OperationRejected as rejected:
            return Operation(context, rejected)

    async def result(self, operation: Operation) -> Result:
        """Return the one result of a query or a mutation. A query that takes too long is given up: TIMEOUT."""
        if self._query_timeout is None or operation.type is not OperationType.QUERY:
            return await self._execute(operation)
        try:
            async with asyncio.timeout(self._query_timeout):
                return await self._execute(operation)
        except TimeoutError:
            message = (
                f"The query took longer than {self._query_timeout:g} s. "
                "Ask for less: a smaller page, a narrower filter."
            )
            return refused_result([GraphQLError(message, extensions={"code": ErrorCode.TIMEOUT.value})])

    async def results(self, operation: Operation) -> AsyncGenerator[Result, None]:
        """Yield the results of any operation: one of a query or mutation, those of a subscription as its events happen.

        Closed, it has closed what its resolver brings.
        """
        if operation.type is not OperationType.SUBSCRIPTION:
            yield await self.result(operation)
            return
        try:
            checked = self._checked(operation)
            source = await self._source(self._build(checked, operation), checked)
        except OperationRejected as rejected:
            yield self._refused(rejected.errors)
            return
        cache = self._caches.of(checked)
        # Made at the first event that is nobody else's yet: most subscribers of a busy operation never need one.
        executor: EventExecutor | None = None
        try:
            async with aclosing(source) as events:
                async for event in events:
                    result = cache.result(event.cursor)
                    if result is None:
                        executor = executor or self._build(checked, operation)
                        result = await self._event_result(executor, checked, event, cache)
                    yield result
        except Exception as error:  # noqa: BLE001 -- whatever it is, clients are told in a result
            yield self._refused(self._coded([located(error)], checked))

    def _checked(self, operation: Operation) -> ReadOperation:
        if isinstance(operation.read, OperationRejected):
            raise operation.read
        return self.documents.check(operation.read)

    async def _execute(self, operation: Operation) -> Result:
        began = time.perf_counter()
        try:
            checked = self._checked(operation)
            if checked.node.operation is OperationType.SUBSCRIPTION:
                raise rejection("A subscription has many results, for which there is no room here.")
            executor = self._build(checked, operation)
        except OperationRejected as rejected:
            return self._refused(rejected.errors)
        result = await self._run(executor, checked)
        self.times.observe(checked.node, time.perf_counter() - began)
        return result

    async def _event_result(
        self, executor: EventExecutor, checked: ReadOperation, event: SourceEvent, cache: "ResultCache"
    ) -> Result:
        data = executor.data_of(event)
        if data is not None:
            # Attributes of the event were read and nothing else.
            return cache.keep(Result(data, cursor=event.cursor))
        result = await self._run(cast("EventExecutor", executor.build_per_event_executor(event)), checked)
        result.cursor = event.cursor
        return cache.keep(result) if self._is_shareable(checked) else result

    def _is_shareable(self, checked: ReadOperation) -> bool:
        known = checked.known
        assert known is not None
        if known.is_shareable is None:
            known.is_shareable = is_shareable(self._schema, checked.document)
        return known.is_shareable

    async def _source(self, executor: EventExecutor, checked: ReadOperation) -> Any:
        """Return the events that a subscription's resolver brings; raise what it raises as an ``OperationRejected``."""
        source: Any = create_source_event_stream(executor)
        if executor.is_awaitable(source):
            source = await source
        if isinstance(source, graphql.ExecutionResult):
            raise OperationRejected(self._coded(source.errors or [], checked))
        return source

    def _build(self, checked: ReadOperation, operation: Operation) -> EventExecutor:
        """Return what executes the operation; reject variables that do not fit."""
        executor = self._executor.build(
            self._schema,
            checked.document,
            context_value=operation.context,
            raw_variable_values=checked.variables,
            operation_name=checked.name,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # it takes any value
        )
        if isinstance(executor, list):
            raise OperationRejected(self._coded(executor, checked))
        found = cast("EventExecutor", executor)
        assert checked.known is not None
        if checked.known.plans is not None:
            found.use_plan(checked.known.plans)
        return found

    async def _run(self, executor: EventExecutor, checked: ReadOperation) -> Result:
        try:
            found = executor.execute_operation()
            result = cast("graphql.ExecutionResult", await found if isinstance(found, Awaitable) else found)
        except Exception as error:  # noqa: BLE001 -- an error of the operation, whatever it is
            result = graphql.ExecutionResult(None, [located(error)])
        if not result.errors:
            return Result(result.data)
        errors = self._coded(result.errors, checked)
        self.times.count_errors(errors)
        return Result(result.data, errors, refused=result.data is None and not any(error.path for error in errors))

    def _coded(self, errors: list[GraphQLError], checked: ReadOperation) -> list[GraphQLError]:
        return self._codes.of_execution(errors, checked.document, checked.node, checked.variables)

    def _refused(self, errors: list[GraphQLError]) -> Result:
        self.times.count_errors(errors)
        return refused_result(errors)


def refused_result(errors: list[GraphQLError]) -> Result:
    """Return the result of what is not run."""
    return Result(None, errors, refused=True)


# Results that subscribers share. Made once an event and not once a subscriber.


class ResultCache:
    """The latest results of one operation, by the cursors of their events; it ends with the last of its subscribers."""

    def __init__(self) -> None:
        self._results: OrderedDict[str | None, Result] = OrderedDict()

    def result(self, cursor: str) -> Result | None:
        """Return what another subscriber was sent for that event."""
        return self._results.get(cursor)

    def keep(self, result: Result) -> Result:
        """Share a result with the others; return it."""
        self._results[result.cursor] = result
        if len(self._results) > _MAX_CACHED:
            self._results.popitem(last=False)
        return result


class ResultCaches:
    """The caches of one schema.

    Nothing that an operation shows depends on who asks; when something does, the asker becomes part of the key.
    """

    def __init__(self) -> None:
        self._by_operation: WeakValueDictionary[tuple[str, str | None, bytes], ResultCache] = WeakValueDictionary()

    def of(self, operation: ReadOperation) -> ResultCache:
        """Return the cache for all who run the same document, name and variables. Whoever holds it keeps it alive."""
        key = (operation.text, operation.name, json.encode(operation.variables, order="sorted"))
        return self._by_operation.setdefault(key, ResultCache())

    def __len__(self) -> int:
        return len(self._by_operation)


class OperationTimes:
    """How long operations take and what they are refused for, as plain counters. Streams are not timed: they may last.

    :param names: names of operations that have a label of their own.
    :param fields: the root fields of the schema, which have one too.
    """

    def __init__(self, names: frozenset[str], fields: frozenset[str]) -> None:
        self._names = names
        self._fields = fields
        self.times: dict[tuple[str, ...], Histogram] = {}
        """By the operation's name and its first root field."""
        self.errors: dict[tuple[str, ...], int] = {(code,): 0 for code in sorted(CODES)}
        """By ``extensions.code``."""

    def observe(self, operation: OperationDefinitionNode, seconds: float) -> None:
        """Count an operation that has been answered, from before it was checked until its result was made."""
        name, field = operation.name.value if operation.name else None, _first_field(operation)
        label = (name if name in self._names else _OTHER, field if field in self._fields else _OTHER)
        found = self.times.get(label)
        if found is None:
            found = self.times[label] = Histogram(ANSWER_SECONDS)
        found.observe(seconds)

    def count_errors(self, errors: Iterable[GraphQLError]) -> None:
        """Count the errors of an answer."""
        for error in errors:
            label = (str((error.extensions or {}).get("code")),)
            if label in self.errors:
                self.errors[label] += 1


def _first_field(operation: OperationDefinitionNode) -> str:
    first = operation.selection_set.selections[0] if operation.selection_set.selections else None
    return first.name.value if isinstance(first, FieldNode) else _OTHER
