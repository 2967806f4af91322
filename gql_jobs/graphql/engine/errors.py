"""The errors that leave the API: each with a code, none with a detail that was not meant for clients.

What nobody raised on purpose is logged with its traceback and shown as one plain sentence.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLInputType,
    GraphQLSchema,
    ListValueNode,
    Node,
    ObjectValueNode,
    OperationDefinitionNode,
    ProvidedRequiredArgumentsRule,
    Undefined,
    ValidationRule,
    ValueNode,
    ValuesOfCorrectTypeRule,
    VariableDefinitionNode,
    VariableNode,
    VariablesInAllowedPositionRule,
    Visitor,
    specified_rules,
    type_from_ast,
    visit,
)
from graphql.utilities import validate_input_literal, validate_input_value

from gql_jobs.graphql.engine.documents import Known
from gql_jobs.graphql.scalars_and_enums import DocumentError
from gql_jobs.jobs.errors import ErrorCode, GqlJobsError, InvalidPayload

# What is wrong with the arguments of an operation, and where: the codes and paths of GraphQL's own coercion errors.
#
# Knows the arguments ``input.payload`` and ``inputs[i].payload`` of the creations; decides nothing about execution.

CREATIONS = {"createJob": "input", "createJobs": "inputs"}
_MOST_FAULTS = 50
_NAMED_FIELD = re.compile(r"(?:required|unknown) field '(\w+)'")
_FAULT = "fault"

Parts = tuple[str | int, ...]


class Fault(NamedTuple):
    """A value that does not fit. ``path`` is where it stands, from the argument's or the variable's name on."""

    path: Parts
    message: str
    node: Node | None

    @property
    def is_in_payload(self) -> bool:
        """Whether it stands at or below the payload of a creation."""
        root, *rest = self.path
        if root == "inputs" and rest and isinstance(rest[0], int):
            rest = rest[1:]
        return root in CREATIONS.values() and rest[:1] == ["payload"]


class _Enough(Exception):
    """Whoever sends an endless list of faults gets the first ones."""


class LiteralValues(ValidationRule):
    """In the place of ``ValuesOfCorrectTypeRule``: the same check, which keeps the path of each fault."""

    def enter_argument(self, node: ArgumentNode, _key: Any, _parent: Any, _path: Any, ancestors: list[Any]) -> None:
        """Check an argument's value."""
        argument = self.context.get_argument()
        if argument is not None:
            owner = ancestors[-1]
            name = owner.name.value if isinstance(owner, FieldNode) else ""
            in_creation = CREATIONS.get(name) == node.name.value
            self._check(node.value, argument.type, (node.name.value,) if in_creation else ("", node.name.value))

    def enter_variable_definition(self, node: VariableDefinitionNode, *_args: Any) -> None:
        """Check a variable's default."""
        input_type = self.context.get_input_type()
        if node.default_value is not None and input_type is not None:
            self._check(node.default_value, input_type, ("", node.variable.name.value))

    def _check(self, value: ValueNode, input_type: GraphQLInputType, root: Parts) -> None:
        def on_error(error: GraphQLError, path: list[str | int]) -> None:
            node = error.nodes[0] if error.nodes else value
            self.report_error(_reported(Fault((*root, *_precise(path, error.message)), error.message, node)))

        validate_input_literal(value, input_type, on_error, None, None, self.context.hide_suggestions)


class _RequiredArguments(ProvidedRequiredArgumentsRule):
    def report_error(self, error: GraphQLError) -> None:
        super().report_error(coded(error, ErrorCode.INVALID_ARGUMENT))


class _VariablePositions(VariablesInAllowedPositionRule):
    def report_error(self, error: GraphQLError) -> None:
        super().report_error(coded(error, ErrorCode.INVALID_ARGUMENT))


_OURS: dict[Any, Any] = {
    ValuesOfCorrectTypeRule: LiteralValues,
    ProvidedRequiredArgumentsRule: _RequiredArguments,
    VariablesInAllowedPositionRule: _VariablePositions,
}
RULES = tuple(_OURS.get(rule, rule) for rule in specified_rules)
"""The specification's rules, whose errors about arguments carry a code."""


def coded(error: GraphQLError, code: str, **extensions: Any) -> GraphQLError:
    """The same error with a code, unless it has one."""
    if not has_code(error):
        error.extensions = {**(error.extensions or {}), "code": str(code), **extensions}
    return error


