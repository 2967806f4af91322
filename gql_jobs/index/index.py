"""The index: every job and its events as of one position of the stream, in SQLite.

The only writer of its file. Messages and the position they lead to are stored in one transaction, so it resumes
exactly where it stopped. It never decides anything: what a message does to a job is the fold's business.

Damage is looked for where it is met, not at opening: reading the whole file to be sure takes longer than many a start
may. Whoever meets it, be it a read or a write, has the file deleted and the process end; the next start builds it anew.
"""

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from gql_jobs.index.tables import (
    READ_ERRORS,
    create_index_file,
    delete_index_file,
    is_damage,
    microseconds,
    moment_at,
    open_index_file,
    stored_event,
    stored_job,
)
from gql_jobs.index.writer import Changes, IndexedJob
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind, Message, Receipt
from gql_jobs.jobs.model import Artifact, Cursor, Job
from gql_jobs.processes.event_loop import in_background

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_HISTORY = (
    "SELECT seq, nth, kind, state FROM events WHERE job = :number"
    " UNION ALL SELECT seq, 0, 'progress', state FROM progress WHERE job = :number"
)
_JOBS_BY_NUMBER = "SELECT number, id, spec, state FROM jobs WHERE number IN (SELECT value FROM json_each(?))"
_JOBS_BY_ID = "SELECT number, id, spec, state FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
_KEPT = 10_000
"""Jobs that are kept in memory."""
_DAMAGED = "The index of this process was damaged and is being built anew; try again."
_decode_artifact = msgspec.json.Decoder(Artifact).decode


class DamagedIndex(Exception):
    """The index file was found damaged and is gone: this process cannot go on. Its message is a sentence."""


class Unread(NamedTuple):
    """A message that nobody here can read, set aside."""

    seq: int
    subject: str
    reason: str


class Note(NamedTuple):
    """One receipt of a cancellation, and when the stream stored it."""

    receipt: Receipt
    at: datetime
    attempt: int
    worker_id: str


