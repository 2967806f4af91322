"""A value that is not exactly of its field's kind is left to the executor, whatever it makes of it."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
import strawberry
from graphql import (
    GraphQLEnumType,
    GraphQLSchema,
    execute,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    is_object_type,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

from gql_jobs.graphql.engine import fast_path as columns
from gql_jobs.graphql.engine.fast_path import EventExecutor, PlainExecutor
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.schema import JobsSchema


class Colour(Enum):
    RED = "red"


Colours = strawberry.enum(Colour)


@strawberry.type
class Thing:
    text: str
    number: int
    ratio: float
    flag: bool
    colour: Colours  # type: ignore[valid-type]
    moment: datetime
    day: date
    price: Decimal
    maybe: str | None
    words: list[str]
    nested: "Thing | None"
    others: "list[Thing | None]"


@strawberry.type
class Root:
    thing: Thing | None
    things: list[Thing]


@strawberry.type
class Stream:
    @strawberry.subscription
    async def thing(self) -> AsyncGenerator[Thing, None]:
        yield Thing(**RIGHT)


RIGHT: dict[str, Any] = {
    "text": "t",
    "number": 1,
    "ratio": 0.5,
    "flag": True,
    "colour": Colour.RED,
    "moment": datetime(2026, 1, 31, tzinfo=UTC),
    "day": date(2026, 1, 31),
    "price": Decimal("1.50"),
    "maybe": None,
    "words": ["a"],
    "nested": None,
    "others": [],
}
ODD = [
    None,
    "",
    "red",
    7,
    -(2**31) - 1,
    1.0,
    float("nan"),
    float("inf"),
    True,
    Colour.RED,
    datetime(2026, 1, 31),  # noqa: DTZ001
    [],
    ("a", "b"),
    ["a", None],
    {"a"},
    {},
    object(),
    ValueError("not a value"),
]
FIELDS = "fragment T on Thing { text number ratio flag colour moment day price maybe words }"
EVERYTHING = f"""{FIELDS}
{{ thing {{ ...T nested {{ ...T }} others {{ text nested {{ number }} }} }} things {{ ...T __typename }} }}"""
EVENT = f"{FIELDS} subscription {{ thing {{ ...T nested {{ text }} }} }}"


def answers(schema: GraphQLSchema, text: str, context: Any = None, root: Any = None) -> list[tuple[Any, Any]]:
    """Data and errors of a document, by the plain executor and by the one that reads past it."""
    document = parse(text)

    async def answer(executor: type[EventExecutor]) -> tuple[Any, Any]:
        result: Any = execute(schema, document, root_value=root, context_value=context, executor_class=executor)
        if asyncio.iscoroutine(result):
            result = await result
        return result.data, [error.formatted for error in result.errors or []]

    return [asyncio.run(answer(executor)) for executor in (EventExecutor, PlainExecutor)]


@pytest.fixture(scope="module")
def things() -> GraphQLSchema:
    return core_schema(strawberry.Schema(Root, subscription=Stream))


@pytest.mark.parametrize("field", sorted(RIGHT))
@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__ + str(value)[:12])
def test_a_value_of_any_other_kind_is_left_to_the_executor(things: GraphQLSchema, field: str, value: Any) -> None:
    odd = Thing(**{**RIGHT, field: value})
    outer = Thing(**{**RIGHT, "nested": odd, "others": [odd, None]})

    usual, past = answers(things, EVERYTHING, root=Root(thing=outer, things=[odd, Thing(**RIGHT)]))

    assert repr(past) == repr(usual)
    _assert_told_the_same(things, odd)


def _assert_told_the_same(things: GraphQLSchema, event: Thing) -> None:
    """As an event the value is read as the executor does it, or not at all."""
    usual, plain = (by.build(things, parse(EVENT)) for by in (EventExecutor, PlainExecutor))
    assert isinstance(usual, EventExecutor)
    assert isinstance(plain, PlainExecutor)
    result: Any = usual.build_per_event_executor(event).execute_operation()
    assert plain.data_of(Thing(**RIGHT)) is not None
    read = plain.data_of(event)
    assert read is None or (repr(read), None) == (repr(result.data), result.errors)


def test_every_enum_and_scalar_of_the_schema_that_jobs_show_has_a_reader(schema: JobsSchema) -> None:
    core = core_schema(schema)
    job = core.type_map["Job"]
    assert is_object_type(job) or is_abstract_type(job)
    leaves = {get_named_type(field.type) for field in job.fields.values()}  # type: ignore[union-attr]
    read = {*columns._SIMPLE, *columns._EXACT}  # noqa: SLF001
    assert {leaf.name for leaf in leaves if is_leaf_type(leaf) and not isinstance(leaf, GraphQLEnumType)} - read == {
        "JSON"
    }


@given(st.lists(st.datetimes(timezones=st.sampled_from([UTC, UTC, timezone(timedelta(hours=-3, minutes=-30)), None]))))
def test_moments_are_written_as_isoformat_writes_them(moments: list[datetime]) -> None:
    assert columns._moments(moments) == [moment.isoformat() for moment in moments]  # noqa: SLF001
    in_utc = [moment.replace(tzinfo=UTC) for moment in moments]
    assert columns._moments(in_utc) == [moment.isoformat() for moment in in_utc]  # noqa: SLF001
