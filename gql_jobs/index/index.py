"""The index: every job and its events as of one position of the stream, in SQLite.

``Index`` is the only writer of its file. Messages and the position they lead to are stored in one transaction, so it
resumes exactly where it stopped. What a message does to a job is decided by ``jobs.fold`` alone.

The file is not checked for damage at opening, because that reads all of it. A read or a write that fails because of
damage deletes the file and ends the process; the next start builds the index anew (docs/decisions.md). The process ends
as well when the disk does not take what is written, or when somebody has deleted the file. Whoever asks meanwhile is
told to come again: the trouble of an index is nobody's but this process's.
"""

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Raw

from gql_jobs import clock
from gql_jobs.index.tables import (
    READ_ERRORS,
    SPEC_OF_NO_JOB,
    Loss,
    create_index_file,
    delete_index_file,
    for_a_list,
    is_damage,
    is_failure,
    json_array,
    losses_of,
    microseconds,
    moment_at,
    open_index_file,
    store_losses,
    stored_event,
    stored_job,
    stored_spec,
)
from gql_jobs.index.writer import GHOSTS_WITHIN, Changes, Expiry, IndexedJob
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind, Message, Receipt, SteeringMessage
from gql_jobs.jobs.model import Artifact, Cursor, Job, JobStatus, Spec
from gql_jobs.jobs.viewer import Visibility

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_HISTORY = (
    "SELECT seq, nth, kind, state FROM events WHERE job = :number"
    " UNION ALL SELECT seq, 0, 'progress', state FROM progress WHERE job = :number"
)
_JOBS_BY_NUMBER = (
    "SELECT number, id, spec, state, payload, result FROM jobs WHERE number IN (SELECT value FROM json_each(?))"
)
_JOBS_BY_ID = "SELECT number, id, spec, state, payload, result FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
_SIZES_BY_ID = (
    "SELECT id, length(spec) + length(state) + length(payload) + ifnull(length(result), 0)"
    " FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
)
_LISTED = "SELECT id, spec, state, {} FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
_SPEC_OF_ANY = "SELECT spec, 1 FROM jobs WHERE id = ? UNION ALL SELECT ?, 0 LIMIT 1"
_LATEST_CURSORS = """
SELECT id,
  (SELECT seq FROM events WHERE job = number ORDER BY seq DESC, nth DESC LIMIT 1),
  (SELECT nth FROM events WHERE job = number ORDER BY seq DESC, nth DESC LIMIT 1),
  (SELECT seq FROM progress WHERE job = number)
FROM jobs WHERE id IN (SELECT value FROM json_each(?))"""
_MAX_RECENT = 10_000
"""Jobs that are kept in memory, at most."""
_MAX_RECENT_BYTES = 16 << 20
"""Bytes that they may take."""
_PORTION_BYTES = 8 << 20
"""Bytes that the jobs of one portion of messages may take in memory, but for a single job."""
LARGEST_LIST = 8 << 20
"""Bytes that the jobs of one list may take in memory."""
_EXPIRIES = "SELECT job_id, seq, at FROM expired WHERE job_id IN (SELECT value FROM json_each(?))"
_WITH_REMAINS = """
SELECT job_id FROM (SELECT job_id FROM expired WHERE remains > 0 AND deleted = 1 LIMIT ?)
UNION ALL SELECT job_id FROM (SELECT job_id FROM expired WHERE remains > 0 AND deleted = 0 AND at < ? LIMIT ?)
"""
_IS_NEEDED = "SELECT EXISTS (SELECT 1 FROM dependencies WHERE needed = ?)"
_STEER = "INSERT OR REPLACE INTO steering VALUES (?, ?, ?, ?, ?, ?)"
_UNWEIGHED = 16
"""Jobs that are read for a portion without asking for their sizes first, which costs a second look-up each."""
_UNUSABLE = "The index of this process cannot be used; try again."
_VOID = "The index of this process cannot be used and is being built anew; try again."
_decode_artifact = msgspec.json.Decoder(Artifact).decode


class UnusableIndex(Exception):
    """The index file cannot be used any more, or cannot be made; the process has to end. The message is for the log."""


class DamagedIndex(UnusableIndex):
    """The index file was found damaged, or was taken away, and is deleted, so that the next start builds it anew."""


