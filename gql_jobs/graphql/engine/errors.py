"""The errors in results: each gets a code, and none shows a detail that was not meant for clients.

Errors come from the document (``ErrorCodes.rules`` finds them, ``of_validation`` gives them their codes), from the
variables and from the resolvers (``of_execution``). A value that does not fit is reported with its path: all faults of
a payload together as one INVALID_PAYLOAD, each other one as an INVALID_ARGUMENT. An unexpected exception is logged with
its traceback and shown as one plain sentence.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
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
from msgspec import json

from gql_jobs.jobs import errors as job_errors
from gql_jobs.jobs.errors import MAX_FAULTS, MAX_QUOTED, GqlJobsError, InvalidPayload, shortened
from gql_jobs.logs import redact_beginning

log = logging.getLogger(__name__)

UNEXPECTED = "Something unexpected went wrong. The server's log has the details."
MAX_REFUSAL = 64 * 1024
"""Bytes that the errors of one result have as JSON, at most."""
_MAX_MESSAGE = 1000
"""Characters of an error's message, at most."""
_MAX_LOCATIONS = 10
"""Places in the document that an error names, at most."""
_MAX_VALUE = 1000
"""Characters of a text in an error's extensions, at most."""
_MOST_PRINTED = 1 << 13
"""Characters of messages after which no more faults of literals are looked for: each has all of its literal in it."""
_LAST_VALUE = re.compile(rf"((?:[Ff]ound|value): )(.{{{MAX_QUOTED - 1}}}).{{2,}}", re.DOTALL)
"""The value that graphql-core's messages end with."""
_VALUE_SAID = re.compile(r"(?:,? [Ff]ound:? |(?<=value): |(?<=[Vv]alue) (?=')).*", re.DOTALL)
"""That value with what leads to it."""
_QUOTED = re.compile(rf"""(?<!\w)(['"])([^'"]{{{MAX_QUOTED - 1}}})[^'"]{{2,}}\1""")
_LONG_WORD = re.compile(rf"(\S{{{MAX_QUOTED - 1}}})\S{{2,}}")
_NAMED_FIELD = re.compile(r"(?:required|unknown) field '(\w+)'")
_FAULT = "fault"


class DocumentError(StrEnum):
    """The codes that have nothing to do with jobs: of faulty documents, and of a server that stops."""

    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
    SERVER_STOPPING = "SERVER_STOPPING"


CODES = (*(code.value for code in job_errors.ErrorCode), *(code.value for code in DocumentError))
"""Every value that ``extensions.code`` may have."""


def coded(error: GraphQLError, code: str, **extensions: Any) -> GraphQLError:
    """Give the error a code, unless it has one; return the same error."""
    if not has_code(error):
        error.extensions = {**(error.extensions or {}), "code": str(code), **extensions}
    return error


def has_code(error: GraphQLError) -> bool:
    """Return whether the error has an ``extensions.code``."""
    return "code" in (error.extensions or {})


def located(error: Exception) -> GraphQLError:
    """Return the error itself if it is a GraphQLError, else one that holds it as ``original_error``."""
    return error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)


def forget_calls(error: GraphQLError) -> None:
    """Take the tracebacks from an error that was logged, if it had to be, and from what it was made of.

    They hold the calls in which it was raised, and these what they were given, which may hold the error again: a
    request of megabytes would stay until the next collection of garbage.
    """
    found: BaseException | None = error
    seen = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        found.__traceback__ = None
        original = found.original_error if isinstance(found, GraphQLError) else None
        found = original or found.__cause__ or found.__context__


Parts = tuple[str | int, ...]


class PayloadArguments(NamedTuple):
    """The arguments of a schema that contain payloads: an input object with one, or a list of such objects.

    An argument that has the name of that member is a payload itself.
    """

    arguments: dict[str, str]
    """The argument's name, by the name of the root field."""
    member: str
    """The member of the input object that is the payload."""
    secret: frozenset[str] = frozenset()
    """The members of payloads that hold secrets, about which no value is said."""

    def message(self, fault: "Fault") -> str:
        """Return what is said of a fault in a payload: without the value that it ends with where that may be secret."""
        places = [part for part in fault.path if not isinstance(part, int)]
        if places[:1] == [self.member]:
            places = ["", *places]
        if self.secret.isdisjoint(places[2:3]) and places[2:]:
            return _cut(fault.message)
        return _cut(_VALUE_SAID.sub(".", fault.message, count=1)) if self.secret else _cut(fault.message)

    def hold(self, path: Parts) -> bool:
        """Return whether a path, from the argument's name on, leads to a payload or below it."""
        root, *rest = path
        if rest and isinstance(rest[0], int):
            rest = rest[1:]
        return root in self.arguments.values() and (root == self.member or rest[:1] == [self.member])


