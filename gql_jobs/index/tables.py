"""The index file: its tables, how jobs and events become rows, and when the file must be thrown away.

The file holds nothing that the stream does not hold: it may be deleted at any time and is then built anew.
"""

import logging
import secrets
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Cursor, Job, JobError, JobStatus, Spec

# What a damaged index file looks like from here. Whoever meets it has the index built anew: the stream has it all.

READ_ERRORS = (sqlite3.DatabaseError, msgspec.DecodeError)
"""What a read may fail with; ``is_damage`` tells whether the file is to blame."""
_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_EXTENDED_CODES = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED})
_WORDS = ("no such table", "no such column", "Could not decode to UTF-8")


def is_damage(error: BaseException) -> bool:
    """Whether the file is to blame: a full or failing disk, or a mistake of ours, would not end with a new one."""
    if isinstance(error, msgspec.DecodeError):
        # Only blobs that this package has written are decoded where this is asked.
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _CODES or code in _EXTENDED_CODES:
        return True
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(_WORDS)


log = logging.getLogger(__name__)

FORMAT = "7"
"""Raised when tables or rows change: an index of another format is rebuilt."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL, queue TEXT NOT NULL, status TEXT NOT NULL, priority INTEGER NOT NULL,
  created INTEGER NOT NULL, updated INTEGER NOT NULL, finished INTEGER NOT NULL, run_at INTEGER,
  spec BLOB NOT NULL, state BLOB NOT NULL
);
CREATE INDEX jobs_created ON jobs (created, id);
CREATE INDEX jobs_updated ON jobs (updated, id);
CREATE INDEX jobs_finished ON jobs (finished, id);
CREATE INDEX jobs_priority ON jobs (priority, created, id);
CREATE INDEX jobs_status ON jobs (status, created, id);
CREATE INDEX jobs_type ON jobs (type, created, id);
CREATE INDEX jobs_type_status ON jobs (type, status, created, id);
CREATE INDEX jobs_queue ON jobs (queue, status, updated);
CREATE TABLE tags (tag TEXT NOT NULL, job_id TEXT NOT NULL, PRIMARY KEY (tag, job_id)) WITHOUT ROWID;
CREATE TABLE counts (
  status TEXT NOT NULL, type TEXT NOT NULL, queue TEXT NOT NULL, priority INTEGER NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (status, type, queue, priority)
) WITHOUT ROWID;
CREATE TABLE events (
  seq INTEGER NOT NULL, nth INTEGER NOT NULL, job INTEGER NOT NULL, kind TEXT NOT NULL, state BLOB NOT NULL,
  PRIMARY KEY (seq, nth)
) WITHOUT ROWID;
CREATE INDEX events_job ON events (job, seq, nth);
CREATE TABLE progress (job INTEGER PRIMARY KEY, seq INTEGER NOT NULL, state BLOB NOT NULL);
CREATE INDEX progress_seq ON progress (seq);
CREATE TABLE artifacts (
  job_id TEXT NOT NULL, name TEXT NOT NULL, artifact BLOB NOT NULL, PRIMARY KEY (job_id, name)
) WITHOUT ROWID;
CREATE TABLE notes (
  job_id TEXT NOT NULL, seq INTEGER NOT NULL, cancelled_seq INTEGER NOT NULL, receipt TEXT NOT NULL,
  at INTEGER NOT NULL, attempt INTEGER NOT NULL, worker_id TEXT NOT NULL, PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;
CREATE TABLE expired (job_id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE unreadable (seq INTEGER PRIMARY KEY, subject TEXT NOT NULL, reason TEXT NOT NULL);
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode_spec = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(Spec).decode
_encode_state = msgspec.msgpack.Encoder().encode


class _State(Struct, array_like=True, frozen=True):
    """The state of a job as it is stored, the fields in the order in which ``state_blob`` writes them."""

    status: JobStatus
    submission_seq: int
    last_seq: int
    updated_at: datetime
    event_seq: int
    attempt: int
    progress: int
    progress_message: str | None
    worker_id: str | None
    errors: tuple[JobError, ...]
    result: bytes | None
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None
    superseded_attempt: int | None
    failed_at: datetime | None


_decode_state = msgspec.msgpack.Decoder(_State).decode


def open_database(path: Path, stream_created: str) -> sqlite3.Connection | None:
    """The index of the stream that was created at that time; None, with a log line, for any other file or none."""
    if not path.is_file():
        return None
    database = _open(path)
    try:
        _prepare(database)
        if meta_of(database, stream_created) is not None:
            return database
        if _schema(database):
            log.info("the index %s is not one of this stream and is built anew", path)
    except sqlite3.DatabaseError as error:
        log.warning("the index %s cannot be read (%s) and is built anew", path, error)
    database.close()
    return None


def new_database(path: Path, stream_created: str) -> sqlite3.Connection:
    """An empty index in place of what was there."""
    _clear(path)
    database = _open(path)
    _prepare(database)
    database.executescript(_TABLES)
    database.execute("INSERT INTO meta VALUES ('format', ?), ('stream_created', ?)", (FORMAT, stream_created))
    return database


def _clear(path: Path) -> None:
    """Nothing is left of an older index; SQLite would read its log into the new one."""
    for suffix in ("", "-wal", "-shm"):
        place = path.with_name(path.name + suffix)
        if place.is_dir() and not place.is_symlink():
            # Not made by us, so it is not ours to delete.
            aside = place.with_name(f"{place.name}.aside-{secrets.token_hex(4)}")
            place.rename(aside)
            log.warning("a folder was in the place of the index and is now %s", aside)
        else:
            place.unlink(missing_ok=True)


def read_only(path: Path) -> sqlite3.Connection:
    """A connection for one reading thread."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA query_only = ON")
    return database


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(path, isolation_level=None, cached_statements=256)


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    # Without an fsync per commit: what a power loss takes away is read from the stream again.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA cache_size = -65536")
    # Done elsewhere, long before; this is for an index whose log nobody keeps short, or cannot.
    database.execute("PRAGMA wal_autocheckpoint = 40000")


