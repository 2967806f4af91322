"""Reads of the index: short pages and counts on the event loop, longer reads in a thread.

A reader sees what the index has committed, so it sees every write that a mutation has waited for.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from datetime import datetime
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

import msgspec

from gql_jobs.index.index import Index
from gql_jobs.index.minutes import Minute, read_minutes
from gql_jobs.index.page import (
    FailureCount,
    KeysRead,
    Page,
    count_jobs,
    is_counted,
    jobs_table,
    read_failure_groups,
    read_page,
    read_sort_keys,
    where,
    where_counted,
)
from gql_jobs.index.tables import (
    READ_ERRORS,
    json_array,
    microseconds,
    moment_at,
    open_read_only,
    stored_event,
    stored_job,
    stored_spec,
    stored_worker,
)
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Artifact, Cursor, Job, JobStatus, Spec
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.jobs.viewer import EVERYTHING, Visibility

_T = TypeVar("_T")
_decode_artifact = msgspec.json.Decoder(Artifact).decode

READ_THREADS = 2
"""Long reads that run at a time; each has a connection of its own."""
SHORT_PAGE = 100
"""Jobs of the largest page that is read on the event loop, if SQLite finds them soon enough."""
LOOP_READ_CPU = 0.002
"""Seconds of CPU after which a read on the event loop is abandoned and made in a thread.

