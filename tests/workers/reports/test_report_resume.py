"""A successor goes on where a killed attempt stopped, and its checkpoint stays small whatever the data hold."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gql_jobs_worker.reports.aggregation import MAX_NAMES, MAX_SUMS_BYTES
from tests.workers.reports.conftest import Reporting
from tests.workers.reports.reading import pdf_pages, read_csv, workbook
from tests.workers.reports.reporting import CHECKPOINT, ReportContext, report_file, run_report
from tests.workers.reports.sales import Sale, expected, some_sales, write_csv

ROOT = Path(__file__).parents[3]
YEAR = ("2024-01-01", "2024-12-31")


def _killed(folder: Path, kind: str, environment: dict[str, str], kill_at: int) -> None:
    """An attempt in a process of its own that is killed at its progress report number ``kill_at``."""
    command = [sys.executable, "-m", "tests.workers.reports.reporting", str(folder), kind, *YEAR, str(kill_at)]
    killed = subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, **environment}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


@pytest.mark.parametrize("kind", ["CSV", "XLSX"])
def test_a_killed_attempt_s_parts_are_not_done_again(
    kind: str, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GQL_JOBS_DATA_DIR", str(bundled))
    folder, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    folder.mkdir()
    undisturbed.mkdir()
    whole = ReportContext(undisturbed)
    run_report(whole, kind, *YEAR)
    months = [f"2024-{month:02}" for month in range(1, 13)]
    assert whole.parts == [*months, "2022-12 (for comparison)", *(f"2023-{m[5:]} (for comparison)" for m in months)]

    # Killed when the eighth part had been added up and not yet kept, then in the middle of what followed.
    _killed(folder, kind, {"GQL_JOBS_DATA_DIR": str(bundled)}, 8)
    assert json.loads((folder / CHECKPOINT).read_text())["done"] == 7
    _killed(folder, kind, {"GQL_JOBS_DATA_DIR": str(bundled)}, 10)
    assert json.loads((folder / CHECKPOINT).read_text())["done"] == 16
    successor = ReportContext(folder)
    run_report(successor, kind, *YEAR)

    said = [line.split(" ", 1)[1].split(":")[0] for line in (folder / "said.txt").read_text().splitlines()]
    parts = [label for label in said if not label.endswith("...")]
    assert parts == [*whole.parts[:8], *whole.parts[7:17], *whole.parts[16:]]
    assert successor.parts == whole.parts[16:]
    assert report_file(folder, kind).read_bytes() == report_file(undisturbed, kind).read_bytes()


def test_one_killed_while_writing_does_no_part_again(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GQL_JOBS_DATA_DIR", str(bundled))
    _killed(tmp_path, "PDF", {"GQL_JOBS_DATA_DIR": str(bundled)}, 26)
    successor = ReportContext(tmp_path)
    run_report(successor, "PDF", *YEAR)
    assert successor.parts == []
    assert "18,290,690.40" in pdf_pages(report_file(tmp_path, "PDF"))[0]


def _changed(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda saved: saved | fields


@pytest.mark.parametrize(
    "change",
    [
        _changed(key="of another report"),
        _changed(done=99),
        _changed(done=-1),
        _changed(times=[["2024-01-01", 1, "one", "1"]]),
        _changed(product="x"),
        _changed(more=1),
        lambda _: [],
        lambda _: "x",
    ],
)
def test_a_checkpoint_that_is_not_this_report_s_is_not_used(
    change: Callable[[dict[str, Any]], Any], source: Callable[..., None], context: ReportContext, tmp_path: Path
) -> None:
    source(write_csv(tmp_path / "sales.csv", some_sales()))
    run_report(context, "CSV", "2024-02-01", "2024-03-31")
    whole = report_file(context.folder, "CSV").read_bytes()
    successor = ReportContext(context.folder)
    successor.saved = change(successor.saved)
    run_report(successor, "CSV", "2024-02-01", "2024-03-31")
    assert successor.parts == context.parts
    assert report_file(context.folder, "CSV").read_bytes() == whole


def test_changed_data_and_another_range_begin_anew(
    source: Callable[..., None], context: ReportContext, tmp_path: Path
) -> None:
    sales = some_sales()
    source(write_csv(tmp_path / "sales.csv", sales))
    run_report(context, "CSV", "2024-02-01", "2024-03-31")
    other_range = ReportContext(context.folder)
    run_report(other_range, "CSV", "2024-02-01", "2024-03-30")
    assert other_range.parts == context.parts
    write_csv(tmp_path / "sales.csv", sales[:-1])
    other_data = ReportContext(context.folder)
    run_report(other_data, "CSV", "2024-02-01", "2024-03-30")
    assert other_data.parts == context.parts


def test_the_checkpoints_of_50_years_stay_small(
    source: Callable[..., None], context: ReportContext, tmp_path: Path
) -> None:
    first = date(1969, 5, 1)
    sales = [
        Sale(first + timedelta(days=number * 2), f"Product {number % 997}", f"R{number % 50}", 1, Decimal("1234567.89"))
        for number in range(10_100)
    ]
    source(write_csv(tmp_path / "sales.csv", sales))
    start, end = date(1974, 5, 1), date(2024, 4, 30)
    run_report(context, "CSV", start, end)
    assert len(context.parts) == 600 + 60
    assert len(context.checkpoint_sizes) == len(context.parts)
    assert max(context.checkpoint_sizes) < 200 * 1024
    read = read_csv(report_file(context.folder, "CSV"))
    sums = expected(sales, start, end)
    assert (read.total, read.before, read.growth) == (sums.amount, sums.amount_before, sums.growth)
    assert read.products == sums.products


@pytest.mark.parametrize("length", [1, 60])
def test_with_more_products_than_fit_the_largest_are_ranked_by_the_source(
    length: int, source: Callable[..., None], report: Reporting, context: ReportContext, tmp_path: Path
) -> None:
    # Too many names, or as many as may be but too long.
    count = MAX_NAMES + 500 if length == 1 else MAX_NAMES
    sales = [
        Sale(date(2024, 1 + number % 4, 3), f"{number:04} ".ljust(length * 4, "x"), "North", 1, Decimal(number + 1))
        for number in range(count)
    ]
    source(write_csv(tmp_path / "sales.csv", sales))
    read = read_csv(report("CSV", "2024-03-01", "2024-04-30"))
    sums = expected(sales, date(2024, 3, 1), date(2024, 4, 30))
    assert sum(read.products.values()) == read.total == sums.amount
    assert {name: read.products[name] for name in sums.products} == sums.products
    assert max(context.checkpoint_sizes) <= MAX_SUMS_BYTES


def test_what_is_beyond_the_ranking_is_one_line(
    source: Callable[..., None], report: Reporting, context: ReportContext, tmp_path: Path
) -> None:
    sales = [Sale(date(2024, 1, 3), f"{number:04}", "North", 1, Decimal(number + 1)) for number in range(1200)]
    source(write_csv(tmp_path / "sales.csv", sales))
    read = read_csv(report("CSV", "2024-01-01", "2024-01-31"))
    assert read.products.pop("(all others)") == sum(range(1, 201))
    assert read.products == {f"{number:04}": number + 1 for number in range(200, 1200)}
    assert json.loads((context.folder / CHECKPOINT).read_text())["product"] is None
    book = workbook(report("XLSX", "2024-01-01", "2024-01-31"), values=True)
    assert book["By product"].max_row == 1 + MAX_NAMES + 1 + 1
    pages = pdf_pages(report("PDF", "2024-01-01", "2024-01-31"))
    assert any("(all others)" in page for page in pages)
    assert any("only the largest are listed" in page.replace("\n", " ") for page in pages)
