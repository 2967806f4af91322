"""What a batch of messages does to the index: folded in memory first, then written, one statement a kind of row.

A job that many messages of the batch speak of is read once and written once; what nobody changed is not written at all.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from gql_jobs.index.tables import changed_row, job_of, microseconds, moment, new_row, state_blob
from gql_jobs.jobs.fold import Event, events_of, fold
from gql_jobs.jobs.messages import Kind, Message, Noted, Receipt, Saved
from gql_jobs.jobs.model import Artifact, Job

# The receipts of cancellations in the index: beside jobs and events, because they change neither.


class Note(NamedTuple):
    """One receipt, and when the stream stored it."""

    receipt: Receipt
    at: datetime
    attempt: int
    worker_id: str


def note_row(message: Message) -> tuple[str | int, ...]:
    """The row of table ``notes``, in the order of its columns."""
    body: Noted = message.body
    at = microseconds(message.at)
    return message.job_id, message.seq, body.cancelled_seq, body.receipt.value, at, body.attempt, body.worker_id


def notes_of(database: sqlite3.Connection, job_id: str, cancelled_seq: int) -> list[Note]:
    """The receipts of one cancellation, oldest first."""
    sql = "SELECT receipt, at, attempt, worker_id FROM notes WHERE job_id = ? AND cancelled_seq = ? ORDER BY seq"
    rows = database.execute(sql, (job_id, cancelled_seq))
    return [Note(Receipt(receipt), moment(at), attempt, worker) for receipt, at, attempt, worker in rows]


_NEW = "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_CHANGED = "UPDATE jobs SET status = ?, updated = ?, finished = ?, state = ? WHERE number = ?"
# A report changes no more. Naming the columns of three more indexes would cost a fifth more, changed or not.
_REPORTED = "UPDATE jobs SET updated = ?, state = ? WHERE number = ?"
_COUNTED = "INSERT INTO counts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"


class Known(NamedTuple):
    """A job and its number in the index: the sequence of the message that it began with."""

    number: int
    job: Job


class Changes:
    """Made of the jobs that the messages speak of, as far as the index has them."""

    def __init__(self, known: Mapping[str, Known]) -> None:
        self._before = known
        self.after: dict[str, Known | None] = dict(known)
        self.events: list[Event] = []
        self.horizon = 0
        self._removed: dict[str, int] = {}
        self._artifacts: dict[tuple[str, str], Artifact] = {}
        self._notes: list[Message] = []

    def fold(self, messages: Iterable[Message]) -> None:
        """Apply messages in their order."""
        known = self.after
        for message in messages:
            job_id = message.job_id
            was = known.get(job_id)
            job = was.job if was is not None else None
            after = fold(job, message)
            if after is job:
                self._apart_from_state(job, message)
                continue
            self.events += events_of(job, message, after)
            if after is None:
                self._expire(job, message)
                known[job_id] = None
            else:
                known[job_id] = Known(was.number if was is not None else message.seq, after)

    def _apart_from_state(self, job: Job | None, message: Message) -> None:
        if job is not None and isinstance(message.body, Saved):
            self._artifacts[job.id, message.body.artifact.name] = message.body.artifact
        elif job is not None and message.kind is Kind.NOTE:
            self._notes.append(message)
        elif job is None and message.kind is Kind.EXPIRED:
            # A job that was deleted before this index was begun: something may be left of it.
            self._expire(None, message)

    def _expire(self, job: Job | None, message: Message) -> None:
        self._removed[message.job_id] = microseconds(message.at)
        # One of an older version does not say where the events ended.
        self.horizon = max(self.horizon, message.body.event_seq or (message.seq if job is None else job.last_seq))
        if job is not None:
            self._notes = [note for note in self._notes if note.job_id != job.id]
            self._artifacts = {key: a for key, a in self._artifacts.items() if key[0] != job.id}
            self.events = [event for event in self.events if event.job.id != job.id]

    def store(self, database: sqlite3.Connection) -> None:
        """Write it all, within a transaction of the caller's."""
        if self._removed:
            self._remove(database)
        blobs: dict[int, bytes] = {}
        self._store_jobs(database, blobs)
        self._store_events(database, blobs)
        files = [(*key, msgspec.json.encode(artifact)) for key, artifact in self._artifacts.items()]
        database.executemany("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?)", files)
        database.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, ?, ?)", map(note_row, self._notes))

    def _store_jobs(self, database: sqlite3.Connection, blobs: dict[int, bytes]) -> None:
        new, changed, reported, tags = [], [], [], []
        counted: dict[tuple[str, str, str, int], int] = {}
        for job_id, now in self.after.items():
            was = self._before.get(job_id)
            if now is was:
                continue
            if was is not None:
                _count(counted, was.job, -1)
            if now is None:
                continue
            number, job = now
            _count(counted, job, 1)
            blob = blobs[id(job)] = state_blob(job)
            if was is None or was.number != number:
                new.append(new_row(number, job, blob))
                tags += [(tag, job_id) for tag in job.spec.tags]
            elif (was.job.status, was.job.finished_at) == (job.status, job.finished_at):
                reported.append((microseconds(job.updated_at), blob, number))
            else:
                changed.append(changed_row(number, job, blob))
        database.executemany(_NEW, new)
        database.executemany(_CHANGED, changed)
        database.executemany(_REPORTED, reported)
        database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", tags)
        database.executemany(_COUNTED, [(*key, delta) for key, delta in counted.items() if delta])

    def _store_events(self, database: sqlite3.Connection, blobs: Mapping[int, bytes]) -> None:
        lasting: list[tuple[int, int, int, str, bytes]] = []
        progress: dict[int, tuple[int, int, bytes]] = {}
        for event in self.events:
            kind, (seq, nth), job = event.kind, event.cursor, event.job
            known = self.after[job.id]
            assert known is not None
            # The last event of a job shows it as its own row does.
            blob = blobs.get(id(job)) or state_blob(job)
            if kind is Kind.PROGRESS:
                progress[known.number] = (known.number, seq, blob)
            else:
                lasting.append((seq, nth, known.number, str(kind), blob))
        database.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)", lasting)
        database.executemany("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", progress.values())

    def _remove(self, database: sqlite3.Connection) -> None:
        known = [was for job_id in self._removed if (was := self._before.get(job_id)) is not None]
        numbers = [(was.number,) for was in known]
        ids = [(was.job.id,) for was in known]
        tags = [(tag, was.job.id) for was in known for tag in was.job.spec.tags]
        database.executemany("INSERT OR REPLACE INTO expired VALUES (?, ?)", self._removed.items())
        database.executemany("DELETE FROM jobs WHERE number = ?", numbers)
        database.executemany("DELETE FROM events WHERE job = ?", numbers)
        database.executemany("DELETE FROM progress WHERE job = ?", numbers)
        database.executemany("DELETE FROM artifacts WHERE job_id = ?", ids)
        database.executemany("DELETE FROM notes WHERE job_id = ?", ids)
        database.executemany("DELETE FROM tags WHERE tag = ? AND job_id = ?", tags)