Not seconds on the clock: a read that is slow only because a thread is busy would go to a thread as well and slow down
the next one, until no read is made on the loop any more.
"""
LOOP_READ_WAIT = 0.05
"""Seconds on the clock after which it is abandoned as well: a file on a slow disk takes no CPU."""
LOOP_READ_PAUSE = 0.1
"""Seconds without a read on the event loop after an abandoned one, because each of those delays all other tasks."""
_LOOP_STEPS = 1000
"""Instructions of SQLite between two looks at the clocks: few, so that the limits above are kept closely."""
_THREAD_STEPS = 100_000
"""Instructions of SQLite between two checks whether the caller still waits."""
MOST_RUNNING = 10_000
"""Running jobs that are looked at, to find those of each worker."""
_EVENT_BYTES = 1024
"""Bytes of an event in memory besides those of its row."""
_SPEC = "SELECT id, spec, payload FROM jobs WHERE number = ?"
_SPEC_OF = "SELECT spec, payload FROM jobs WHERE id = ?"
_JOB = "SELECT id, spec, state, payload, result FROM jobs WHERE id = ?"
_EVENTS_AFTER = """
SELECT seq, nth, kind, job, state FROM events WHERE (seq, nth) > (:seq, :nth)
UNION ALL SELECT seq, 0, 'progress', job, state FROM progress WHERE seq > :seq
ORDER BY seq, nth LIMIT :limit
"""
_EVENTS_OF_JOB_AFTER = """
SELECT seq, nth, kind, job, state FROM events
WHERE job = (SELECT number FROM jobs WHERE id = :id) AND (seq, nth) > (:seq, :nth)
UNION ALL SELECT seq, 0, 'progress', job, state FROM progress
WHERE job = (SELECT number FROM jobs WHERE id = :id) AND seq > :seq
ORDER BY seq, nth LIMIT :limit
"""
_RUNNING = "SELECT id, state FROM jobs WHERE status = 'processing' ORDER BY created, id LIMIT ?"
_WAITING = """
SELECT queue, priority, sum(n) FROM counts
WHERE tenant = '' AND status = 'queued' AND queue IN (SELECT value FROM json_each(?)) GROUP BY queue, priority
"""
# The index has all columns, so that the rows themselves are not read.
_QUEUED_BETWEEN = """
SELECT priority, count(*) FROM jobs INDEXED BY jobs_queue
WHERE queue = ? AND status = 'queued' AND updated >= ? AND updated < ? GROUP BY priority
"""
_OLDEST_QUEUED = """
SELECT queue, (SELECT min(updated) FROM jobs WHERE jobs.queue = queues.queue AND status = 'queued')
FROM (SELECT DISTINCT queue FROM counts WHERE tenant = '' AND status = 'queued' AND n > 0) AS queues
"""
_HISTORY = """
SELECT seq, nth, kind, state FROM (
  SELECT seq, nth, kind, state FROM events WHERE job = :number AND (seq, nth) > (:seq, :nth)
  UNION ALL SELECT seq, 0, 'progress', state FROM progress WHERE job = :number AND seq > :seq
) ORDER BY seq, nth LIMIT :limit
"""


class QueuePlace(NamedTuple):
    """Where a job stands in its queue: the rank of its priority, and since when it is queued."""

    queue: str
    rank: int
    since: datetime


Charge = Callable[[int], None]
"""Called in the thread that reads, with the bytes of each row before it is kept; what it raises ends the read."""
_FIRST_LOST = """
SELECT 1 FROM events AS e
WHERE seq < ?1 AND kind != 'scheduled' AND (SELECT max(seq) FROM events WHERE job = e.job) < ?1 LIMIT 1
"""
_JOBS_BEFORE = """
SELECT number, id, (SELECT count(DISTINCT seq) FROM events WHERE job = number AND kind != 'scheduled')
FROM jobs WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2
"""


class _TooLong(Exception):
    """The read takes too long for the event loop and has to be made in a thread."""


class _Abandoned(Exception):
    """The caller was cancelled before the read began; raised in the thread only, where nobody awaits it."""


class Reader:
    """Read-only connections to the index file: one for the event loop, one for each of ``READ_THREADS``.

    Every read raises ``QueueUnavailable`` if the file is damaged.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._loop_connection = open_read_only(index.path)
        self._loop_blocked_until = 0.0
        self._free: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for _ in range(READ_THREADS):
            self._free.put(open_read_only(index.path))
        self.of_large_jobs = asyncio.Lock()
        """Held by whoever reads large jobs one after the other, so that only one of them is in memory."""
        self._threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="index")

    async def page(
        self,
        job_filter: JobFilter,
        order: JobOrder,
        *,
        first: int,
        after: str | None,
        offset: int,
        largest: int | None = None,
        max_bytes: int | None = None,
    ) -> Page:
        """Return a page of at most ``first`` jobs.

        :param after: the cursor of the job before the page; None begins with the first job of the order.
        :param offset: how many further jobs to leave out before the page.
        :param largest: the payload and the result of a job are read if they have no more bytes together; 0 reads none,
            None reads all. Nobody may show what was not read.
        :param max_bytes: the read ends with the first row that makes the page larger, which ``Page.size`` tells.
        :raises InvalidArgument: if ``after`` is no cursor of this order.
        """
        read = partial(
            read_page,
            job_filter=job_filter,
            order=order,
            first=first,
            after=after,
            offset=offset,
            largest=largest,
            max_bytes=max_bytes,
        )
        return await (self._read_short(read) if first <= SHORT_PAGE else self._read(read))

    async def job(self, job_id: str) -> Job | None:
        """Return one job with its payload and its result; None if there is none (any more)."""

        def read(database: sqlite3.Connection) -> Job | None:
            row = database.execute(_JOB, (job_id,)).fetchone()
            return stored_job(*row) if row is not None else None

        return await self._read(read)

    async def spec(self, job_id: str) -> Spec | None:
        """Return what was asked for, with its payload but without reading a result; None if there is no such job."""

        def read(database: sqlite3.Connection) -> Spec | None:
            row = database.execute(_SPEC_OF, (job_id,)).fetchone()
            return stored_spec(*row) if row is not None else None

        return await self._read(read)

    async def count(self, job_filter: JobFilter) -> int:
        """Return how many jobs match."""
        return await self._read_short(partial(count_jobs, job_filter=job_filter))

    async def keys(self, job_filter: JobFilter, order: JobOrder, limit: int) -> KeysRead:
        """Return the keys of at most ``limit`` jobs, the first in the order, as of one position of the index."""
        return await self._read(partial(read_sort_keys, job_filter=job_filter, order=order, limit=limit))

    async def ids(self, job_filter: JobFilter, limit: int) -> list[str]:
        """Return the ids of the jobs that match, oldest first, at most ``limit`` of them."""
        found = where(job_filter)

        def read(database: sqlite3.Connection) -> list[tuple[str]]:
            table = jobs_table(database, job_filter)
            sql = f"SELECT id FROM {table}{found.sql} ORDER BY created, id LIMIT ?"  # noqa: S608
            return database.execute(sql, (*found.values, limit)).fetchall()

        return [row[0] for row in await self._read(read)]

    async def failure_groups(self, job_filter: JobFilter, first: int) -> list[FailureCount]:
        """Return at most ``first`` groups of the dead letters that match, the largest first."""
        return await self._read(partial(read_failure_groups, job_filter=job_filter, first=first))

    async def queue_counts(self, visibility: Visibility) -> dict[str, dict[JobStatus, int]]:
        """Return the number of jobs per queue and status; queues and statuses without a job may be left out."""
        counts: dict[str, dict[JobStatus, int]] = {}
        for queue, status, number in await self._counted(JobFilter(visibility=visibility), "queue, status"):
            counts.setdefault(queue, {})[JobStatus(status)] = number
        return counts

    async def waiting_types(self, visibility: Visibility) -> dict[str, dict[str, int]]:
        """Return the number of jobs that wait for an attempt, the first or a later one, per queue and type."""
        waiting = JobFilter(status=frozenset({JobStatus.QUEUED, JobStatus.RETRYING}), visibility=visibility)
        types: dict[str, dict[str, int]] = {}
        for queue, name, number in await self._counted(waiting, "queue, type"):
            if number:
                types.setdefault(queue, {})[name] = number
        return types

    async def ungated(self, queue: str) -> int:
        """Return how many jobs of a queue, that have not ended, start whatever its limits: they pass no gate."""
        statuses = [str(status) for status in JobStatus if not status.is_terminal and status is not JobStatus.WAITING]
        marks = ", ".join("?" * len(statuses))
        sql = (
            f"SELECT count(*) FROM jobs WHERE queue = ? AND status IN ({marks})"  # noqa: S608
            " AND (steered IS NULL OR json_extract(CAST(spec AS TEXT), '$.gate') IS NULL)"
        )
        ((found,),) = await self._read(lambda database: database.execute(sql, (queue, *statuses)).fetchall())
        return int(found)

    async def oldest_queued_at(self, visibility: Visibility) -> dict[str, datetime]:
        """Return since when the oldest queued job of each queue has been waiting; queues without one are left out."""
        queued = JobFilter(status=frozenset({JobStatus.QUEUED}), visibility=visibility)

        def read(database: sqlite3.Connection) -> list[tuple[str, int | None]]:
            if visibility == EVERYTHING:
                # The oldest of each queue by its index: there may be very many.
                return database.execute(_OLDEST_QUEUED).fetchall()
            found, table = where(queued), jobs_table(database, queued)
            sql = f"SELECT queue, min(updated) FROM {table}{found.sql} GROUP BY queue"  # noqa: S608
            return database.execute(sql, found.values).fetchall()

        rows = await self._read(read)
        return {queue: moment_at(oldest) for queue, oldest in rows if oldest is not None}

    async def _counted(self, job_filter: JobFilter, columns: str) -> list[tuple[str, str, int]]:
        """Return the number of jobs that match, for each combination of the columns that there is."""

        def read(database: sqlite3.Connection) -> list[tuple[str, str, int]]:
            if is_counted(job_filter):
                found, what = where_counted(job_filter), "sum(n) FROM counts"
            else:
                found, what = where(job_filter), f"count(*) FROM {jobs_table(database, job_filter)}"
            return database.execute(f"SELECT {columns}, {what}{found.sql} GROUP BY {columns}", found.values).fetchall()

        return await self._read(read)

    async def minutes(self, queue: str, first: int, last: int) -> list[Minute]:
        """Return the figures of a queue for each minute from ``first`` to ``last`` of which the index knows all."""
        return await self._read(partial(read_minutes, queue=queue, first=first, last=last))

    async def ahead(self, places: Collection[QueuePlace]) -> dict[QueuePlace, int]:
        """Return how many queued jobs start before each place: of higher priorities, and of its own the earlier ones.

        The queued jobs of each queue are counted once, however many places are asked about.
        """
        return await self._read(partial(_read_ahead, places=places))

    async def running(self) -> dict[str, list[str]]:
        """Return by worker the ids of the jobs that it runs, the first created first, of the first ``MOST_RUNNING``."""

        def read(database: sqlite3.Connection) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            with closing(database.execute(_RUNNING, (MOST_RUNNING,))) as rows:
                for job_id, state in rows:
                    found.setdefault(stored_worker(state) or "", []).append(job_id)
            return found

        return await self._read(read)

    async def events_after(
        self, after: Cursor, job_id: str | None, limit: int, max_bytes: int
    ) -> tuple[list[Event], bool]:
        """Return the next events behind a cursor, of one job or (None) of all, oldest first, and whether these are all.

        Of a job's progress only the newest report is kept.

        :param limit: how many events at most.
        :param max_bytes: how many bytes they may take in memory; a single event may take more.
        """
        return await self._read(
            partial(read_events_after, after=after, job_id=job_id, limit=limit, max_bytes=max_bytes)
        )

    async def history(self, job_id: str, after: Cursor, limit: int, charge: Charge) -> list[Event]:
        """Return at most ``limit`` of a job's events behind a cursor, oldest first; of its progress only the newest."""
        return await self._read(partial(_read_history, job_id=job_id, after=after, limit=limit, charge=charge))

    async def artifacts(self, job_id: str, charge: Charge) -> list[Artifact] | None:
        """Return the job's files, sorted by name; None if there is no such job."""
        sql = "SELECT artifact FROM artifacts WHERE job_id = ? ORDER BY name"

        def read(database: sqlite3.Connection) -> list[Artifact] | None:
            found = []
            for (stored,) in database.execute(sql, (job_id,)):
                charge(len(stored))
                found.append(_decode_artifact(stored))
            is_there = found or database.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return found if is_there else None

        return await self._read(read)

    async def overdue(self, before: datetime) -> list[str]:
        """Return at most 1000 ids of scheduled jobs whose ``run_at`` is before that moment."""
        sql = "SELECT id FROM jobs WHERE status = 'scheduled' AND run_at < ? LIMIT 1000"
        rows = await self._read(lambda db: db.execute(sql, (microseconds(before),)).fetchall())
        return [row[0] for row in rows]

    async def edited(self, before: datetime) -> list[str]:
        """Return at most 1000 ids of jobs that were changed before that moment and lack a submission since."""
        sql = "SELECT id FROM jobs WHERE steered = 2 AND updated < ? LIMIT 1000"
        rows = await self._read(lambda db: db.execute(sql, (microseconds(before),)).fetchall())
        return [row[0] for row in rows]

    async def finished(self, before: datetime, limit: int) -> list[str]:
        """Return at most ``limit`` ids of jobs that ended before that moment, the earliest first.

        Those are left out that others are to run after which have not ended.
        """
        sql = (
            "SELECT id FROM jobs WHERE finished > 0 AND finished < ?"
            " AND NOT EXISTS (SELECT 1 FROM dependencies WHERE needed = jobs.id) ORDER BY finished LIMIT ?"
        )
        rows = await self._read(lambda db: db.execute(sql, (microseconds(before), limit)).fetchall())
        return [row[0] for row in rows]

    async def jobs_before(self, number: int | None, limit: int) -> list[tuple[int, str, int]]:
        """Return at most ``limit`` jobs, the newest first; only those before that number, if it is given.

        :returns: of each job its number, its id, and how many submissions and events the stream must at least have of
            it: those of fired and cancelled schedules are gone, and what makes no event of its own is not counted.
        """
        rows = await self._read(lambda db: db.execute(_JOBS_BEFORE, (number, limit)).fetchall())
        return [(number, job_id, max(known, 1)) for number, job_id, known in rows]

    async def has_older_than(self, first_seq: int) -> bool:
        """Return whether there is a job all of whose events come before the first message of the stream."""
        return bool(await self._read(lambda db: db.execute(_FIRST_LOST, (first_seq,)).fetchall()))

    async def has_files(self) -> bool:
        """Return whether any job has files."""
        return bool(await self._read(lambda db: db.execute("SELECT 1 FROM artifacts LIMIT 1").fetchall()))

    async def _read_short(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        """Read on the event loop; if that takes too long, start again in a thread.

        Handing a short read to a thread costs more than the read, because at every row SQLite releases the
        interpreter's lock and has to get it back from the event loop (docs/decisions.md).

        :param read: is interrupted within SQLite only, so it must not do much after the last row.
        """
        self._index.raise_if_unusable()
        try:
            return self._read_on_loop(read)
        except _TooLong:
            return await self._read(read)
        except READ_ERRORS as error:
            raise self._index.read_error(error) from error

    def _read_on_loop(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        began, used = time.monotonic(), time.thread_time()
        if began < self._loop_blocked_until:
            raise _TooLong

        def is_long() -> bool:
            return time.thread_time() > used + LOOP_READ_CPU or time.monotonic() > began + LOOP_READ_WAIT

        self._loop_connection.set_progress_handler(is_long, _LOOP_STEPS)
        try:
            return read(self._loop_connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            self._loop_blocked_until = time.monotonic() + LOOP_READ_PAUSE
            raise _TooLong from None

    async def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        """Read in a thread."""
        self._index.raise_if_unusable()
        abandoned = threading.Event()
        work = partial(self._read_in_thread, read, abandoned)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except READ_ERRORS as error:
            raise self._index.read_error(error) from error
        finally:
            # After a timeout or a disconnection the thread has to be free for other reads.
            abandoned.set()

    def _read_in_thread(self, read: Callable[[sqlite3.Connection], _T], abandoned: threading.Event) -> _T:
        if abandoned.is_set():
            raise _Abandoned
        database = self._free.get()
        try:
            # Not interrupt(): between two statements it has no effect, or it hits the next read.
            database.set_progress_handler(abandoned.is_set, _THREAD_STEPS)
            return read(database)
        finally:
            self._free.put(database)

    def close(self) -> None:
        """Wait for the running reads, then close the connections."""
        self._threads.shutdown(wait=True)
        self._loop_connection.close()
        while not self._free.empty():
            self._free.get().close()


def read_events_after(
    database: sqlite3.Connection, after: Cursor, job_id: str | None, limit: int, max_bytes: int
) -> tuple[list[Event], bool]:
    """Return what ``Reader.events_after`` returns."""
    sql = _EVENTS_OF_JOB_AFTER if job_id is not None else _EVENTS_AFTER
    found: list[Event] = []
    specs: dict[int, tuple[str, Spec] | None] = {}
    size = 0
    # Row by row, so that no more is read than is wanted. The spec of a job, which may be large, is read once.
    with closing(database.execute(sql, {"seq": after.seq, "nth": after.nth, "id": job_id, "limit": limit + 1})) as rows:
        for seq, nth, kind, number, state in rows:
            if len(found) == limit or (found and size + len(state) > max_bytes):
                return found, False
            if number not in specs:
                if found and size + _spec_size(database, number) > max_bytes:
                    return found, False
                read = database.execute(_SPEC, (number,)).fetchone()
                specs[number] = (read[0], stored_spec(*read[1:])) if read is not None else None
                size += len(read[1]) + len(read[2]) if read is not None else 0
            known = specs[number]
            if known is None:
                # The job has expired since the rows were asked for.
                continue
            size += len(state) + _EVENT_BYTES
            found.append(stored_event(Cursor(seq, nth), kind, *known, state))
    return found, True


def _read_ahead(database: sqlite3.Connection, places: Collection[QueuePlace]) -> dict[QueuePlace, int]:
    found: dict[QueuePlace, int] = {}
    # One transaction, so that all is of one moment.
    database.execute("BEGIN")
    try:
        queues = json_array(list({place.queue for place in places}))
        waiting = {(queue, rank): n for queue, rank, n in database.execute(_WAITING, (queues,))}
        earlier: dict[int, int] = {}
        queue, counted = None, 0
        for place in sorted(places, key=lambda place: (place.queue, place.since)):
            if place.queue != queue:
                queue, counted, earlier = place.queue, 0, {}
            since = microseconds(place.since)
            for rank, n in database.execute(_QUEUED_BETWEEN, (queue, counted, since)):
                earlier[rank] = earlier.get(rank, 0) + n
            counted = since
            higher = sum(n for (of, rank), n in waiting.items() if of == queue and rank > place.rank)
            found[place] = higher + earlier.get(place.rank, 0)
    finally:
        database.execute("ROLLBACK")
    return found


def _spec_size(database: sqlite3.Connection, number: int) -> int:
    row = database.execute("SELECT length(spec) + length(payload) FROM jobs WHERE number = ?", (number,)).fetchone()
    return row[0] if row is not None else 0


def _read_history(database: sqlite3.Connection, job_id: str, after: Cursor, limit: int, charge: Charge) -> list[Event]:
    known = database.execute("SELECT number, spec, payload FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if known is None:
        return []
    spec = stored_spec(*known[1:])
    values = {"number": known[0], "seq": after.seq, "nth": after.nth, "limit": limit}
    events = []
    with closing(database.execute(_HISTORY, values)) as rows:
        for seq, nth, kind, state in rows:
            charge(len(state))
            events.append(stored_event(Cursor(seq, nth), kind, job_id, spec, state))
    return events


@asynccontextmanager
async def open_reader(index: Index) -> AsyncIterator[Reader]:
    """Open a reader of the index until the block ends."""
    reader = Reader(index)
    try:
        yield reader
    finally:
        reader.close()