def has_code(error: GraphQLError) -> bool:
    """Whether somebody has said what kind of error it is."""
    return "code" in (error.extensions or {})


def fault_of(error: GraphQLError) -> Fault | None:
    """The fault that a validation error reports, if it is one of ``LiteralValues``."""
    fault = (error.extensions or {}).get(_FAULT)
    return fault if isinstance(fault, Fault) else None


def variable_faults(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, values: dict[str, Any]
) -> list[Fault]:
    """The faults of the variables' values, each at every place of a creation that the variable stands in."""
    places = _variable_places(document)
    faults: list[Fault] = []
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        input_type = type_from_ast(schema, definition.type)
        value = values.get(name, Undefined)
        if value is Undefined and definition.default_value is not None:
            continue
        for path, message in _value_faults(value, input_type):
            roots = places.get(name, [("", name)])
            faults.extend(Fault((*root, *path), message, definition) for root in roots)
    return faults


def literal_place(document: DocumentNode, node: Node) -> Parts | None:
    """Where a value node stands in the argument of a creation."""
    return next((path for value, path in _creation_values(document) if value is node), None)


def errors_of(faults: list[Fault]) -> list[GraphQLError]:
    """One INVALID_PAYLOAD for all faults of payloads together, an INVALID_ARGUMENT for each other one."""
    in_payload = [fault for fault in faults if fault.is_in_payload]
    errors = []
    if in_payload:
        refusal = InvalidPayload([{"path": _dotted(f.path), "message": f.message} for f in in_payload])
        nodes = {id(fault.node): fault.node for fault in in_payload if fault.node is not None}
        errors.append(GraphQLError(refusal.message, list(nodes.values()), original_error=refusal))
    for fault in faults:
        if not fault.is_in_payload:
            path = _dotted(fault.path)
            error = GraphQLError(f"The value of {path} is not valid. {fault.message}", fault.node)
            errors.append(coded(error, ErrorCode.INVALID_ARGUMENT, argument=path))
    return errors


def _reported(fault: Fault) -> GraphQLError:
    return GraphQLError(fault.message, fault.node, extensions={_FAULT: fault})


def _dotted(path: Parts) -> str:
    return ".".join(str(part) for part in path if part != "")


def _precise(path: list[str | int], message: str) -> list[str | int]:
    """graphql-core reports a missing or unknown field at the object around it, and names it only in the message."""
    named = _NAMED_FIELD.search(message)
    return [*path, named[1]] if named else path


def _value_faults(value: Any, input_type: Any) -> list[tuple[list[str | int], str]]:
    found: list[tuple[list[str | int], str]] = []

    def on_error(error: GraphQLError, path: list[str | int]) -> None:
        found.append((_precise(path, error.message), error.message))
        if len(found) >= _MOST_FAULTS:
            raise _Enough

    try:
        validate_input_value(value, input_type, on_error)
    except _Enough:
        pass
    except RecursionError:
        found.append(([], "The value is nested too deeply."))
    return found


def _variable_places(document: DocumentNode) -> dict[str, list[Parts]]:
    places: dict[str, list[Parts]] = {}
    for node, path in _creation_values(document):
        if isinstance(node, VariableNode):
            places.setdefault(node.name.value, []).append(path)
    return places


def _creation_values(document: DocumentNode) -> Iterator[tuple[ValueNode, Parts]]:
    for field in _creations(document):
        for argument in field.arguments or ():
            if argument.name.value == CREATIONS[field.name.value]:
                yield from _values(argument.value, (argument.name.value,))


def _creations(document: DocumentNode) -> list[FieldNode]:
    found: list[FieldNode] = []

    class Finder(Visitor):
        def enter_field(self, node: FieldNode, *_args: Any) -> None:
            if node.name.value in CREATIONS:
                found.append(node)

    visit(document, Finder())
    return found


def _values(value: ValueNode, path: Parts) -> Iterator[tuple[ValueNode, Parts]]:
    yield value, path
    if isinstance(value, ObjectValueNode):
        for field in value.fields:
            yield from _values(field.value, (*path, field.name.value))
    elif isinstance(value, ListValueNode):
        for index, item in enumerate(value.values):
            yield from _values(item, (*path, index))


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
