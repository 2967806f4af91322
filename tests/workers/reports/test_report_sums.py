"""The sums of all three formats equal those that plain Python comes to over the raw rows."""

import calendar
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from gql_jobs.jobs.types.report_generation import ReportGenerationResult
from gql_jobs_worker.reports.generator import sales_file
from tests.workers.reports.conftest import Reporting
from tests.workers.reports.reading import Read, computed, pdf_pages, read_csv, read_pdf, read_xlsx, workbook
from tests.workers.reports.reporting import JOB_ID, ReportContext
from tests.workers.reports.sales import Expected, Sale, expected, percent, some_sales, write_csv

START, END = date(2024, 2, 10), date(2024, 5, 20)
READERS: dict[str, Callable[[Path], Read]] = {"PDF": read_pdf, "CSV": read_csv, "XLSX": read_xlsx}
SOME = some_sales()


@pytest.fixture(scope="module")
def by_hand(bundled: Path) -> Expected:
    """The sums over the rows of the bundled data set, added up one by one."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT date, product, region, quantity, amount FROM read_parquet(?) WHERE date >= '2023-06-01'",
            [str(sales_file(bundled / "sales"))],
        ).fetchall()
    return expected((Sale(*row) for row in rows), START, END)


@pytest.mark.parametrize("kind", READERS)
def test_a_report_over_the_bundled_data_says_what_the_rows_say(  # noqa: PLR0917
    kind: str,
    bundled: Path,
    by_hand: Expected,
    report: Reporting,
    results: list[ReportGenerationResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GQL_JOBS_DATA_DIR", str(bundled))
    path = report(kind, START, END)
    (result,) = results
    assert result.url == f"/artifacts/{JOB_ID}/report.{kind.lower()}"
    assert (result.rows, result.size_bytes) == (by_hand.rows, path.stat().st_size)
    _check(READERS[kind](path), by_hand)


@pytest.mark.parametrize("kind", READERS)
def test_returns_and_odd_cents_add_up(
    kind: str, source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    plain = [sale._replace(product=f"P{len(sale.product)}", region=f"R{len(sale.region)}") for sale in SOME]
    source(write_csv(tmp_path / "sales.csv", plain))
    start, end = date(2024, 4, 1), date(2024, 6, 30)
    _check(READERS[kind](report(kind, start, end)), expected(plain, start, end))


def _check(read: Read, sums: Expected) -> None:
    assert (read.total, read.before) == (sums.amount, sums.amount_before)
    assert read.growth == sums.growth
    assert {day: amount for day, amount in read.days.items() if amount} == dict(sums.days)
    assert read.products == dict(sums.products)
    assert read.regions == dict(sums.regions)


@pytest.mark.parametrize(("start", "end"), [(START, END), (date(2023, 1, 1), date(2025, 12, 31))])
def test_the_formulas_of_a_workbook_come_to_the_values_that_they_carry(
    start: date, end: date, bundled: Path, report: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GQL_JOBS_DATA_DIR", str(bundled))
    path = report("XLSX", start, end)
    values, formulas = workbook(path, values=True), workbook(path, values=False)
    checked = 0
    for sheet in formulas.sheetnames:
        for row in formulas[sheet].iter_rows():
            for cell in row:
                if cell.data_type == "f":
                    checked += 1
                    carried = values[sheet][cell.coordinate].value
                    assert carried == pytest.approx(computed(formulas, sheet, str(cell.value)), abs=1e-9)
    assert checked > 3 * 3 + 16 + 7


def test_long_ranges_are_reported_by_month(bundled: Path, report: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GQL_JOBS_DATA_DIR", str(bundled))
    read = read_csv(report("CSV", "2022-03-15", "2024-03-15"))
    assert list(read.days)[:2] == ["2022-03", "2022-04"]
    assert len(read.days) == 25
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT amount FROM read_parquet(?) WHERE date BETWEEN '2022-03-15' AND '2022-03-31'",
            [str(sales_file(bundled / "sales"))],
        ).fetchall()
    assert read.days["2022-03"] == sum(amount for (amount,) in found)
    assert sum(read.days.values()) == sum(read.products.values()) == sum(read.regions.values()) == read.total


@pytest.mark.parametrize("kind", READERS)
def test_growth_compares_with_as_many_days_before(
    kind: str, source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    sales = [
        Sale(date(2024, 1, 31), "Tea", "North", 1, Decimal("1000.00")),  # before the period before
        Sale(date(2024, 2, 1), "Tea", "North", 1, Decimal("10.00")),
        Sale(date(2024, 2, 29), "Tea", "North", 1, Decimal("30.00")),
        Sale(date(2024, 3, 1), "Tea", "North", 1, Decimal("50.00")),
        Sale(date(2024, 3, 29), "Milk", "North", 1, Decimal("0.05")),
        Sale(date(2024, 3, 30), "Tea", "North", 1, Decimal("1000.00")),  # after the range
    ]
    source(write_csv(tmp_path / "sales.csv", sales))
    read = READERS[kind](report(kind, "2024-03-01", "2024-03-29"))
    assert (read.total, read.before) == (Decimal("50.05"), Decimal("40.00"))
    assert read.growth == percent(Decimal("50.05"), Decimal("40.00")) == Decimal("25.1")


def test_what_was_sold_only_before_is_a_line_of_its_own(
    source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    sales = [
        Sale(date(2024, 2, 29), "Gone", "North", 1, Decimal("30.00")),
        Sale(date(2024, 3, 1), "New", "North", 1, Decimal("50.00")),
    ]
    source(write_csv(tmp_path / "sales.csv", sales))
    lines = report("CSV", "2024-03-01", "2024-03-31").read_text().splitlines()
    assert "product,Gone,0,0,0.00,30.00,-100.0" in lines
    assert "product,New,1,1,50.00,0.00," in lines


@pytest.mark.parametrize("kind", READERS)
def test_there_is_no_growth_without_a_period_before(
    kind: str, source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    source(write_csv(tmp_path / "sales.csv", SOME))
    path = report(kind, "2024-01-01", "2024-06-30")
    missing = "There are no sales in the period before (2023-07-03 to 2023-12-31)"
    if kind == "XLSX":
        summary = workbook(path, values=True)["Summary"]
        assert [summary[f"D{row}"].value for row in (6, 7, 8)] == ["n/a"] * 3
        assert str(summary["A10"].value).startswith(
            "There are no sales in the period before (2023-07-03 to 2023-12-31)"
        )
    elif kind == "CSV":
        assert missing in path.read_text()
    else:
        assert "\n".join(pdf_pages(path)).count("Growth n/a") == 3


def test_a_period_before_that_the_data_only_begin_in_is_pointed_out(
    source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    source(write_csv(tmp_path / "sales.csv", SOME))
    text = report("CSV", "2024-04-01", "2024-06-30").read_text()
    assert "The period before" not in text
    text = report("CSV", "2024-03-30", "2024-06-30").read_text()
    assert "note,The period before (2023-12-28 to 2024-03-29) has sales from 2024-01-01 on only." in text


@pytest.mark.parametrize("leap", [2023, 2024])
def test_every_day_of_a_year_has_its_line(
    leap: int, source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    source(write_csv(tmp_path / "sales.csv", [Sale(date(leap, 7, 1), "Tea", "North", 1, Decimal("1.10"))]))
    read = read_csv(report("CSV", date(leap, 1, 1), date(leap, 12, 31)))
    assert len(read.days) == 365 + calendar.isleap(leap)
    assert list(read.days) == sorted(read.days)


def test_the_parts_are_months_and_are_told(
    source: Callable[..., None], report: Reporting, context: ReportContext, tmp_path: Path
) -> None:
    source(write_csv(tmp_path / "sales.csv", SOME))
    report("CSV", "2024-03-30", "2024-05-02")
    assert context.parts == [
        "2024-03",
        "2024-04",
        "2024-05",
        "2024-02 (for comparison)",
        "2024-03 (for comparison)",
    ]
    assert [percent for percent, _ in context.said] == sorted(percent for percent, _ in context.said)
    assert len(context.checkpoint_sizes) == 5
