"""The fast path: replaces Strawberry's resolving and parts of graphql-core's executor, with the same results.

Three things differ. Resolvers are called directly, without converting their arguments to Strawberry's objects
(``call_resolvers``). Fields that only read an attribute are read by readers instead of the executor: a selection
becomes a list of readers, once for a document, and a list of objects is read column by column, one attribute of all of
them with one check of their types (``PlainExecutor``). And an event of a subscription is read as a whole, without a
copy of the executor, where all that is selected of its kind is plain. docs/decisions.md has the figures.

A reader gives the executor's own result or none: whatever is not of exactly the expected kind (a resolver, a null where
none may be, a value of another type) raises ``Unplain``, and the executor executes the field as if nothing had been
tried. No reader may call a resolver or report an error.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, cached_property, partial
from itertools import chain, islice
from math import isfinite
from operator import attrgetter
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec
import strawberry
from graphql import (
    BREAK,
    DocumentNode,
    Executor,
    FieldNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    is_composite_type,
    is_object_type,
    visit,
)
from graphql.error import located_error
from graphql.execution.collect_fields import (
    CollectedFields,
    FieldDetailsList,
    GroupedFieldSet,
    collect_fields,
    collect_subfields,
)
from graphql.execution.values import VariableValues
from graphql.pyutils import Path
from graphql.type.definition import GraphQLResolveInfoHelpers

from gql_jobs.graphql.engine.budget import Budget, only_spends_budget
from gql_jobs.graphql.engine.strawberry_internals import (
    Resolver,
    attribute_of,
    brings_events,
    enum_class,
    object_name,
    resolver_of,
)


def call_resolvers(schema: GraphQLSchema) -> None:
    """Have graphql-core call every resolver itself, with its source, a ``strawberry.Info`` and its arguments.

    Strawberry would convert each argument, looking up the types of all fields of an input object every time.
    """
    for named in schema.type_map.values():
        for field in getattr(named, "fields", {}).values():
            found = resolver_of(field) if isinstance(field, GraphQLField) else None
            if found is None:
                continue
            if field.subscribe is not None:
                field.subscribe = _called(found)
            else:
                field.resolve = _called(found)


def _called(resolver: Resolver) -> Callable[..., Any]:
    call, definition = resolver.function, resolver.field
    if resolver.takes_source and resolver.takes_info:
        return lambda source, info, **arguments: call(source, strawberry.Info(info, definition), **arguments)
    if resolver.takes_source:
        return lambda source, _info, **arguments: call(source, **arguments)
    if resolver.takes_info:
        return lambda _source, info, **arguments: call(strawberry.Info(info, definition), **arguments)
    return lambda _source, _info, **arguments: call(**arguments)


def follows_from_source(field: GraphQLField) -> bool:
    """Return whether a field's value follows from its source and its arguments alone.

    A resolver can read anything else (the index, the stream, the client) only through the ``Info`` that it takes, if
    it takes that for more than its budget.
    """
    resolver = resolver_of(field)
    if resolver is None:
        return attribute_of(field) is not None
    return not resolver.takes_info or only_spends_budget(resolver.function)


def is_shareable(schema: GraphQLSchema, document: DocumentNode) -> bool:
    """Return whether all who run the subscriptions of a document, with the same variables, get the same of an event.

    :param document: a valid one. All its fields count, also those that directives or types leave out.
    """
    types = TypeInfo(schema)
    selected: list[bool] = []

    class Selected(Visitor):
        def enter_field(self, node: FieldNode, *_args: Any) -> Any:
            field = types.get_field_def()
            if node.name.value == "__typename" or (field is not None and brings_events(field)):
                return None
            selected.append(field is not None and follows_from_source(field))
            return None if selected[-1] else BREAK

    visit(document, TypeInfoVisitor(types, Selected()))
    return all(selected)


# Columns: their values are converted to those of a result, all of them or none. The types in a column are checked at
# once, and most conversions run no Python code for each value.

Column = list[Any]
"""The values of one attribute of several objects."""
Finish = Callable[[Column], Column]
"""Returns the values of a result for those of an attribute, in the same order; raises ``Unplain``."""

_EXACT: dict[str, type] = {"Date": date, "Time": time, "UUID": UUID, "Decimal": Decimal}
"""The scalars that are serialized by their own function, and the type for which that cannot fail."""
_INT_END = 2**31
_zone = attrgetter("tzinfo")


class Unplain(Exception):
    """A field or a value that only the executor can handle."""


def or_null(present: Finish) -> Finish:
    """Return a ``Finish`` for values that may be None, given one for those that are not."""

    def finish(values: Column) -> Column:
        if None not in values:
            return present(values)
        finished = iter(present([value for value in values if value is not None]))
        return [None if value is None else next(finished) for value in values]

    return finish


def lists_of(item: Finish) -> Finish:
    """Return the ``Finish`` for lists, given that for their items."""

    def finish(values: Column) -> Column:
        if not set(map(type, values)) <= {list, tuple}:
            raise Unplain
        finished = iter(item(list(chain.from_iterable(values))))
        return [list(islice(finished, len(value))) for value in values]

    return finish


@cache
def names_of(of: GraphQLEnumType) -> Finish:
    """Return the ``Finish`` for the values of an enum, which returns their names in the schema."""
    members = enum_class(of)
    names = {
        member: name for name, described in of.values.items() for member in members if member.value == described.value
    }
    return _written(members, names.__getitem__)


def scalars_of(of: GraphQLScalarType) -> Finish:
    """Return the ``Finish`` for the values of a scalar, which serializes them.

    :raises Unplain: for a scalar whose serialization may fail.
    """
    simple = _SIMPLE.get(of.name)
    if simple is not None:
        return simple
    exact = _EXACT.get(of.name)
    if exact is None:
        raise Unplain
    return _written(exact, of.coerce_output_value)


def _written(exact: type, write: Callable[[Any], Any]) -> Finish:
    def finish(values: Column) -> Column:
        _all_of(exact, values)
        return list(map(write, values))

    return finish


def _all_of(exact: type, values: Column) -> Column:
    if not set(map(type, values)) <= {exact}:
        raise Unplain
    return values


def _moments(values: Column) -> Column:
    """Return what ``isoformat`` returns; moments in UTC, as nearly all are, take a faster way."""
    if set(map(_zone, _all_of(datetime, values))) <= {UTC}:
        return [text[:-1] + "+00:00" for text in msgspec.to_builtins(values)]
    return list(map(datetime.isoformat, values))


def _ints(values: Column) -> Column:
    if _all_of(int, values) and not (min(values) >= -_INT_END and max(values) < _INT_END):
        raise Unplain
    return values


def _floats(values: Column) -> Column:
    if not all(map(isfinite, _all_of(float, values))):
        raise Unplain
    return values


_texts: Finish = partial(_all_of, str)
_SIMPLE: dict[str, Finish] = {
    "String": _texts,
    "ID": _texts,
    "Int": _ints,
    "Float": _floats,
    "Boolean": partial(_all_of, bool),
    "DateTime": _moments,
}


# Readers of selections, and the executors that use them.


def _helper_for_resolvers(*_: Any) -> Any:
    raise NotImplementedError("Resolvers await what they need themselves.")


_NO_HELPERS = GraphQLResolveInfoHelpers(gather=_helper_for_resolvers, track=_helper_for_resolvers)

Permit = Callable[[Any, str, str], None]
"""Given an operation's context, a root type's name and a field's, raises what says that the field may not begin."""


