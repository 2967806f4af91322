"""The index: every job and its events as of one position of the stream, in SQLite.

The only writer of its file. Messages and the position they lead to are stored in one transaction, so it resumes
exactly where it stopped. It never decides anything: what a message does to a job is the fold's business.

Damage is looked for where it is met, not at opening: reading the whole file to be sure takes longer than many a start
may. Whoever meets it, be it a read or a write, is told to come again, and the file is begun anew at once.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import msgspec

from gql_jobs.index.tables import READ_ERRORS, event_of, is_damage, microseconds, new_database, open_database, read_only
from gql_jobs.index.writer import Changes, KnownJobs, Note, notes_of
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind, Message
from gql_jobs.jobs.model import Artifact, Cursor, Job
from gql_jobs.processes.event_loop import in_background

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_decode_artifact = msgspec.json.Decoder(Artifact).decode
_HISTORY = (
    "SELECT seq, nth, kind, state FROM events WHERE job = :number"
    " UNION ALL SELECT seq, 0, 'progress', state FROM progress WHERE job = :number"
)


class Unread(NamedTuple):
    """A message that nobody here can read, set aside."""

    seq: int
    subject: str
    reason: str


def _guarded(read: "Callable[Concatenate[Index, P], T]") -> "Callable[Concatenate[Index, P], T]":
    """A read that meets damage has the index built anew, and fails with ``QueueUnavailable``."""

    @wraps(read)
    def guarded(self: "Index", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(self, *args, **kwargs)
        except READ_ERRORS as error:
            raise self.failed(error, self.generation) from error

    return guarded


class Index:
    """Used from the event loop's thread only; every read here takes microseconds.

    Each but ``job`` raises ``QueueUnavailable`` if it meets damage. ``on_renewal`` is called when it was begun anew.
    """

    def __init__(self, path: Path, stream_created: str, database: sqlite3.Connection) -> None:
        self.path = path
        self._stream_created = stream_created
        self._known = KnownJobs()
        self.generation = 0
        """How often the file was replaced while it was open."""
        self.rebuilt = 0
        """How often the index was begun anew, a first time and at opening included."""
        self.on_renewal: Callable[[], None] = lambda: None
        self._adopt(database)

    def _adopt(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._known.forget()
        self.position = self._number("position")
        """The sequence of the last message applied."""
        self.horizon = self._number("horizon")
        """Cursors below it may have lost events to expiry."""
        self.unreadable: int = database.execute("SELECT count(*) FROM unreadable").fetchone()[0]
        """Messages set aside."""

    def apply(self, messages: Sequence[Message], position: int, unread: Iterable[Unread] = ()) -> list[Event]:
        """Fold messages into the index, up to ``position``; returns the events that clients see, in order.

        None at all if the file turned out to be damaged: it is begun anew then, and everything has to come again.
        """
        try:
            return self._apply(messages, position, unread)
        except READ_ERRORS as error:
            if not is_damage(error):
                raise
            self._renew(error)
            return []

    def failed(self, error: Exception, generation: int) -> Exception:
        """What to raise instead of an error that a read of that generation met; damage has the index begun anew."""
        if generation == self.generation:
            if not is_damage(error):
                return error
            self._renew(error)
        return QueueUnavailable("The index of this process was damaged and is being built anew; try again.")

    def _renew(self, error: Exception) -> None:
        log.warning("the index %s is damaged (%s) and is built anew", self.path, error)
        self._database.close()
        self._adopt(new_database(self.path, self._stream_created))
        self.generation += 1
        self.rebuilt += 1
        self.on_renewal()

    def _apply(self, messages: Sequence[Message], position: int, unread: Iterable[Unread]) -> list[Event]:
        changes = Changes(self._known.of(self._database, messages))
        changes.fold(messages)
        horizon = max(self.horizon, changes.horizon)
        with self._transaction() as database:
            changes.store(database)
            set_aside = database.executemany("INSERT OR IGNORE INTO unreadable VALUES (?, ?, ?)", unread).rowcount
            database.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [("position", str(position)), ("horizon", str(horizon)), ("applied", _now())],
            )
        self.position, self.horizon = position, horizon
        self.unreadable += max(set_aside, 0)
        self._known.keep(changes.after)
        return changes.events

    def job(self, job_id: str) -> Job | None:
        """The job as of ``position``; an index that meets damage here is begun anew and knows no job."""
        try:
            return self._job(job_id)
        except READ_ERRORS as error:
            if not is_damage(error):
                raise
            self._renew(error)
            return None

    def _job(self, job_id: str) -> Job | None:
        found = self._known.one(self._database, job_id)
        return found.job if found is not None else None

    @_guarded
    def events(self, job_id: str) -> list[Event]:
        """The job's history, oldest first: every lifecycle event and the newest progress."""
        return self._events(job_id, " ORDER BY seq, nth")

    @_guarded
    def latest_event(self, job_id: str) -> Event | None:
        """The newest event of the job."""
        found = self._events(job_id, " ORDER BY seq DESC, nth DESC LIMIT 1")
        return found[0] if found else None

    @_guarded
    def artifacts(self, job_id: str) -> list[Artifact]:
        """The job's files, by name."""
        rows = self._database.execute("SELECT artifact FROM artifacts WHERE job_id = ? ORDER BY name", (job_id,))
        return [_decode_artifact(row[0]) for row in rows]

    @_guarded
    def artifact(self, job_id: str, name: str) -> Artifact | None:
        """The job's file of that name."""
        sql = "SELECT artifact FROM artifacts WHERE job_id = ? AND name = ?"
        row = self._database.execute(sql, (job_id, name)).fetchone()
        return _decode_artifact(row[0]) if row is not None else None

    @_guarded
    def messages(self, job_id: str) -> list[tuple[int, Kind]]:
        """Sequence and kind of the job's messages, as far as they became events."""
        sql = f"SELECT seq, kind FROM ({_HISTORY})"  # noqa: S608
        rows = self._database.execute(sql, {"number": self._number_of(job_id)})
        return [(seq, Kind(kind)) for seq, kind in rows]

    @_guarded
    def notes(self, job_id: str, cancelled_seq: int) -> list[Note]:
        """The receipts of the cancellation of that sequence, oldest first."""
        return notes_of(self._database, job_id, cancelled_seq)

    @_guarded
    def first_seq(self, job_id: str) -> int:
        """Where the job's history begins in the stream; 1 for a job that is not known here."""
        row = self._database.execute("SELECT min(seq) FROM events WHERE job = ?", (self._number_of(job_id),)).fetchone()
        return row[0] or 1

    @_guarded
    def expired_before(self, moment: datetime, limit: int) -> list[str]:
        """Jobs whose expiry was applied before that moment and whose remains have not been looked for."""
        sql = "SELECT job_id FROM expired WHERE at < ? LIMIT ?"
        return [row[0] for row in self._database.execute(sql, (microseconds(moment), limit))]

    @_guarded
    def forget_expired(self, job_ids: Iterable[str]) -> None:
        """Nothing is left of these jobs."""
        with self._transaction() as database:
            database.executemany("DELETE FROM expired WHERE job_id = ?", [(job_id,) for job_id in job_ids])

    def away_since(self, moment: datetime) -> bool:
        """Whether nothing has been applied since that moment."""
        return self.position > 0 and self._number("applied") < microseconds(moment)

    def close(self) -> None:
        """Close the file; what was applied stays."""
        self._database.close()

    def _events(self, job_id: str, order: str) -> list[Event]:
        found = self._database.execute("SELECT number, spec FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if found is None:
            return []
        rows = self._database.execute(_HISTORY + order, {"number": found[0]})
        return [event_of(Cursor(seq, nth), kind, job_id, found[1], state) for seq, nth, kind, state in rows]

    def _number_of(self, job_id: str) -> int | None:
        row = self._database.execute("SELECT number FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row[0] if row is not None else None

    def _number(self, key: str) -> int:
        row = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row is not None else 0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN")
        try:
            yield self._database
        except BaseException:
            # A damaged file may fail in this too, and SQLite has rolled back by itself where the disk is full.
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _now() -> str:
    return str(microseconds(datetime.now(UTC)))


@contextmanager
def open_index(path: Path, stream_created: str, last_seq: int, longest_absence: float) -> Iterator[Index]:
    """The index of that stream.

    Begun anew if it cannot be read, is ahead of ``last_seq``, knowing a history that is gone, or was away for more than
    ``longest_absence`` seconds, so that it may have missed expiries.
    """
    index = _resumed(path, stream_created, last_seq, datetime.now(UTC) - timedelta(seconds=longest_absence))
    if index is None:
        index = Index(path, stream_created, new_database(path, stream_created))
        index.rebuilt = 1
    try:
        yield index
    finally:
        index.close()


def _resumed(path: Path, stream_created: str, last_seq: int, heard_since: datetime) -> Index | None:
    database = open_database(path, stream_created)
    if database is None:
        return None
    try:
        index = Index(path, stream_created, database)
        if index.position <= last_seq and not index.away_since(heard_since):
            return index
        log.info("the index %s is not of the stream as it is now and is built anew", path)
    except READ_ERRORS as error:
        log.warning("the index %s cannot be read (%s) and is built anew", path, error)
    database.close()
    return None


# Moving what was committed from SQLite's log into the index file: in a thread, because it waits for the disk.
#
# SQLite does it at the commit that makes the log long enough: 36 to 50 ms in which the process answered nobody, once in
# 300 messages. Here most of it is moved while others are written, and the rest, which must be all there is for the log
# to begin anew, while the feed waits and nothing else does.

EVERY = 0.25
"""Seconds between two looks at how much was written."""
ENOUGH = 200
"""Messages whose pages are worth moving: some 2 500 where each is a transaction of its own, 10 MiB."""


@asynccontextmanager
async def keep_log_short(index: Index, applying: asyncio.Lock) -> AsyncIterator[None]:
    """Keep the log of an index short until the block ends.

    :param applying: held by whoever writes messages into the index, for as long as that takes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as thread:
        async with in_background(_keep_short(index, applying, thread)):
            yield


async def _keep_short(index: Index, applying: asyncio.Lock, thread: ThreadPoolExecutor) -> None:
    loop, moved = asyncio.get_running_loop(), index.position
    while True:
        await asyncio.sleep(EVERY)
        # An index that was begun anew is behind what was moved of the old one.
        if 0 <= index.position - moved < ENOUGH:
            continue
        moved = index.position
        await loop.run_in_executor(thread, _checkpoint, index.path)
        async with applying:
            await loop.run_in_executor(thread, _checkpoint, index.path)


def _checkpoint(path: Path) -> None:
    """Move what there is, without waiting for anybody."""
    try:
        # Never made anew: the file may have been replaced, or be gone.
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        # Whoever writes meets it as well and deals with it; until then SQLite moves the log by itself.
        log.debug("the log of the index %s was not moved: %s", path, error)


# A connection to the index file that is in use now: one that was replaced would be read as it was, for ever.


class Opened(NamedTuple):
    """A connection to the file of that generation of the index."""

    generation: int
    database: sqlite3.Connection


def current(opened: Opened | None, index: Index, generation: int) -> Opened:
    """``opened``, or a new connection where it is none to that generation of the file."""
    if opened is not None:
        if opened.generation == generation:
            return opened
        opened.database.close()
    return Opened(generation, read_only(index.path))