class Fault(NamedTuple):
    """A value that does not fit. ``path``: its place, from the argument's or the variable's name on."""

    path: Parts
    message: str
    node: Node | None


class ErrorCodes:
    """Gives every error of an operation its code.

    :param payloads: the arguments that contain payloads, whose faults have a code of their own.
    """

    def __init__(self, schema: GraphQLSchema, payloads: PayloadArguments) -> None:
        self._schema = schema
        self._payloads = payloads
        self.rules = _rules(payloads)
        """The specification's validation rules; errors about values carry their path for ``of_validation``."""

    def of_validation(self, errors: list[GraphQLError]) -> list[GraphQLError]:
        """Return the errors that ``rules`` have found, with their codes."""
        faults = [fault for error in errors if (fault := _reported_fault(error)) is not None]
        others = [error for error in errors[:MAX_FAULTS] if _reported_fault(error) is None]
        return self._of_faults(faults) + [coded(error, DocumentError.GRAPHQL_VALIDATION_FAILED) for error in others]

    def of_execution(
        self,
        errors: list[GraphQLError],
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: dict[str, Any],
    ) -> list[GraphQLError]:
        """Return the errors of variables and resolvers with their codes; log and mask unexpected exceptions."""
        errors = errors[: MAX_FAULTS + 1]
        if all(map(has_code, errors)):
            return errors
        if any(_is_about_variables(error) for error in errors):
            faults = self._variable_faults(document, operation, variables)
            if faults:
                return self._of_faults(faults)
        return [self._one(error, document) for error in errors]

    def of_variable(
        self, document: DocumentNode, name: str, below: list[str | int], message: str
    ) -> list[GraphQLError]:
        """Return the error about one part of a variable's value.

        :param below: its place in the value.
        """
        places = (path for node, path in self._payload_values(document) if _is_variable(node, name))
        return self._of_faults([Fault((*next(places, ("", name)), *below), message, None)])

    def _one(self, error: GraphQLError, document: DocumentNode) -> GraphQLError:
        if has_code(error):
            return error
        fault = self._fault_at_run_time(error, document)
        if fault is not None:
            return self._of_faults([fault])[0]
        if error.path is None and _is_graphqls_own(error):
            return coded(error, DocumentError.GRAPHQL_VALIDATION_FAILED)
        return _masked(error)

    def _fault_at_run_time(self, error: GraphQLError, document: DocumentNode) -> Fault | None:
        """Return the fault of a nullable variable with a default: it may be null in a place that does not allow it."""
        node = error.nodes[0] if error.nodes else None
        if not isinstance(node, ValueNode) or not _is_graphqls_own(error):
            return None
        place = next((path for value, path in self._payload_values(document) if value is node), None)
        return Fault(place or (str((error.path or ["?"])[-1]),), error.message, node)

    def _variable_faults(
        self, document: DocumentNode, operation: OperationDefinitionNode, values: dict[str, Any]
    ) -> list[Fault]:
        """Return the faults of the variables' values, each at every place of a payload that the variable stands in."""
        places: dict[str, list[Parts]] = {}
        for node, path in self._payload_values(document):
            if isinstance(node, VariableNode):
                places.setdefault(node.name.value, []).append(path)
        faults: list[Fault] = []
        for definition in operation.variable_definitions or ():
            name = definition.variable.name.value
            input_type = type_from_ast(self._schema, definition.type)
            value = values.get(name, Undefined)
            if value is Undefined and definition.default_value is not None:
                continue
            roots = places.get(name, [("", name)])
            for below, message in _value_faults(value, input_type):
                # Cut while they are multiplied: one variable may stand in a thousand places.
                left = MAX_FAULTS - len(faults)
                faults.extend(Fault((*root, *below), message, definition) for root in roots[:left])
                if left <= len(roots):
                    return faults
        return faults

    def _payload_values(self, document: DocumentNode) -> Iterator[tuple[ValueNode, Parts]]:
        """Yield every value in the arguments that hold payloads, with its path."""
        arguments = self._payloads.arguments
        for field in _fields_named(document, arguments):
            for argument in field.arguments or ():
                if argument.name.value == arguments[field.name.value]:
                    yield from _values(argument.value, (argument.name.value,))

    def _of_faults(self, faults: list[Fault]) -> list[GraphQLError]:
        """Return one INVALID_PAYLOAD for all faults of payloads together, an INVALID_ARGUMENT for each other one."""
        in_payload = [fault for fault in faults if self._payloads.hold(fault.path)]
        errors = []
        if in_payload:
            invalid = InvalidPayload(
                [{"path": _dotted(f.path), "message": self._payloads.message(f)} for f in in_payload[:MAX_FAULTS]]
            )
            nodes = {id(fault.node): fault.node for fault in in_payload if fault.node is not None}
            errors.append(GraphQLError(invalid.message, list(nodes.values()), original_error=invalid))
        for fault in faults[:MAX_FAULTS]:
            if not self._payloads.hold(fault.path):
                path = _dotted(fault.path)
                error = GraphQLError(f"The value of {path} is not valid. {_cut(fault.message)}", fault.node)
                errors.append(coded(error, job_errors.ErrorCode.INVALID_ARGUMENT, argument=path))
        return errors


