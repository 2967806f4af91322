"""The index file: its tables, how it is created, opened and deleted, and how jobs and events become rows and back.

The file holds nothing that the stream does not hold: it may be deleted at any time and is then built anew. It is opened
only if it has this version's format and belongs to this stream.
"""

import logging
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import Any

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import astuple, fields, force_setattr, replace

from gql_jobs import clock
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import NEWEST_VERSION, Kind
from gql_jobs.jobs.model import Cursor, Job, JobPriority, JobState, Spec

log = logging.getLogger(__name__)

READ_ERRORS = (sqlite3.DatabaseError, msgspec.DecodeError)
"""What a read of the file may raise; ``is_damage`` and ``is_failure`` tell what is the cause."""
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DAMAGE_EXTENDED_CODES = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED})
_FAILURE_CODES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
    }
)
"""The disk, the folder's rights or another program are the cause, not the file's content and not a mistake here."""
_DAMAGE_MESSAGES = ("no such table", "no such column", "Could not decode to UTF-8")

_EMPTYING_WAITS = 0.1
"""Seconds to wait for readers before the write-ahead log is cut; nothing is written meanwhile."""

UNREAD = Raw(b"null")
"""The payload of a job that was read without it. Nobody may show such a job's payload or result."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MINUTE = 60_000_000
"""Microseconds of a minute."""

_STATE = [field for field in fields(JobState) if field.name != "id"]
"""The fields that are stored with a job's row and with each of its events; its id and its spec are stored once.

In the row of a job its payload and its result are columns of their own, the last ones: SQLite does not read them where
they are not asked for.
"""
_NAMES = [field.name for field in _STATE]
_RESULT = _NAMES.index("result_json")
_WORKER = _NAMES.index("worker_id")
# The result, raw JSON or not set, has no type in MessagePack: it is stored as bytes or nil.
_STORED_TYPES = [bytes | None if place == _RESULT else field.type for place, field in enumerate(_STATE)]
_encode_state = msgspec.msgpack.Encoder().encode
# An array without names, in the order of ``_STATE``: keyword arguments to ``Job`` are slower (docs/decisions.md).
_decode_state = msgspec.msgpack.Decoder(GenericAlias(tuple, tuple(_STORED_TYPES))).decode
_encode_spec = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(Spec).decode

SPEC_OF_NO_JOB = _encode_spec(
    Spec(
        type="none",
        payload=UNREAD,
        payload_hash="0" * 64,
        queue="none",
        priority=JobPriority.NORMAL,
        max_retries=0,
        timeout=1.0,
        created_at=_EPOCH,
        tags=("none",),
        tenant="none",
        created_by="none",
    )
)
"""Something to read where there is no job, which takes as long as if there were one."""

FORMAT = " ".join([f"23.{NEWEST_VERSION}", *(field.name for field in _STATE)])
"""The format of tables and rows; an index of another format is built anew.

