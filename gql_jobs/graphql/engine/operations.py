"""Operations, from a request to the JSON of its results, for every transport.

``Operations`` is the one entry of the engine. It takes a schema that Strawberry has defined and runs operations against
it on graphql-core, without Strawberry's own ``execute``, whose hooks cost more than a short one (docs/decisions.md).
``operation`` reads the document, so that a transport knows the type of the operation; ``result`` or ``results`` checks
it, runs it (``fast_path``) and makes its JSON. Every error in a result has its code.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Protocol, cast
from weakref import WeakValueDictionary, ref

import graphql
import strawberry
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, OperationType
from graphql.execution import create_source_event_stream
from msgspec import Raw, Struct, json
from strawberry.execution.is_awaitable import optimized_is_awaitable

from gql_jobs.graphql.engine.budget import FEW_ROWS, Budget, OperationLimits, OverBudget
from gql_jobs.graphql.engine.complexity import VALUES_PER_DEFINITION, definitions_of
from gql_jobs.graphql.engine.documents import (
    Documents,
    OperationRejected,
    OperationRequest,
    ReadOperation,
    rejection,
)
from gql_jobs.graphql.engine.errors import CODES, ErrorCodes, PayloadArguments, bounded, forget_calls, located
from gql_jobs.graphql.engine.fast_path import EventExecutor, Permit, PlainExecutor, call_resolvers, is_shareable
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.jobs.errors import ErrorCode
from gql_jobs.metrics import ANSWER_SECONDS, Histogram

_MAX_CACHED = 64
"""Results that are cached for one operation; a subscriber that lags further behind gets results of its own."""
_MAX_CACHED_BYTES = 16 << 20
"""Bytes of memory that the cached results of all operations may take."""
_RESULT_BYTES = 512
"""Bytes of memory of a result besides its data."""
_MEMORY_OF_JSON = 4
"""Bytes of memory for each byte of a result's JSON, with the values that it was made of."""
_OTHER = "other"
"""The label of all other names: clients choose them, and the number of labels has to stay small."""


class SourceEvent(Protocol):
    """An event that the resolver of a subscription yields."""

    @property
    def key(self) -> str:
        """Return what tells it from all other events of its operation; it is the same for all who watch that."""

    @property
    def cursor(self) -> str | None:
        """Return what the subscription can go on after later; None if it cannot."""


class Asker(Protocol):
    """Who asks, over one request or one connection."""

    @property
    def visibility(self) -> Hashable:
        """Return what they may see: only those with an equal one share results. It may change at any await."""

    @property
    def is_held(self) -> bool:
        """Return whether nothing may be sent to them for now of what had begun before."""

    async def until_free(self) -> None:
        """Wait until that may be sent."""


class EventSource(Protocol):
    """What the resolver of a subscription returns."""

    def __aiter__(self) -> AsyncIterator[SourceEvent]:
        """Return the iterator over the events."""

    def step_back(self) -> None:
        """Bring the last event once more, unless it is none for who asks by now."""

    async def aclose(self) -> None:
        """End."""


class OperationContext(Protocol):
    """What the engine knows of the ``info.context`` of resolvers. Each operation has a context of its own."""

    budget: Budget
    """What the resolvers of this operation, or of one event of it, may still use; set before they run."""

    @property
    def client(self) -> Callable[[], str | None]:
        """Returns what returns who asks, None if nobody knows; called only where a new document has to be read."""

    @property
    def session(self) -> Asker:
        """Return who asks."""

    @property
    def recheck(self) -> Callable[[], Awaitable[None]]:
        """Return what raises why the subscription may not go on; its resolver may set it."""


class Operation(Struct, frozen=True):
    """One operation, ready to be run once."""

    context: Any
    """The ``info.context`` of its resolvers, of this operation alone: an ``OperationContext``."""
    read: ReadOperation | OperationRejected
    """The operation as it was read, or the rejection that is its result."""

    @property
    def type(self) -> OperationType | None:
        """Return its type; None if it was rejected when it was read, which its result then reports."""
        return self.read.type if isinstance(self.read, OperationRejected) else self.read.node.operation