class EventExecutor(Executor[Any]):
    """graphql-core's executor, with a cache of its own for each event of a subscription, and without a cycle.

    graphql-core caches the fields below a field by the identity of a list that is new for each event, in a dictionary
    that all events of a subscription share: it would grow for as long as the subscription lasts.

    It also gives each executor helpers that hold the executor. Without them it is freed at its end, and with it the
    variables, which may be megabytes, rather than by the next collection of garbage.

    A root field of a query or a mutation begins here, for every executor, and only if ``permit`` lets it.
    """

    permit: Permit | None = None
    """Asked before each root field; None for the events of a subscription, which has begun."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.async_helpers = _NO_HELPERS

    def refuse_subscription(self, permit: Permit) -> None:
        """Ask whether the root field of a subscription may begin or go on.

        :raises GraphQLError: if it may not, with the place of the field.
        """
        root = self.schema.subscription_type
        assert root is not None
        found = collect_fields(self.schema, self.fragments, self.variable_values, root, self.operation)
        for key, details in found.grouped_field_set.items():
            try:
                permit(self.context_value, root.name, details[0].node.name.value)
            except Exception as error:
                raise located_error(error, [one.node for one in details], [key]) from error

    def execute_field(
        self, parent_type: GraphQLObjectType, source: Any, details: FieldDetailsList, path: Path, *position: Any
    ) -> Any:
        """Return the field's value; None with an error, as for any other failure, if it is one that may not begin."""
        if path.prev is None and self.permit is not None:
            name = details[0].node.name.value
            try:
                self.permit(self.context_value, parent_type.name, name)
            except Exception as error:  # noqa: BLE001 -- whatever refuses it is the field's error
                field = self.schema.get_field(parent_type, name)
                assert field is not None
                self.handle_field_error(error, field.type, details, path)
                return None
        return super().execute_field(parent_type, source, details, path, *position)

    def use_plan(self, plans: dict[str | None, Any]) -> None:
        """Ignore the plans: fields are collected in each execution."""

    def data_of(self, _event: Any) -> dict[str, Any] | None:
        """Return None: every event has to be executed."""

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Any,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> Any:
        """Execute the fields of one object, if the budget of its operation has room for so many values."""
        budget: Budget | None = getattr(self.context_value, "budget", None)
        if budget is not None:
            budget.make(len(grouped_field_set), introspected=parent_type.name.startswith("__"))
        return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """Return the executor of one event, whose subscription was permitted."""
        executor = cast("EventExecutor", super().build_per_event_executor(payload))
        executor.permit = None
        executor._relevant_sub_fields = {}  # noqa: SLF001
        return executor


