"""The fast path: what is run in the place of Strawberry's resolving and graphql-core's executor, with the same answers.

Three things are done otherwise. Resolvers are called as they are, without making Strawberry's objects of their
arguments (``call_resolvers``). Fields that only read an attribute are read without asking the executor about each: a
selection becomes a list of readers, once for a document, and a list of jobs is read column by column, one attribute of
all of them with one check of what types there are (``PlainExecutor``). And an event of a subscription is read as a
whole where all that is selected of its kind is plain: without even a copy of the executor. docs/decisions.md has the
figures.

A reader gives the executor's own answer or none: whatever is not of exactly the expected kind (a resolver, a null where
none may be, a value of another type) is ``Unplain``, and the executor does the field as if nothing had been tried. No
reader may call a resolver or report an error.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, cached_property, partial
from itertools import chain, islice
from math import isfinite
from operator import attrgetter
from typing import Any, NamedTuple
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
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, collect_fields, collect_subfields
from graphql.execution.values import VariableValues

from gql_jobs.graphql.engine.strawberry_internals import (
    Resolver,
    attribute_of,
    brings_events,
    enum_class,
    object_name,
    resolver_of,
)


def call_resolvers(schema: GraphQLSchema) -> None:
    """Let graphql-core call every resolver itself: with its source, a ``strawberry.Info`` and its arguments.

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

    A resolver can look at something else (the index, the stream, whoever asks) only through the ``Info`` that it takes.
    """
    resolver = resolver_of(field)
    return attribute_of(field) is not None if resolver is None else not resolver.takes_info


def is_shareable(schema: GraphQLSchema, document: DocumentNode) -> bool:
    """Return whether all who run the subscriptions of a document, with the same variables, get the same of an event.

    :param document: a valid one. All of it counts, also what directives or types leave out.
    """
    types = TypeInfo(schema)
    selected: list[bool] = []

    class Look(Visitor):
        def enter_field(self, node: FieldNode, *_args: Any) -> Any:
            field = types.get_field_def()
            if node.name.value == "__typename" or (field is not None and brings_events(field)):
                return None
            selected.append(field is not None and follows_from_source(field))
            return None if selected[-1] else BREAK

    visit(document, TypeInfoVisitor(types, Look()))
    return all(selected)


# Values of the schema's types as an answer says them: a column of them at a time, or none of it.
#
# A column is one attribute of all objects of a list. What types are in it is one question for all of them, and most of
# the rest is done without a step of Python for each.

Column = list[Any]
"""One attribute of several objects."""
Finish = Callable[[Column], Column]
"""From the values of an attribute to what the answer says of each; raises ``Unplain``."""

_EXACT: dict[str, type] = {"Date": date, "Time": time, "UUID": UUID, "Decimal": Decimal}
"""The scalars that are written by their own function, and the type for which that cannot fail."""
_INT_END = 2**31
_zone = attrgetter("tzinfo")


class Unplain(Exception):
    """A field or a value that only the executor can answer for."""


def or_null(present: Finish) -> Finish:
    """Return the same for values of which there may be none."""

    def finish(values: Column) -> Column:
        if None not in values:
            return present(values)
        finished = iter(present([value for value in values if value is not None]))
        return [None if value is None else next(finished) for value in values]

    return finish


def lists_of(item: Finish) -> Finish:
    """Return what finishes lists of what ``item`` finishes."""

    def finish(values: Column) -> Column:
        if not set(map(type, values)) <= {list, tuple}:
            raise Unplain
        finished = iter(item(list(chain.from_iterable(values))))
        return [list(islice(finished, len(value))) for value in values]

    return finish


@cache
def names_of(of: GraphQLEnumType) -> Finish:
    """Return what finishes the values of an enum: the names that the schema has for them."""
    members = enum_class(of)
    names = {
        member: name for name, described in of.values.items() for member in members if member.value == described.value
    }
    return _written(members, names.__getitem__)


def scalars_of(of: GraphQLScalarType) -> Finish:
    """Return what finishes scalars: as they are written.

    :raises Unplain: for a scalar whose writing may fail.
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
    """Write what ``isoformat`` writes; moments in UTC, as nearly all are, in a fraction of its time."""
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


# Readers of selections, and the executors that go by them.


class EventExecutor(Executor[Any]):
    """Executes operations as graphql-core does; each event of a subscription with a cache of its own.

    graphql-core caches the fields below a field by the identity of a list that it makes anew for each event, in a
    dictionary that all events of the subscription share: it would grow for as long as somebody watches.
    """

    def use_plan(self, plans: dict[str | None, Any]) -> None:
        """Keep nothing: fields are found anew in each execution."""

    def data_of(self, _event: Any) -> dict[str, Any] | None:
        """Return None: every event has to be executed."""

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """Return the executor of one event."""
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001
        return executor


Collect = Callable[[GraphQLObjectType, FieldDetailsList], CollectedFields]


class Read(NamedTuple):
    """One field of a selection."""

    key: str
    get: Callable[[Any], Any]
    finish: Finish


class Plan:
    """The readers of one operation's fields, by the identity of their nodes: for no longer than the document lives.

    :param variables: what the conditions of its directives are decided by.
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
        """Return the field's reader; None where there can be none."""
        key = (parent_type, tuple([id(one.node) for one in details]))
        if key not in self._reads:
            self._reads[key] = self._read_or_none(parent_type, details)
        return self._reads[key]

    @cached_property
    def event(self) -> Callable[[Any], dict[str, Any]] | None:
        """Makes of an event all that a subscription answers, or raises ``Unplain``; None where it cannot be read."""
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
    """Executes operations; plain fields by readers, all others as its base class does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Shared by the events of a subscription.
        self._plan = Plan(self, self.variable_values)

    def use_plan(self, plans: dict[str | None, Any]) -> None:
        """Read by the plan that earlier executions of this very document have kept, or begin one for those to come.

        Only for a document in which no variable decides what is selected.

        :param plans: the document's plans, by the operation's name.
        """
        name = self.operation.name.value if self.operation.name else None
        if name not in plans:
            plans[name] = Plan(self, VariableValues({}, {}))
        self._plan = plans[name]

    def data_of(self, event: Any) -> dict[str, Any] | None:
        """Return what a subscription answers to an event; None where it has to be executed."""
        read = self._plan.event
        if read is not None:
            with suppress(Exception):  # Reading has no effect: the executor may come upon the same error itself.
                return read(event)
        return None

    def execute_field(
        self, parent_type: GraphQLObjectType, source: Any, field_details_list: FieldDetailsList, *where: Any
    ) -> Any:
        """Return the field's value; by its reader where it has one that can answer."""
        read = self._plan.read(parent_type, field_details_list)
        if read is not None:
            with suppress(Exception):  # As for an event.
                return read.finish([read.get(source)])[0]
        return super().execute_field(parent_type, source, field_details_list, *where)


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
        # No reader takes None, so a null where none may be is left to the executor.
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
    """What is selected of objects, readers for each class that they turn out to be of."""

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

        Kept also where there are none: finding that out again costs as much as the field in the executor.
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
    """Return what is read of each of the sources."""
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
