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

from gql_jobs.index.index import Index, Opened, current
from gql_jobs.index.page import Page, count, read_page, where
from gql_jobs.index.tables import READ_ERRORS, event_of, microseconds
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Cursor, JobStatus
from gql_jobs.jobs.requests import JobFilter, JobOrder

# Reads that are over before a thread would have begun: on the event loop, with a clock that ends all others.
#
# A page of 50 jobs takes SQLite a fraction of a millisecond. In a thread it costs more than that to hand it over, and
# at every row SQLite gives the interpreter's lock back and has to win it from the event loop again: 40 % of the samples
# of a process that answers pages were in its two threads.

T = TypeVar("T")

LONGEST = 0.002
"""Seconds of CPU after which a read is given up here. By the clock, one that met a busy thread would be given up too,
go to a thread itself and keep the next one waiting: the loop would never get its reads back."""
BLOCKED = 0.05
"""Seconds on the clock after which it is given up, too: a cold file on a slow disk takes no CPU."""
PAUSE = 0.1
"""Seconds for which nothing is read here after that: giving up again and again would hold the loop."""
_SHORT_STEPS = 1000
"""Instructions of SQLite, some ten microseconds, between two looks at the clock."""


class TooLong(Exception):
    """The read has to be done in a thread."""


class ShortReads:
    """One connection for the event loop."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._opened: Opened | None = None
        self._not_before = 0.0

    def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` returns, which must not do more than a page's work after the last row has come.

        :raises TooLong: if it takes SQLite too long, or another read did a moment ago.
        """
        began, used = time.monotonic(), time.thread_time()
        if began < self._not_before:
            raise TooLong

        def is_long() -> bool:
            return time.thread_time() > used + LONGEST or time.monotonic() > began + BLOCKED

        self._opened = current(self._opened, self._index, self._index.generation)
        self._opened.database.set_progress_handler(is_long, _SHORT_STEPS)
        try:
            return read(self._opened.database)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            self._not_before = time.monotonic() + PAUSE
            raise TooLong from None

    def close(self) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened.database.close()


THREADS = 2
SHORT_PAGE = 100
"""Jobs of a page that is made on the event loop, if SQLite finds them soon enough."""
_STEPS = 100_000
"""Instructions of SQLite, about a millisecond, after which it is asked whether anybody still waits."""
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


class _Abandoned(Exception):
    """Nobody waits for this read any more; nobody sees this either."""


class Reader:
    """A few read-only connections to the index file.

    Everything here raises ``QueueUnavailable`` if it meets damage; the index is then begun anew.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._short = ShortReads(index)
        self._free: SimpleQueue[Opened | None] = SimpleQueue()
        for _ in range(THREADS):
            self._free.put(None)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="index")

    async def page(self, job_filter: JobFilter, order: JobOrder, *, first: int, after: str | None, offset: int) -> Page:
        """:raises InvalidArgument: if ``after`` is no cursor of this order."""
        read = partial(read_page, job_filter=job_filter, order=order, first=first, after=after, offset=offset)
        return await (self._soon(read) if first <= SHORT_PAGE else self._read(read))

    async def count(self, job_filter: JobFilter) -> int:
        """How many jobs match."""
        return await self._soon(partial(count, job_filter=job_filter))

    async def ids(self, job_filter: JobFilter) -> list[str]:
        """The ids of all jobs that match, oldest first."""
        found = where(job_filter)
        sql = f"SELECT id FROM jobs{found.sql} ORDER BY created, id"  # noqa: S608
        rows = await self._read(lambda db: db.execute(sql, found.values).fetchall())
        return [row[0] for row in rows]

    async def queue_counts(self) -> dict[str, dict[JobStatus, int]]:
        """Jobs per queue and status."""
        sql = "SELECT queue, status, sum(n) FROM counts GROUP BY queue, status"
        counts: dict[str, dict[JobStatus, int]] = {}
        for queue, status, number in await self._read(lambda db: db.execute(sql).fetchall()):
            counts.setdefault(queue, {})[JobStatus(status)] = number
        return counts

    async def oldest_queued_at(self) -> dict[str, datetime]:
        """Per queue, since when its oldest queued job has been waiting; queues without one are left out."""
        sql = (
            "SELECT queue, (SELECT min(updated) FROM jobs WHERE jobs.queue = queues.queue AND status = 'queued')"
            " FROM (SELECT DISTINCT queue FROM counts WHERE status = 'queued' AND n > 0) AS queues"
        )
        rows = await self._read(lambda db: db.execute(sql).fetchall())
        return {queue: datetime.fromtimestamp(oldest / 1e6, UTC) for queue, oldest in rows if oldest is not None}

    async def events_after(self, after: Cursor, job_id: str | None, limit: int) -> list[Event]:
        """The next ``limit`` events behind a cursor, of one job or of all, with the newest progress of each job."""
        sql = _EVENTS_OF_JOB_AFTER if job_id is not None else _EVENTS_AFTER
        values = {"seq": after.seq, "nth": after.nth, "id": job_id, "limit": limit}
        return await self._read(lambda db: [event_of(Cursor(*row[:2]), *row[2:]) for row in db.execute(sql, values)])

    async def overdue(self, before: datetime) -> list[str]:
        """Ids of scheduled jobs whose time had come before that moment."""
        sql = "SELECT id FROM jobs WHERE status = 'scheduled' AND run_at < ? LIMIT 1000"
        rows = await self._read(lambda db: db.execute(sql, (microseconds(before),)).fetchall())
        return [row[0] for row in rows]

    async def finished(self, before: datetime, limit: int) -> list[str]:
        """Ids of jobs that ended before that moment, the longest ago first."""
        sql = "SELECT id FROM jobs WHERE finished > 0 AND finished < ? ORDER BY finished LIMIT ?"
        rows = await self._read(lambda db: db.execute(sql, (microseconds(before), limit)).fetchall())
        return [row[0] for row in rows]

    async def _soon(self, read: Callable[[sqlite3.Connection], T]) -> T:
        generation = self._index.generation
        try:
            return self._short.read(read)
        except TooLong:
            return await self._read(read)
        except READ_ERRORS as error:
            raise self._index.failed(error, generation) from error

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        generation, abandoned = self._index.generation, threading.Event()
        work = partial(self._with_connection, generation, read, abandoned)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except READ_ERRORS as error:
            raise self._index.failed(error, generation) from error
        finally:
            # After a timeout, or where the client has gone, the thread must be there for others.
            abandoned.set()

    def _with_connection(
        self, generation: int, read: Callable[[sqlite3.Connection], T], abandoned: threading.Event
    ) -> T:
        if abandoned.is_set():
            raise _Abandoned
        opened = self._free.get()
        try:
            stale, opened = opened, None
            opened = current(stale, self._index, generation)
            # Not interrupt(): that passes without effect between two statements, or meets the next read.
            opened.database.set_progress_handler(abandoned.is_set, _STEPS)
            return read(opened.database)
        finally:
            self._free.put(opened)

    def close(self) -> None:
        """Wait for the reads that run and close the connections."""
        self._short.close()
        self._threads.shutdown(wait=True)
        while not self._free.empty():
            opened = self._free.get()
            if opened is not None:
                opened.database.close()


@asynccontextmanager
async def open_reader(index: Index) -> AsyncIterator[Reader]:
    """A reader of the index until the block ends."""
    reader = Reader(index)
    try:
        yield reader
    finally:
        reader.close()
