"""Running operations: what every transport does between a request and the bytes of its results."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import msgspec
from graphql import GraphQLError, OperationType
from msgspec import Struct
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from gql_jobs.graphql.engine.operations import EventResult, Operation, Operations
from gql_jobs.jobs.errors import ErrorCode

# JSON on the wire: msgspec's codec, with the errors that Strawberry expects of a JSON codec.

encode = msgspec.json.encode


def decode(text: str | bytes) -> Any:
    """The value of a JSON text.

    :raises json.JSONDecodeError: for anything that is none, is no UTF-8, or is nested too deeply.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise json.JSONDecodeError(str(error) or "nested too deeply", "", 0) from None


class Result(Struct, frozen=True):
    """One result of an operation."""

    payload: bytes
    """JSON: ``data`` (unless the operation was refused), ``errors``, ``extensions``."""
    errors: list[dict[str, Any]] | None = None
    refused: bool = False
    """Whether nothing was run, so that there is no ``data``: nothing follows such a result."""
    cursor: str | None = None
    """The cursor of the event, where the result is one of a subscription to events."""


class Execution:
    """Runs operations against the schema."""

    def __init__(self, operations: Operations, query_timeout: float = 30.0) -> None:
        """:param query_timeout: seconds that a query may take.

        Mutations are not cut short: half of one would be neither done nor refused, and each write of it has its time.
        """
        self.operation = operations.operation
        self._operations = operations
        self._query_timeout = query_timeout

    async def result(self, operation: Operation) -> Result:
        """The result of a query or a mutation."""
        if operation.type is not OperationType.QUERY:
            return _result(await self._operations.execute(operation))
        limit = self._query_timeout
        try:
            async with asyncio.timeout(limit):
                return _result(await self._operations.execute(operation))
        except TimeoutError:
            message = f"The query took longer than {limit:g} s. Ask for less: a smaller page, a narrower filter."
            return refusal([GraphQLError(message, extensions={"code": ErrorCode.TIMEOUT.value})])

    async def results(self, operation: Operation) -> AsyncGenerator[Result, None]:
        """The results of any operation: one of a query or mutation, those of a subscription as its events happen."""
        if operation.type is not OperationType.SUBSCRIPTION:
            yield await self.result(operation)
            return
        async with aclosing(self._operations.subscribe(operation)) as results:
            async for result in results:
                if not isinstance(result, EventResult):
                    yield _result(result, operation.context.cursor)
                    continue
                if result.rendered is None:
                    result.rendered = _result(result, operation.context.cursor)
                yield result.rendered


def refusal(errors: Iterable[GraphQLError]) -> Result:
    """The result of what is not run."""
    shown: list[dict[str, Any]] = [dict(error.formatted) for error in errors]
    return Result(encode({"errors": shown}), shown, refused=True)


def _result(result: ExecutionResult, cursor: str | None = None) -> Result:
    errors = result.errors or []
    if errors and result.data is None and (isinstance(result, PreExecutionError) or not any(e.path for e in errors)):
        return refusal(errors)
    body: dict[str, Any] = {"data": result.data}
    shown: list[dict[str, Any]] | None = None
    if errors:
        body["errors"] = shown = [dict(error.formatted) for error in errors]
    if result.extensions:
        body["extensions"] = result.extensions
    return Result(encode(body), shown, cursor=cursor)
