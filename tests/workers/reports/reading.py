"""Reads the three kinds of report back, with libraries that did not write them."""

import csv
import re
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, NamedTuple

from openpyxl import Workbook, load_workbook
from openpyxl.worksheet.worksheet import Worksheet
from pypdf import PdfReader

NOTHING = "n/a"
_NUMBER = r"-?[\d,]+(?:\.\d+)?"
_LINE = re.compile(rf"^({_NUMBER})\n({_NUMBER})\n(-?[\d,]+\.\d\d)$", re.MULTILINE)


class Read(NamedTuple):
    """The amounts of a report, by name. ``growth`` is in percent, with one decimal place."""

    total: Decimal
    before: Decimal
    growth: Decimal
    days: dict[str, Decimal]
    products: dict[str, Decimal]
    regions: dict[str, Decimal]


def read_csv(path: Path) -> Read:
    """A CSV report; every record must have as many fields as the header."""
    text = path.read_bytes().decode()
    assert text.count("\r\n") >= 2
    records = list(csv.DictReader(text.splitlines(keepends=True), strict=True))
    assert all(None not in record and None not in record.values() for record in records)

    def section(name: str) -> dict[str, Decimal]:
        return {r["name"]: Decimal(r["amount"]) for r in records if r["section"] == name}

    (total,) = [record for record in records if record["section"] == "total"]
    return Read(
        Decimal(total["amount"]),
        Decimal(total["amount_before"] or 0),
        Decimal(total["growth_percent"] or 0),
        section("day") or section("month"),
        section("product"),
        section("region"),
    )


def pdf_pages(path: Path) -> list[str]:
    """The text of every page."""
    return [page.extract_text() for page in PdfReader(path).pages]


def read_pdf(path: Path) -> Read:
    """A PDF report by day, whose names have no line breaks."""
    text = "\n".join(pdf_pages(path))
    sections: dict[str, dict[str, Decimal]] = {"Product": {}, "Region": {}, "Day": {}, "Month": {}}
    before, growth = NOTHING, NOTHING
    current, number = "", -1
    lines = text.splitlines()
    while (number := number + 1) < len(lines):
        name = lines[number]
        if name in sections and lines[number + 1 : number + 2] == ["Rows"]:
            current = name
        match = _LINE.match("\n".join(lines[number + 1 : number + 4]))
        if match is None or not current:
            continue
        if name == "Total" and current == "Product":
            before, growth = lines[number + 4], lines[number + 5].removesuffix(" %")
        if name != "Total":
            sections[current][name] = _decimal(match[3])
        number += 3
    card = re.search(rf"AMOUNT\n({_NUMBER})\n", text)
    assert card is not None
    return Read(
        _decimal(card[1]),
        _decimal(before),
        _decimal(growth),
        sections["Day"] or sections["Month"],
        sections["Product"],
        sections["Region"],
    )


def _decimal(text: str) -> Decimal:
    return Decimal(0) if text == NOTHING else Decimal(text.replace(",", ""))


def workbook(path: Path, *, values: bool) -> Workbook:
    """A workbook: with the values that its formulas carry, or with the formulas."""
    return load_workbook(path, data_only=values)


def read_xlsx(path: Path) -> Read:
    """A workbook by day, as a program sees it that does not compute."""
    book = workbook(path, values=True)
    summary = book["Summary"]
    return Read(
        _cents(summary["B8"].value),
        _cents(summary["C8"].value),
        _percent(summary["D8"].value),
        _amounts(book["By day"]),
        _amounts(book["By product"]),
        _amounts(book["By region"]),
    )


def _amounts(sheet: Worksheet) -> dict[str, Decimal]:
    rows = list(sheet.iter_rows(min_row=2, max_row=sheet.max_row - 1, values_only=True))
    return {_name(row[0]): _cents(row[3]) for row in rows}


def _name(value: Any) -> str:
    return value.date().isoformat() if isinstance(value, datetime) else str(value)


def _percent(share: Any) -> Decimal:
    if share == NOTHING:
        return Decimal(0)
    return (Decimal(repr(share)) * 100).quantize(Decimal("0.1"), ROUND_HALF_UP)


def _cents(value: Any) -> Decimal:
    assert isinstance(value, int | float)
    return Decimal(repr(value)).quantize(Decimal("0.01"))


def computed(book: Workbook, sheet: str, formula: str) -> float | str:
    """What a formula of a report comes to: a sum, a reference to another sheet, or a growth."""
    if match := re.fullmatch(r"=SUM\(([A-F])2:[A-F](\d+)\)", formula):
        cells = [book[sheet][f"{match[1]}{row}"].value for row in range(2, int(match[2]) + 1)]
        return float(sum(Decimal(str(value)) for value in cells))
    if match := re.fullmatch(r"='(.+)'!([A-D]\d+)", formula):
        return _value(book, match[1], match[2])
    match = re.fullmatch(r'=IF\(N\((\w+)\)>0,\((\w+)-\1\)/\1,"n/a"\)', formula)
    if match is None:
        assert formula == "=0"
        return 0.0
    before, now = (_value(book, sheet, cell) for cell in match.groups())
    return (now - before) / before if before > 0 else "n/a"


def _value(book: Workbook, sheet: str, cell: str) -> float:
    value = book[sheet][cell].value
    if isinstance(value, str):
        result = computed(book, sheet, value)
        assert isinstance(result, float)
        return result
    return float(value) if isinstance(value, int | float) else 0.0
