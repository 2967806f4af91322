"""The scalars of the schema: how a value is written, read and described. What it means is the resolvers' affair."""

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from operator import methodcaller
from typing import Any
from uuid import UUID

import strawberry
from strawberry.scalars import JSON
from strawberry.types.scalar import ScalarDefinition


def _reader(parse: Callable[[str], object], expected: str) -> Callable[[Any], object]:
    def read(value: Any) -> object:
        if isinstance(value, str):
            try:
                return parse(value)
            except (ValueError, InvalidOperation):
                pass
        raise ValueError(f"expected {expected}")

    return read


def _same(value: Any) -> Any:
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected a decimal number, best written as a string")  # noqa: TRY004
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ValueError("expected a decimal number, best written as a string")
    return number


SCALARS: dict[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment in ISO 8601, as `2026-01-31T12:00:00Z`. All moments of jobs carry their offset.",
        serialize=methodcaller("isoformat"),
        parse_value=_reader(datetime.fromisoformat, "a moment in ISO 8601, as 2026-01-31T12:00:00Z"),
    ),
    date: strawberry.scalar(
        name="Date",
        description="A calendar date in ISO 8601, as `2026-01-31`.",
        serialize=methodcaller("isoformat"),
        parse_value=_reader(date.fromisoformat, "a date in ISO 8601, as 2026-01-31"),
    ),
    time: strawberry.scalar(
        name="Time",
        description="A time of day in ISO 8601, as `12:00:00`.",
        serialize=methodcaller("isoformat"),
        parse_value=_reader(time.fromisoformat, "a time in ISO 8601, as 12:00:00"),
    ),
    UUID: strawberry.scalar(
        name="UUID",
        description="A UUID, as `018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42`.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc9562",
        serialize=str,
        parse_value=_reader(UUID, "a UUID"),
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description="A decimal number, written as a string so that no digit is lost.",
        serialize=str,
        parse_value=_decimal,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value: an object, a list, a string, a number, a boolean or null.",
        serialize=_same,
        parse_value=_same,
    ),
}
"""By Python type; for ``StrawberryConfig.scalar_map``."""
