"""The relay's side of the database: rows are claimed for a while, and settled once it is known what became of them.

Every transaction here is short: none is open while anything is sent. So a relay that is killed holds no lock; what it
had claimed is due again when the claim ends, and is sent again under the same key. All calls block; the relay makes
them in a thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    delete,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from gql_jobs import clock
from gql_jobs.outbox.rows import AT_ONCE, TABLE_NAME, OutboxRow

_CONNECT_WITHIN = 10
"""Seconds until a connection to the database has to stand."""
_SILENT_FOR = 30_000
"""Milliseconds without an acknowledgement of what was sent after which a connection to PostgreSQL counts as lost."""
_STATEMENT_WITHIN = 30_000
"""Milliseconds that a statement may take, waiting for locks among them."""
_MOST_COUNTED = 10_000
"""Rows that are counted at most: beyond that it is no matter how many there are, and counting takes its time."""
_BLOCKING_DRIVERS = frozenset({"psycopg", "psycopg2"})
"""Drivers of PostgreSQL that are used as they are named; an asynchronous one cannot be used here."""


class ClaimedRow(Struct, frozen=True):
    """A row that is this relay's to send until its claim ends.

    ``attempts``: how often it was claimed, this time included; whoever claims it next has a higher number.
    ``doubtful_since``: since when an earlier attempt may have made a job of it, None if none can have.
    """

    id: int
    job_id: str
    type: str
    payload: str
    options: str
    created_at: datetime
    attempts: int
    doubtful_since: datetime | None


class Moved(Struct, frozen=True):
    """The log has the job: the row is deleted."""

    row: ClaimedRow


class PutBack(Struct, frozen=True):
    """The row is due again after ``delay`` seconds. ``is_doubtful``: whether this attempt may have made the job."""

    row: ClaimedRow
    delay: float = 0.0
    is_doubtful: bool = True


class SetAside(Struct, frozen=True):
    """The row is kept and not sent any more: ``code`` and ``error``, a sentence, say why."""

    row: ClaimedRow
    code: str
    error: str


Outcome = Moved | PutBack | SetAside


class Backlog(Struct, frozen=True):
    """What stands in an outbox: rows that wait and rows that are set aside, each counted up to 10000.

    ``oldest_created_at``: of the row that is sent next; None if none waits.
    """

    waiting: int
    set_aside: int
    oldest_created_at: datetime | None


class SetAsideRow(Struct, frozen=True, rename="camel"):
    """A row that is not sent any more, and why."""

    id: int
    job_id: str
    type: str
    created_at: datetime
    set_aside_at: datetime
    code: str
    error: str


class OutboxDatabase:
    """A database that has the table of an outbox. Every method raises ``sqlalchemy.exc.DBAPIError`` if it is away."""

    def __init__(self, url: str) -> None:
        """Connect when first asked.

        :param url: as SQLAlchemy has it, of PostgreSQL or of a file of SQLite.
        :raises ValueError: if it is none; the message shows nothing of it.
        """
        self._engine = _engine(_database_url(url))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def has_table(self) -> bool:
        """Return whether the table is there."""
        with self._transaction() as connection:
            return inspect(connection).has_table(TABLE_NAME)

    def create_table(self) -> bool:
        """Create the table and its index if they are not there; return whether they were not."""
        with self._transaction() as connection:
            is_missing = not inspect(connection).has_table(TABLE_NAME)
            OutboxRow.__table__.create(connection, checkfirst=True)
            return is_missing

    def claim(self, most: int, seconds: float) -> list[ClaimedRow]:
        """Claim rows that are due, those that wait at first and in the order in which they were written.

        :param most: rows at most.
        :param seconds: after which those that are not settled are due again.
        """
        now = clock.now()
        with self._transaction() as connection:
            due = (
                select(*_COLUMNS)
                .where(OutboxRow.set_aside_at.is_(None), OutboxRow.due_at <= now)
                .order_by(OutboxRow.due_at, OutboxRow.id)
                .limit(most)
                .with_for_update(skip_locked=True)
            )
            rows = [_claimed(row) for row in connection.execute(due)]
            if rows:
                connection.execute(
                    update(OutboxRow)
                    .where(OutboxRow.id.in_([row.id for row in rows]))
                    .values(
                        due_at=now + timedelta(seconds=seconds),
                        attempts=OutboxRow.attempts + 1,
                        # Before anything is sent: what comes after may be known to nobody.
                        attempted_at=func.coalesce(OutboxRow.attempted_at, now),
                    )
                )
        return rows

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """Write down what became of claimed rows.

        Where another relay has claimed a row since, its word counts, but for the row of a job that the log has.
        """
        now = clock.now()
        with self._transaction() as connection:
            moved = []
            for outcome in outcomes:
                if isinstance(outcome, Moved):
                    moved.append((outcome.row.id, outcome.row.job_id))
                    continue
                row = outcome.row
                mine = update(OutboxRow).where(OutboxRow.id == row.id, OutboxRow.attempts == row.attempts)
                if isinstance(outcome, SetAside):
                    values: dict[str, Any] = {"set_aside_at": now, "code": outcome.code, "error": outcome.error}
                else:
                    values = {"due_at": AT_ONCE if outcome.delay == 0 else now + timedelta(seconds=outcome.delay)}
                    if not outcome.is_doubtful:
                        values["attempted_at"] = row.doubtful_since
                connection.execute(mine.values(**values))
            if moved:
                connection.execute(delete(OutboxRow).where(tuple_(OutboxRow.id, OutboxRow.job_id).in_(moved)))

    def backlog(self) -> Backlog:
        """Return what stands in the outbox."""
        waits = OutboxRow.set_aside_at.is_(None)
        with self._transaction() as connection:
            counts = [
                connection.scalar(
                    select(func.count()).select_from(select(1).where(one).limit(_MOST_COUNTED).subquery())
                )
                for one in (waits, OutboxRow.set_aside_at.is_not(None))
            ]
            oldest = connection.scalar(
                select(OutboxRow.created_at).where(waits).order_by(OutboxRow.due_at, OutboxRow.id).limit(1)
            )
        return Backlog(counts[0] or 0, counts[1] or 0, None if oldest is None else _aware(oldest))

    def set_aside_rows(self, most: int) -> list[SetAsideRow]:
        """Return rows that are set aside, the first that were written at first."""
        asked = (
            select(OutboxRow.id, OutboxRow.job_id, OutboxRow.type, OutboxRow.created_at, OutboxRow.set_aside_at)
            .add_columns(OutboxRow.code, OutboxRow.error)
            .where(OutboxRow.set_aside_at.is_not(None))
            .order_by(OutboxRow.id)
            .limit(most)
        )
        with self._transaction() as connection:
            return [
                SetAsideRow(id, job_id, type_, _aware(created_at), _aware(set_aside_at), code or "", error or "")
                for id, job_id, type_, created_at, set_aside_at, code, error in connection.execute(asked)  # noqa: A001
            ]

    def send_again(self, ids: Sequence[int]) -> int:
        """Have rows that are set aside sent again, as if they never had been; return how many of these there are."""
        with self._transaction() as connection:
            done = connection.execute(
                update(OutboxRow)
                .where(OutboxRow.id.in_(ids), OutboxRow.set_aside_at.is_not(None))
                .values(set_aside_at=None, code=None, error=None, attempted_at=None, due_at=AT_ONCE)
            )
            return done.rowcount

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                # Of the transaction alone: a pool of connections before the server may give this one to others.
                connection.execute(text(f"SET LOCAL statement_timeout = {_STATEMENT_WITHIN}"))
            yield connection


_COLUMNS = (
    *(OutboxRow.id, OutboxRow.job_id, OutboxRow.type),
    *(OutboxRow.payload, OutboxRow.options, OutboxRow.created_at, OutboxRow.attempts, OutboxRow.attempted_at),
)


def _claimed(row: Any) -> ClaimedRow:
    doubtful_since = None if row.attempted_at is None else _aware(row.attempted_at)
    return ClaimedRow(
        id=row.id,
        job_id=row.job_id,
        type=row.type,
        payload=row.payload,
        options=row.options,
        created_at=_aware(row.created_at),
        attempts=row.attempts + 1,
        doubtful_since=doubtful_since,
    )


def _aware(moment: datetime) -> datetime:
    """Return a moment of the database with its offset, which SQLite does not keep: all are written in UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _database_url(text: str) -> URL:
    """Return the URL with a driver that blocks.

    :raises ValueError: if it is no URL of a database that an outbox can be in.
    """
    try:
        url = make_url(text.replace("postgres://", "postgresql://", 1) if text.startswith("postgres://") else text)
    except ArgumentError:
        raise ValueError("The database must be a URL such as postgresql://user@host/shop.") from None
    database, _, driver = url.drivername.partition("+")
    if database == "postgresql":
        return url.set(drivername=f"postgresql+{driver if driver in _BLOCKING_DRIVERS else 'psycopg'}")
    if database != "sqlite":
        raise ValueError(
            "An outbox can be in PostgreSQL or SQLite: postgresql://user@host/shop, sqlite:////data/shop.db."
        )
    if not url.database or url.database == ":memory:":
        raise ValueError("An outbox cannot be in the memory of a process: sqlite:////data/shop.db names a file.")
    if not Path(url.database.removeprefix("file:").partition("?")[0]).is_file():
        raise ValueError("There is no such file of SQLite; the application that writes to the outbox makes it.")
    return url.set(drivername="sqlite")


def _engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() == "postgresql":
            # At any other level, rows that others have claimed meanwhile would be errors.
            return create_engine(
                url,
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                pool_size=1,
                connect_args={"connect_timeout": _CONNECT_WITHIN, "tcp_user_timeout": _SILENT_FOR},
            )
        engine = create_engine(url, connect_args={"timeout": _STATEMENT_WITHIN / 1000})
    except (ArgumentError, NoSuchModuleError):
        raise ValueError("The database must be a URL such as postgresql://user@host/shop.") from None
    event.listen(engine, "connect", _without_transactions)
    event.listen(engine, "begin", _begin_to_write)
    return engine


def _without_transactions(connection: Any, _: Any) -> None:
    # The driver would begin one by itself, and only with the first write: two relays could read the same rows.
    connection.isolation_level = None


def _begin_to_write(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
