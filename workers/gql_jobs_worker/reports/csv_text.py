"""The report as CSV (RFC 4180, UTF-8): one table, whose first column says what a record is about.

    section   name                          the other columns
    total     2024-01-01 to 2024-12-31      of the range; ``amount_before`` of the period before
    day       2024-01-01                    in ranges up to 366 days
    month     2024-01                       in longer ones
    product   Kettle
    region    North
    note      a sentence                    empty; such as that there are no sales

``growth_percent`` is empty where there was nothing to grow from.
"""

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from gql_jobs_worker.reports.report import Line, Report, in_percent
from gql_jobs_worker.reports.source import Sums, growth, money, plain

HEADER = ("section", "name", "rows", "quantity", "amount", "amount_before", "growth_percent")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets take these, too


def write_csv(report: Report, path: Path) -> None:
    """Write the report to ``path``."""
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(HEADER)
        writer.writerows(_records(report))


def harmless(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula: one that looks like it gets an apostrophe before it."""
    return f"'{name}" if name.lstrip(" ").startswith(_FORMULA) else name


def _records(report: Report) -> Iterator[tuple[str, ...]]:
    yield ("total", str(report.period), *_numbers(report.total, report.amount_before))
    section = "month" if report.by_month else "day"
    for time in report.times:
        name = f"{time.period.start:%Y-%m}" if report.by_month else time.period.start.isoformat()
        yield (section, name, *_numbers(time.sums, None))
    yield from (_line("product", line) for line in report.products)
    yield from (_line("region", line) for line in report.regions)
    yield from (("note", note, "", "", "", "", "") for note in report.notes)


def _line(section: str, line: Line) -> tuple[str, ...]:
    return (section, harmless(line.name), *_numbers(line.sums, line.before))


def _numbers(sums: Sums, before: Decimal | None) -> tuple[str, ...]:
    grown = growth(sums.amount, before)
    return (
        str(sums.rows),
        f"{plain(sums.quantity):f}",
        f"{money(sums.amount):f}",
        "" if before is None else f"{money(before):f}",
        "" if grown is None else f"{in_percent(grown):f}",
    )