class Index:
    """Jobs and events as of ``position``. Used from the event loop's thread only; every read here takes microseconds.

    A read that meets damage raises ``QueueUnavailable``, and so does every later one; the process has to end then
    (``until_damaged``).
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        """:param database: an open connection to the file, an index of the stream that is followed."""
        self.path = path
        self._database = database
        self._damage: DamagedIndex | None = None
        self._damage_found = asyncio.Event()
        self._recent: OrderedDict[str, IndexedJob] = OrderedDict()
        """The jobs that messages spoke of last."""
        self.rebuilt = 0
        """Whether it was begun anew at opening: 0 or 1."""
        self.position = self._number("position")
        """The sequence of the last message applied."""
        self.horizon = self._number("horizon")
        """Cursors below it may have lost events to expiry."""
        self.unreadable: int = database.execute("SELECT count(*) FROM unreadable").fetchone()[0]
        """Messages set aside."""

    def apply(self, messages: Sequence[Message], position: int, unread: Iterable[Unread] = ()) -> list[Event]:
        """Fold messages into the index, up to ``position``; return the events that clients see, in order.

        :raises DamagedIndex: if the file is damaged; nothing has changed then.
        :raises sqlite3.Error: if it cannot be written for another reason, such as a full disk.
        """
        try:
            changes = Changes(self._jobs_of(messages))
            changes.fold(messages)
            horizon = max(self.horizon, changes.horizon)
            with self._transaction() as database:
                changes.store(database)
                set_aside = database.executemany("INSERT OR IGNORE INTO unreadable VALUES (?, ?, ?)", unread).rowcount
                database.executemany(
                    "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                    [("position", str(position)), ("horizon", str(horizon)), ("applied", _now())],
                )
        except READ_ERRORS as error:
            damage = self._damage_of(error)
            if damage is None:
                raise
            raise damage from error
        self.position, self.horizon = position, horizon
        self.unreadable += max(set_aside, 0)
        self._keep(changes.after)
        return changes.events

    def job(self, job_id: str) -> Job | None:
        """Return the job as of ``position``; None if there is none, or if looking for it has met damage."""
        found = self._recent.get(job_id)
        if found is not None:
            return found.job
        try:
            rows = self._read(_indexed_job, _JOBS_BY_ID, (_listed([job_id]),))
        except QueueUnavailable:
            return None
        return rows[0].job if rows else None

    def events(self, job_id: str) -> list[Event]:
        """Return the job's history, oldest first: every lifecycle event and the newest progress."""
        return self._events(job_id, " ORDER BY seq, nth")

    def latest_event(self, job_id: str) -> Event | None:
        """Return the newest event of the job; None if there is no such job."""
        found = self._events(job_id, " ORDER BY seq DESC, nth DESC LIMIT 1")
        return found[0] if found else None

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Return the job's files, by name."""
        return self._read(_decode_artifact, "SELECT artifact FROM artifacts WHERE job_id = ? ORDER BY name", (job_id,))

    def artifact(self, job_id: str, name: str) -> Artifact | None:
        """Return the job's file of that name, if there is one."""
        sql = "SELECT artifact FROM artifacts WHERE job_id = ? AND name = ?"
        return next(iter(self._read(_decode_artifact, sql, (job_id, name))), None)

    def messages(self, job_id: str) -> list[tuple[int, Kind]]:
        """Return sequence and kind of the job's messages, as far as they became events."""
        sql = f"SELECT seq, kind FROM ({_HISTORY})"  # noqa: S608
        return self._read(lambda seq, kind: (seq, Kind(kind)), sql, {"number": self._number_of(job_id)})

    def notes(self, job_id: str, cancelled_seq: int) -> list[Note]:
        """Return the receipts of the cancellation of that sequence, oldest first."""
        sql = "SELECT receipt, at, attempt, worker_id FROM notes WHERE job_id = ? AND cancelled_seq = ? ORDER BY seq"
        return self._read(_note, sql, (job_id, cancelled_seq))

    def first_seq(self, job_id: str) -> int:
        """Return the sequence at which the job's history begins; 1 for a job that is not known here."""
        (first,) = self._read(_value, "SELECT min(seq) FROM events WHERE job = ?", (self._number_of(job_id),))
        return first or 1

    def expired_before(self, moment: datetime, limit: int) -> list[str]:
        """Return jobs whose expiry was applied before that moment and whose remains have not been looked for."""
        return self._read(_value, "SELECT job_id FROM expired WHERE at < ? LIMIT ?", (microseconds(moment), limit))

    def forget_expired(self, job_ids: Iterable[str]) -> None:
        """Record that nothing is left of these expired jobs.

        :raises sqlite3.Error: if the file cannot be written.
        """
        try:
            with self._transaction() as database:
                database.executemany("DELETE FROM expired WHERE job_id = ?", [(job_id,) for job_id in job_ids])
        except READ_ERRORS as error:
            raise self.read_error(error) from error

    def away_since(self, moment: datetime) -> bool:
        """Whether nothing has been applied since that moment."""
        return self.position > 0 and self._number("applied") < microseconds(moment)

    def require_sound(self) -> None:
        """Do nothing, unless the file was found damaged.

        :raises QueueUnavailable: if it was.
        """
        if self._damage is not None:
            raise QueueUnavailable(_DAMAGED)

    def read_error(self, error: Exception) -> Exception:
        """Return what a read, of this or of any other connection to the file, has to raise for an error it has met.

        ``QueueUnavailable`` if the file is damaged, which ends the process (``until_damaged``); else ``error``.
        """
        return error if self._damage_of(error) is None else QueueUnavailable(_DAMAGED)

    async def until_damaged(self) -> None:
        """Wait until anybody finds the file damaged.

        :raises DamagedIndex: then.
        """
        await self._damage_found.wait()
        if self._damage is not None:
            raise self._damage

    def close(self) -> None:
        """Close the file; what was applied stays."""
        self._database.close()

    def _damage_of(self, error: Exception) -> DamagedIndex | None:
        """The damage that an error speaks of, if any: at the first one the file is deleted and closed."""
        if self._damage is None and is_damage(error):
            self._damage = DamagedIndex(
                f"the index {self.path} is damaged ({error}); it is built anew when this process is started again"
            )
            # First of all: whoever is started after this process was killed must not open the file again.
            try:
                delete_index_file(self.path)
            except OSError as failure:
                log.warning("the damaged index %s cannot be deleted: %s", self.path, failure)
            # Whatever still reads fails, and finds the damage set.
            self._database.close()
            self._damage_found.set()
        return self._damage

    def _read(
        self, make: Callable[..., _T], sql: str, values: "Sequence[str | int | None] | Mapping[str, int | None]"
    ) -> list[_T]:
        """What ``make`` makes of each row."""
        try:
            return [make(*row) for row in self._database.execute(sql, values)]
        except READ_ERRORS as error:
            raise self.read_error(error) from error

    def _events(self, job_id: str, order: str) -> list[Event]:
        found = self._read(_row, "SELECT number, spec FROM jobs WHERE id = ?", (job_id,))
        if not found:
            return []
        number, spec = found[0]

        def event(seq: int, nth: int, kind: str, state: bytes) -> Event:
            return stored_event(Cursor(seq, nth), kind, job_id, spec, state)

        return self._read(event, _HISTORY + order, {"number": number})

    def _number_of(self, job_id: str) -> int | None:
        return next(iter(self._read(_value, "SELECT number FROM jobs WHERE id = ?", (job_id,))), None)

    def _number(self, key: str) -> int:
        row = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row is not None else 0

    def _jobs_of(self, messages: Iterable[Message]) -> dict[str, IndexedJob]:
        """The jobs of these messages that there are; raises what SQLite raises of a damaged file."""
        known: dict[str, IndexedJob] = {}
        submissions: dict[str, int] = {}
        for message in messages:
            job_id = message.job_id
            kept = self._recent.get(job_id)
            if kept is not None:
                known[job_id] = kept
            else:
                submissions[job_id] = message.body.submission
        # The submission is the number of the job's row for all but retried and scheduled jobs. Jobs that run one after
        # the other have been created so: their rows lie side by side, while random ids lie anywhere.
        known |= self._stored(_JOBS_BY_NUMBER, [number for number in submissions.values() if number])
        return known | self._stored(_JOBS_BY_ID, [job_id for job_id in submissions if job_id not in known])

    def _stored(self, sql: str, keys: list[int] | list[str]) -> dict[str, IndexedJob]:
        rows = self._database.execute(sql, (_listed(keys),)) if keys else ()
        return {row[1]: _indexed_job(*row) for row in rows}

    def _keep(self, jobs: Mapping[str, IndexedJob | None]) -> None:
        """Keep what has become of these jobs in memory; None for what is gone."""
        recent = self._recent
        for job_id, known in jobs.items():
            recent.pop(job_id, None)
            if known is not None:
                recent[job_id] = known
        while len(recent) > _KEPT:
            recent.popitem(last=False)

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


