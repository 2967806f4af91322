"""What a batch of messages changes in the index: folded in memory, then written with a statement per kind of row.

A job is written once, however many messages of the batch are about it, and only if one of them changed it.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple, TypeAlias

import msgspec

from gql_jobs.index.minutes import BOUNDS, KEPT_MINUTES, What
from gql_jobs.index.tables import (
    changed_row,
    json_array,
    microseconds,
    minute_of,
    new_row,
    row_state,
    state_blob,
    tenant_keys,
)
from gql_jobs.jobs.fold import Event, events_of, fold, is_ghost
from gql_jobs.jobs.messages import Kind, Message, Noted, Saved, Submission
from gql_jobs.jobs.model import Artifact, Job, JobStatus, failure_group

_INSERT_JOB = "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_JOB = (
    "UPDATE jobs SET status = ?, updated = ?, finished = ?, moved = ?, steered = ?, state = ?, result = ?"
    " WHERE number = ?"
)
_DELETE_TAG = "DELETE FROM tags WHERE tenant = ? AND tag = ? AND job_id = ?"
# For progress, which changes no other column: naming one that is part of an index is slower, changed or not.
_UPDATE_PROGRESS = "UPDATE jobs SET updated = ?, state = ? WHERE number = ?"
_ADD_TO_COUNT = "INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
_Counted: TypeAlias = tuple[str, str, str, int, str]
"""The key of a row of ``counts``: status, type, queue, priority and tenant, which is empty for all jobs together."""


_Needed: TypeAlias = tuple[str, str]
"""A row of ``dependencies``: the id of a job, and that of one that waits for it."""
_Grouped: TypeAlias = tuple[str, str, int]
"""A row of ``dead_letters``: the tenant, which is empty for all jobs together, the group and the job's number."""


GHOSTS_WITHIN = 86_400_000_000
"""Microseconds after an expiry in which submissions may come that have crossed it.

Far less than the ``expired`` event is kept: once that is gone, a creation under the same key names none.
"""


class Expiry(NamedTuple):
    """When an ``expired`` event was stored, in microseconds since 1970, and its sequence."""

    seq: int
    at: int


class IndexedJob(NamedTuple):
    """A job and the primary key of its row: the sequence of the first message of its history."""

    number: int
    job: Job


