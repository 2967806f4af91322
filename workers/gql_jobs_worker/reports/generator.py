"""The bundled data set: invented sales of five years, the same on every machine.

Its pseudo-random numbers come from MD5 and integer arithmetic, so that no version, platform or number of threads
changes a cent.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

_log = logging.getLogger("gql_jobs.reports")

DATA_VERSION = 1
"""Part of the file's name; raised whenever the rows change, so that an old file is not used any more."""
FIRST_YEAR, LAST_YEAR = 2021, 2025
ROWS_A_DAY = 560
"""Rows of an average day of the first year."""
PRODUCTS = (  # name, price in cents, how often among 100 rows
    ("Espresso Machine", 34900, 3),
    ("Coffee Grinder", 12900, 5),
    ("Milk Frother", 4990, 6),
    ("Kettle", 5990, 6),
    ("Pour-Over Set", 3490, 5),
    ("French Press", 2990, 6),
    ("Moka Pot", 2790, 6),
    ("Travel Mug", 2490, 9),
    ("Cups, Set of 4", 1990, 7),
    ("Scale", 2290, 4),
    ("Thermometer", 990, 3),
    ("Paper Filters", 490, 10),
    ("House Blend 1 kg", 1890, 12),
    ("Single Origin 250 g", 1190, 9),
    ("Decaf 500 g", 1090, 4),
    ("Descaler", 790, 5),
)
REGIONS = (("North", 22), ("West", 20), ("South", 18), ("East", 14), ("Midlands", 11), ("Coast", 9), ("Islands", 6))
_MONTHS = (90, 86, 96, 97, 99, 95, 88, 92, 101, 106, 122, 138)
_WEEKDAYS = (92, 90, 94, 99, 116, 121, 88)
_TREND = (100, 109, 121, 117, 132)


def sales_file(folder: Path) -> Path:
    """Return the path of the data set in ``folder``, whether or not it exists."""
    return folder / f"sales-{DATA_VERSION}.parquet"


def ensure_sales(folder: Path) -> Path:
    """Return the path of the data set in ``folder``; make it first if it is missing, or wait for a process that does.

    :raises OSError: if the folder cannot be written to.
    """
    path = sales_file(folder)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if path.exists():
            return path
        for left_over in folder.glob("*.new"):
            left_over.unlink()
        _log.info("making the bundled sales data in %s, once", folder)
        began = time.monotonic()
        rows = write_sales(path)
        _log.info("made %s rows of sales in %.1f s", f"{rows:,}".replace(",", " "), time.monotonic() - began)
    return path


def write_sales(path: Path) -> int:
    """Write the data set and return the number of its rows; the file appears complete or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with duckdb.connect(":memory:") as connection:
            connection.execute(_set_variables())
            target = str(unfinished).replace("'", "''")
            copied = connection.execute(
                f"COPY ({_ROWS}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 61440)"
            )
            ((rows,),) = copied.fetchall()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return int(rows)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        # The kernel releases the lock with the file, also when the process is killed.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _drawn(weighted: tuple[tuple[object, ...], ...]) -> list[int]:
    """Return a table of 100 indexes, counted from 1, in which each entry has as many places as its weight."""
    drawn = [index for index, entry in enumerate(weighted, start=1) for _ in range(int(str(entry[-1])))]
    assert len(drawn) == 100  # noqa: PLR2004
    return drawn


def _set_variables() -> str:
    def texts(names: tuple[tuple[object, ...], ...]) -> str:
        return "[" + ", ".join(f"'{name}'" for name, *_ in names) + "]"

    return f"""
        SET threads = 2;
        SET enable_progress_bar = false;
        SET VARIABLE products = {texts(PRODUCTS)};
        SET VARIABLE prices = {[price for _, price, _ in PRODUCTS]};
        SET VARIABLE product_of = {_drawn(PRODUCTS)};
        SET VARIABLE regions = {texts(REGIONS)};
        SET VARIABLE region_of = {_drawn(REGIONS)};
        SET VARIABLE quantity_of = {[1] * 11 + [2] * 5 + [3] * 2 + [4, 6]};
        SET VARIABLE discount_of = {[0] * 16 + [5, 5, 10, 20]};
        SET VARIABLE months = {list(_MONTHS)};
        SET VARIABLE weekdays = {list(_WEEKDAYS)};
        SET VARIABLE trend = {list(_TREND)};
    """


# Each column takes other digits of the same pseudo-random number.
_ROWS = f"""
    WITH days AS (
        SELECT day::DATE AS date, year(day) - {FIRST_YEAR} AS age,
            {ROWS_A_DAY} * getvariable('trend')[year(day) - {FIRST_YEAR} + 1]
            * getvariable('months')[month(day)] * getvariable('weekdays')[isodow(day)] // 1000000 AS rows
        FROM generate_series(DATE '{FIRST_YEAR}-01-01', DATE '{LAST_YEAR}-12-31', INTERVAL 1 DAY) AS series(day)
    ), chances AS (
        SELECT date, age, number, (md5_number_lower(date || '/' || number) % 1000000000)::BIGINT AS chance
        FROM (SELECT date, age, unnest(range(rows)) AS number FROM days)
    ), drawn AS (
        SELECT date, age, number,
            getvariable('product_of')[chance % 100 + 1] AS product,
            getvariable('region_of')[chance // 100 % 100 + 1] AS region,
            getvariable('quantity_of')[chance // 10000 % 20 + 1] AS quantity,
            getvariable('discount_of')[chance // 200000 % 20 + 1] AS discount
        FROM chances
    ), priced AS (
        SELECT *, getvariable('prices')[product] * (100 + 3 * age) // 100 AS cents FROM drawn
    )
    SELECT date, getvariable('products')[product] AS product, getvariable('regions')[region] AS region,
        quantity::INTEGER AS quantity,
        (cents::DECIMAL(16, 2) * 0.01::DECIMAL(2, 2))::DECIMAL(9, 2) AS unit_price,
        ((quantity * cents * (100 - discount) // 100)::DECIMAL(16, 2) * 0.01::DECIMAL(2, 2))::DECIMAL(12, 2) AS amount
    FROM priced ORDER BY date, number
"""  # noqa: S608 - numbers of this module