def _is_variable(node: Node, name: str) -> bool:
    return isinstance(node, VariableNode) and node.name.value == name


def _masked(error: GraphQLError) -> GraphQLError:
    cause = error.original_error or error
    if isinstance(cause, GqlJobsError):
        return error
    where = _dotted(tuple(error.path or ())) or "the operation"
    log.error("unexpected error in %s", where, exc_info=(type(cause), cause, cause.__traceback__))
    extensions = {"code": job_errors.ErrorCode.INTERNAL.value}
    return GraphQLError(UNEXPECTED, error.nodes, path=error.path, extensions=extensions)


def _is_graphqls_own(error: GraphQLError) -> bool:
    return error.original_error is None or isinstance(error.original_error, GraphQLError)


def _is_about_variables(error: GraphQLError) -> bool:
    return error.path is None and not has_code(error) and _is_graphqls_own(error)


def _dotted(path: Parts) -> str:
    return shortened(".".join(shortened(str(part)) for part in path if part != ""))


# Bounding what is shown: a client may have any part of its request quoted back, many times.


def bounded(errors: list[GraphQLError]) -> list[GraphQLError]:
    """Return errors as they may be shown: no more than 50, of ``MAX_REFUSAL`` bytes in all, without the document.

    Values and paths in them are cut to 100 characters. Where some are left out, the last error says so.
    """
    found: list[GraphQLError] = []
    left = MAX_REFUSAL - 200
    for error in errors[:MAX_FAULTS]:
        shown = _bounded(error)
        left -= len(json.encode(shown.formatted))
        if left < 0:
            break
        found.append(shown)
    if len(found) < len(errors):
        code = (errors[0].extensions or {}).get("code")
        found.append(GraphQLError("There are more errors than are shown.", extensions={"code": code}))
    return found


def _bounded(error: GraphQLError) -> GraphQLError:
    path = [shortened(part) if isinstance(part, str) else part for part in error.path or []]
    extensions = {name: _bounded_value(value) for name, value in (error.extensions or {}).items()}
    shown = GraphQLError(_cut(error.message), path=path or None, extensions=extensions)
    # Copied instead of the nodes, which would keep the whole document in memory.
    shown.locations = error.locations[:_MAX_LOCATIONS] if error.locations else error.locations
    return shown