class Changes:
    """The changes of one batch: call ``fold`` with its messages, then ``store``.

    ``after``: by id, each job that the messages are about, None for one that has expired; ``events``: the events that
    clients see, in order; ``horizon``: the newest sequence below which events were lost to expiry, 0 for none.
    """

    def __init__(self, known: Mapping[str, IndexedJob], expired: Mapping[str, Expiry]) -> None:
        """Begin without a change.

        :param known: by id, those of the jobs that the messages are about which the index has.
        :param expired: by id, the last expiries of others of them, as far as the index has noted those.
        """
        self._before = known
        self._expired = dict(expired)
        self.after: dict[str, IndexedJob | None] = {**known}
        self.events: list[Event] = []
        self.horizon = 0
        self._figures = MinuteCounts()
        self._removed: dict[str, Message] = {}
        self._ghosts: dict[str, int] = {}
        self._artifacts: dict[tuple[str, str], Artifact] = {}
        self._notes: list[Message] = []

    def fold(self, messages: Iterable[Message]) -> None:
        """Fold messages, in the order of the stream."""
        known = self.after
        for message in messages:
            job_id = message.job_id
            self._figures.see(message)
            was = known.get(job_id)
            job = was.job if was is not None else None
            expired_seq = self._expired_seq(message) if job is None else 0
            after = fold(job, message, expired_seq)
            if after is job:
                self._keep_beside_state(job, message)
                continue
            events = events_of(job, message, after)
            self.events += events
            self._figures.count(message, job, events)
            if after is None:
                self._expire(job, message)
                known[job_id] = None
            else:
                known[job_id] = IndexedJob(was.number if was is not None else message.seq, after)

    def _expired_seq(self, message: Message) -> int:
        expiry = self._expired.get(message.job_id)
        if expiry is None or microseconds(message.at) > expiry.at + GHOSTS_WITHIN:
            return 0
        return expiry.seq

    def _keep_beside_state(self, job: Job | None, message: Message) -> None:
        if job is not None and isinstance(message.body, Saved):
            self._artifacts[job.id, message.body.artifact.name] = message.body.artifact
        elif job is not None and message.kind is Kind.NOTE:
            self._notes.append(message)
        elif job is None and message.kind is Kind.EXPIRED:
            # A job that was deleted before this index was begun: the stream may still hold messages of it.
            if message.job_id not in self._removed:
                self._figures.lose(message.body.event_seq or message.seq, message)
            self._expire(None, message)
        elif job is None and is_ghost(message, self._expired_seq(message)):
            self._ghosts[message.job_id] = message.seq

    def _expire(self, job: Job | None, message: Message) -> None:
        self._removed[message.job_id] = message
        self._expired[message.job_id] = Expiry(message.seq, microseconds(message.at))
        if not message.body.deleted:
            # A message of an older version has no ``event_seq``. What was deleted is no event that anybody misses: else
            # nobody could go on behind a cursor of before.
            last_seq = message.seq if job is None else job.last_seq
            self.horizon = max(self.horizon, message.body.event_seq or last_seq)
        if job is not None:
            self._notes = [note for note in self._notes if note.job_id != job.id]
            self._artifacts = {key: a for key, a in self._artifacts.items() if key[0] != job.id}
            self.events = [event for event in self.events if event.job.id != job.id]

    @property
    def has_erased(self) -> bool:
        """Whether somebody has deleted one of the jobs, so that nothing of it may be left in the file."""
        return any(message.body.deleted for message in self._removed.values())

    def changed(self) -> Iterator[tuple[Job | None, Job | None]]:
        """Yield each job that was changed, as it was and as it is; None where it is new, or gone.

        A job that has got a file or a note, and is the same otherwise, is among them.
        """
        beside = {job_id for job_id, _ in self._artifacts} | {note.job_id for note in self._notes}
        for job_id, now in self.after.items():
            was = self._before.get(job_id)
            if now is not was or job_id in beside:
                yield (was.job if was is not None else None), (now.job if now is not None else None)

    def store(self, database: sqlite3.Connection) -> None:
        """Write all changes, within a transaction that the caller has begun.

        :raises sqlite3.Error: if they cannot be written.
        """
        self._figures.store(database)
        if self._removed:
            self._remove(database)
        if self._ghosts:
            ghosts = [(seq, job_id) for job_id, seq in self._ghosts.items()]
            database.executemany("UPDATE expired SET remains = ? WHERE job_id = ?", ghosts)
        blobs: dict[int, bytes] = {}
        self._store_jobs(database, blobs)
        self._store_events(database, blobs)
        files = [(*key, msgspec.json.encode(artifact)) for key, artifact in self._artifacts.items()]
        database.executemany("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?)", files)
        database.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, ?, ?)", map(_note_row, self._notes))

    def _store_jobs(self, database: sqlite3.Connection, blobs: dict[int, bytes]) -> None:
        new, changed, progressed, tags = [], [], [], []
        respecified, untagged = list[tuple[int]](), list[tuple[str, str, str]]()
        counted: dict[_Counted, int] = {}
        grouped, ungrouped = list[_Grouped](), list[_Grouped]()
        needed, unneeded = list[_Needed](), list[_Needed]()
        for job_id, now in self.after.items():
            was = self._before.get(job_id)
            if now is was:
                continue
            if was is not None:
                _count(counted, was.job, -1)
                ungrouped += _group_rows(was)
            if (rows := _needs(now)) != (former := _needs(was)):
                needed += rows
                unneeded += former
            if now is None:
                continue
            number, job = now
            _count(counted, job, 1)
            grouped += _group_rows(now)
            blob = row_state(job)
            if job.result is None:
                blobs[id(job)] = blob
            if was is None or was.number != number or job_id in self._removed:
                new.append(new_row(number, job, blob))
                tags += _tag_rows(job)
            elif job.spec is not was.job.spec and job.spec != was.job.spec:
                # All columns may be others, and a row that is replaced has none of them to be looked for.
                respecified.append((number,))
                untagged += _tag_rows(was.job)
                new.append(new_row(number, job, blob))
                tags += _tag_rows(job)
            elif (was.job.status, was.job.finished_at, was.job.moved_at) == (job.status, job.finished_at, job.moved_at):
                progressed.append((microseconds(job.updated_at), blob, number))
            else:
                changed.append(changed_row(number, job, blob))
        database.executemany("DELETE FROM jobs WHERE number = ?", respecified)
        database.executemany(_DELETE_TAG, untagged)
        database.executemany(_INSERT_JOB, new)
        database.executemany(_UPDATE_JOB, changed)
        database.executemany(_UPDATE_PROGRESS, progressed)
        database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", tags)
        database.executemany("DELETE FROM dead_letters WHERE owner = ? AND failure_group = ? AND job = ?", ungrouped)
        database.executemany("INSERT OR IGNORE INTO dead_letters VALUES (?, ?, ?)", grouped)
        database.executemany("DELETE FROM dependencies WHERE needed = ? AND job_id = ?", unneeded)
        database.executemany("INSERT OR IGNORE INTO dependencies VALUES (?, ?)", needed)
        database.executemany(_ADD_TO_COUNT, [(*key, delta) for key, delta in counted.items() if delta])

    def _store_events(self, database: sqlite3.Connection, blobs: Mapping[int, bytes]) -> None:
        lifecycle: list[tuple[int, int, int, str, bytes]] = []
        progress: dict[int, tuple[int, int, bytes]] = {}
        for event in self.events:
            kind, (seq, nth), job = event.kind, event.cursor, event.job
            known = self.after[job.id]
            assert known is not None
            # The last event of a job has the same state as its row, but for the result.
            blob = blobs.get(id(job)) or state_blob(job)
            if kind is Kind.PROGRESS:
                progress[known.number] = (known.number, seq, blob)
            else:
                lifecycle.append((seq, nth, known.number, str(kind), blob))
        database.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)", lifecycle)
        database.executemany("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", progress.values())

    def _remove(self, database: sqlite3.Connection) -> None:
        known = [was for job_id in self._removed if (was := self._before.get(job_id)) is not None]
        numbers = [(was.number,) for was in known]
        ids = [(was.job.id,) for was in known]
        tags = [row for was in known for row in _tag_rows(was.job)]
        expired = [
            (job_id, *self._expired[job_id], gone.body.deleted, gone.seq) for job_id, gone in self._removed.items()
        ]
        database.executemany("INSERT OR REPLACE INTO expired VALUES (?, ?, ?, ?, ?)", expired)
        database.executemany("DELETE FROM jobs WHERE number = ?", numbers)
        database.executemany("DELETE FROM events WHERE job = ?", numbers)
        database.executemany("DELETE FROM progress WHERE job = ?", numbers)
        database.executemany("DELETE FROM artifacts WHERE job_id = ?", ids)
        database.executemany("DELETE FROM notes WHERE job_id = ?", ids)
        database.executemany(_DELETE_TAG, tags)


