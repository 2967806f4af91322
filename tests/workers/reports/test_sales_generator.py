"""The bundled data set is the same everywhere, as a whole or not at all."""

import hashlib
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from gql_jobs_worker.reports import generator
from gql_jobs_worker.reports.generator import ensure_sales, sales_file
from tests.running import PYTHON_PATH

MAKE_AND_TELL = """
import sys, pathlib
from gql_jobs_worker.reports.generator import ensure_sales
print(ensure_sales(pathlib.Path(sys.argv[1])))
"""


def _digest(path: Path) -> str:
    """Of the rows in their order, whatever the file looks like."""
    digest = hashlib.sha256()
    with duckdb.connect() as connection:
        found = connection.execute("SELECT concat_ws('|', *COLUMNS(*)) FROM read_parquet(?)", [str(path)])
        while rows := found.fetchmany(100_000):
            digest.update("\n".join(row for (row,) in rows).encode())
    return digest.hexdigest()


def test_it_has_a_million_rows_over_five_years_in_exact_decimals(bundled: Path) -> None:
    path = str(sales_file(bundled / "sales"))
    with duckdb.connect() as connection:
        facts = connection.execute(
            "SELECT count(*), count(DISTINCT year(date)), sum(quantity), sum(amount)::VARCHAR,"
            " count(DISTINCT product), count(DISTINCT region), count(DISTINCT date) FROM read_parquet(?)",
            [path],
        ).fetchone()
        first = connection.execute("SELECT date, amount FROM read_parquet(?) LIMIT 1", [path]).fetchone()
    assert facts == (1_194_063, 5, 2_209_678, "87956547.54", 16, 7, 1826)
    assert first == (date(2021, 1, 1), Decimal("68.70"))


def test_it_has_the_same_rows_every_time(bundled: Path) -> None:
    assert _digest(sales_file(bundled / "sales")) == "bbdd6e5e74b901aa32b5c2011ca4a8b31e5d13ed535848dbfa5711ddd84af7ab"


def test_two_processes_at_once_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHON_PATH)
    command = [sys.executable, "-c", MAKE_AND_TELL, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].strip() for process in both]
    assert said == [str(sales_file(tmp_path))] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "sales-1.parquet"]


def test_what_a_killed_process_left_behind_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sales-1.parquet.77.new").write_bytes(b"PAR1")
    monkeypatch.setattr(generator, "ROWS_A_DAY", 1)
    ensure_sales(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "sales-1.parquet"]