class Result:
    """The result of an operation, or of one event of a subscription. Subscribers of the same operation may share it.

    :param refused: whether nothing was run, so that there is no ``data``; no result follows such a one.
    :param cursor: what a subscription can go on after, in the result of an event.
    :param encoded: the JSON of ``data``, where it has been made already.
    """

    __slots__ = ("_encoded", "_payload", "cursor", "data", "errors", "refused")

    def __init__(
        self,
        data: dict[str, Any] | None,
        errors: list[GraphQLError] | None = None,
        *,
        refused: bool = False,
        cursor: str | None = None,
        encoded: bytes | None = None,
    ) -> None:
        for error in errors or ():
            forget_calls(error)
        self.data = data
        self.errors = bounded(errors) if errors else errors
        self.refused = refused
        self.cursor = cursor
        self._encoded = encoded
        self._payload: bytes | None = None

    @property
    def formatted_errors(self) -> list[dict[str, Any]]:
        """Return the errors as JSON values."""
        return [dict(error.formatted) for error in self.errors or ()]

    @property
    def payload(self) -> bytes:
        """Return the JSON of ``data`` (unless the operation was refused) and ``errors`` (if any); encoded once."""
        if self._payload is None:
            body: dict[str, Any] = (
                {} if self.refused else {"data": self.data if self._encoded is None else Raw(self._encoded)}
            )
            if self.errors:
                body["errors"] = self.formatted_errors
            self._payload = json.encode(body)
        return self._payload


