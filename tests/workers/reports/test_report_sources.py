"""The user's own sales: files and databases, columns by other names, and what is wrong with them, in sentences."""

import gzip
import sqlite3
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import duckdb
import pytest

from gql_jobs.jobs.errors import PermanentError, TransientError
from tests.workers.reports.conftest import Reporting
from tests.workers.reports.postgres import Postgres, running_postgres
from tests.workers.reports.reading import Read, read_csv
from tests.workers.reports.sales import Sale, expected, some_sales, write_csv

OWN_NAMES = ("order date", '"sku"', "SELECT", "qty", "total, net")
MAPPING = 'date=order date,"product=""sku""",region=SELECT,quantity=qty,"amount=total, net"'
HEADER = "date,product,region,quantity,amount\n"
FIVE = "date, product, region, quantity, amount"
START, END = date(2024, 3, 10), date(2024, 5, 20)
SOME = [sale._replace(product=f"P{len(sale.product)}", region=f"R{len(sale.region)}") for sale in some_sales()]


def _check(read: Read) -> None:
    sums = expected(SOME, START, END)
    assert (read.total, read.before, read.growth) == (sums.amount, sums.amount_before, sums.growth)
    assert (read.products, read.regions) == (sums.products, sums.regions)
    assert {day: amount for day, amount in read.days.items() if amount} == sums.days


def _quoted(names: Iterable[str]) -> list[str]:
    return ['"' + name.replace('"', '""') + '"' for name in names]


def test_csv_with_columns_by_other_names(source: Callable[..., None], report: Reporting, tmp_path: Path) -> None:
    header = ",".join(_quoted(OWN_NAMES))
    source(write_csv(tmp_path / "own.csv", SOME, header), columns=MAPPING)
    _check(read_csv(report("CSV", START, END)))


def test_a_folder_or_a_pattern_of_files_with_their_columns_in_any_order(
    source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    folder = tmp_path / "it's [sales]"
    folder.mkdir()
    write_csv(folder / "a.csv", SOME[:700])
    with gzip.open(folder / "b.csv.gz", "wt") as file:
        file.write("note,amount,quantity,region,product,date\n")
        file.writelines(f"x,{s.amount},{s.quantity},{s.region},{s.product},{s.day} 12:30:00\n" for s in SOME[700:])
    source(folder)
    _check(read_csv(report("CSV", START, END)))
    source(tmp_path / "it's *" / "*.csv*")
    _check(read_csv(report("CSV", START, END)))


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "VARCHAR"])
@pytest.mark.parametrize("number", ["DECIMAL(12, 2)", "DOUBLE", "VARCHAR"])
def test_parquet_whatever_its_types(
    kind: str, number: str, source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "rows.csv", SOME)
    names = _quoted(OWN_NAMES)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT date::{kind} AS {names[0]}, product AS {names[1]}, region AS {names[2]},"  # noqa: S608
            f" quantity AS {names[3]}, amount::{number} AS {names[4]} FROM read_csv('{rows}', all_varchar = true))"
            f" TO '{tmp_path}/own.parquet'"
        )
    source(tmp_path / "own.parquet", columns=MAPPING)
    _check(read_csv(report("CSV", START, END)))


