"""The index: every job and its events as of one position of the stream, in SQLite.

The only writer of its file. Messages and the position they lead to are stored in one transaction, so it resumes
exactly where it stopped. It never decides anything: what a message does to a job is the fold's business.

Damage is looked for where it is met, not at opening: reading the whole file to be sure takes longer than many a start
may. Whoever meets it, be it a read or a write, is told to come again, and the file is begun anew at once.
"""

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import msgspec

from gql_jobs.jobs.artifact import Artifact
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event, events_of, fold
from gql_jobs.jobs.messages import Kind, Message, Saved
from gql_jobs.jobs.model import Job
from gql_jobs.views.damage import READ_ERRORS, is_damage
from gql_jobs.views.tables import event_of, job_of, job_row, microseconds, new_database, open_database, state_blob

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_CACHED_JOBS = 10_000
_decode_artifact = msgspec.json.Decoder(Artifact).decode
_HISTORY = (
    "SELECT seq, nth, kind, state FROM events WHERE job_id = :id"
    " UNION ALL SELECT seq, 0, 'progress', state FROM progress WHERE job_id = :id"
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
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self.generation = 0
        """How often the file was replaced while it was open."""
        self.rebuilt = 0
        """How often the index was begun anew, a first time and at opening included."""
        self.on_renewal: Callable[[], None] = lambda: None
        self._adopt(database)

    def _adopt(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._jobs.clear()
        self.position = self._number("position")
        """The sequence of the last message applied."""
        self.horizon = self._number("horizon")
        """Cursors below it may have lost events to expiry."""
        self.unreadable: int = database.execute("SELECT count(*) FROM unreadable").fetchone()[0]
        """Messages set aside."""

    def apply(self, messages: Iterable[Message], position: int, unread: Iterable[Unread] = ()) -> list[Event]:
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

    def _apply(self, messages: Iterable[Message], position: int, unread: Iterable[Unread]) -> list[Event]:
        changes = _Changes(self._job)
        for message in messages:
            changes.fold(message)
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
        self._remember(changes.after)
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
        cached = self._jobs.get(job_id)
        if cached is not None:
            return cached
        row = self._database.execute("SELECT spec, state FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return job_of(*row) if row is not None else None

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
        return [(seq, Kind(kind)) for seq, kind in self._database.execute(sql, {"id": job_id})]

    @_guarded
    def first_seq(self, job_id: str) -> int:
        """Where the job's history begins in the stream; 1 for a job that is not known here."""
        row = self._database.execute("SELECT min(seq) FROM events WHERE job_id = ?", (job_id,)).fetchone()
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
        spec = self._database.execute("SELECT spec FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if spec is None:
            return []
        rows = self._database.execute(_HISTORY + order, {"id": job_id})
        return [event_of(seq, nth, kind, spec[0], state) for seq, nth, kind, state in rows]

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

    def _remember(self, jobs: dict[str, Job | None]) -> None:
        for job_id, job in jobs.items():
            self._jobs.pop(job_id, None)
            if job is not None:
                self._jobs[job_id] = job
        while len(self._jobs) > _CACHED_JOBS:
            self._jobs.popitem(last=False)


class _Changes:
    """What a batch of messages does, worked out in memory before the transaction."""

    def __init__(self, job: Callable[[str], Job | None]) -> None:
        self._job = job
        self.before: dict[str, Job | None] = {}
        self.after: dict[str, Job | None] = {}
        self.events: list[Event] = []
        self.horizon = 0
        self._removed: dict[str, int] = {}
        self._artifacts: dict[tuple[str, str], Artifact] = {}

    def fold(self, message: Message) -> None:
        job_id = message.job_id
        if job_id not in self.after:
            self.before[job_id] = self.after[job_id] = self._job(job_id)
        job = self.after[job_id]
        if job is not None and isinstance(message.body, Saved):
            self._artifacts[job_id, message.body.artifact.name] = message.body.artifact
        after = fold(job, message)
        self.events += events_of(job, message, after)
        if message.kind is Kind.EXPIRED and after is None:
            # Also of a job that was deleted before this index was begun: something may be left of it.
            self._removed[job_id] = microseconds(message.at)
            # One of an older version does not say where the events ended.
            self.horizon = max(self.horizon, message.body.event_seq or (message.seq if job is None else 0))
        if job is not None and after is None:
            self._artifacts = {key: a for key, a in self._artifacts.items() if key[0] != job_id}
            self.events = [event for event in self.events if event.job.id != job_id]
            self.horizon = max(self.horizon, job.last_seq)
        self.after[job_id] = after

    def store(self, database: sqlite3.Connection) -> None:
        self._remove(database)
        changed = [job for job_id, job in self.after.items() if job is not None and job is not self._was(job_id)]
        database.executemany(
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " status = excluded.status, updated = excluded.updated, finished = excluded.finished,"
            " state = excluded.state",
            [job_row(job) for job in changed],
        )
        tags = [(tag, job.id) for job in changed if self._was(job.id) is None for tag in job.spec.tags]
        database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", tags)
        self._store_events(database)
        files = [(*key, msgspec.json.encode(artifact)) for key, artifact in self._artifacts.items()]
        database.executemany("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?)", files)
        self._count(database)

    def _was(self, job_id: str) -> Job | None:
        return None if job_id in self._removed else self.before[job_id]

    def _store_events(self, database: sqlite3.Connection) -> None:
        progress = {e.job.id: e for e in self.events if e.kind is Kind.PROGRESS}
        lasting = [e for e in self.events if e.kind is not Kind.PROGRESS]
        database.executemany(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)",
            [(e.cursor.seq, e.cursor.nth, e.job.id, e.kind.value, state_blob(e.job)) for e in lasting],
        )
        database.executemany(
            "INSERT OR REPLACE INTO progress VALUES (?, ?, ?)",
            [(job_id, e.cursor.seq, state_blob(e.job)) for job_id, e in progress.items()],
        )

    def _remove(self, database: sqlite3.Connection) -> None:
        ids = [(job_id,) for job_id in self._removed]
        known = [job for job_id in self._removed if (job := self.before[job_id]) is not None]
        tags = [(tag, job.id) for job in known for tag in job.spec.tags]
        database.executemany("INSERT OR REPLACE INTO expired VALUES (?, ?)", self._removed.items())
        database.executemany("DELETE FROM jobs WHERE id = ?", ids)
        database.executemany("DELETE FROM events WHERE job_id = ?", ids)
        database.executemany("DELETE FROM progress WHERE job_id = ?", ids)
        database.executemany("DELETE FROM artifacts WHERE job_id = ?", ids)
        database.executemany("DELETE FROM tags WHERE tag = ? AND job_id = ?", tags)

    def _count(self, database: sqlite3.Connection) -> None:
        deltas: dict[tuple[str, str, str, int], int] = {}
        for job_id, after in self.after.items():
            for job, delta in ((self.before[job_id], -1), (after, 1)):
                if job is not None:
                    spec = job.spec
                    key = (job.status.value, spec.type, spec.queue, spec.priority.rank)
                    deltas[key] = deltas.get(key, 0) + delta
        database.executemany(
            "INSERT INTO counts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(*key, delta) for key, delta in deltas.items() if delta],
        )


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