Collect = Callable[[GraphQLObjectType, FieldDetailsList], CollectedFields]


class Read(NamedTuple):
    """The reader of one field: the key in the result, how the attribute is read, and how its values are finished."""

    key: str
    get: Callable[[Any], Any]
    finish: Finish


class Plan:
    """The readers of one operation's fields, by the identity of their nodes; it must not outlive the document.

    :param variables: the values that decide the conditions of directives.
    """

    def __init__(self, executor: EventExecutor, variables: VariableValues) -> None:
        self.schema = executor.schema
        # Not the executor's own method: with it, the plan would hold one request's context.
        self.collect: Collect = partial(
            collect_subfields, executor.schema, executor.fragments, variables, executor.operation
        )
        self._collect_root = partial(collect_fields, executor.schema, executor.fragments, variables)
        self._operation = executor.operation
        self._reads: dict[tuple[GraphQLObjectType, tuple[int, ...]], Read | None] = {}

    def read(self, parent_type: GraphQLObjectType, details: FieldDetailsList) -> Read | None:
        """Return the field's reader; None if it has none."""
        key = (parent_type, tuple([id(one.node) for one in details]))
        if key not in self._reads:
            self._reads[key] = self._read_or_none(parent_type, details)
        return self._reads[key]

    @cached_property
    def event(self) -> Callable[[Any], dict[str, Any]] | None:
        """Return the function that reads a whole event or raises ``Unplain``; None if no event can be read."""
        root = self.schema.subscription_type
        assert root is not None
        try:
            reads = _reads(self, root, self._collect_root(root, self._operation))
        except Unplain:
            return None
        return lambda event: _rows(reads, [event])[0]

    def _read_or_none(self, parent_type: GraphQLObjectType, details: FieldDetailsList) -> Read | None:
        try:
            return _read(self, parent_type, "", details)
        except Unplain:
            return None


class PlainExecutor(EventExecutor):
    """Executes plain fields by readers, and all others as its base class does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Shared by the events of a subscription.
        self._plan = Plan(self, self.variable_values)

    def use_plan(self, plans: dict[str | None, Any]) -> None:
        """Use the plan that earlier executions of this very document have made, or make one for later executions.

        Only for a document in which no variable decides which fields are selected.

        :param plans: the document's plans, by the operation's name.
        """
        name = self.operation.name.value if self.operation.name else None
        if name not in plans:
            plans[name] = Plan(self, VariableValues({}, {}))
        self._plan = plans[name]

    def data_of(self, event: Any) -> dict[str, Any] | None:
        """Return the data of an event's result; None if the event has to be executed."""
        read = self._plan.event
        if read is not None:
            with suppress(Exception):  # Reading has no effect: the executor may run into the same error itself.
                return read(event)
        return None

    def execute_field(
        self, parent_type: GraphQLObjectType, source: Any, details: FieldDetailsList, path: Path, *position: Any
    ) -> Any:
        """Return the field's value, by its reader if that can read it, else as the base class does.

        Root fields are left to the base class, which asks whether they may begin.
        """
        read = self._plan.read(parent_type, details) if path.prev is not None else None
        if read is not None:
            with suppress(Exception):  # As in ``data_of``.
                return read.finish([read.get(source)])[0]
        return super().execute_field(parent_type, source, details, path, *position)


