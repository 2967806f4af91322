"""Sales in Parquet or CSV files, added up by DuckDB. Never writes to the files, never loads an extension."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from gql_jobs.jobs.errors import PermanentError, TransientError
from gql_jobs_worker.reports.source import PLACES, UNNAMED, Columns, Dimension, Period, Sums

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_THREADS = 2
_MEMORY = "1GB"
_NUMBER = f"DECIMAL(18, {PLACES})"
_DATES = ("DATE", "TIMESTAMP")


class SalesFiles:
    """A ``Source`` over files, read through one DuckDB connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, columns: Columns, fingerprint: str) -> None:
        self._connection = connection
        self._columns = columns
        self.fingerprint = fingerprint

    def load(self, files: list[Path]) -> None:
        """Create the view ``sales`` over the files; all values of CSV are read as text and converted here.

        :raises PermanentError: if a column is missing or a file cannot be read.
        """
        listed = "[" + ", ".join(_literal(str(file)) for file in files) + "]"
        if _kind(files) == "parquet":
            reader = f"read_parquet({listed}, union_by_name = true)"
        else:
            reader = f"read_csv({listed}, header = true, all_varchar = true, union_by_name = true)"
        self._run(f"CREATE TEMP VIEW source AS SELECT * FROM {reader}")  # noqa: S608 - literals are quoted
        types = {str(name): str(kind) for name, kind, *_ in self._run("DESCRIBE source")}
        self._columns.require(list(types), str(files[0]))
        day = _identifier(self._columns.date)
        if not types[self._columns.date].startswith(_DATES):
            day = f"CAST({day} AS DATE)"
        self._view("sales", "source", day)

    def keep(self, window: Period) -> None:
        """Copy the days of ``window`` into a table: CSV would be parsed again for every part."""
        where = _within(window)
        self._run(f"CREATE TEMP TABLE kept AS SELECT * FROM sales WHERE {where}")  # noqa: S608 - dates and numbers
        self._run("DROP VIEW sales")
        self._run("CREATE TEMP VIEW sales AS SELECT * FROM kept")

    def bounds(self, window: Period) -> Period | None:
        """Return the first and the last day within ``window`` that has a row, or None where no day has."""
        where = _within(window)
        first, last = self._run(f"SELECT min(date)::DATE, max(date)::DATE FROM sales WHERE {where}")[0]  # noqa: S608
        return None if first is None else Period(first, last)

    def sums(self, dimension: Dimension, period: Period, limit: int) -> list[tuple[str, Sums]]:
        """Return the sums by day, product or region; the ``limit`` largest amounts first."""
        name = "CAST(CAST(date AS DATE) AS VARCHAR)" if dimension == "date" else dimension
        rows = self._run(
            f"SELECT {name} AS name, count(*), coalesce(sum(quantity), 0), coalesce(sum(amount), 0) AS total"  # noqa: S608
            f" FROM sales WHERE {_within(period)} GROUP BY ALL ORDER BY total DESC, name LIMIT {limit:d}"
        )
        return [(name, Sums(count, quantity, amount)) for name, count, quantity, amount in rows]

    def snapshot(self) -> nullcontext[None]:
        """Return a context manager that does nothing: files are not expected to change under a report."""
        return nullcontext()

    def _view(self, name: str, source: str, day: str) -> None:
        named = {field: _identifier(column) for field, column in self._columns._asdict().items()}
        texts = ", ".join(
            f"coalesce(nullif(CAST({named[field]} AS VARCHAR), ''), {_literal(UNNAMED)}) AS {field}"
            for field in ("product", "region")
        )
        numbers = ", ".join(f"CAST({named[field]} AS {_NUMBER}) AS {field}" for field in ("quantity", "amount"))
        self._run(f"CREATE TEMP VIEW {name} AS SELECT {day} AS date, {texts}, {numbers} FROM {source}")  # noqa: S608

    def _run(self, statement: str) -> list[Any]:
        try:
            return self._connection.execute(statement).fetchall()
        except duckdb.Error as error:
            kind = PermanentError if isinstance(error, duckdb.DataError | duckdb.ProgrammingError) else TransientError
            raise kind(f"The sales cannot be read: {_without_statement(error)}") from error


@contextmanager
def open_files(place: str, columns: Columns, scratch: Path, window: Period) -> Iterator[SalesFiles]:
    """Yield the sales in the files that a path, a folder or a glob names.

    :raises PermanentError: if there is no such file, or a column is missing.
    """
    files = find_files(place)
    config = {
        "threads": _THREADS,
        "memory_limit": _MEMORY,
        "temp_directory": str(scratch),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with duckdb.connect(":memory:", config=config) as connection:  # type: ignore[arg-type]
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        sales = SalesFiles(connection, columns, _fingerprint(files))
        sales.load(files)
        if _kind(files) == "csv":
            sales.keep(window)
        yield sales


def find_files(place: str) -> list[Path]:
    """Return the files that a path, a folder or a glob names, sorted; all of one kind.

    :raises PermanentError: if there are none, or they are of different kinds.
    """
    folder = Path(place)
    if folder.is_dir():
        found = sorted(path for path in folder.iterdir() if path.name.lower().endswith((*_PARQUET, *_CSV)))
    else:
        # A file whose name holds brackets is not a pattern.
        found = [folder] if folder.is_file() else sorted(map(Path, glob.glob(place, recursive=True)))  # noqa: PTH207
    found = [path for path in found if path.is_file()]
    if not found:
        raise PermanentError(f"There are no sales at {place}: it must be a Parquet or CSV file, a folder or a pattern.")
    _kind(found)
    return found


def _without_statement(error: Exception) -> str:
    """Return the message of an error without the SQL statement that DuckDB quotes after it."""
    return str(error).partition("\n\n")[0]


def _kind(files: list[Path]) -> str:
    names = [file.name.lower() for file in files]
    for kind, endings in (("parquet", _PARQUET), ("csv", _CSV)):
        if all(name.endswith(endings) for name in names):
            return kind
    raise PermanentError(f"The sales must be all Parquet or all CSV, by their names, unlike {', '.join(names[:5])}.")


def _fingerprint(files: list[Path]) -> str:
    states = [(str(file.resolve()), file.stat()) for file in files]
    return "\n".join(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states)


def _within(period: Period) -> str:
    return f"date >= {_date(period.start)} AND date < {_date(period.after)}"


def _date(day: date) -> str:
    return f"DATE '{day.isoformat()}'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
