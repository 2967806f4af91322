"""What the files are made like: pages, headers, types, and names that are only names."""

import csv
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pypdf import PdfReader

from gql_jobs.jobs.errors import PermanentError
from gql_jobs.jobs.types.report_generation import ReportGenerationResult
from gql_jobs_worker.handlers import environment_settings
from tests.workers.reports.conftest import Reporting
from tests.workers.reports.reading import pdf_pages, read_csv, workbook
from tests.workers.reports.sales import Sale, expected, some_sales, write_csv

FORMATS = ["PDF", "CSV", "XLSX"]
SOME = some_sales()


@pytest.fixture(autouse=True)
def _sales(source: Callable[..., None], tmp_path: Path) -> None:
    source(write_csv(tmp_path / "sales.csv", SOME))


def test_a_pdf_has_a_title_a_period_numbered_pages_and_a_table_header_on_each(report: Reporting) -> None:
    path = report("PDF", "2024-01-01", "2024-06-30")
    pages = pdf_pages(path)
    assert len(pages) >= 5
    assert pages[0].startswith("Monthly sales\n2024-01-01 to 2024-06-30")
    for number, page in enumerate(pages, 1):
        assert f"Page {number} of {len(pages)}" in page
    assert all("Day\nRows\nQuantity\nAmount" in page for page in pages[2:])
    about = PdfReader(path).metadata
    assert about is not None
    assert (about.title, about.author) == ("Monthly sales, 2024-01-01 to 2024-06-30", "gql-jobs")


@pytest.mark.parametrize("end", ["2024-01-20", "2024-06-30"])
def test_a_pdf_has_a_chart_of_bars_or_of_a_line(end: str, report: Reporting) -> None:
    page = PdfReader(report("PDF", "2024-01-01", end)).pages[0]
    assert "Amount by day" in page.extract_text()
    drawn = page.get_contents()
    assert drawn is not None
    assert drawn.get_data().count(b" re") + drawn.get_data().count(b" l ") > 20


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_reports_are_equal_files(kind: str, report: Reporting) -> None:
    first = report(kind, "2024-01-01", "2024-03-31").read_bytes()
    assert report(kind, "2024-01-01", "2024-03-31").read_bytes() == first


def test_a_workbook_has_sheets_typed_cells_and_frozen_headers(report: Reporting) -> None:
    path = report("XLSX", "2024-02-01", "2024-03-31")
    book = workbook(path, values=False)
    assert book.sheetnames == ["Summary", "By day", "By product", "By region"]
    for name in book.sheetnames[1:]:
        assert book[name].freeze_panes == "A2"
    days = book["By day"]
    assert days["A2"].value == datetime(2024, 2, 1)  # noqa: DTZ001  # as spreadsheets have it
    assert (days["A2"].is_date, days["A2"].number_format) == (True, "yyyy-mm-dd")
    assert [days[cell].data_type for cell in ("B2", "C2", "D2")] == ["n"] * 3
    assert days["D2"].number_format == "#,##0.00"
    last = days.max_row
    assert [days[f"{column}{last}"].value for column in "ABCD"] == [
        "Total",
        *(f"=SUM({column}2:{column}{last - 1})" for column in "BCD"),
    ]
    assert book["Summary"]["B8"].value == f"='By day'!D{last}"


def test_names_in_a_workbook_are_texts_whatever_they_look_like(report: Reporting) -> None:
    path = report("XLSX", "2024-01-01", "2024-06-30")
    cells = [row[0] for row in workbook(path, values=False)["By product"].iter_rows(min_row=2)][:-1]
    assert {cell.value for cell in cells} == {sale.product for sale in SOME}
    assert {cell.data_type for cell in cells} == {"s"}
    with zipfile.ZipFile(path) as parts:
        assert b"<f>1+1" not in b"".join(parts.read(name) for name in parts.namelist())