class ListTooLarge(Exception):
    """The jobs that were asked for do not fit into memory together: they have ``size`` bytes, or more."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class UnreadableMessage(NamedTuple):
    """A message of the stream that cannot be read: its sequence, its subject, why, and whether a later release can."""

    seq: int
    subject: str
    reason: str
    is_newer: bool = False


class AppliedMessage(NamedTuple):
    """A message that was applied: its sequence, and when it was stored; another at that sequence has another time."""

    seq: int
    at: datetime


class Note(NamedTuple):
    """A receipt of a cancellation: what became of it at ``worker_id``, in which attempt, and when that was stored."""

    receipt: Receipt
    at: datetime
    attempt: int
    worker_id: str


class JobChange(NamedTuple):
    """A job that was changed: as it was, None for a new one, and as it is, None for one that is gone."""

    before: Job | None
    after: Job | None


class OnChange(Protocol):
    """Is told what was applied, at once after it is stored."""

    def __call__(self, changes: list[JobChange], position: int, *, in_turn: bool) -> None:
        """Note the changes of a batch that leads to ``position``; not ``in_turn`` if the index was there before."""


class Index:
    """Jobs and events as of ``position``, for the event loop's thread only: a read here never takes long.

    A read that the file is no good for raises ``QueueUnavailable``, and so does every later one; the process has to end
    then (``until_unusable``).
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        """:param database: an open connection to ``path``, which is an index of the present stream."""
        self.path = path
        self._database = database
        self.failure: UnusableIndex | None = None
        """Why the file cannot be used any more; None while it can."""
        self._failed = asyncio.Event()
        self._files: dict[Path, tuple[int, int]] = {}
        """Device and number of each file of the index, once it was seen."""
        self._recent: OrderedDict[str, IndexedJob] = OrderedDict()
        """The jobs that messages were about last, the latest at the end."""
        self._recent_bytes = 0
        self.on_change: list[OnChange] = []
        """Called after each batch that has changed jobs."""
        self.written = 0
        """About how many bytes of jobs this process has written."""
        self.has_erased = False
        """Whether jobs were deleted of which the write-ahead log may still have something: set by ``apply`` alone."""
        self.rebuilt = 0
        """1 if it was begun anew at opening, else 0."""
        self.stream_created = self._text("stream_created")
        """Identifies the stream: when it was created, as the server writes it."""
        self.losses = losses_of(database)
        """What the stream has lost lately of what this index, or one before it, had applied."""
        self.position = self._number("position")
        """The sequence of the last message applied."""
        self.newest = _applied_message(self._text("newest"))
        """The newest message that was applied, checkpoints aside; None if there was none, or it is not known."""
        self.horizon = self._number("horizon")
        """Cursors below it may have lost events to expiry."""
        self.unreadable: int = database.execute("SELECT count(*) FROM unreadable").fetchone()[0]
        """How many messages of the stream could not be read."""
        # From here on, so that no file is first seen after it was replaced.
        self.check_files()

    def apply(
        self,
        messages: Sequence[Message],
        position: int,
        unreadable: Iterable[UnreadableMessage] = (),
        steering: Iterable[SteeringMessage] = (),
    ) -> list[Event]:
        """Fold messages into the index, up to ``position``; return the events that clients see, in order.

        :param unreadable: messages up to ``position`` that cannot be read.
        :param steering: what has come up to ``position`` of what steers jobs.

        :raises UnusableIndex: if it cannot be written, because of damage or a full disk; nothing has changed then.
        :raises sqlite3.Error: if something else is wrong.
        """
        try:
            known = self._jobs_of(messages)
            changes = Changes(known, self._expired_of(messages, known))
            changes.fold(messages)
            horizon = max(self.horizon, changes.horizon)
            newest = self.newest
            # Messages that are applied again, out of their turn, leave the position where it is.
            if messages and position > self.position:
                newest = AppliedMessage(messages[-1].seq, messages[-1].at)
            with self._transaction() as database:
                changes.store(database)
                set_aside = database.executemany(
                    "INSERT OR IGNORE INTO unreadable VALUES (?, ?, ?, ?)", unreadable
                ).rowcount
                database.executemany(_STEER, map(_steering_row, steering))
                database.executemany(
                    "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                    [
                        ("position", str(position)),
                        ("newest", f"{newest.seq} {microseconds(newest.at)}" if newest is not None else ""),
                        ("horizon", str(horizon)),
                        ("applied", _now()),
                    ],
                )
        except READ_ERRORS as error:
            failure = self._failure_of(error)
            if failure is None:
                raise
            raise failure from error
        self.has_erased = self.has_erased or changes.has_erased
        in_turn = position > self.position
        self.position, self.newest, self.horizon = position, newest, horizon
        self.unreadable += max(set_aside, 0)
        self._remember(changes.after)
        if self.on_change and (changed := [JobChange(*pair) for pair in changes.changed()]):
            for told in self.on_change:
                told(changed, position, in_turn=in_turn)
        return changes.events

    def portions(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """Split messages into portions, to be applied one after the other; one empty portion if there are none.

        The jobs of a portion fit into memory together: a short message may be about a job with a large payload.

        :raises UnusableIndex: if the file cannot be read.
        :raises sqlite3.Error: if something else is wrong.
        """
        # A submission carries the whole job itself, and is as large.
        absent = {m.job_id for m in messages if m.body.submission and m.job_id not in self._recent}
        if len(absent) <= _UNWEIGHED:
            yield messages
            return
        try:
            sizes = dict(self._database.execute(_SIZES_BY_ID, (json_array(list(absent)),)).fetchall())
        except READ_ERRORS as error:
            raise self._failure_of(error) or error from error
        start, weight = 0, 0
        for number, message in enumerate(messages):
            # Counted at the first of its messages: the later ones find it in memory.
            size = sizes.pop(message.job_id, 0)
            if weight and weight + size > _PORTION_BYTES:
                yield messages[start:number]
                start, weight = number, 0
            weight += size
        yield messages[start:]

    def job(self, job_id: str) -> Job | None:
        """Return the job as of ``position``; None if there is none, or if the file cannot be used any more."""
        if self.failure is not None:
            return None
        found = self._recent.get(job_id)
        if found is not None:
            return found.job
        try:
            rows = self._read(_indexed_job, _JOBS_BY_ID, (json_array([job_id]),))
        except QueueUnavailable:
            return None
        return rows[0].job if rows else None

    def listed(self, job_ids: Sequence[str], *, with_payloads: bool) -> dict[str, Job]:
        """Return by id those of the jobs that there are, as of ``position``.

        :param with_payloads: whether payloads and results are wanted; else a payload is ``UNREAD``. Of errors they
            have the latest.
        :raises QueueUnavailable: if the file cannot be used any more.
        :raises ListTooLarge: if the jobs have more than ``LARGEST_LIST`` bytes together.
        """
        self.raise_if_unusable()
        found: dict[str, Job] = {}
        absent = []
        size = 0
        for job_id in job_ids:
            kept = self._recent.get(job_id)
            if kept is None:
                absent.append(job_id)
                continue
            found[job_id] = for_a_list(kept.job, with_payload=with_payloads)
            size += found[job_id].weight
        sql = _LISTED.format("payload, result" if with_payloads else "NULL, NULL")
        try:
            with closing(self._database.execute(sql, (json_array(absent),))) as rows:
                for row in rows:
                    found[row[0]] = for_a_list(stored_job(*row), with_payload=with_payloads)
                    size += found[row[0]].weight
                    if size > LARGEST_LIST:
                        break
        except READ_ERRORS as error:
            raise self.read_error(error) from error
        if size > LARGEST_LIST:
            raise ListTooLarge(size)
        return found

    def spec(self, job_id: str) -> Spec | None:
        """Return what was asked for, without the payload unless it is at hand; None as for ``job``.

        It takes the same time however large the job is.
        """
        if self.failure is not None:
            return None
        found = self._recent.get(job_id)
        if found is not None:
            return found.job.spec
        try:
            rows = self._read(_spec_alone, "SELECT spec FROM jobs WHERE id = ?", (job_id,))
        except QueueUnavailable:
            return None
        return rows[0] if rows else None

    def shows(self, job_id: str, visibility: Visibility) -> bool | None:
        """Return whether there is such a job for those who see so much: False if it is hidden; None as for ``job``.

        For those who do not see all it takes the same time in each case: neither is the job at hand in memory, nor is
        more of it read than its spec, in whose place that of no job is read where there is none.
        """
        if not visibility.is_partial:
            return self.spec(job_id) is not None or None
        if self.failure is not None:
            return None
        try:
            ((spec, is_there),) = self._read(_spec_of_any, _SPEC_OF_ANY, (job_id, SPEC_OF_NO_JOB))
        except QueueUnavailable:
            return None
        shown = visibility.admits(job_id, spec)
        return shown if is_there else None

    def events(self, job_id: str) -> list[Event]:
        """Return the job's history, oldest first: every lifecycle event and the newest progress."""
        return self._events(job_id, " ORDER BY seq, nth")

    def latest_event(self, job_id: str) -> Event | None:
        """Return the newest event of the job; None if there is no such job."""
        found = self._events(job_id, " ORDER BY seq DESC, nth DESC LIMIT 1")
        return found[0] if found else None

    def latest_cursors(self, job_ids: Iterable[str]) -> list[tuple[Cursor, str]]:
        """Return the position of the newest event of each of these jobs that there is, with its id."""
        return self._read(_latest_cursor, _LATEST_CURSORS, (json_array(list(job_ids)),))

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Return the job's files, sorted by name."""
        return self._read(_decode_artifact, "SELECT artifact FROM artifacts WHERE job_id = ? ORDER BY name", (job_id,))

    def artifact(self, job_id: str, name: str) -> Artifact | None:
        """Return the job's file of that name, or None."""
        sql = "SELECT artifact FROM artifacts WHERE job_id = ? AND name = ?"
        return next(iter(self._read(_decode_artifact, sql, (job_id, name))), None)

    def messages(self, job_id: str) -> list[tuple[int, Kind]]:
        """Return sequence and kind of those of the job's messages that became events, in no order."""
        sql = f"SELECT seq, kind FROM ({_HISTORY})"  # noqa: S608
        return self._read(lambda seq, kind: (seq, Kind(kind)), sql, {"number": self._number_of(job_id)})

    def notes(self, job_id: str, cancelled_seq: int) -> list[Note]:
        """Return the receipts of the cancellation that has the sequence ``cancelled_seq``, oldest first."""
        sql = "SELECT receipt, at, attempt, worker_id FROM notes WHERE job_id = ? AND cancelled_seq = ? ORDER BY seq"
        return self._read(_note, sql, (job_id, cancelled_seq))

    def steering(self) -> list[SteeringMessage]:
        """Return the newest message of each thing that steers jobs, those that are removed among them."""
        return self._read(_steering_message, "SELECT what, name, seq, at, value, actor FROM steering")

    def steered_after(self, number: int, limit: int) -> list[tuple[int, Job]]:
        """Return at most ``limit`` of the jobs that the gate has to know of, without their payloads.

        Each comes with the number of its row, by which they are sorted: those above ``number`` are returned.
        """
        sql = (
            "SELECT number, id, spec, state, NULL, NULL FROM jobs WHERE steered = 1 AND number > ?"
            " ORDER BY number LIMIT ?"
        )
        return self._read(_indexed_job, sql, (number, limit))

    def count(self, statuses: Iterable[JobStatus], column: Literal["queue", "type"], name: str) -> int:
        """Return how many jobs of a queue, or of a type, have one of these statuses."""
        sql = (
            f"SELECT coalesce(sum(n), 0) FROM counts WHERE tenant = '' AND {column} = ?"  # noqa: S608
            " AND status IN (SELECT value FROM json_each(?))"
        )
        (found,) = self._read(_only_column, sql, (name, json_array([str(status) for status in statuses])))
        return int(found)

    def last_moved(self, column: Literal["queue", "type"], name: str) -> datetime | None:
        """Return when anything has happened last to a job of a queue or type that is queued, runs or has run.

        Of a type those jobs of each state are looked at that were created last.
        """
        # The columns of the table's indexes: neither is a search through all jobs of the queue or type.
        newest = (
            "SELECT max(updated) FROM jobs WHERE queue = :name AND status = :status"
            if column == "queue"
            else "SELECT max(updated) FROM (SELECT updated FROM jobs WHERE type = :name AND status = :status"
            " ORDER BY created DESC, id DESC LIMIT 20)"
        )
        found = [
            moved
            for status in JobStatus
            if status not in {JobStatus.SCHEDULED, JobStatus.WAITING}
            for moved in self._read(_only_column, newest, {"name": name, "status": str(status)})
            if moved is not None
        ]
        return moment_at(max(found)) if found else None

    @property
    def has_newer(self) -> bool:
        """Whether there are messages that only a later release can read."""
        return bool(self._read(_only_column, "SELECT EXISTS (SELECT 1 FROM unreadable WHERE newer)")[0])

    def first_seq(self, job_id: str) -> int:
        """Return the sequence of the job's first event, where its history begins; 1 if the job is not in the index."""
        (first,) = self._read(_only_column, "SELECT min(seq) FROM events WHERE job = ?", (self._number_of(job_id),))
        return first or 1

    def with_remains(self, before: datetime, limit: int) -> list[str]:
        """Return at most ``limit`` ids of jobs of which the stream may still hold something.

        These are jobs that were deleted, and those that expired before that moment, less those of ``forget_expired``.
        """
        return self._read(_only_column, _WITH_REMAINS, (limit, microseconds(before), limit))

    def forget_expired(self, job_ids: Sequence[str], position: int, now: datetime) -> None:
        """Record that nothing is left of these expired jobs in the stream that was there at a position.

        Of those that were deleted the end is kept in mind for a day, because of submissions that have crossed it.

        :param position: that of the index when it was asked for them.
        :param now: the time by the clock of the server.
        :raises sqlite3.Error: if the file cannot be written.
        """
        if not job_ids:
            return
        cleared = [(job_id, position) for job_id in job_ids]
        try:
            with self._transaction() as database:
                database.executemany("UPDATE expired SET remains = 0 WHERE job_id = ? AND remains <= ?", cleared)
                database.execute("DELETE FROM expired WHERE remains = 0 AND deleted = 0")
                kept_from = microseconds(now) - GHOSTS_WITHIN
                database.execute("DELETE FROM expired WHERE remains = 0 AND deleted = 1 AND at < ?", (kept_from,))
        except READ_ERRORS as error:
            raise self.read_error(error) from error

    def is_needed(self, job_id: str) -> bool:
        """Return whether a job that has not ended is to run after this one."""
        return bool(self._read(_only_column, _IS_NEEDED, (job_id,))[0])

    @property
    def jobs(self) -> int:
        """The number of jobs."""
        return int(self._read(_only_column, "SELECT coalesce(sum(n), 0) FROM counts WHERE tenant = ''")[0])

    def note_loss(self, what: str, *, void: bool = False) -> None:
        """Keep in mind what the stream has lost.

        :param void: so much that this index is of no use: it is built anew at its next opening.
        :raises UnusableIndex: if it cannot be written.
        """
        losses = [*self.losses, Loss(clock.now(), what)]
        try:
            with self._transaction() as database:
                store_losses(database, losses)
                if void:
                    database.execute("INSERT OR REPLACE INTO meta VALUES ('stream_created', '')")
        except READ_ERRORS as error:
            raise self._failure_of(error) or error from error
        self.losses = losses

    def away_since(self, moment: datetime) -> bool:
        """Return whether nothing has been applied since that moment."""
        return self.position > 0 and self._number("applied") < microseconds(moment)

    def raise_if_unusable(self) -> None:
        """Raise an error if the file cannot be used any more, else do nothing.

        :raises QueueUnavailable: if it cannot be used.
        """
        if self.failure is not None:
            raise self._refusal()

    def read_error(self, error: Exception) -> Exception:
        """Return what a read, of this or any other connection to the file, has to raise when SQLite raises ``error``.

        That is ``QueueUnavailable`` if the file cannot be used, which ends the process (``until_unusable``); else
        ``error``.
        """
        return error if self._failure_of(error) is None else self._refusal()

    def _refusal(self) -> QueueUnavailable:
        # An index whose disk is full is kept, and gone on with.
        return QueueUnavailable(_VOID if isinstance(self.failure, DamagedIndex) else _UNUSABLE)

    async def until_unusable(self) -> None:
        """Wait until any read or write finds that the file cannot be used any more; never returns normally.

        :raises UnusableIndex: when that happens.
        """
        await self._failed.wait()
        if self.failure is not None:
            raise self.failure

    def check_files(self) -> None:
        """Find out whether somebody has deleted or replaced a file of the index since it was opened, and fail then.

        SQLite goes on using a file that has no name any more, while other connections would open another one.
        """
        for suffix in ("", "-wal", "-shm"):
            path = self.path.with_name(self.path.name + suffix)
            try:
                found = path.stat()
            except OSError as error:
                if path in self._files or not suffix:
                    self._fail_for_good(f"{path.name}: {error.strerror}")
                continue
            if self._files.setdefault(path, (found.st_dev, found.st_ino)) != (found.st_dev, found.st_ino):
                self._fail_for_good(f"{path.name} is another file than before")

    def close(self) -> None:
        """Close the file; what was applied stays. Whoever reads after that is told to come again."""
        if self.failure is None:
            self.failure = UnusableIndex(f"the index {self.path} is closed")
        self._database.close()

    def _failure_of(self, error: Exception) -> UnusableIndex | None:
        """Return why the file cannot be used any more, if this error or an earlier one says that it cannot, or None."""
        if self.failure is None and is_damage(error):
            self._fail_for_good(str(error))
        if self.failure is None and is_failure(error):
            # SQLite calls a file that was deleted an I/O error.
            self.check_files()
        if self.failure is None and is_failure(error):
            self._fail(
                UnusableIndex(
                    f"the index {self.path} cannot be read or written ({error}): see that its disk has room and takes "
                    "writes, then start this process again"
                )
            )
        return self.failure

    def _fail_for_good(self, reason: str) -> None:
        """Delete the file and close it, so that it is built anew."""
        if self.failure is not None:
            return
        # First of all, so that no process that starts after this one was killed opens the file again.
        try:
            delete_index_file(self.path)
        except OSError as failure:
            log.warning("the damaged index %s cannot be deleted: %s", self.path, failure)
        self._fail(
            DamagedIndex(
                f"the index {self.path} is damaged ({reason}); it is built anew when this process is started again"
            )
        )

    def _fail(self, failure: UnusableIndex) -> None:
        self.failure = failure
        # Whatever still reads fails, and finds the failure set.
        self._database.close()
        self._failed.set()

    def _read(
        self,
        make: Callable[..., _T],
        sql: str,
        values: "Sequence[str | int | bytes | None] | Mapping[str, int | str | None]" = (),
    ) -> list[_T]:
        """Return ``make(*row)`` for each row."""
        try:
            return [make(*row) for row in self._database.execute(sql, values)]
        except READ_ERRORS as error:
            raise self.read_error(error) from error

    def _events(self, job_id: str, order: str) -> list[Event]:
        found = self._read(_numbered_spec, "SELECT number, spec, payload FROM jobs WHERE id = ?", (job_id,))
        if not found:
            return []
        number, spec = found[0]

        def event(seq: int, nth: int, kind: str, state: bytes) -> Event:
            return stored_event(Cursor(seq, nth), kind, job_id, spec, state)

        return self._read(event, _HISTORY + order, {"number": number})

    def _number_of(self, job_id: str) -> int | None:
        return next(iter(self._read(_only_column, "SELECT number FROM jobs WHERE id = ?", (job_id,))), None)

    def _number(self, key: str) -> int:
        return int(self._text(key) or 0)

    def _text(self, key: str) -> str:
        row = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row is not None else ""

    def _jobs_of(self, messages: Iterable[Message]) -> dict[str, IndexedJob]:
        """Return by id the jobs of these messages that exist; raises SQLite's error if the file is damaged."""
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

    def _expired_of(self, messages: Iterable[Message], known: Mapping[str, IndexedJob]) -> dict[str, Expiry]:
        """Return by id the last expiries of the jobs of these messages that do not exist, as far as they are noted."""
        if not self._database.execute("SELECT EXISTS (SELECT 1 FROM expired)").fetchone()[0]:
            return {}
        absent = {message.job_id for message in messages if message.job_id not in known}
        rows = self._database.execute(_EXPIRIES, (json_array(list(absent)),)) if absent else ()
        return {job_id: Expiry(seq, at) for job_id, seq, at in rows}

    def _stored(self, sql: str, keys: list[int] | list[str]) -> dict[str, IndexedJob]:
        rows = self._database.execute(sql, (json_array(keys),)) if keys else ()
        return {row[1]: _indexed_job(*row) for row in rows}

    def _remember(self, jobs: Mapping[str, IndexedJob | None]) -> None:
        """Keep these jobs in memory as they are now; None stands for a job that is gone."""
        recent = self._recent
        for job_id, known in jobs.items():
            was = recent.pop(job_id, None)
            if was is not None:
                self._recent_bytes -= was.job.weight
            if known is not None:
                recent[job_id] = known
                weight = known.job.weight
                self._recent_bytes += weight
                self.written += weight
        while len(recent) > _MAX_RECENT or self._recent_bytes > _MAX_RECENT_BYTES:
            _, oldest = recent.popitem(last=False)
            self._recent_bytes -= oldest.job.weight

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN")
        try:
            yield self._database
        except BaseException:
            # On a damaged file this fails too, and where the disk is full SQLite has rolled back by itself.
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _numbered_spec(number: int, spec: bytes, payload: bytes) -> tuple[int, Spec]:
    return number, stored_spec(spec, payload)


def _spec_alone(spec: bytes) -> Spec:
    return stored_spec(spec, None)


def _spec_of_any(spec: bytes, is_there: int) -> tuple[Spec, bool]:
    return stored_spec(spec, None), bool(is_there)


def _only_column(value: Any) -> Any:
    return value


def _indexed_job(number: int, *columns: Any) -> IndexedJob:
    return IndexedJob(number, stored_job(*columns))


def _latest_cursor(job_id: str, seq: int, nth: int, progress: int | None) -> tuple[Cursor, str]:
    return max(Cursor(seq or 0, nth or 0), Cursor(progress or 0)), job_id


def _steering_row(message: SteeringMessage) -> tuple[Any, ...]:
    value = bytes(message.value) if message.value is not None else None
    return message.what, message.name, message.seq, microseconds(message.at), value, message.actor


def _steering_message(what: str, name: str, *columns: Any) -> SteeringMessage:
    seq, at, value, actor = columns
    return SteeringMessage(what, name, seq, moment_at(at), Raw(value) if value is not None else None, actor)


def _note(receipt: str, at: int, attempt: int, worker_id: str) -> Note:
    return Note(Receipt(receipt), moment_at(at), attempt, worker_id)


def _applied_message(text: str) -> AppliedMessage | None:
    seq, _, at = text.partition(" ")
    return AppliedMessage(int(seq), moment_at(int(at))) if at else None


def _now() -> str:
    return str(microseconds(clock.now()))


@contextmanager
def open_index(path: Path, stream_created: str, last_seq: int, longest_absence: float) -> Iterator[Index]:
    """Open the index of the stream that was created at that time, until the block ends.

    It is begun anew if it cannot be read; if it is of another stream, or ahead of ``last_seq``, so that jobs are lost,
    which is logged as an error and kept in ``losses``; or if nothing was applied for more than ``longest_absence``
    seconds, so that it may have missed expiries.

    :param stream_created: identifies the stream: when it was created, as the server writes it.
    :param last_seq: the last sequence of the stream.
    :raises OSError: if no file can be made there.
    :raises UnusableIndex: if none can be written there, for example because the disk is full.
    """
    applied_since = clock.now() - timedelta(seconds=longest_absence)
    try:
        index, losses = _resumed(path, stream_created, last_seq, applied_since)
        if index is None:
            index = Index(path, create_index_file(path, stream_created, losses))
            index.rebuilt = 1
    except sqlite3.Error as error:
        why = f"the index {path} cannot be opened ({error}): see that its disk has room and takes writes"
        raise UnusableIndex(why) from error
    try:
        yield index
    finally:
        index.close()


def _resumed(
    path: Path, stream_created: str, last_seq: int, applied_since: datetime
) -> tuple[Index | None, Sequence[Loss]]:
    """Return the index that is there, if it is of the stream as it is now, and the losses that are known."""
    database, losses = open_index_file(path), list[Loss]()
    if database is None:
        return None, losses
    try:
        losses = losses_of(database)
        index = Index(path, database)
        if lost := _lost(index, stream_created, last_seq):
            log.error("%s", lost)
            losses.append(Loss(clock.now(), lost))
        elif (
            index.stream_created == stream_created
            and index.position <= last_seq
            and not index.away_since(applied_since)
        ):
            return index, losses
        log.info("the index %s is not of the stream as it is now and is built anew", path)
    except (*READ_ERRORS, QueueUnavailable) as error:
        log.warning("the index %s cannot be read (%s) and is built anew", path, error)
    database.close()
    return None, losses


def _lost(index: Index, stream_created: str, last_seq: int) -> str | None:
    """Return what the stream has lost of what the index had applied, in a sentence; None if it is nothing."""
    if not index.stream_created or not (number := index.jobs):
        return None
    if index.stream_created != stream_created:
        return (
            f"The stream of jobs was created at {stream_created}, not at {index.stream_created} as the one before: it "
            f"was deleted, its store was wiped, or this is another server. The {number} jobs that were known are gone."
        )
    if index.position > last_seq:
        return (
            f"The stream of jobs ends at {last_seq}, although it has gone as far as {index.position}: an older copy "
            f"of it was restored, or its newest messages are lost. Of {number} jobs that were known, some are gone."
        )
    return None
