"""The report as a workbook: typed cells, frozen headers, totals as formulas that carry their values.

Names are written as text whatever they look like, so none becomes a formula or a link.
"""

from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from gql_jobs_worker.reports.report import NO_GROWTH, TITLE, Line, Report
from gql_jobs_worker.reports.source import Sums, growth

_FORMATS: dict[str, dict[str, Any]] = {
    "title": {"bold": True, "font_size": 16, "font_color": "#16324F"},
    "head": {"bold": True, "font_color": "#FFFFFF", "bg_color": "#16324F", "border_color": "#16324F", "bottom": 1},
    "head_right": {"bold": True, "font_color": "#FFFFFF", "bg_color": "#16324F", "align": "right"},
    "text": {},
    "note": {"italic": True, "font_color": "#666666"},
    "day": {"num_format": "yyyy-mm-dd", "align": "left"},
    "month": {"num_format": "yyyy-mm", "align": "left"},
    "count": {"num_format": "#,##0"},
    "quantity": {"num_format": "#,##0.####"},
    "whole": {"num_format": "#,##0"},
    "amount": {"num_format": "#,##0.00"},
    "share": {"num_format": "+0.0%;-0.0%;0.0%", "align": "right"},
}
_TOTAL = {"bold": True, "top": 1}
_Columns: TypeAlias = tuple[tuple[str, int], ...]
_TIMES: _Columns = (("Rows", 12), ("Quantity", 14), ("Amount", 18))
_LINES: _Columns = (*_TIMES, ("Amount before", 18), ("Growth", 12))


def write_xlsx(report: Report, path: Path) -> None:
    """Write the report to ``path``."""
    with xlsxwriter.Workbook(str(path), {"strings_to_formulas": False, "strings_to_urls": False}) as book:
        # Equal reports are equal files, whenever they are written.
        made = datetime.combine(report.period.end, time(), UTC)
        book.set_properties({"title": f"{TITLE}, {report.period}", "author": "gql-jobs", "created": made})
        _Book(book, report).write()