def _row(*row: Any) -> tuple[Any, ...]:
    return row


def _value(value: Any) -> Any:
    return value


def _indexed_job(number: int, job_id: str, spec: bytes, state: bytes) -> IndexedJob:
    return IndexedJob(number, stored_job(job_id, spec, state))


def _note(receipt: str, at: int, attempt: int, worker_id: str) -> Note:
    return Note(Receipt(receipt), moment_at(at), attempt, worker_id)


def _listed(keys: list[int] | list[str]) -> str:
    return msgspec.json.encode(keys).decode()


def _now() -> str:
    return str(microseconds(datetime.now(UTC)))


@contextmanager
def open_index(path: Path, stream_created: str, last_seq: int, longest_absence: float) -> Iterator[Index]:
    """Open the index of the stream that was created at that time, until the block ends.

    It is begun anew if it cannot be read, is ahead of ``last_seq``, knowing a history that is gone, or was away for
    more than ``longest_absence`` seconds, so that it may have missed expiries.

    :raises OSError, sqlite3.OperationalError: if no file can be made there.
    """
    index = _resumed(path, stream_created, last_seq, datetime.now(UTC) - timedelta(seconds=longest_absence))
    if index is None:
        index = Index(path, create_index_file(path, stream_created))
        index.rebuilt = 1
    try:
        yield index
    finally:
        index.close()


def _resumed(path: Path, stream_created: str, last_seq: int, applied_since: datetime) -> Index | None:
    database = open_index_file(path, stream_created)
    if database is None:
        return None
    try:
        index = Index(path, database)
        if index.position <= last_seq and not index.away_since(applied_since):
            return index
        log.info("the index %s is not of the stream as it is now and is built anew", path)
    except READ_ERRORS as error:
        log.warning("the index %s cannot be read (%s) and is built anew", path, error)
    database.close()
    return None


# SQLite commits into a write-ahead log and moves it into the file by itself at the commit that makes it long enough,
# which keeps the event loop waiting for the disk. Here a thread does it: most of it while others are written, and the
# rest while the feed, and nothing else, waits, because the log begins again only once all of it has been moved.

WAL_INTERVAL = 0.25
"""Seconds between two looks at how much was written."""
WAL_MESSAGES = 200
"""Messages whose pages are worth moving: some 2 500 where each is a transaction of its own, 10 MiB."""


@asynccontextmanager
async def keep_wal_short(index: Index, applying: asyncio.Lock) -> AsyncIterator[None]:
    """Move the write-ahead log of an index into its file, again and again until the block ends.

    :param applying: held by whoever writes messages into the index, for as long as that takes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="write-ahead-log") as thread:
        async with in_background(_keep_short(index, applying, thread)):
            yield


async def _keep_short(index: Index, applying: asyncio.Lock, thread: ThreadPoolExecutor) -> None:
    loop, moved = asyncio.get_running_loop(), index.position
    while True:
        await asyncio.sleep(WAL_INTERVAL)
        if index.position - moved < WAL_MESSAGES:
            continue
        moved = index.position
        await loop.run_in_executor(thread, move_wal, index.path)
        async with applying:
            await loop.run_in_executor(thread, move_wal, index.path)


def move_wal(path: Path) -> None:
    """Move what there is of an index's write-ahead log, without waiting for anybody."""
    try:
        # Never made anew: the file may be gone.
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        # Whoever writes meets it as well and deals with it; until then SQLite moves the log by itself.
        log.debug("the log of the index %s was not moved: %s", path, error)
