"""Running operations: what every transport does between a request and the bytes of its results."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from graphql import GraphQLError
from msgspec import Struct
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.documents import operation_type
from gql_jobs.graphql.enums import DocumentError
from gql_jobs.graphql.errors import UNEXPECTED
from gql_jobs.graphql.faults import coded
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.jobs.errors import ErrorCode
from gql_jobs.web.json_codec import encode
from gql_jobs.web.operation_request import OperationRequest

log = logging.getLogger(__name__)


class Result(Struct, frozen=True):
    """One result of an operation."""

    payload: bytes
    """JSON: ``data`` (unless the operation was refused), ``errors``, ``extensions``."""
    errors: list[dict[str, Any]] | None = None
    refused: bool = False
    """Whether nothing was run, so that there is no ``data``: nothing follows such a result."""
    cursor: str | None = None
    """The cursor of the event, where the result is one of a subscription to events."""


class Operation(Struct, frozen=True):
    """One operation, ready to be run once."""

    request: OperationRequest
    context: Context
    type: OperationType | None
    """None where the document cannot be read or leaves open which operation is meant: running it says so."""


class Execution:
    """Runs operations against the schema."""

    def __init__(self, schema: JobsSchema, query_timeout: float = 30.0) -> None:
        """:param query_timeout: seconds that a query may take.

        Mutations are not cut short: half of one would be neither done nor refused, and each write of it has its time.
        """
        self._schema = schema
        self._query_timeout = query_timeout

    def operation(self, request: OperationRequest, context: Context) -> Operation:
        """The operation that a request asks for.

        :param context: for this operation alone.
        """
        context.document = self._schema.parse(request.query)
        return Operation(request, context, operation_type(context.document, request.operation_name))

    async def result(self, operation: Operation) -> Result:
        """The result of a query or a mutation."""
        request = operation.request
        limit = self._query_timeout if operation.type is OperationType.QUERY else None
        try:
            async with asyncio.timeout(limit) as patience:
                result = await self._schema.execute(
                    request.query,
                    variable_values=request.variables,
                    context_value=operation.context,
                    operation_name=request.operation_name,
                    operation_extensions=request.extensions,
                )
            return _result(result)
        except CannotGetOperationTypeError as error:
            message = GraphQLError(error.as_http_error_reason())
            return refusal([coded(message, DocumentError.GRAPHQL_VALIDATION_FAILED)])
        except Exception as error:  # noqa: BLE001
            return self._too_slow() if patience.expired() else _unexpected(error)

    def _too_slow(self) -> Result:
        message = (
            f"The query took longer than {self._query_timeout:g} s. Ask for less: a smaller page, a narrower filter."
        )
        return refusal([GraphQLError(message, extensions={"code": ErrorCode.TIMEOUT.value})])

    async def results(self, operation: Operation) -> AsyncGenerator[Result, None]:
        """The results of any operation: one of a query or mutation, those of a subscription as its events happen."""
        request, context = operation.request, operation.context
        if operation.type in {OperationType.QUERY, OperationType.MUTATION}:
            yield await self.result(operation)
            return
        try:
            stream: Any = await self._schema.stream(
                request.query,
                variable_values=request.variables,
                context_value=context,
                operation_name=request.operation_name,
                operation_extensions=request.extensions,
            )
            async with aclosing(stream):
                async for result in stream:
                    yield _result(result, context.cursor)
        except Exception as error:  # noqa: BLE001
            yield _unexpected(error)


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


def _unexpected(error: Exception) -> Result:
    if isinstance(error, GraphQLError) and error.extensions and "code" in error.extensions:
        return refusal([error])
    log.error("unexpected error in an operation", exc_info=error)
    return refusal([GraphQLError(UNEXPECTED, extensions={"code": ErrorCode.INTERNAL.value})])
