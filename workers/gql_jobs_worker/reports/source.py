"""The data of a report: columns, periods, exact sums, and the protocol of the sources that add up rows.

``files`` and ``database`` have the two implementations of ``Source``.
"""

import csv
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import date, timedelta
from decimal import Decimal, localcontext
from typing import Literal, NamedTuple, Protocol, TypeAlias

from gql_jobs.jobs.errors import PermanentError

Dimension: TypeAlias = Literal["date", "product", "region"]
UNNAMED = "(none)"
"""The name that rows without a product or region are listed under."""
PRECISION = 60
"""Digits of calculations; more than any sum of a 64-bit count of rows can have."""
PLACES = 4
"""Decimal places of amounts and quantities; each row is rounded to so many."""
_DAY = timedelta(days=1)
_COLUMNS_HINT = "GQL_JOBS_SALES_COLUMNS is a list like date=order_date,product=sku"


class Columns(NamedTuple):
    """The names of the columns, as the data spell them."""

    date: str = "date"
    product: str = "product"
    region: str = "region"
    quantity: str = "quantity"
    amount: str = "amount"

    def require(self, present: list[str], where: str) -> None:
        """Check that the data have these columns.

        :param where: the file or table, for the error.
        :raises PermanentError: naming the columns that the data do not have.
        """
        missing = [f"{name!r} (for {field})" for field, name in self._asdict().items() if name not in present]
        if missing:
            listed = ", ".join(missing)
            shown = ", ".join(present[:30])
            raise PermanentError(f"{where} has no column {listed}. It has: {shown}. {_COLUMNS_HINT}.")


def parse_columns(mapping: str) -> Columns:
    """Return the columns that a mapping names; those it leaves out have the names of the bundled data set.

    Written as one record of CSV, so a name with a comma in it stands in quotes: ``"amount=total, net"``.

    :raises PermanentError: if the mapping cannot be read.
    """
    named: dict[str, str] = {}
    for part in next(csv.reader([mapping], skipinitialspace=True), []):
        field, equals, name = part.partition("=")
        field, name = field.strip(), name.strip()
        if not equals or not name or field not in Columns._fields or field in named:
            known = ", ".join(Columns._fields)
            raise PermanentError(f"The entry {part!r} cannot be. {_COLUMNS_HINT}; it can name once each: {known}.")
        named[field] = name
    return Columns(**named)


class Period(NamedTuple):
    """A span of calendar days, both included."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"

    @property
    def days(self) -> int:
        """Return the number of days."""
        return (self.end - self.start).days + 1

    @property
    def after(self) -> date:
        """Return the day after the last one."""
        return self.end + _DAY

    def before(self) -> "Period":
        """Return the period of as many days that ends the day before this one begins."""
        return Period(self.start - _DAY * self.days, self.start - _DAY)

    def months(self) -> Iterator["Period"]:
        """Yield the calendar months of the period; the first and the last one are cut to its days."""
        start = self.start
        while start <= self.end:
            following = date(start.year + start.month // 12, start.month % 12 + 1, 1)
            yield Period(start, min(following - _DAY, self.end))
            start = following

    def overlaps(self, other: "Period") -> bool:
        """Return whether the two periods have a day in common."""
        return self.start <= other.end and other.start <= self.end


class Sums(NamedTuple):
    """The sums over some rows. Exact decimals, never floats."""

    rows: int = 0
    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)

    def plus(self, other: "Sums") -> "Sums":
        """Return the sums over the rows of both."""
        with localcontext(prec=PRECISION):
            return Sums(self.rows + other.rows, self.quantity + other.quantity, self.amount + other.amount)

    def minus(self, other: "Sums") -> "Sums":
        """Return the sums over the rows that are not among the other's."""
        return self.plus(Sums(-other.rows, -other.quantity, -other.amount))


def growth(now: Decimal, before: Decimal | None) -> Decimal | None:
    """Return the change as a share of what was before (0.25 is a quarter more), or None if that was nothing."""
    if before is None or before <= 0:
        return None
    with localcontext(prec=PRECISION):
        return (now - before) / before


def plain(number: Decimal, places: int = 0) -> Decimal:
    """Return the number with ``places`` decimal places, or as many more as it needs."""
    with localcontext(prec=PRECISION):
        short = number.quantize(Decimal(1).scaleb(-places))
        return short if short == number else number.normalize()


def money(amount: Decimal) -> Decimal:
    """Return the amount with two decimal places, or more where they are not zero."""
    return plain(amount, 2)


class Source(Protocol):
    """Rows of sales that are added up where they are stored."""

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with the data, as far as that can be seen without reading them."""

    def bounds(self, window: Period) -> Period | None:
        """Return the first and the last day within ``window`` that has a row, or None where no day has."""

    def sums(self, dimension: Dimension, period: Period, limit: int) -> list[tuple[str, Sums]]:
        """Return the sums by day (as ISO date), product or region; the ``limit`` largest amounts first.

        :raises PermanentError: for a value that is no date or number.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Return a context manager in whose block all queries see the same rows."""