Raise the number when tables or rows change in a way that the names of the fields of ``JobState`` do not show. The
version of messages is a part of it: an index has set newer ones aside, which a later release can read.
"""

LOSS_SHOWN = timedelta(days=7)
"""How long a loss of history is kept in mind, for ``/readyz`` and ``gql-jobs doctor``."""
_MOST_LOSSES = 20
"""The newest losses that are kept in mind."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL,
  type TEXT NOT NULL, queue TEXT NOT NULL, status TEXT NOT NULL, priority INTEGER NOT NULL,
  created INTEGER NOT NULL, updated INTEGER NOT NULL, finished INTEGER NOT NULL, run_at INTEGER,
  moved INTEGER NOT NULL, steered INTEGER,
  tenant TEXT, created_by TEXT, parent TEXT, schedule TEXT, key TEXT, concurrency_key TEXT,
  spec BLOB NOT NULL, state BLOB NOT NULL, payload BLOB NOT NULL, result BLOB
);
CREATE UNIQUE INDEX jobs_id ON jobs (id, tenant);
CREATE INDEX jobs_created ON jobs (created, id);
CREATE INDEX jobs_updated ON jobs (updated, id);
CREATE INDEX jobs_finished ON jobs (finished, id);
CREATE INDEX jobs_priority ON jobs (priority, created, id);
CREATE INDEX jobs_status ON jobs (status, created, id);
CREATE INDEX jobs_type ON jobs (type, created, id);
CREATE INDEX jobs_type_status ON jobs (type, status, created, id);
CREATE INDEX jobs_queue ON jobs (queue, status, updated, priority);
CREATE INDEX jobs_tenant_created ON jobs (tenant, created, id) WHERE tenant IS NOT NULL;
CREATE INDEX jobs_tenant_updated ON jobs (tenant, updated, id) WHERE tenant IS NOT NULL;
CREATE INDEX jobs_created_by ON jobs (created_by, created, id) WHERE created_by IS NOT NULL;
CREATE INDEX jobs_parent ON jobs (parent, created, id) WHERE parent IS NOT NULL;
CREATE INDEX jobs_schedule ON jobs (schedule, created, id) WHERE schedule IS NOT NULL;
CREATE INDEX jobs_key ON jobs (key, created, id) WHERE key IS NOT NULL;
CREATE INDEX jobs_concurrency_key ON jobs (concurrency_key, created, id) WHERE concurrency_key IS NOT NULL;
CREATE INDEX jobs_steered ON jobs (steered) WHERE steered IS NOT NULL;
CREATE TABLE tags (
  tenant TEXT NOT NULL, tag TEXT NOT NULL, job_id TEXT NOT NULL, PRIMARY KEY (tenant, tag, job_id)
) WITHOUT ROWID;
CREATE TABLE dead_letters (
  owner TEXT NOT NULL, failure_group TEXT NOT NULL, job INTEGER NOT NULL, PRIMARY KEY (owner, failure_group, job)
) WITHOUT ROWID;
CREATE TABLE counts (
  status TEXT NOT NULL, type TEXT NOT NULL, queue TEXT NOT NULL, priority INTEGER NOT NULL, tenant TEXT NOT NULL,
  n INTEGER NOT NULL, PRIMARY KEY (tenant, status, type, queue, priority)
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
CREATE TABLE expired (
  job_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL, deleted INTEGER NOT NULL, remains INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX expired_remains ON expired (deleted, at) WHERE remains > 0;
CREATE INDEX expired_cleared ON expired (deleted, at) WHERE remains = 0;
CREATE TABLE dependencies (needed TEXT NOT NULL, job_id TEXT NOT NULL, PRIMARY KEY (needed, job_id)) WITHOUT ROWID;
CREATE TABLE minutes (
  queue TEXT NOT NULL, minute INTEGER NOT NULL, what INTEGER NOT NULL, bucket INTEGER NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (queue, minute, what, bucket)
) WITHOUT ROWID;
CREATE INDEX minutes_minute ON minutes (minute);
CREATE TABLE minutes_began (minute INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE unreadable (
  seq INTEGER PRIMARY KEY, subject TEXT NOT NULL, reason TEXT NOT NULL, newer INTEGER NOT NULL
);
CREATE TABLE steering (
  what TEXT NOT NULL, name TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, value BLOB, actor TEXT,
  PRIMARY KEY (what, name)
) WITHOUT ROWID;
"""


class Loss(msgspec.Struct, frozen=True):
    """Jobs that the stream has lost: when an index noticed, and what was lost, in a sentence."""

    at: datetime
    what: str


_encode_losses = msgspec.json.Encoder().encode
_decode_losses = msgspec.json.Decoder(list[Loss]).decode


def open_index_file(path: Path) -> sqlite3.Connection | None:
    """Open an existing index of this format, of whatever stream, for reading and writing.

    :returns: None if there is no file; None, with a log line, if it is no such index or cannot be read.
    :raises sqlite3.DatabaseError: if the disk is the cause, so that a new file would not help.
    """
    if not path.is_file():
        return None
    database = _connect(path)
    try:
        _configure(database)
        if _meta(database) is not None:
            return database
        if _schema(database):
            log.info("the index %s is not one of this version and is built anew", path)
    except sqlite3.DatabaseError as error:
        if is_failure(error):
            database.close()
            raise
        log.warning("the index %s cannot be read (%s) and is built anew", path, error)
    database.close()
    return None


def create_index_file(path: Path, stream_created: str, losses: Sequence[Loss] = ()) -> sqlite3.Connection:
    """Create an empty index, in place of a file that is already there.

    :param losses: what earlier indexes at that place had to be thrown away for.
    :raises OSError: if no file can be made there.
    :raises sqlite3.OperationalError: if no file can be made there.
    """
    delete_index_file(path)
    database = _connect(path)
    _configure(database)
    database.executescript(_TABLES)
    database.execute("INSERT INTO meta VALUES ('format', ?), ('stream_created', ?)", (FORMAT, stream_created))
    store_losses(database, losses)
    if losses:
        # What was lost was not counted.
        figures_from = minute_of(max(loss.at for loss in losses)) + 1
        database.execute("INSERT INTO meta VALUES ('figures_from', ?)", (str(figures_from),))
    return database


def losses_of(database: sqlite3.Connection) -> list[Loss]:
    """Return the losses of the last days, ``LOSS_SHOWN``, oldest first.

    :raises sqlite3.DatabaseError: | msgspec.DecodeError: if the file is damaged.
    """
    row = database.execute("SELECT value FROM meta WHERE key = 'losses'").fetchone()
    since = clock.now() - LOSS_SHOWN
    return [loss for loss in _decode_losses(row[0]) if loss.at > since] if row is not None else []


def store_losses(database: sqlite3.Connection, losses: Sequence[Loss]) -> None:
    """Keep the newest of these losses, in place of those that are kept.

    :raises sqlite3.Error: if they cannot be written.
    """
    newest = _encode_losses(losses[-_MOST_LOSSES:]).decode()
    database.execute("INSERT OR REPLACE INTO meta VALUES ('losses', ?)", (newest,))


def delete_index_file(path: Path) -> None:
    """Delete an index with its write-ahead log; a folder of that name is renamed instead. No file is no error.

    :raises OSError: if that cannot be done.
    """
    # The index first: without it nothing is opened, whenever this is interrupted. Then the write-ahead log, which
    # SQLite would read into a new index.
    for suffix in ("", "-wal", "-shm"):
        place = path.with_name(path.name + suffix)
        if place.is_dir() and not place.is_symlink():
            # Not made by us, so it is not ours to delete.
            aside = place.with_name(f"{place.name}.aside-{secrets.token_hex(4)}")
            place.rename(aside)
            log.warning("a folder was in the place of the index and is now %s", aside)
        else:
            place.unlink(missing_ok=True)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a connection that can only read. Threads may share it, one at a time.

    :raises sqlite3.OperationalError: if there is no file.
    """
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    database.execute("PRAGMA query_only = ON")
    return database


def move_wal(path: Path) -> None:
    """Move what there is of an index's write-ahead log, without waiting for readers or writers; failures are logged."""
    try:
        # Mode rw, because the file may have been deleted and must not be created.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        ) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        # The writer gets the same error and handles it; until then SQLite moves the log by itself.
        log.debug("the log of the index %s was not moved: %s", path, error)


def empty_wal(path: Path) -> bool:
    """Move all of an index's write-ahead log into its file, and cut it to nothing; return whether that was possible.

    Call it while nothing is written. It is not possible while somebody reads; failures are logged.
    """
    try:
        with closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_EMPTYING_WAITS
            )
        ) as database:
            return bool(database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
    except sqlite3.Error as error:
        log.debug("the log of the index %s was not emptied: %s", path, error)
        return False


def meta_of(database: sqlite3.Connection, stream_created: str) -> int | None:
    """Return the position of an index of this version and of the stream that was created at that time.

    :returns: None for any other SQLite database.
    :raises sqlite3.DatabaseError: if the file is damaged.
    """
    meta = _meta(database)
    if meta is None or meta.get("stream_created") != stream_created:
        return None
    return int(meta.get("position", "0"))


def _meta(database: sqlite3.Connection) -> dict[str, str] | None:
    """Return the table ``meta`` of an index of this version; None for any other SQLite database."""
    if _schema(database) != _own_schema():
        return None
    meta = dict(database.execute("SELECT key, value FROM meta").fetchall())
    return meta if meta.get("format") == FORMAT else None


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(path, isolation_level=None, cached_statements=256)


def _configure(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    # Without an fsync per commit: what a power loss removes is read from the stream again.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA cache_size = -32768")
    # What is deleted is overwritten, also in pages that nothing uses any more: a job that somebody deletes has to be
    # gone from the file. Only large jobs cost more by that when they expire (docs/decisions.md).
    database.execute("PRAGMA secure_delete = ON")
    # ``keep_wal_short`` moves the write-ahead log into the file long before; this is for an index that runs without it.
    database.execute("PRAGMA wal_autocheckpoint = 40000")


def _schema(database: sqlite3.Connection) -> dict[str, str]:
    return dict(database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall())


@cache
def _own_schema() -> dict[str, str]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_TABLES)
        return _schema(database)


def is_damage(error: BaseException) -> bool:
    """Return whether an error is caused by damage to the file, so that a new file helps.

    It does not help against a full or failing disk, or a mistake in this program.
    """
    if isinstance(error, msgspec.DecodeError):
        # Only blobs that this package has written are decoded where this is called.
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _DAMAGE_CODES or code in _DAMAGE_EXTENDED_CODES:
        return True
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(_DAMAGE_MESSAGES)


def is_failure(error: BaseException) -> bool:
    """Return whether the file cannot be used although nothing says that it is damaged: a full disk, for example.

    A read that was interrupted on purpose, and a mistake in this program, are no failure of the file.
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _FAILURE_CODES


def tenant_keys(spec: Spec) -> tuple[str, ...]:
    """Return the tenants under which ``counts``, ``tags`` and ``dead_letters`` have a job.

    That is the empty one, for all jobs together, and its own.

    Whoever asks for a tenant's jobs looks at its own rows, so that neither the work nor the time of an answer follows
    from what others have; and whoever asks for all of them need not add up those of thousands of tenants.
    """
    return ("", spec.tenant) if spec.tenant is not None else ("",)


def json_array(values: list[Any]) -> str:
    """Return values for a parameter of ``json_each``: SQLite limits how many parameters a statement may have."""
    return msgspec.json.encode(values).decode()


def microseconds(moment: datetime) -> int:
    """Return the exact number of microseconds from 1970-01-01 UTC to that moment."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_at(since_1970: int) -> datetime:
    """Return the time that is so many microseconds after 1970-01-01 UTC."""
    return _EPOCH + timedelta(microseconds=since_1970)


def minute_of(moment: datetime) -> int:
    """Return the number of the minute since 1970 in which a moment lies."""
    return microseconds(moment) // _MINUTE


def minute_at(number: int) -> datetime:
    """Return when that minute began."""
    return moment_at(number * _MINUTE)


def new_row(number: int, job: Job, state: bytes) -> tuple[Any, ...]:
    """Return a whole row of the table ``jobs``, in the order of its columns.

    :param number: the primary key of the row.
    :param state: as ``row_state`` returns it.
    """
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
        None if (earliest := spec.earliest) is None else microseconds(earliest),
        job.moved_at,
        _steered(job),
        spec.tenant,
        spec.created_by,
        spec.parent,
        spec.schedule,
        spec.key,
        spec.concurrency_key,
        _encode_spec(replace(spec, payload=UNREAD)),
        state,
        bytes(spec.payload),
        _stored_result(job),
    )


def changed_row(number: int, job: Job, state: bytes) -> tuple[Any, ...]:
    """Return the columns of a job's row that may change, then its key.

    These are status, updated, finished, moved, steered, state, result, number.
    """
    finished = 0 if job.finished_at is None else microseconds(job.finished_at)
    # As plain str: for a value of a subclass sqlite3 looks for an adapter each time.
    status, updated = str(job.status), microseconds(job.updated_at)
    return status, updated, finished, job.moved_at, _steered(job), state, _stored_result(job), number


def _steered(job: Job) -> int | None:
    """Return 1 for a job that the gate has to know of, 2 for one that lacks a submission, else None."""
    if job.lacks_submission:
        return 2
    return 1 if job.is_steered else None


def state_blob(job: Job) -> bytes:
    """Return a job's state, without its id and its spec, as it is stored: a MessagePack array."""
    _id, *values, _spec = astuple(job)
    result = values[_RESULT]
    values[_RESULT] = None if result is UNSET else bytes(result)
    return _encode_state(values)


def row_state(job: Job) -> bytes:
    """Return the column ``state`` of a job's row: ``state_blob`` without the result."""
    if job.result_json is UNSET:
        return state_blob(job)
    _id, *values, _spec = astuple(job)
    values[_RESULT] = None
    return _encode_state(values)


def _stored_result(job: Job) -> bytes | None:
    result = job.result
    return None if result is None else bytes(result)


def stored_job(job_id: str, spec: bytes, state: bytes, payload: bytes | None, result: bytes | None) -> Job:
    """Return the job of these columns of its row.

    :param payload: None if it was not read; then the job's payload is ``UNREAD``, and so is its result.
    :raises msgspec.DecodeError: if one of them is damaged.
    """
    return _job_of(job_id, stored_spec(spec, payload), state, result)


def stored_worker(state: bytes) -> str | None:
    """Return the worker that runs a job or ran it last, from the column ``state``; None before the first attempt.

    :raises msgspec.DecodeError: if the state is damaged.
    """
    worker: str | None = _decode_state(state)[_WORKER]
    return worker


def for_a_list(job: Job, *, with_payload: bool) -> Job:
    """Return a job with what a list shows of it: of its errors the latest, payload and result only if wanted."""
    errors = job.errors[-1:]
    if with_payload:
        return replace(job, errors=errors) if len(job.errors) > 1 else job
    return replace(job, spec=replace(job.spec, payload=UNREAD), result_json=UNSET, errors=errors)


def stored_spec(spec: bytes, payload: bytes | None) -> Spec:
    """Return the spec of these columns of a job's row; its payload is ``UNREAD`` if that is None.

    :raises msgspec.DecodeError: if it is damaged.
    """
    decoded = _decode_spec(spec)
    if payload is not None:
        # It is not in use yet, so nobody sees it change; a copy costs as much as decoding it.
        force_setattr(decoded, "payload", Raw(payload))
    return decoded


def stored_event(cursor: Cursor, kind: str, job_id: str, spec: Spec, state: bytes) -> Event:
    """Return the event of a row of ``events`` or ``progress``: those of one job share its id and its spec.

    :raises msgspec.DecodeError: if the state is damaged.
    """
    return Event(Kind(kind), cursor, _job_of(job_id, spec, state, None))


def _job_of(job_id: str, spec: Spec, state: bytes, result: bytes | None) -> Job:
    values = list(_decode_state(state))
    result = values[_RESULT] if result is None else result
    values[_RESULT] = UNSET if result is None else Raw(result)
    return Job(job_id, *values, spec=spec)