class _Book:
    def __init__(self, book: xlsxwriter.Workbook, report: Report) -> None:
        self._book = book
        self._report = report
        self._formats: dict[str, Format] = {name: book.add_format(facts) for name, facts in _FORMATS.items()}
        for name in ("text", "count", "quantity", "whole", "amount", "share"):
            self._formats[f"total_{name}"] = book.add_format(_FORMATS[name] | _TOTAL)

    def write(self) -> None:
        """Write the sheets, the summary first; its cells refer to the sheets after it."""
        summary = self._book.add_worksheet("Summary")
        times, name = self._times()
        self._lines("Product", self._report.products)
        self._lines("Region", self._report.regions)
        self._summary(summary, f"'{name}'!", times)

    def _summary(self, sheet: Worksheet, times: str, total_row: int) -> None:
        report = self._report
        sheet.hide_gridlines(2)
        sheet.set_column(0, 0, 16)
        sheet.set_column(1, 3, 26)
        sheet.write_string(0, 0, TITLE, self._formats["title"])
        for row, (label, period) in enumerate((("Period", report.period), ("Period before", report.comparison)), 1):
            sheet.write_string(row, 0, label)
            sheet.write_datetime(row, 1, datetime.combine(period.start, time()), self._formats["day"])
            sheet.write_datetime(row, 2, datetime.combine(period.end, time()), self._formats["day"])
        head = ("", "This period", "Period before", "Growth")
        for column, text in enumerate(head):
            sheet.write_string(4, column, text, self._formats["head_right" if column else "head"])
        kinds = (("Rows", "count"), ("Quantity", self._quantity()), ("Amount", "amount"))
        for column, (label, kind) in enumerate(kinds, 1):
            row = column + 4
            now, before = (_numbers(sums)[column - 1] for sums in (report.total, report.before))
            sheet.write_string(row, 0, label)
            source = f"={times}{'ABCD'[column]}{total_row}"
            sheet.write_formula(row, 1, source, self._formats[kind], float(now))
            sheet.write_number(row, 2, float(before), self._formats[kind])
            self._growth(sheet, f"D{row + 1}", (f"B{row + 1}", f"C{row + 1}"), growth(now, before))
        for row, note in enumerate(report.notes, 9):
            sheet.write_string(row, 0, note, self._formats["note"])
        sheet.freeze_panes(5, 0)

    def _times(self) -> tuple[int, str]:
        """Write the sheet of days or months; return the row of its total, counted from 1, and its name."""
        report = self._report
        label = "Month" if report.by_month else "Day"
        sheet = self._sheet(f"By {label.lower()}", label, 14, _TIMES)
        for row, moment in enumerate(report.times, 1):
            day = datetime.combine(moment.period.start, time())
            sheet.write_datetime(row, 0, day, self._formats[label.lower()])
            self._sums(sheet, row, moment.sums)
        return self._totals(sheet, len(report.times), report.total), f"By {label.lower()}"

    def _lines(self, label: str, lines: list[Line]) -> None:
        sheet = self._sheet(f"By {label.lower()}", label, 32, _LINES)
        for row, line in enumerate(lines, 1):
            sheet.write_string(row, 0, line.name, self._formats["text"])
            self._sums(sheet, row, line.sums)
            if line.before is not None:
                sheet.write_number(row, 4, float(line.before), self._formats["amount"])
            self._growth(sheet, f"F{row + 1}", (f"D{row + 1}", f"E{row + 1}"), line.growth)
        total = self._totals(sheet, len(lines), self._report.total)
        if any(line.before is not None for line in lines):
            self._sum(sheet, 4, len(lines), self._report.before.amount, "amount")
            grown = growth(self._report.total.amount, self._report.before.amount)
            self._growth(sheet, f"F{total}", (f"D{total}", f"E{total}"), grown, "total_share")

    def _sheet(self, name: str, label: str, width: int, columns: _Columns) -> Worksheet:
        sheet = self._book.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        sheet.repeat_rows(0)
        sheet.set_column(0, 0, width)
        sheet.write_string(0, 0, label, self._formats["head"])
        for column, (text, column_width) in enumerate(columns, 1):
            sheet.set_column(column, column, column_width)
            sheet.write_string(0, column, text, self._formats["head_right"])
        return sheet

    def _quantity(self) -> str:
        quantity = self._report.total.quantity
        return "whole" if quantity == quantity.to_integral_value() else "quantity"

    def _sums(self, sheet: Worksheet, row: int, sums: Sums) -> None:
        for column, (number, kind) in enumerate(
            zip(_numbers(sums), ("count", self._quantity(), "amount"), strict=True)
        ):
            sheet.write_number(row, column + 1, float(number), self._formats[kind])

    def _totals(self, sheet: Worksheet, rows: int, total: Sums) -> int:
        """Write the row of totals below ``rows`` rows; return its number, counted from 1."""
        sheet.write_string(rows + 1, 0, "Total", self._formats["total_text"])
        for column, (number, kind) in enumerate(
            zip(_numbers(total), ("count", self._quantity(), "amount"), strict=True)
        ):
            self._sum(sheet, column + 1, rows, number, kind)
        return rows + 2

    def _sum(self, sheet: Worksheet, column: int, rows: int, value: Decimal, kind: str) -> None:
        letter = "ABCDEF"[column]
        # A sum over no rows would refer to itself.
        formula = f"=SUM({letter}2:{letter}{rows + 1})" if rows else "=0"
        sheet.write_formula(rows + 1, column, formula, self._formats[f"total_{kind}"], float(value))

    def _growth(
        self, sheet: Worksheet, cell: str, cells: tuple[str, str], value: Decimal | None, kind: str = "share"
    ) -> None:
        now, before = cells
        shown = NO_GROWTH if value is None else float(value)
        formula = f'=IF(N({before})>0,({now}-{before})/{before},"{NO_GROWTH}")'
        sheet.write_formula(cell, formula, self._formats[kind], shown)


def _numbers(sums: Sums) -> tuple[Decimal, Decimal, Decimal]:
    return Decimal(sums.rows), sums.quantity, sums.amount