def test_names_in_csv_are_quoted_and_never_formulas(report: Reporting) -> None:
    path = report("CSV", "2024-01-01", "2024-06-30")
    with path.open(newline="", encoding="utf-8") as file:
        records = list(csv.reader(file, strict=True))
    assert {len(record) for record in records} == {7}
    names = {record[1] for record in records}
    assert {"'=1+1", "'+49 30", "'-5 %", "'@home", "'=cmd|' /C calc'!A0", "(none)"} <= names
    assert {'Größe <b>&"M"', "Tea, green", "two\nlines", "O'Hara; DROP", "Ещё"} <= names
    assert not any(name.startswith(("=", "+", "-", "@", "\t", "\r")) for name in names)
    body = path.read_bytes()
    assert b"\r\n" in body
    assert body.replace(b"two\nlines", b"").count(b"\n") == body.count(b"\r\n") == len(records)


def test_negative_amounts_in_csv_stay_numbers(source: Callable[..., None], report: Reporting, tmp_path: Path) -> None:
    source(write_csv(tmp_path / "returns.csv", [Sale(date(2024, 1, 2), "Tea", "North", 1, Decimal("-12.30"))]))
    text = report("CSV", "2024-01-01", "2024-01-31").read_text()
    assert "product,Tea,1,1,-12.30,," in text


def test_names_in_a_pdf_are_no_markup_and_unknown_letters_are_marked(report: Reporting) -> None:
    text = "\n".join(pdf_pages(report("PDF", "2024-01-01", "2024-06-30")))
    for name in ("=1+1", 'Größe <b>&"M"', "two lines", "O'Hara; DROP", "???"):
        assert name in text


def test_another_font_shows_them(report: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
    import reportlab  # noqa: PLC0415

    fonts = Path(reportlab.__file__).parent / "fonts"
    monkeypatch.setenv("GQL_JOBS_REPORT_FONT", str(fonts / "Vera.ttf"))
    environment_settings.cache_clear()
    assert "Größe" in "\n".join(pdf_pages(report("PDF", "2024-01-01", "2024-06-30")))
    monkeypatch.setenv("GQL_JOBS_REPORT_FONT", str(fonts / "00readme.txt"))
    environment_settings.cache_clear()
    with pytest.raises(PermanentError, match="GQL_JOBS_REPORT_FONT is no TrueType font"):
        report("PDF", "2024-01-01", "2024-06-30")


def test_long_names_and_large_numbers_fit_on_a_page(
    source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    large = Decimal("12345678901.23")
    sales = [Sale(date(2024, 1, 2), name, "North", 123456789, large) for name in ("long name " * 20, "x" * 300)]
    source(write_csv(tmp_path / "large.csv", sales))
    text = "\n".join(pdf_pages(report("PDF", "2024-01-01", "2024-01-31")))
    assert "24,691,357,802.46" in text


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("start", "end"), [("2030-01-01", "2030-01-31"), ("1974-01-01", "2023-12-31")])
def test_an_empty_range_makes_a_report_that_says_so(
    kind: str, start: str, end: str, report: Reporting, results: list[ReportGenerationResult]
) -> None:
    path = report(kind, start, end)
    assert results[0].rows == 0
    sentence = f"There are no sales from {start} to {end}."
    if kind == "PDF":
        (page,) = pdf_pages(path)
        assert sentence in page
        assert "Page 1 of 1" in page
    elif kind == "CSV":
        read = read_csv(path)
        assert read.total == 0
        assert not read.days | read.products | read.regions
        assert f"note,{sentence},,,,,\r\n" in path.read_bytes().decode()
    else:
        book = workbook(path, values=True)
        assert book["Summary"]["A10"].value == sentence
        assert [book["Summary"][f"B{row}"].value for row in (6, 7, 8)] == [0, 0, 0]


def test_a_report_after_the_last_sale_still_shows_what_was_before(report: Reporting) -> None:
    read = read_csv(report("CSV", "2024-07-01", "2024-09-30"))
    assert read.total == 0
    assert read.before == expected(SOME, date(2024, 7, 1), date(2024, 9, 30)).amount_before > 0
    assert read.growth == -100
