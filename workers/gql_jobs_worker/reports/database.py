"""Sales in a table of a database, added up there through SQLAlchemy. Never writes to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Date,
    Integer,
    MetaData,
    Numeric,
    Select,
    String,
    Table,
    cast,
    create_engine,
    func,
    inspect,
    literal,
    make_url,
    select,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    NoSuchTableError,
    OperationalError,
)
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import DateTime

from gql_jobs.jobs.errors import HandlerError, PermanentError, TransientError
from gql_jobs_worker.reports.source import PLACES, UNNAMED, Columns, Dimension, Period, Sums

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_CONNECT_TIMEOUT = 10
"""Seconds to wait for a connection to PostgreSQL."""
_TEXT = 1000
"""Characters that a name is cut to when it is cast to text."""


class SalesTable:
    """A ``Source`` over one table, read through one connection."""

    def __init__(self, connection: Connection, table: Table, columns: Columns, fingerprint: str) -> None:
        self._connection = connection
        self._columns = columns
        self._table = table
        self._sqlite = connection.dialect.name == "sqlite"
        self._date: ColumnElement[Any] = table.c[columns.date]
        if not self._sqlite and not isinstance(self._date.type, Date | DateTime):
            self._date = cast(self._date, Date)
        self.fingerprint = fingerprint

    def check_dates(self) -> None:
        """Check one date where the database is SQLite, which has no type for dates.

        :raises PermanentError: if it is no ISO date.
        """
        if not self._sqlite:
            return
        column = self._table.c[self._columns.date]
        for (found,) in self._run(select(cast(column, String)).where(column.is_not(None)).limit(1)):
            try:
                date.fromisoformat(found[:10])
            except ValueError:
                raise PermanentError(
                    f"The column {column.name!r} holds {found!r}; in SQLite a date is written as 2024-03-31."
                ) from None

    def bounds(self, window: Period) -> Period | None:
        """Return the first and the last day within ``window`` that has a row, or None where no day has."""
        ((first, last),) = self._run(select(func.min(self._day()), func.max(self._day())).where(*self._within(window)))
        return None if first is None else Period(date.fromisoformat(str(first)), date.fromisoformat(str(last)))

    def sums(self, dimension: Dimension, period: Period, limit: int) -> list[tuple[str, Sums]]:
        """Return the sums by day, product or region; the ``limit`` largest amounts first."""
        name = self._day() if dimension == "date" else self._name(dimension)
        quantity, amount = self._total(self._columns.quantity), self._total(self._columns.amount)
        wrong = self._wrong(self._columns.quantity) + self._wrong(self._columns.amount)
        statement = (
            select(name, func.count(), quantity, amount, func.coalesce(func.sum(wrong), 0))
            .where(*self._within(period))
            .group_by(name)
            .order_by(amount.desc(), name)
            .limit(limit)
        )
        rows = self._run(statement)
        if any(row[4] for row in rows):
            raise PermanentError(
                f"The columns {self._columns.quantity!r} and {self._columns.amount!r} hold texts that are no numbers, "
                f"in {period}."
            )
        return [(str(row[0]), Sums(row[1], self._decimal(row[2]), self._decimal(row[3]))) for row in rows]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have all queries in the block see the same rows, in one transaction that is rolled back."""
        if self._sqlite:
            # Python's sqlite3 begins a transaction before writes only.
            self._connection.exec_driver_sql("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def _within(self, period: Period) -> list[ColumnElement[bool]]:
        bounds = [day.isoformat() if self._sqlite else day for day in (period.start, period.after)]
        kind = String() if self._sqlite else Date()
        return [self._date >= literal(bounds[0], kind), self._date < literal(bounds[1], kind)]

    def _day(self) -> ColumnElement[Any]:
        return func.date(self._date) if self._sqlite else cast(self._date, Date)

    def _name(self, dimension: Dimension) -> ColumnElement[str]:
        text = cast(self._table.c[getattr(self._columns, dimension)], String(_TEXT))
        return func.coalesce(func.nullif(text, literal("", String)), literal(UNNAMED, String))

    def _total(self, column: str) -> ColumnElement[Any]:
        """Return an exact sum. SQLite has no decimals: it adds up whole numbers of the smallest unit."""
        value = self._table.c[column]
        if self._sqlite:
            return func.coalesce(func.sum(cast(func.round(value.op("*")(10**PLACES)), Integer)), 0)
        return func.coalesce(func.sum(cast(value, Numeric(18, PLACES))), 0)

    def _wrong(self, column: str) -> ColumnElement[Any]:
        """Return an expression that is 1 for a text that SQLite would add up though it is no number, else 0."""
        if not self._sqlite:
            return literal(0)
        return func.coalesce(self._table.c[column].op("GLOB")(literal("*[^-+.0-9eE]*", String)), 0)

    def _decimal(self, total: Any) -> Decimal:
        return Decimal(total).scaleb(-PLACES) if self._sqlite else Decimal(total)

    def _run(self, statement: Select[Any]) -> list[Any]:
        return list(self._connection.execute(statement).all())


@contextmanager
def open_sales_table(address: str, table: str, columns: Columns) -> Iterator[SalesTable]:
    """Yield the table ``name`` or ``schema.name`` at a database URL.

    :raises PermanentError: if the URL, the table or a column cannot be, or a value is no date or number.
    :raises TransientError: if the database cannot be reached.
    """
    url = _url(address)
    shown = url.render_as_string(hide_password=True)
    postgres = url.get_backend_name() == "postgresql"
    arguments = {"connect_timeout": _CONNECT_TIMEOUT, "options": "-c timezone=UTC"} if postgres else {}
    level = {"isolation_level": "REPEATABLE READ"} if postgres else {}
    try:
        engine = create_engine(url, connect_args=arguments, **level)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise PermanentError(f"There is no driver for {shown}: {error}.") from error
    try:
        with engine.connect() as connection:
            sales = SalesTable(connection, _table(connection, table, columns, shown), columns, f"{shown} {table}")
            sales.check_dates()
            connection.rollback()
            yield sales
    except DBAPIError as error:
        raise _failure(error, shown) from error
    finally:
        engine.dispose()


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:
        raise PermanentError("GQL_JOBS_SALES_SOURCE is no database URL that SQLAlchemy can read.") from error
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        raise PermanentError(f"There is no SQLite database at {url.database!r}.")
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _table(connection: Connection, name: str, columns: Columns, shown: str) -> Table:
    """Return the table with the columns that are used, every name quoted as it is spelled."""
    schema, _, bare = name.rpartition(".")
    try:
        found = inspect(connection).get_columns(bare, schema or None)
    except NoSuchTableError:
        raise PermanentError(f"There is no table {name!r} at {shown}; GQL_JOBS_SALES_TABLE names it.") from None
    types = {column["name"]: column["type"] for column in found}
    columns.require(list(types), f"The table {name!r}")
    used = [Column(quoted_name(column, quote=True), types[column]) for column in dict.fromkeys(columns)]
    own_schema = quoted_name(schema, quote=True) if schema else None
    return Table(quoted_name(bare, quote=True), MetaData(), *used, schema=own_schema)


def _failure(error: DBAPIError, shown: str) -> HandlerError:
    """Return the error of the attempt for an exception of the driver; its text holds no password."""
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return TransientError(f"The database {shown} cannot be read: {error.orig}")
    return PermanentError(f"The sales at {shown} cannot be added up: {error.orig}")