def _bounded_value(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(redact_beginning(value, _MAX_VALUE + 1), _MAX_VALUE)
    if isinstance(value, dict):
        return {name: _bounded_value(part) for name, part in value.items()}
    return [_bounded_value(part) for part in value] if isinstance(value, list) else value


def _cut(message: str) -> str:
    """Return a message without secrets, which a validator may say, and with the values that it quotes cut."""
    message = redact_beginning(message, 100 * _MAX_MESSAGE)
    if len(message) <= MAX_QUOTED:
        return message
    # The value is cut first, and all of the message last, so that no pattern has much to search.
    message = _LAST_VALUE.sub(r"\1\2…", message, count=1)
    message = _QUOTED.sub(r"\1\2…\1", message)
    return shortened(_LONG_WORD.sub(r"\1…", message), _MAX_MESSAGE)


# Finding faults: in the document while it is validated, in the variables once they are known not to fit.


def _rules(payloads: PayloadArguments) -> tuple[type[ValidationRule], ...]:
    class LiteralValues(ValidationRule):
        """In the place of ``ValuesOfCorrectTypeRule``: the same check, which keeps the path of each fault.

        Each fault prints the whole value that it is in, so the check ends once enough has been printed.
        """

        _printed = 0

        def enter_argument(self, node: ArgumentNode, _key: Any, _parent: Any, _path: Any, ancestors: list[Any]) -> None:
            argument = self.context.get_argument()
            if argument is not None:
                owner, name = ancestors[-1], node.name.value
                field = owner.name.value if isinstance(owner, FieldNode) else ""
                root: Parts = (name,) if payloads.arguments.get(field) == name else ("", name)
                self._check(node.value, argument.type, root)

        def enter_variable_definition(self, node: VariableDefinitionNode, *_args: Any) -> None:
            input_type = self.context.get_input_type()
            if node.default_value is not None and input_type is not None:
                self._check(node.default_value, input_type, ("", node.variable.name.value))

        def _check(self, value: ValueNode, input_type: GraphQLInputType, root: Parts) -> None:
            if self._printed > _MOST_PRINTED:
                return

            def on_error(error: GraphQLError, path: list[str | int]) -> None:
                node = error.nodes[0] if error.nodes else value
                self._printed += len(error.message)
                fault = Fault((*root, *_precise(path, error.message)), _cut(error.message), node)
                self.report_error(GraphQLError(fault.message, fault.node, extensions={_FAULT: fault}))
                if self._printed > _MOST_PRINTED:
                    raise _TooManyFaults

            with suppress(_TooManyFaults):
                validate_input_literal(value, input_type, on_error, None, None, self.context.hide_suggestions)

    ours: dict[Any, Any] = {
        ValuesOfCorrectTypeRule: LiteralValues,
        ProvidedRequiredArgumentsRule: _RequiredArguments,
        VariablesInAllowedPositionRule: _VariablePositions,
    }
    return tuple(ours.get(rule, rule) for rule in specified_rules)


class _RequiredArguments(ProvidedRequiredArgumentsRule):
    def report_error(self, error: GraphQLError) -> None:
        super().report_error(coded(error, job_errors.ErrorCode.INVALID_ARGUMENT))


class _VariablePositions(VariablesInAllowedPositionRule):
    def report_error(self, error: GraphQLError) -> None:
        super().report_error(coded(error, job_errors.ErrorCode.INVALID_ARGUMENT))


def _reported_fault(error: GraphQLError) -> Fault | None:
    fault = (error.extensions or {}).get(_FAULT)
    return fault if isinstance(fault, Fault) else None


class _TooManyFaults(Exception):
    """Ends a search once ``MAX_FAULTS`` have been found, or enough has been printed of the values."""


def _value_faults(value: Any, input_type: Any) -> list[tuple[list[str | int], str]]:
    found: list[tuple[list[str | int], str]] = []

    def on_error(error: GraphQLError, path: list[str | int]) -> None:
        found.append((_precise(path, error.message), _cut(error.message)))
        if len(found) >= MAX_FAULTS:
            raise _TooManyFaults

    try:
        validate_input_value(value, input_type, on_error)
    except _TooManyFaults:
        pass
    except RecursionError:
        found.append(([], "The value is nested too deeply."))
    return found


def _precise(path: list[str | int], message: str) -> list[str | int]:
    """Return the path with the missing or unknown field, which graphql-core names only in the message."""
    named = _NAMED_FIELD.search(message)
    return [*path, shortened(named[1])] if named else path


def _fields_named(document: DocumentNode, names: dict[str, str]) -> list[FieldNode]:
    found: list[FieldNode] = []

    class Finder(Visitor):
        def enter_field(self, node: FieldNode, *_args: Any) -> None:
            if node.name.value in names:
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