class Operations:
    """Runs operations against one schema.

    :param schema: as Strawberry has defined it. It is changed in place: Strawberry cannot run it afterwards.
    :param payloads: the arguments whose faults are those of a payload.
    :param permit: asked where a root field begins.
    :param limits: what one operation may ask for; None for a schema that is only printed.
    :param lists: items that lists in inputs may have, by the names of the input object and of its field.
    :param secrets: the arguments of root fields, by the fields' names, that only variables may give.
    :param plain_fields: read plain fields without graphql-core's executor.
    :param named: names of operations that have a label of their own in the metrics.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        payloads: PayloadArguments,
        permit: Permit,
        limits: OperationLimits | None = None,
        lists: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
        *,
        secrets: Mapping[str, str] = MappingProxyType({}),
        plain_fields: bool = True,
        named: Iterable[str] = (),
    ) -> None:
        self._schema = core = core_schema(schema)
        call_resolvers(core)
        self._executor: type[EventExecutor] = PlainExecutor if plain_fields else EventExecutor
        self._permit = permit
        self._codes = ErrorCodes(core, payloads)
        # Mutations are not cut short: half of one would be neither done nor refused, and each write has its time.
        self._query_timeout = limits.query_timeout if limits is not None else None
        self._limits = limits
        self._max_introspected = VALUES_PER_DEFINITION * definitions_of(core)
        self._caches = ResultCaches()
        roots = (core.query_type, core.mutation_type)
        fields = frozenset(name for root in roots if root is not None for name in root.fields)
        self.documents = Documents(core, self._codes, limits, lists, secrets)
        self.times = OperationTimes(frozenset(named), fields)

    def operation(self, request: OperationRequest, context: OperationContext) -> Operation:
        """Return the operation that a request asks for; one that cannot be read is rejected when it is run.

        :param context: the ``info.context`` of its resolvers, of this operation alone.
        """
        try:
            return Operation(context, self.documents.read(request, context.client))
        except OperationRejected as rejected:
            return Operation(context, rejected.with_traceback(None))

    async def result(self, operation: Operation) -> Result:
        """Run a query or a mutation and return its result; raise nothing.

        A query that takes longer than ``query_timeout`` is cancelled, and its result is the error TIMEOUT.
        """
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
        """Yield the one result of a query or mutation, or those of a subscription as its events happen; raise nothing.

        What a subscription yields of an event may be sent at that moment to who asks then. Closing the generator closes
        the resolver's own iterator.
        """
        if operation.type is not OperationType.SUBSCRIPTION:
            yield await self.result(operation)
            return
        try:
            checked = self._checked(operation)
            operation.context.budget = self._new_budget()
            source = await self._source(self._build(checked, operation), checked)
        except OperationRejected as rejected:
            yield self._refused(rejected.errors)
            return
        session = operation.context.session
        visibility = session.visibility
        cache = self._caches.of(checked, visibility)
        # Made at the first event without a cached result: most subscribers of a busy operation never need one.
        executor: EventExecutor | None = None
        try:
            async with aclosing(source) as events:
                async for event in events:
                    if session.visibility is not visibility:
                        visibility = session.visibility
                        cache = self._caches.of(checked, visibility)
                    result = cache.result(event.key)
                    if result is None:
                        executor = executor or self._build(checked, operation)
                        result = await self._event_result(executor, checked, operation.context, event, cache)
                    if session.is_held:
                        await session.until_free()
                    if session.visibility is visibility or session.visibility == visibility:
                        yield result
                    else:
                        # It was made for who asked before.
                        events.step_back()
                    # They may be large, and the next event may be long in coming.
                    del event, result
        except Exception as error:  # noqa: BLE001 -- whatever it is becomes an error in a result
            yield self._refused(self._coded([located(error)], checked))

    async def authorise(self, operation: Operation) -> list[GraphQLError]:
        """Return why a subscription that runs may not go on for the viewer that its context has by now; else nothing.

        Asked are the root field's permission and what its resolver has set as ``recheck``.
        """
        try:
            checked = self._checked(operation)
            executor = self._build(checked, operation)
        except OperationRejected as rejected:
            return rejected.errors
        try:
            executor.refuse_subscription(self._permit)
            await operation.context.recheck()
        except Exception as error:  # noqa: BLE001 -- whatever it is says why
            return self._coded([located(error)], checked)
        return []

    def _checked(self, operation: Operation) -> ReadOperation:
        if isinstance(operation.read, OperationRejected):
            # Another one: this one would hold this call, and with it the operation that holds it.
            raise OperationRejected(operation.read.errors, operation.read.type)
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
        result = await self._run(executor, checked, operation.context)
        self.times.observe(checked.node, time.perf_counter() - began)
        return result

    async def _event_result(
        self,
        executor: EventExecutor,
        checked: ReadOperation,
        context: OperationContext,
        event: SourceEvent,
        cache: "ResultCache",
    ) -> Result:
        data = executor.data_of(event)
        if data is not None:
            # Only attributes of the event were read, so every subscriber gets the same.
            return cache.keep(event.key, Result(data, cursor=event.cursor))
        result = await self._run(cast("EventExecutor", executor.build_per_event_executor(event)), checked, context)
        result.cursor = event.cursor
        return cache.keep(event.key, result) if self._is_shareable(checked) else result

    def _is_shareable(self, checked: ReadOperation) -> bool:
        known = checked.known
        assert known is not None
        if known.is_shareable is None:
            known.is_shareable = is_shareable(self._schema, checked.document)
        return known.is_shareable

    async def _source(self, executor: EventExecutor, checked: ReadOperation) -> EventSource:
        """Return the iterator of a subscription's resolver; raise what it raises as an ``OperationRejected``."""
        try:
            executor.refuse_subscription(self._permit)
        except graphql.GraphQLError as refusal:
            raise OperationRejected(self._coded([refusal], checked)) from None
        source: Any = create_source_event_stream(executor)
        if executor.is_awaitable(source):
            source = await source
        if isinstance(source, graphql.ExecutionResult):
            raise OperationRejected(self._coded(source.errors or [], checked))
        return cast("EventSource", source)

    def _build(self, checked: ReadOperation, operation: Operation) -> EventExecutor:
        """Return the executor of the operation; reject variables that do not fit."""
        executor = self._executor.build(
            self._schema,
            checked.document,
            context_value=operation.context,
            raw_variable_values=checked.variables,
            operation_name=checked.name,
            # The errors of variables are found anew, with their places.
            hide_suggestions=True,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # it takes any value
        )
        if isinstance(executor, list):
            raise OperationRejected(self._coded(executor, checked))
        found = cast("EventExecutor", executor)
        found.permit = self._permit
        assert checked.known is not None
        if checked.known.plans is not None:
            found.use_plan(checked.known.plans)
        return found

    async def _run(self, executor: EventExecutor, checked: ReadOperation, context: OperationContext) -> Result:
        budget = context.budget = self._new_budget()
        encoded = None
        try:
            found = executor.execute_operation()
            result = cast("graphql.ExecutionResult", await found if isinstance(found, Awaitable) else found)
            if budget.spent is None and budget.rows > FEW_ROWS:
                encoded = budget.encode_result(result.data)
        except OverBudget:
            pass
        except Exception as error:  # noqa: BLE001 -- an error of the operation, whatever it is
            result = graphql.ExecutionResult(None, [located(error)])
        if budget.spent is not None:
            # One refusal, in the place of an error for each value that is missing.
            if checked.node.operation is OperationType.MUTATION:
                return self._unshown(budget.spent)
            return self._refused([located(budget.spent)])
        if not result.errors:
            return Result(result.data, encoded=encoded)
        errors = self._coded(result.errors, checked)
        self.times.count_errors(errors)
        refused = result.data is None and not any(error.path for error in errors)
        return Result(result.data, errors, refused=refused, encoded=encoded)

    def _unshown(self, spent: OverBudget) -> Result:
        """Return the result of a mutation that has been made, and whose answer is too large."""
        error = GraphQLError(f"{spent.message} What the mutation did stays done.", extensions=spent.extensions)
        self.times.count_errors([error])
        return Result(None, [error])

    def _new_budget(self) -> Budget:
        limits = self._limits
        if limits is None:
            return Budget()
        return Budget(
            limits.max_operation_rows, limits.max_operation_bytes, limits.max_operation_cost, self._max_introspected
        )

    def _coded(self, errors: list[GraphQLError], checked: ReadOperation) -> list[GraphQLError]:
        coded = self._codes.of_execution(errors, checked.document, checked.node, checked.variables)
        for error in errors:
            forget_calls(error)
        return coded

    def _refused(self, errors: list[GraphQLError]) -> Result:
        self.times.count_errors(errors)
        return refused_result(errors)