def _count(counted: dict[tuple[str, str, str, int], int], job: Job, by: int) -> None:
    spec = job.spec
    key = (str(job.status), spec.type, spec.queue, spec.priority.rank)
    counted[key] = counted.get(key, 0) + by


# The jobs that messages speak of, as the index has them: the latest are kept in memory, all others read at once.
#
# A message names its job's submission. That is the number of the job's row for all but retried and scheduled ones, and
# jobs that run one after the other have been created so: their rows lie side by side, while random ids lie anywhere.

_KEPT = 10_000
_BY_NUMBER = "SELECT number, id, spec, state FROM jobs WHERE number IN (SELECT value FROM json_each(?))"
_BY_ID = "SELECT number, id, spec, state FROM jobs WHERE id IN (SELECT value FROM json_each(?))"


class KnownJobs:
    """Jobs as of the index's position. May raise what SQLite raises of a damaged file."""

    def __init__(self) -> None:
        self._latest: OrderedDict[str, Known] = OrderedDict()

    def one(self, database: sqlite3.Connection, job_id: str) -> Known | None:
        """The job of that id, if there is one."""
        return self._latest.get(job_id) or _read(database, _BY_ID, [job_id]).get(job_id)

    def of(self, database: sqlite3.Connection, messages: Iterable[Message]) -> dict[str, Known]:
        """The jobs of these messages that there are."""
        known: dict[str, Known] = {}
        submissions: dict[str, int] = {}
        for message in messages:
            job_id = message.job_id
            kept = self._latest.get(job_id)
            if kept is not None:
                known[job_id] = kept
            else:
                submissions[job_id] = message.body.submission
        known |= _read(database, _BY_NUMBER, [number for number in submissions.values() if number])
        return known | _read(database, _BY_ID, [job_id for job_id in submissions if job_id not in known])

    def keep(self, jobs: Mapping[str, Known | None]) -> None:
        """Keep what has become of these jobs; None for what is gone."""
        for job_id, known in jobs.items():
            self._latest.pop(job_id, None)
            if known is not None:
                self._latest[job_id] = known
        while len(self._latest) > _KEPT:
            self._latest.popitem(last=False)

    def forget(self) -> None:
        """The index begins anew."""
        self._latest.clear()


def _read(database: sqlite3.Connection, sql: str, keys: list[int] | list[str]) -> dict[str, Known]:
    rows = database.execute(sql, (msgspec.json.encode(keys).decode(),)) if keys else ()
    return {job_id: Known(number, job_of(job_id, spec, state)) for number, job_id, spec, state in rows}
