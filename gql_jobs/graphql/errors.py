"""The errors that leave the API: each with a code, none with a detail that was not meant for clients.

What nobody raised on purpose is logged with its traceback and shown as one plain sentence.
"""

import logging
from collections.abc import Iterator
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError, OperationDefinitionNode, ValueNode, get_operation_ast
from strawberry.exceptions import MissingQueryError, StrawberryInputCoercionError
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from gql_jobs.graphql.enums import DocumentError
from gql_jobs.graphql.faults import RULES, Fault, coded, errors_of, fault_of, has_code, literal_place, variable_faults
from gql_jobs.graphql.hooks import core_schema, is_ambiguous
from gql_jobs.jobs.errors import ErrorCode, GqlJobsError

log = logging.getLogger(__name__)

UNEXPECTED = "Something unexpected went wrong. The server's log has the details."


class AmbiguousOperation(CannotGetOperationTypeError):
    """The document has several operations, and the request does not say which one to run."""

    def as_http_error_reason(self) -> str:
        """The sentence that the client is given."""
        return "The document has several operations; operationName must say which of them to run."


class ErrorCodes(SchemaExtension):
    """Gives every error of an operation its code."""

    def on_operation(self) -> Iterator[None]:
        """The results of queries and mutations; those of streams go through ``on_stream_result``."""
        self.execution_context.validation_rules = RULES
        try:
            yield
        except (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError):
            raise
        except Exception as error:  # noqa: BLE001
            raise self._masked(GraphQLError(str(error), original_error=error)) from None
        self._code(self.execution_context.result)

    def on_parse(self) -> Iterator[None]:
        """Which operation is meant must be clear before its type is asked for.

        :raises AmbiguousOperation: if it is not.
        """
        yield
        if is_ambiguous(self.execution_context):
            raise AmbiguousOperation(None)

    def on_validate(self) -> Iterator[None]:
        """The errors of the document itself. In place, for Strawberry has made the result of this list already."""
        yield
        errors = self.execution_context.pre_execution_errors
        if errors:
            errors[:] = _of_validation(errors)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        """Each result of a subscription, and of anything that comes over a WebSocket."""
        self._code(result)
        yield

    def _code(self, result: Any) -> None:
        if result is not None and getattr(result, "errors", None):
            result.errors = self._coded(result.errors)

    def _coded(self, errors: list[GraphQLError]) -> list[GraphQLError]:
        if all(map(has_code, errors)):
            return errors
        if any(_is_about_variables(error) for error in errors):
            faults = self._variable_faults()
            if faults:
                return errors_of(faults)
        return [self._one(error) for error in errors]

    def _one(self, error: GraphQLError) -> GraphQLError:
        if has_code(error):
            return error
        if isinstance(error, GraphQLSyntaxError) or self.execution_context.graphql_document is None:
            return coded(error, DocumentError.GRAPHQL_PARSE_FAILED)
        if isinstance(error.original_error, CannotGetOperationTypeError):
            return coded(error, DocumentError.GRAPHQL_VALIDATION_FAILED)
        fault = self._fault_at_run_time(error)
        if fault is not None:
            return errors_of([fault])[0]
        if error.path is None and _is_graphqls_own(error):
            return coded(error, DocumentError.GRAPHQL_VALIDATION_FAILED)
        return self._masked(error)

    def _fault_at_run_time(self, error: GraphQLError) -> Fault | None:
        """A nullable variable with a default may still be null in a place that does not allow it."""
        document = self.execution_context.graphql_document
        node = error.nodes[0] if error.nodes else None
        if document is None or not isinstance(node, ValueNode) or not _is_graphqls_own(error):
            return None
        return Fault(literal_place(document, node) or (str((error.path or ["?"])[-1]),), error.message, node)

    def _variable_faults(self) -> list[Fault]:
        context = self.execution_context
        document = context.graphql_document
        operation = get_operation_ast(document, context.operation_name) if document is not None else None
        if document is None or not isinstance(operation, OperationDefinitionNode):
            return []
        return variable_faults(core_schema(context.schema), document, operation, context.variables or {})

    def _masked(self, error: GraphQLError) -> GraphQLError:
        cause = error.original_error or error
        if isinstance(cause, GqlJobsError):
            return error
        where = ".".join(map(str, error.path or [])) or "the operation"
        log.error("unexpected error in %s", where, exc_info=(type(cause), cause, cause.__traceback__))
        return GraphQLError(UNEXPECTED, error.nodes, path=error.path, extensions={"code": ErrorCode.INTERNAL.value})


def _of_validation(errors: list[GraphQLError]) -> list[GraphQLError]:
    faults = [fault for error in errors if (fault := fault_of(error)) is not None]
    others = [error for error in errors if fault_of(error) is None]
    if faults:
        # Strawberry checks @oneOf literals once more, without a path.
        others = [error for error in others if not isinstance(error, StrawberryInputCoercionError)]
    for error in others:
        is_value = isinstance(error, StrawberryInputCoercionError)
        coded(error, ErrorCode.INVALID_ARGUMENT if is_value else DocumentError.GRAPHQL_VALIDATION_FAILED)
    return errors_of(faults) + others


def _is_graphqls_own(error: GraphQLError) -> bool:
    return error.original_error is None or isinstance(error.original_error, GraphQLError)


def _is_about_variables(error: GraphQLError) -> bool:
    return error.path is None and not has_code(error) and _is_graphqls_own(error)