def _count(counted: dict[_Counted, int], job: Job, by: int) -> None:
    spec = job.spec
    status, rank = str(job.status), spec.priority.rank
    for tenant in tenant_keys(spec):
        key = (status, spec.type, spec.queue, rank, tenant)
        counted[key] = counted.get(key, 0) + by


def _tag_rows(job: Job) -> list[tuple[str, str, str]]:
    """Return the job's rows of the table ``tags``, in the order of its columns."""
    spec = job.spec
    return [(tenant, tag, job.id) for tenant in tenant_keys(spec) for tag in spec.tags] if spec.tags else []


def _needs(known: IndexedJob | None) -> list[_Needed]:
    """Return the job's rows of the table ``dependencies``: the jobs that it waits for, none once it has ended."""
    if known is None or not known.job.spec.after or known.job.status.is_terminal:
        return []
    return [(needed, known.job.id) for needed in known.job.spec.after]


def _group_rows(known: IndexedJob) -> list[_Grouped]:
    """Return the job's rows of the table ``dead_letters``: none unless it is one."""
    group = failure_group(known.job)
    return [(owner, group.key, known.number) for owner in tenant_keys(known.job.spec)] if group is not None else []


def _note_row(message: Message) -> tuple[str | int, ...]:
    """Return the row of the table ``notes``, in the order of its columns."""
    body: Noted = message.body
    at = microseconds(message.at)
    return message.job_id, message.seq, body.cancelled_seq, body.receipt.value, at, body.attempt, body.worker_id


# What happened in each queue, minute by minute.

_MILLISECOND = timedelta(milliseconds=1)
_OF_KIND = {
    Kind.STARTED: What.STARTED,
    Kind.COMPLETED: What.COMPLETED,
    Kind.FAILED: What.FAILED,
    Kind.DEAD_LETTER: What.DEAD_LETTERED,
}
_HELD_BACK = frozenset({Kind.SCHEDULED, Kind.WAITING})
_ADD = "INSERT INTO minutes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
_BEGAN = "INSERT OR IGNORE INTO minutes_began VALUES (?, ?)"