@pytest.mark.parametrize("kind", ["REAL", "TEXT", "NUMERIC"])
@pytest.mark.parametrize("time", ["", " 23:59:59"])
def test_a_table_in_sqlite(
    kind: str, time: str, source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    names = _quoted(OWN_NAMES)
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute(
            f'CREATE TABLE "the orders" ({names[0]}, {names[1]}, {names[2]}, {names[3]}, {names[4]} {kind})'
        )
        rows = ((f"{s.day}{time}", s.product, s.region, s.quantity, str(s.amount)) for s in SOME)
        database.executemany('INSERT INTO "the orders" VALUES (?, ?, ?, ?, ?)', rows)
    database.close()
    source(f"sqlite:///{path}", columns=MAPPING, table="the orders")
    _check(read_csv(report("CSV", START, END)))


@pytest.fixture(scope="module")
def postgres() -> Iterable[Postgres]:
    """A PostgreSQL server of this module's own."""
    with running_postgres() as server:
        yield server


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz", "text"])
def test_a_table_in_postgresql(kind: str, postgres: Postgres, source: Callable[..., None], report: Reporting) -> None:
    names = _quoted(OWN_NAMES)
    values = ", ".join(f"('{s.day}', '{s.product}', '{s.region}', {s.quantity}, {s.amount})" for s in SOME)
    postgres.run('CREATE SCHEMA IF NOT EXISTS "Shop"; DROP TABLE IF EXISTS "Shop"."Orders"')
    kinds = (kind, "text", "text", "int", "numeric")
    columns = ", ".join(f"{name} {of}" for name, of in zip(names, kinds, strict=True))
    postgres.run(f'CREATE TABLE "Shop"."Orders" ({columns})')
    postgres.run(f"""SET timezone = 'UTC'; INSERT INTO "Shop"."Orders" VALUES {values}""")  # noqa: S608
    source(postgres.url, columns=MAPPING, table="Shop.Orders")
    _check(read_csv(report("CSV", START, END)))


def test_an_empty_table_is_an_empty_report(source: Callable[..., None], report: Reporting, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE sales (date, product, region, quantity, amount)")
    database.close()
    source(f"sqlite:///{path}")
    assert "There are no sales from" in report("CSV", START, END).read_text()
    source(write_csv(tmp_path / "none.csv", []))
    assert "There are no sales from" in report("CSV", START, END).read_text()


def test_cells_without_a_value_count_as_nothing_under_no_name(
    source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    (tmp_path / "gaps.csv").write_text(
        "date,product,region,quantity,amount\n2024-04-01,,,,\n2024-04-02,Tea,,1,2.5\n,Tea,,1,9\n"
    )
    source(tmp_path / "gaps.csv")
    lines = report("CSV", START, END).read_text().splitlines()
    assert "product,(none),1,0,0.00,," in lines
    assert "region,(none),2,1,2.50,," in lines


def test_four_decimal_places_are_kept(source: Callable[..., None], report: Reporting, tmp_path: Path) -> None:
    (tmp_path / "fine.csv").write_text(f"{HEADER}2024-04-01,Gas,N,0.125,1.0001\n2024-04-01,Gas,N,0.125,1.0002\n")
    source(tmp_path / "fine.csv")
    assert "product,Gas,2,0.25,2.0003,," in report("CSV", START, END).read_text()


@pytest.mark.parametrize(
    ("name", "content", "settings", "said"),
    [
        (None, "", {}, r"There are no sales at .*sales\.csv: it must be a Parquet or CSV file"),
        ("sales.json", "{}", {}, "The sales must be all Parquet or all CSV"),
        (
            "sales.csv",
            HEADER,
            {"columns": "amount=total"},
            r"has no column 'total' \(for amount\)\. It has: date,",
        ),
        ("sales.csv", HEADER, {"columns": "sum=total"}, "The entry 'sum=total' cannot be"),
        ("sales.csv", HEADER, {"columns": "amount"}, "The entry 'amount' cannot be"),
        ("sales.csv", f"{HEADER}2024-04-01,Tea,N,1,two", {}, 'Could not convert string "two" to DECIMAL'),
        ("sales.csv", f"{HEADER}1.4.2024,Tea,N,1,2", {}, 'invalid date field format: "1.4.2024"'),
        ("sales.parquet", "no parquet", {}, "The sales cannot be read"),
    ],
)
def test_what_is_wrong_with_files_is_permanent_and_told(  # noqa: PLR0917
    name: str | None,
    content: str,
    settings: dict[str, str],
    said: str,
    source: Callable[..., None],
    report: Reporting,
    tmp_path: Path,
) -> None:
    if name is not None:
        (tmp_path / name).write_text(content)
    source(tmp_path / (name or "sales.csv"), **settings)
    with pytest.raises(PermanentError, match=said):
        report("CSV", START, END)


@pytest.mark.parametrize(
    ("columns", "row", "settings", "said"),
    [
        (FIVE, (), {"table": "orders"}, "There is no table 'orders' at sqlite"),
        ("date, product, region, quantity", (), {}, r"The table 'sales' has no column 'amount' \(for amount\)"),
        (FIVE, ("01.04.2024", "Tea", "N", 1, 2), {}, "holds '01.04.2024'"),
        (FIVE, (45383, "Tea", "N", 1, 2), {}, "holds '45383'"),
        (
            "date, product, region, quantity, amount",
            ("2024-04-01", "Tea", "N", 1, "1,50"),
            {},
            "hold texts that are no",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_permanent_and_told(  # noqa: PLR0917
    columns: str,
    row: tuple[object, ...],
    settings: dict[str, str],
    said: str,
    source: Callable[..., None],
    report: Reporting,
    tmp_path: Path,
) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE sales ({columns})")
        if row:
            database.execute("INSERT INTO sales VALUES (?, ?, ?, ?, ?)", row)
    database.close()
    source(f"sqlite:///{path}", **settings)
    with pytest.raises(PermanentError, match=said):
        report("CSV", START, END)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sqlite:////nowhere/shop.db", "There is no SQLite database at '/nowhere/shop.db'"),
        ("ftp://host/sales.csv", "not ftp://"),
        ("s3://bucket/sales.parquet", "not s3://"),
        ("postgresql://host:port:port/x", "no database URL"),
        ("oracle://host/x", "There is no driver for oracle://host/x"),
    ],
)
def test_an_address_that_cannot_be_is_permanent(
    address: str, said: str, source: Callable[..., None], report: Reporting
) -> None:
    source(address)
    with pytest.raises(PermanentError, match=said):
        report("CSV", START, END)


def test_a_database_that_does_not_answer_is_transient_and_its_password_stays_unsaid(
    source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    source(f"postgresql://shop:sesame@/shop?host={tmp_path}")
    with pytest.raises(TransientError, match="cannot be read") as raised:
        report("CSV", START, END)
    assert "sesame" not in str(raised.value)


def test_a_value_that_postgresql_cannot_read_is_permanent(
    postgres: Postgres, source: Callable[..., None], report: Reporting
) -> None:
    postgres.run(
        "DROP TABLE IF EXISTS sales;"
        "CREATE TABLE sales (date date, product text, region text, quantity int, amount text);"
        "INSERT INTO sales VALUES ('2024-04-01', 'Tea', 'N', 1, 'two')"
    )
    source(postgres.url)
    with pytest.raises(PermanentError, match="invalid input syntax for type numeric"):
        report("CSV", START, END)


def test_the_names_of_a_source_are_never_statements(
    source: Callable[..., None], report: Reporting, tmp_path: Path
) -> None:
    odd = "amount\"); DROP VIEW source; --'"
    rows = [Sale(date(2024, 4, 1), "'); DROP TABLE x; --", "N", 1, SOME[0].amount)]
    header = ",".join(_quoted(["date", "product", "region", "quantity", odd]))
    source(write_csv(tmp_path / "odd.csv", rows, header), columns=",".join(_quoted([f"amount={odd}"])))
    assert read_csv(report("CSV", START, END)).total == SOME[0].amount