def _read(plan: Plan, parent_type: GraphQLObjectType, key: str, details: FieldDetailsList) -> Read:
    if any(one.fragment_variable_values is not None for one in details):
        raise Unplain
    name = details[0].node.name.value
    if name == "__typename":
        return Read(key, _itself, lambda values: [parent_type.name] * len(values))
    field: GraphQLField | None = parent_type.fields.get(name)
    if field is None:
        raise Unplain
    return Read(key, _get(field), _finish(plan, field.type, details))


def _get(field: GraphQLField) -> Callable[[Any], Any]:
    if brings_events(field):
        return _itself
    attribute = attribute_of(field)
    if attribute is None:
        raise Unplain
    return attrgetter(attribute)


def _itself(source: Any) -> Any:
    return source


def _finish(plan: Plan, of: GraphQLOutputType, details: FieldDetailsList) -> Finish:
    if isinstance(of, GraphQLNonNull):
        # No reader accepts None, so a null where none may be is left to the executor.
        return _finish_present(plan, of.of_type, details)
    return or_null(_finish_present(plan, of, details))


def _finish_present(plan: Plan, of: GraphQLOutputType, details: FieldDetailsList) -> Finish:
    if isinstance(of, GraphQLList):
        return lists_of(_finish(plan, of.of_type, details))
    if is_composite_type(of):
        return _Selection(plan, of, details)
    if isinstance(of, GraphQLEnumType):
        return names_of(of)
    if isinstance(of, GraphQLScalarType):
        return scalars_of(of)
    raise Unplain


class _Selection:
    """The ``Finish`` for objects: the readers of what is selected, for each class of object."""

    def __init__(self, plan: Plan, of: Any, details: FieldDetailsList) -> None:
        self._plan = plan
        self._of = of
        self._details = details
        self._reads: dict[type, tuple[Read, ...] | None] = {}

    def __call__(self, values: Column) -> Column:
        if len(values) == 1:
            return _rows(self._readers(type(values[0])), values)
        classes = set(map(type, values))
        rows = {of: iter(_rows(self._readers(of), [value for value in values if type(value) is of])) for of in classes}
        return [next(rows[type(value)]) for value in values]

    def _readers(self, of: type) -> tuple[Read, ...]:
        """Return the readers for a class.

        That there are none is cached as well: finding it out again costs as much as executing the field.
        """
        if of not in self._reads:
            try:
                object_type = _object_type(self._plan.schema, self._of, of)
                self._reads[of] = _reads(self._plan, object_type, self._plan.collect(object_type, self._details))
            except Unplain:
                self._reads[of] = None
        reads = self._reads[of]
        if reads is None:
            raise Unplain
        return reads


def _rows(reads: tuple[Read, ...], sources: Column) -> list[dict[str, Any]]:
    """Return the data that are read from each source."""
    if len(sources) == 1:
        (source,) = sources
        return [{key: finish([get(source)])[0] for key, get, finish in reads}]
    if not reads:
        return [{} for _ in sources]
    keys = [key for key, _, _ in reads]
    columns = [finish(list(map(get, sources))) for _, get, finish in reads]
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def _reads(plan: Plan, parent_type: GraphQLObjectType, fields: CollectedFields) -> tuple[Read, ...]:
    return tuple(_read(plan, parent_type, key, details) for key, details in fields.grouped_field_set.items())


def _object_type(schema: GraphQLSchema, expected: Any, of: type) -> GraphQLObjectType:
    """Return the object type that the executor would find for a value of that class."""
    found = schema.type_map.get(object_name(of) or "")
    if not is_object_type(found) or not (found is expected or schema.is_sub_type(expected, found)):
        raise Unplain
    return found
