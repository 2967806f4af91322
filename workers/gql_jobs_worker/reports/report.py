"""The content of a report for every file format: its sums, its notes, and how numbers are shown."""

from collections.abc import Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from gql_jobs_worker.reports.aggregation import GROUPINGS, MAX_NAMES, Aggregation, Grouping
from gql_jobs_worker.reports.source import Period, Source, Sums, growth, money, plain

OTHERS = "(all others)"
TITLE = "Monthly sales"
NO_GROWTH = "n/a"


class Time(NamedTuple):
    """The sums of a day or a month."""

    period: Period
    sums: Sums


class Line(NamedTuple):
    """The sums of a product or a region. ``before``: its amount in the period before, None where that had no sales."""

    name: str
    sums: Sums
    before: Decimal | None

    @property
    def growth(self) -> Decimal | None:
        """Return the growth as a share of ``before``, or None if that is None or not positive."""
        return growth(self.sums.amount, self.before)


class Report(NamedTuple):
    """All sums of a report.

    ``by_month``: whether ``times`` are months, not days; they have no gap, and there are none in an empty range.
    ``before``: the sums of the period before; ``notes``: sentences for the reader.
    """

    period: Period
    by_month: bool
    total: Sums
    before: Sums
    times: list[Time]
    products: list[Line]
    regions: list[Line]
    notes: list[str]

    @property
    def comparison(self) -> Period:
        """Return the period before, as many days long."""
        return self.period.before()

    @property
    def amount_before(self) -> Decimal | None:
        """Return the amount of the period before, or None where it had no sales."""
        return self.before.amount if self.before.rows else None

    @property
    def is_empty(self) -> bool:
        """Return whether the range has no row."""
        return self.total.rows == 0


def compose(aggregation: Aggregation, source: Source, bounds: Period | None) -> Report:
    """Return the report of a complete aggregation.

    :param source: ranks the names that the aggregation has left out.
    :param bounds: the first and the last day with a row in the range and the period before; None if there is none.
    """
    period, total = aggregation.period, aggregation.total
    lines: dict[Grouping, list[Line]] = {}
    notes: list[str] = []
    for grouping in GROUPINGS:
        names = aggregation.names[grouping]
        if names is None:
            lines[grouping] = _ranking(grouping, period, total, source)
            notes.append(
                f"The {grouping}s are more than {MAX_NAMES}, or their names are long: only the largest are listed, "
                "and they are not compared with the period before."
            )
        else:
            compared = aggregation.before.rows > 0
            lines[grouping] = _sorted(
                Line(name, both.now, both.before.amount if compared else None) for name, both in names.items()
            )
    if total.rows == 0:
        notes.insert(0, f"There are no sales from {period}.")
    before = period.before()
    if aggregation.before.rows == 0:
        notes.append(f"There are no sales in the period before ({before}), so there is no growth to show.")
    elif bounds is not None and bounds.start > before.start:
        notes.append(f"The period before ({before}) has sales from {bounds.start} on only.")
    times = [] if total.rows == 0 else list(_times(aggregation))
    products, regions = lines["product"], lines["region"]
    return Report(period, aggregation.by_month, total, aggregation.before, times, products, regions, notes)


def _times(aggregation: Aggregation) -> Iterator[Time]:
    for month in aggregation.period.months():
        if aggregation.by_month:
            yield Time(month, aggregation.times.get(f"{month.start:%Y-%m}", Sums()))
            continue
        for number in range(month.start.toordinal(), month.after.toordinal()):
            day = month.start.fromordinal(number)
            yield Time(Period(day, day), aggregation.times.get(day.isoformat(), Sums()))


def _ranking(grouping: Grouping, period: Period, total: Sums, source: Source) -> list[Line]:
    with source.snapshot():
        found = source.sums(grouping, period, MAX_NAMES)
    rest = total
    for _, sums in found:
        rest = rest.minus(sums)
    lines = _sorted(Line(name, sums, None) for name, sums in found)
    return [*lines, Line(OTHERS, rest, None)] if rest.rows > 0 else lines


def _sorted(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (-line.sums.amount, line.name))


def shown_count(number: int) -> str:
    """Return a count with separated thousands: 41,000."""
    return f"{number:,}"


def shown_quantity(number: Decimal) -> str:
    """Return a quantity with the decimal places it needs: 41,000 or 0.25."""
    return f"{plain(number):,f}"


def shown_amount(number: Decimal) -> str:
    """Return an amount of money: 41,000.00."""
    return f"{money(number):,f}"


def shown_growth(grown: Decimal | None) -> str:
    """Return a share as a growth in percent: +12.5 %, or n/a for None."""
    return NO_GROWTH if grown is None else f"{in_percent(grown):+,f} %"


def in_percent(share: Decimal) -> Decimal:
    """Return a share in percent, with one decimal place."""
    return (share * 100).quantize(Decimal("0.1"), ROUND_HALF_UP)
