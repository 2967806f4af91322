"""Sales for tests of reports: rows of their own, and the sums over rows computed here, by plain Python."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple


class Sale(NamedTuple):
    """One row."""

    day: date
    product: str
    region: str
    quantity: int
    amount: Decimal


@dataclass
class Expected:
    """What a report over rows must say."""

    rows: int = 0
    quantity: int = 0
    amount: Decimal = Decimal(0)
    amount_before: Decimal = Decimal(0)
    days: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    products: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    regions: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    products_before: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    @property
    def growth(self) -> Decimal:
        """In percent, with one decimal place."""
        return percent(self.amount, self.amount_before)


def percent(now: Decimal, before: Decimal) -> Decimal:
    """The growth, rounded half up."""
    tenths = (now - before) * 1000 / before
    return Decimal(int(abs(tenths) + Decimal("0.5"))).copy_sign(tenths) / 10


def expected(sales: Iterable[Sale], start: date, end: date) -> Expected:
    """The sums from ``start`` to ``end``, both included."""
    first_before = start - timedelta(days=(end - start).days + 1)
    sums = Expected()
    for sale in sales:
        if start <= sale.day <= end:
            sums.rows += 1
            sums.quantity += sale.quantity
            sums.amount += sale.amount
            sums.days[sale.day.isoformat()] += sale.amount
            sums.products[sale.product] += sale.amount
            sums.regions[sale.region] += sale.amount
        elif first_before <= sale.day < start:
            sums.amount_before += sale.amount
            sums.products_before[sale.product] += sale.amount
    return sums


def some_sales() -> list[Sale]:
    """Half a year with names that files could stumble over, returns, and amounts that floats would get wrong."""
    products = ["=1+1", "+49 30", "-5 %", "@home", 'Größe <b>&"M"', "Tea, green", "two\nlines", "O'Hara; DROP", "Ещё"]
    regions = ["North", "", "=cmd|' /C calc'!A0"]
    first = date(2024, 1, 1)
    return [
        Sale(
            first + timedelta(days=number * 5 % 182),
            products[number % len(products)],
            regions[number % len(regions)],
            1 + number % 4,
            Decimal(number % 97 * 10 + 1).scaleb(-2) * (-1 if number % 11 == 0 else 1),
        )
        for number in range(2000)
    ]


def write_csv(path: Path, sales: Iterable[Sale], header: str = "date,product,region,quantity,amount") -> Path:
    """The rows as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(next(csv.reader([header])))
        writer.writerows(sales)
    return path