class MinuteCounts:
    """What a batch of messages adds to the figures: call ``see`` and ``count`` with each, then ``store``."""

    def __init__(self) -> None:
        self._added: dict[tuple[str, int, int, int], int] = {}
        self._began: dict[int, int] = {}
        """The first sequence of each minute."""
        self._lost: dict[str, tuple[int, int]] = {}
        """By job, the newest event that is gone, and the minute when that was told."""

    def see(self, message: Message) -> None:
        """Note where minutes begin in the stream, by any message that is there; call it in their order."""
        self._began.setdefault(minute_of(message.at), message.seq)

    def count(self, message: Message, before: Job | None, events: Iterable[Event]) -> None:
        """Count a message that has changed a job.

        :param before: the job before it.
        :param events: what clients see of it.
        """
        minute = minute_of(message.at)
        for event in events:
            queue, what = event.job.spec.queue, _OF_KIND.get(event.kind)
            if event.kind in _HELD_BACK and before is None and not getattr(message.body, "held", False):
                # By the time of its creation: the message itself is deleted once its time has come.
                self._add(queue, minute_of(event.job.spec.created_at), What.CREATED)
            elif event.kind is Kind.QUEUED and _is_creation(message):
                self._add(queue, minute, What.CREATED)
            elif what is not None:
                self._add(queue, minute, what)
                self._time(queue, message, before)

    def _time(self, queue: str, message: Message, before: Job | None) -> None:
        if before is None:
            return
        minute = minute_of(message.at)
        if message.kind is Kind.STARTED:
            if before.status is JobStatus.QUEUED:
                self._add(queue, minute, What.START_DELAY, _bucket(message.at - before.updated_at))
        elif before.status is JobStatus.PROCESSING and before.started_at is not None:
            self._add(queue, minute, What.RUN, _bucket(message.at - before.started_at))

    def _add(self, queue: str, minute: int, what: What, bucket: int = 0) -> None:
        key = (queue, minute, int(what), bucket)
        self._added[key] = self._added.get(key, 0) + 1

    def lose(self, seq: int, message: Message) -> None:
        """Note that a job has expired that is not known: if it never was, what it did up to ``seq`` was not counted."""
        self._lost[message.job_id] = (seq, minute_of(message.at))

    def store(self, database: sqlite3.Connection) -> None:
        """Add the figures to those of the index, and drop what is older than a day by the newest of these messages.

        Call it before the jobs that have expired in this batch are noted in the table ``expired``.

        :raises sqlite3.Error: if they cannot be written.
        """
        database.executemany(_ADD, [(*key, n) for key, n in self._added.items()])
        if self._began and database.executemany(_BEGAN, self._began.items()).rowcount > 0:
            oldest = (max(self._began) - KEPT_MINUTES,)
            database.execute("DELETE FROM minutes WHERE minute < ?", oldest)
            # Of those before, the last one is kept: what is gone from before it tells nothing of the day.
            last = "SELECT max(minute) FROM minutes_began WHERE minute < ?"
            database.execute(f"DELETE FROM minutes_began WHERE minute < ({last})", oldest)  # noqa: S608
        if self._lost:
            self._note_lost(database)

    def _note_lost(self, database: sqlite3.Connection) -> None:
        ids = json_array(list(self._lost))
        sql = "SELECT job_id FROM expired WHERE job_id IN (SELECT value FROM json_each(?))"
        known = {job_id for (job_id,) in database.execute(sql, (ids,))}
        lost = [self._lost[job_id] for job_id in self._lost.keys() - known]
        if not lost:
            return
        seq, told = max(lost)
        # The event came before the first message behind it that is left.
        sql = "SELECT minute FROM minutes_began WHERE seq > ? ORDER BY minute LIMIT 1"
        row = database.execute(sql, (seq,)).fetchone()
        known_from = 1 + (min(row[0], told) if row is not None else told)
        database.execute(
            "INSERT INTO meta VALUES ('figures_from', ?) ON CONFLICT DO UPDATE"
            " SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
            (str(known_from),),
        )


def _is_creation(message: Message) -> bool:
    body = message.body
    if not isinstance(body, Submission) or body.spec.run_at is not None or body.release or body.after_edit:
        return False
    return body.event_seq == 0 or body.after_expiry


def _bucket(time: timedelta) -> int:
    return min(bisect_left(BOUNDS, time / _MILLISECOND), len(BOUNDS) - 1)
