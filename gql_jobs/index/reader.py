"""Reads of the index: short pages and counts at once, in a thread whatever takes longer than the event loop can wait.

A reader sees what the index has committed, so whatever a mutation has waited for is there.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from gql_jobs.index.index import Index
from gql_jobs.index.page import Page, count_jobs, read_page, where
from gql_jobs.index.tables import READ_ERRORS, microseconds, open_read_only, stored_event
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Cursor, JobStatus
from gql_jobs.jobs.requests import JobFilter, JobOrder

_T = TypeVar("_T")

READ_THREADS = 2
SHORT_PAGE = 100
"""Jobs of a page that is made on the event loop, if SQLite finds them soon enough."""
LOOP_READ_CPU = 0.002
"""Seconds of CPU after which a read on the event loop is given up. By the clock, one that met a busy thread would be
given up too, go to a thread itself and keep the next one waiting: the loop would never get its reads back."""
LOOP_READ_WAIT = 0.05
"""Seconds on the clock after which it is given up, too: a cold file on a slow disk takes no CPU."""
LOOP_READ_PAUSE = 0.1
"""Seconds for which nothing is read on the event loop after that: giving up again and again would hold it."""
_LOOP_STEPS = 1000
"""Instructions of SQLite, some ten microseconds, between two looks at the clock."""
_THREAD_STEPS = 100_000
"""Instructions of SQLite, about a millisecond, between two looks at whether anybody still waits."""
_EVENTS_AFTER = """
SELECT e.seq, e.nth, e.kind, jobs.id, jobs.spec, e.state FROM (
  SELECT seq, nth, job, kind, state FROM events WHERE (seq, nth) > (:seq, :nth)
  UNION ALL SELECT seq, 0, job, 'progress', state FROM progress WHERE seq > :seq
  ORDER BY seq, nth LIMIT :limit
) AS e JOIN jobs ON jobs.number = e.job ORDER BY e.seq, e.nth
"""
_EVENTS_OF_JOB_AFTER = """
SELECT e.seq, e.nth, e.kind, jobs.id, jobs.spec, e.state FROM jobs JOIN (
  SELECT seq, nth, job, kind, state FROM events
  WHERE job = (SELECT number FROM jobs WHERE id = :id) AND (seq, nth) > (:seq, :nth)
  UNION ALL SELECT seq, 0, job, 'progress', state FROM progress
  WHERE job = (SELECT number FROM jobs WHERE id = :id) AND seq > :seq
  ORDER BY seq, nth LIMIT :limit
) AS e ON jobs.number = e.job ORDER BY e.seq, e.nth
"""


class _TakesLong(Exception):
    """The read has to be done in a thread."""


class _Abandoned(Exception):
    """Nobody waits for this read any more; nobody sees this either."""


class Reader:
    """A few read-only connections to the index file: one for the event loop, the others for threads.

    Everything here raises ``QueueUnavailable`` if the file is found damaged or was before.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._on_loop = open_read_only(index.path)
        self._not_on_loop_before = 0.0
        self._free: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for _ in range(READ_THREADS):
            self._free.put(open_read_only(index.path))
        self._threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="index")

    async def page(self, job_filter: JobFilter, order: JobOrder, *, first: int, after: str | None, offset: int) -> Page:
        """Return the page that begins ``offset`` jobs behind the cursor ``after``, or behind the first job without one.

        :param first: the jobs of a whole page.
        :raises InvalidArgument: if ``after`` is no cursor of this order.
        """
        read = partial(read_page, job_filter=job_filter, order=order, first=first, after=after, offset=offset)
        return await (self._soon(read) if first <= SHORT_PAGE else self._read(read))

    async def count(self, job_filter: JobFilter) -> int:
        """Return how many jobs match."""
        return await self._soon(partial(count_jobs, job_filter=job_filter))

    async def ids(self, job_filter: JobFilter) -> list[str]:
        """Return the ids of all jobs that match, oldest first."""
        found = where(job_filter)
        sql = f"SELECT id FROM jobs{found.sql} ORDER BY created, id"  # noqa: S608
        rows = await self._read(lambda db: db.execute(sql, found.values).fetchall())
        return [row[0] for row in rows]

    async def queue_counts(self) -> dict[str, dict[JobStatus, int]]:
        """Return the number of jobs per queue and status; queues and statuses without a job may be left out."""
        sql = "SELECT queue, status, sum(n) FROM counts GROUP BY queue, status"
        counts: dict[str, dict[JobStatus, int]] = {}
        for queue, status, number in await self._read(lambda db: db.execute(sql).fetchall()):
            counts.setdefault(queue, {})[JobStatus(status)] = number
        return counts

    async def oldest_queued_at(self) -> dict[str, datetime]:
        """Return since when the oldest queued job of each queue has been waiting; queues without one are left out."""
        sql = (
            "SELECT queue, (SELECT min(updated) FROM jobs WHERE jobs.queue = queues.queue AND status = 'queued')"
            " FROM (SELECT DISTINCT queue FROM counts WHERE status = 'queued' AND n > 0) AS queues"
        )
        rows = await self._read(lambda db: db.execute(sql).fetchall())
        return {queue: datetime.fromtimestamp(oldest / 1e6, UTC) for queue, oldest in rows if oldest is not None}

    async def events_after(self, after: Cursor, job_id: str | None, limit: int) -> list[Event]:
        """Return the next ``limit`` events behind a cursor, of one job or of all.

        Of progress it is the newest report of each job.
        """
        sql = _EVENTS_OF_JOB_AFTER if job_id is not None else _EVENTS_AFTER
        values = {"seq": after.seq, "nth": after.nth, "id": job_id, "limit": limit}
        return await self._read(
            lambda db: [stored_event(Cursor(*row[:2]), *row[2:]) for row in db.execute(sql, values)]
        )

    async def overdue(self, before: datetime) -> list[str]:
        """Return ids of scheduled jobs whose time had come before that moment, a thousand at most."""
        sql = "SELECT id FROM jobs WHERE status = 'scheduled' AND run_at < ? LIMIT 1000"
        rows = await self._read(lambda db: db.execute(sql, (microseconds(before),)).fetchall())
        return [row[0] for row in rows]

    async def finished(self, before: datetime, limit: int) -> list[str]:
        """Return ids of jobs that ended before that moment, the longest ago first."""
        sql = "SELECT id FROM jobs WHERE finished > 0 AND finished < ? ORDER BY finished LIMIT ?"
        rows = await self._read(lambda db: db.execute(sql, (microseconds(before), limit)).fetchall())
        return [row[0] for row in rows]

    async def _soon(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        """Read on the event loop what is over before a thread would have begun, in a thread whatever takes longer.

        Handing a short read to a thread costs more than the read, and at every row SQLite gives the interpreter's lock
        back and has to win it from the event loop again.

        :param read: must not do more than a page's work after the last row has come.
        """
        self._index.require_sound()
        try:
            return self._read_on_loop(read)
        except _TakesLong:
            return await self._read(read)
        except READ_ERRORS as error:
            raise self._index.read_error(error) from error

    def _read_on_loop(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        began, used = time.monotonic(), time.thread_time()
        if began < self._not_on_loop_before:
            raise _TakesLong

        def is_long() -> bool:
            return time.thread_time() > used + LOOP_READ_CPU or time.monotonic() > began + LOOP_READ_WAIT

        self._on_loop.set_progress_handler(is_long, _LOOP_STEPS)
        try:
            return read(self._on_loop)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            self._not_on_loop_before = time.monotonic() + LOOP_READ_PAUSE
            raise _TakesLong from None

    async def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        """Read in a thread."""
        self._index.require_sound()
        abandoned = threading.Event()
        work = partial(self._read_in_thread, read, abandoned)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except READ_ERRORS as error:
            raise self._index.read_error(error) from error
        finally:
            # After a timeout, or where the client has gone, the thread must be there for others.
            abandoned.set()

    def _read_in_thread(self, read: Callable[[sqlite3.Connection], _T], abandoned: threading.Event) -> _T:
        if abandoned.is_set():
            raise _Abandoned
        database = self._free.get()
        try:
            # Not interrupt(): that passes without effect between two statements, or meets the next read.
            database.set_progress_handler(abandoned.is_set, _THREAD_STEPS)
            return read(database)
        finally:
            self._free.put(database)

    def close(self) -> None:
        """Wait for the reads that run and close the connections."""
        self._threads.shutdown(wait=True)
        self._on_loop.close()
        while not self._free.empty():
            self._free.get().close()


@asynccontextmanager
async def open_reader(index: Index) -> AsyncIterator[Reader]:
    """Open a reader of the index until the block ends."""
    reader = Reader(index)
    try:
        yield reader
    finally:
        reader.close()
