"""What subscribers see: a job's events from its present state to its end, or every job's events, both resumable.

The bus is attached first, the index read second, and what the bus brings at or below that cursor is dropped: no gap,
no repetition, no race with a creation. This is where a subscriber begins and where it ends; what comes between goes
from the bus to the subscriber.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from gql_jobs.index.index import Index
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import InvalidArgument, NotFound, QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Cursor, Job, parse_job_id
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.live.bus import EventBus, Subscriber
from gql_jobs.live.feed import Feed
from gql_jobs.log.streams import stream_info

CATCH_UP_TIMEOUT = 5.0
"""Seconds to wait for the index to reach a cursor or a job that another process has given out."""


class Finder(Protocol):
    """Looks a job up in the stream."""

    async def find(self, job_id: str) -> Job | None:
        """Return the job of that id, if there is one."""


class Watch:
    """Subscriptions over bus and index. Whoever opens one closes it, unless it has ended by itself."""

    def __init__(self, connection: Connection, index: Index, feed: Feed, bus: EventBus, finder: Finder) -> None:
        self._connection = connection
        self._index = index
        self._feed = feed
        self._bus = bus
        self._finder = finder

    async def job(self, job_id: str, after: Cursor | None = None) -> Subscriber:
        """Open the job's latest event and all later ones, ending with the terminal one; or what came after a cursor.

        :raises NotFound: if there is no such job.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor or the job.
        """
        known = parse_job_id(job_id)
        if known is None:
            raise NotFound(job_id)
        with _unless_refused(self._bus.subscribe(known)) as events:
            events.ends_after = self._is_over
            await self._require(known)
            if after is not None:
                # Of a job that lives nothing has expired, however much has of others.
                await self._check_cursor(after, min(self._index.horizon, self._index.first_seq(known)))
                events.start_after(after)
                if self._has_ended_by(known, after):
                    events.close()
                return events
            latest = self._index.latest_event(known)
            if latest is None:
                raise NotFound(job_id)
            events.start_with(latest)
            return events

    async def all(self, job_filter: JobFilter, after: Cursor | None = None) -> Subscriber:
        """Open every event of jobs that match as of that event, from now on or from after a cursor.

        It never ends by itself.

        :raises InvalidArgument: if the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor.
        """
        with _unless_refused(self._bus.subscribe_all()) as events:
            if job_filter != JobFilter():
                events.matches = lambda event: job_filter.matches(event.job)
            if after is not None:
                await self._check_cursor(after, self._index.horizon)
                events.start_after(after)
            return events

    def _is_over(self, event: Event) -> bool:
        return self._has_ended_by(event.job.id, event.cursor)

    def _has_ended_by(self, job_id: str, cursor: Cursor) -> bool:
        """Whether the job has ended and nothing behind the cursor is left to tell; a retry goes on."""
        latest = self._index.latest_event(job_id)
        return latest is None or (latest.is_terminal and latest.cursor <= cursor)

    async def _require(self, job_id: str) -> None:
        if self._index.job(job_id) is not None:
            return
        job = await self._finder.find(job_id)
        if job is None:
            raise NotFound(job_id)
        if not await self._feed.wait_for(job.last_seq, CATCH_UP_TIMEOUT):
            raise QueueUnavailable(f"This process has not caught up with job {job_id} yet; try again.")

    async def _check_cursor(self, cursor: Cursor, oldest: int) -> None:
        if cursor.seq < oldest:
            raise InvalidArgument(
                "after", "The cursor is older than the events that are kept.", oldestCursor=str(Cursor(oldest))
            )
        if cursor.seq <= self._feed.position:
            return
        try:
            last = (await stream_info(self._connection)).state.last_seq
        except ApiError as error:
            raise QueueUnavailable(f"The stream cannot be read: {error.description}.") from error
        if cursor.seq > last:
            raise InvalidArgument("after", "The cursor is ahead of every event there is.")
        if not await self._feed.wait_for(cursor.seq, CATCH_UP_TIMEOUT):
            raise QueueUnavailable("This process has not caught up with the cursor yet; try again.")


@contextmanager
def _unless_refused(events: Subscriber) -> Iterator[Subscriber]:
    """Close it again if the block fails."""
    try:
        yield events
    except BaseException:
        events.close()
        raise
