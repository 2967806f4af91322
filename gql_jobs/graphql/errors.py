"""The errors that leave the API: each with a code, none with a detail that was not meant for clients.

What nobody raised on purpose is logged with its traceback and shown as one plain sentence.
"""

import logging
from typing import Any, NamedTuple

from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationDefinitionNode, ValueNode

from gql_jobs.graphql.documents import Known
from gql_jobs.graphql.enums import DocumentError
from gql_jobs.graphql.faults import Fault, coded, errors_of, fault_of, has_code, literal_place, variable_faults
from gql_jobs.jobs.errors import ErrorCode, GqlJobsError

log = logging.getLogger(__name__)

UNEXPECTED = "Something unexpected went wrong. The server's log has the details."


class Asked(NamedTuple):
    """An operation that a client asks to run."""

    document: DocumentNode
    node: OperationDefinitionNode
    variables: dict[str, Any]
    known: Known | None = None
    """What is kept with the document, which then is valid."""


class ErrorCodes:
    """Gives every error of an operation its code."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema

    def of_validation(self, errors: list[GraphQLError]) -> list[GraphQLError]:
        """The errors of the document itself."""
        faults = [fault for error in errors if (fault := fault_of(error)) is not None]
        others = [error for error in errors if fault_of(error) is None]
        return errors_of(faults) + [coded(error, DocumentError.GRAPHQL_VALIDATION_FAILED) for error in others]

    def of_execution(self, errors: list[GraphQLError], asked: Asked) -> list[GraphQLError]:
        """The errors of variables and resolvers."""
        if all(map(has_code, errors)):
            return errors
        if any(_is_about_variables(error) for error in errors):
            faults = variable_faults(self._schema, asked.document, asked.node, asked.variables)
            if faults:
                return errors_of(faults)
        return [self._one(error, asked) for error in errors]

    def _one(self, error: GraphQLError, asked: Asked) -> GraphQLError:
        if has_code(error):
            return error
        fault = self._fault_at_run_time(error, asked)
        if fault is not None:
            return errors_of([fault])[0]
        if error.path is None and _is_graphqls_own(error):
            return coded(error, DocumentError.GRAPHQL_VALIDATION_FAILED)
        return self._masked(error)

    def _fault_at_run_time(self, error: GraphQLError, asked: Asked) -> Fault | None:
        """A nullable variable with a default may still be null in a place that does not allow it."""
        node = error.nodes[0] if error.nodes else None
        if not isinstance(node, ValueNode) or not _is_graphqls_own(error):
            return None
        return Fault(literal_place(asked.document, node) or (str((error.path or ["?"])[-1]),), error.message, node)

    def _masked(self, error: GraphQLError) -> GraphQLError:
        cause = error.original_error or error
        if isinstance(cause, GqlJobsError):
            return error
        where = ".".join(map(str, error.path or [])) or "the operation"
        log.error("unexpected error in %s", where, exc_info=(type(cause), cause, cause.__traceback__))
        return GraphQLError(UNEXPECTED, error.nodes, path=error.path, extensions={"code": ErrorCode.INTERNAL.value})


def _is_graphqls_own(error: GraphQLError) -> bool:
    return error.original_error is None or isinstance(error.original_error, GraphQLError)


def _is_about_variables(error: GraphQLError) -> bool:
    return error.path is None and not has_code(error) and _is_graphqls_own(error)