def _schema(database: sqlite3.Connection) -> dict[str, str]:
    return dict(database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall())


@cache
def _own_schema() -> dict[str, str]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_TABLES)
        return _schema(database)


def meta_of(database: sqlite3.Connection, stream_created: str) -> int | None:
    """The position of an index of this version of the stream that was created at that time; None for any other."""
    if _schema(database) != _own_schema():
        return None
    meta = dict(database.execute("SELECT key, value FROM meta").fetchall())
    if (meta.get("format"), meta.get("stream_created")) != (FORMAT, stream_created):
        return None
    return int(meta.get("position", "0"))


def microseconds(moment: datetime) -> int:
    """Since 1970, exact."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(since_1970: int) -> datetime:
    """The time of that many microseconds."""
    return _EPOCH + timedelta(microseconds=since_1970)


def new_row(number: int, job: Job, state: bytes) -> tuple[Any, ...]:
    """The row of table ``jobs`` of a job that was not there, in the order of its columns."""
    spec = job.spec
    return (
        number,
        job.id,
        spec.type,
        spec.queue,
        str(job.status),
        spec.priority.rank,
        microseconds(spec.created_at),
        microseconds(job.updated_at),
        0 if job.finished_at is None else microseconds(job.finished_at),
        None if spec.run_at is None else microseconds(spec.run_at),
        _encode_spec(spec),
        state,
    )


def changed_row(number: int, job: Job, state: bytes) -> tuple[Any, ...]:
    """What of the row may change, and its number: status, updated, finished, state, number."""
    finished = 0 if job.finished_at is None else microseconds(job.finished_at)
    # As plain text: what only inherits from it is looked up among adapters each time.
    return str(job.status), microseconds(job.updated_at), finished, state, number


def state_blob(job: Job) -> bytes:
    """A job without its id and its spec, which are stored once and not with every event."""
    result = job.result_json
    return _encode_state(
        (
            job.status,
            job.submission_seq,
            job.last_seq,
            job.updated_at,
            job.event_seq,
            job.attempt,
            job.progress,
            job.progress_message,
            job.worker_id,
            job.errors,
            None if result is UNSET else bytes(result),
            job.started_at,
            job.finished_at,
            job.next_attempt_at,
            job.superseded_attempt,
            job.failed_at,
        )
    )


def job_of(job_id: str, spec: bytes, state: bytes) -> Job:
    """The job that a row makes."""
    stored = _decode_state(state)
    # By position, in the order of the fields: by name it takes four times as long, 80 us of a page of 50.
    return Job(
        job_id,
        stored.status,
        stored.submission_seq,
        stored.last_seq,
        stored.updated_at,
        stored.event_seq,
        stored.attempt,
        stored.progress,
        stored.progress_message,
        stored.worker_id,
        stored.errors,
        UNSET if stored.result is None else Raw(stored.result),
        stored.started_at,
        stored.failed_at,
        stored.finished_at,
        stored.next_attempt_at,
        stored.superseded_attempt,
        spec=_decode_spec(spec),
    )


def event_of(cursor: Cursor, kind: str, job_id: str, spec: bytes, state: bytes) -> Event:
    """The event that a row of ``events`` (or of ``progress``) and its job's row make."""
    return Event(Kind(kind), cursor, job_of(job_id, spec, state))
