"""Numbers as people read them."""

from decimal import ROUND_HALF_UP, Decimal

from gql_jobs_worker.reports.source import growth, money, plain

NO_GROWTH = "n/a"


def count(number: int) -> str:
    """41,000."""
    return f"{number:,}"


def quantity(number: Decimal) -> str:
    """41,000 or 0.25."""
    return f"{plain(number):,f}"


def amount(number: Decimal) -> str:
    """41,000.00."""
    return f"{money(number):,f}"


def share(grown: Decimal | None) -> str:
    """+12.5 %, or n/a."""
    if grown is None:
        return NO_GROWTH
    return f"{percent(grown):+,f} %"


def percent(grown: Decimal) -> Decimal:
    """A share in percent, with one decimal place."""
    return (grown * 100).quantize(Decimal("0.1"), ROUND_HALF_UP)


def short(number: float) -> str:
    """1.5M: the label of an axis."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def growth_of(now: int, before: int) -> Decimal | None:
    """The growth of a count."""
    return growth(Decimal(now), Decimal(before))
