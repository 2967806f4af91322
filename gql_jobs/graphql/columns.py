"""Values of the schema's types as an answer says them: a column of them at a time, or none of it.

A column is one attribute of all objects of a list. What types are in it is one question for all of them, and most of
the rest is done without a step of Python for each.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, partial
from itertools import chain, islice
from math import isfinite
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec
from graphql import GraphQLEnumType, GraphQLScalarType

from gql_jobs.graphql.hooks import enum_class

Column = list[Any]
"""One attribute of several objects."""
Finish = Callable[[Column], Column]
"""From the values of an attribute to what the answer says of each; raises ``Unplain``."""

_EXACT: dict[str, type] = {"Date": date, "Time": time, "UUID": UUID, "Decimal": Decimal}
"""The scalars that are written by their own function, and the type for which that cannot fail."""
_LARGEST_INT = 2**31
_zone = attrgetter("tzinfo")


class Unplain(Exception):
    """A field or a value that only the executor can answer for."""


def or_null(present: Finish) -> Finish:
    """The same, where there may be none."""

    def finish(values: Column) -> Column:
        if None not in values:
            return present(values)
        finished = iter(present([value for value in values if value is not None]))
        return [None if value is None else next(finished) for value in values]

    return finish


def lists_of(item: Finish) -> Finish:
    """Lists of what ``item`` says."""

    def finish(values: Column) -> Column:
        if not set(map(type, values)) <= {list, tuple}:
            raise Unplain
        finished = iter(item(list(chain.from_iterable(values))))
        return [list(islice(finished, len(value))) for value in values]

    return finish


@cache
def names_of(of: GraphQLEnumType) -> Finish:
    """The values of an enum by the names that the schema has for them."""
    members = enum_class(of)
    names = {
        member: name for name, described in of.values.items() for member in members if member.value == described.value
    }
    return _written(members, names.__getitem__)


def scalars_of(of: GraphQLScalarType) -> Finish:
    """Scalars as they are written.

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
    """What ``isoformat`` writes; of moments in UTC, as nearly all are, in a fifth of its time."""
    if set(map(_zone, _all_of(datetime, values))) <= {UTC}:
        return [text[:-1] + "+00:00" for text in msgspec.to_builtins(values)]
    return list(map(datetime.isoformat, values))


def _ints(values: Column) -> Column:
    if _all_of(int, values) and not (min(values) >= -_LARGEST_INT and max(values) < _LARGEST_INT):
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