def refused_result(errors: list[GraphQLError]) -> Result:
    """Return the result of an operation that is not run."""
    return Result(None, errors, refused=True)


# The result cache: one result for each event, shared by the subscribers of an operation.


class ResultCache:
    """The latest results of one operation, by the keys of their events."""

    def __init__(self, sizes: "ResultSizes") -> None:
        """:param sizes: of the results in all caches of the schema."""
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._sizes = sizes

    def result(self, key: str) -> Result | None:
        """Return the cached result of the event with that key, or None."""
        return self._results.get(key)

    def keep(self, key: str, result: Result) -> Result:
        """Cache a result and return it; the oldest is dropped when there are too many, or all together too large."""
        self._results[key] = result
        if len(self._results) > _MAX_CACHED:
            self._results.popitem(last=False)
        self._sizes.add(self, key, result)
        return result

    def drop(self, key: str) -> None:
        """Drop the result of the event with that key, if it is cached."""
        self._results.pop(key, None)


class ResultSizes:
    """The sizes of the results in all caches, of which the oldest are dropped when they take too much memory."""

    def __init__(self) -> None:
        self._kept: deque[tuple[ref[ResultCache], str, int]] = deque()
        """Each result's cache, key and bytes; of some the cache has gone, or has dropped the result."""
        self._bytes = 0

    def add(self, cache: ResultCache, key: str, result: Result) -> None:
        """Count a result that was cached; drop the oldest ones while all together are too large."""
        # Its JSON is made now, which is needed in any case; the values it was made of take some times that.
        size = len(result.payload) * _MEMORY_OF_JSON + _RESULT_BYTES
        self._kept.append((ref(cache), key, size))
        self._bytes += size
        while self._bytes > _MAX_CACHED_BYTES:
            oldest, key, freed = self._kept.popleft()
            self._bytes -= freed
            found = oldest()
            if found is not None:
                found.drop(key)


class ResultCaches:
    """The result caches of one schema, each for as long as it has a subscriber.

    Those who may see the same share one: no result depends on anything else of who asks.
    """

    def __init__(self) -> None:
        self._by_operation: WeakValueDictionary[tuple[Hashable, ...], ResultCache] = WeakValueDictionary()
        self._sizes = ResultSizes()

    def of(self, operation: ReadOperation, visibility: Hashable) -> ResultCache:
        """Return the cache of one document, operation name and variables, for those who may see so much.

        It lives as long as somebody refers to it.
        """
        key = (visibility, operation.text, operation.name, json.encode(operation.variables, order="sorted"))
        return self._by_operation.setdefault(key, ResultCache(self._sizes))

    def __len__(self) -> int:
        return len(self._by_operation)


class OperationTimes:
    """Counters of the time that queries and mutations take, and of the errors of all operations.

    :param names: names of operations that have a label of their own.
    :param fields: the root fields of the schema, which have labels too.
    """

    def __init__(self, names: frozenset[str], fields: frozenset[str]) -> None:
        self._names = names
        self._fields = fields
        self.times: dict[tuple[str, ...], Histogram] = {}
        """Seconds by the operation's name and its first root field."""
        self.errors: dict[tuple[str, ...], int] = {(code,): 0 for code in sorted(CODES)}
        """Errors by their ``extensions.code``."""

    def observe(self, operation: OperationDefinitionNode, seconds: float) -> None:
        """Count an operation that has ended, with the seconds from its check to its result."""
        name, field = operation.name.value if operation.name else None, _first_field(operation)
        label = (name if name in self._names else _OTHER, field if field in self._fields else _OTHER)
        found = self.times.get(label)
        if found is None:
            found = self.times[label] = Histogram(ANSWER_SECONDS)
        found.observe(seconds)

    def count_errors(self, errors: Iterable[GraphQLError]) -> None:
        """Count the errors of one result."""
        for error in errors:
            label = (str((error.extensions or {}).get("code")),)
            if label in self.errors:
                self.errors[label] += 1


def _first_field(operation: OperationDefinitionNode) -> str:
    first = operation.selection_set.selections[0] if operation.selection_set.selections else None
    return first.name.value if isinstance(first, FieldNode) else _OTHER
