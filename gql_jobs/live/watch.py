"""What subscribers see: a job's events from its present state to its end, or every job's events, both resumable.

The bus is attached first, the index read second, and what the bus brings at or below that cursor is dropped: no gap,
no repetition, no race with a creation.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol, cast

from gql_jobs.index.index import Index
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import InvalidArgument, NotFound, QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Cursor, Job, parse_job_id
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import Feed
from gql_jobs.log.streams import stream_info

PATIENCE = 5.0
"""Seconds to wait for the index to reach a cursor or a job that another process has given out."""


class Finder(Protocol):
    """Looks a job up in the stream."""

    async def find(self, job_id: str) -> Job | None: ...


class Watch:
    """Subscriptions over bus and index."""

    def __init__(self, connection: Connection, index: Index, feed: Feed, bus: EventBus, finder: Finder) -> None:
        self._connection = connection
        self._index = index
        self._feed = feed
        self._bus = bus
        self._finder = finder

    async def job(self, job_id: str, after: Cursor | None = None) -> AsyncGenerator[Event, None]:
        """The job's latest event, then all later ones, ending with the terminal one; or what came after a cursor.

        :raises NotFound: if there is no such job.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor or the job.
        """
        known = parse_job_id(job_id)
        if known is None:
            raise NotFound(job_id)
        async with self._bus.subscribe(known) as events:
            await self._require(known)
            if after is not None:
                # Of a job that lives nothing has expired, however much has of others.
                await self._check_cursor(after, min(self._index.horizon, self._index.first_seq(known)))
                events.start_after(after)
                if self._over(known, after):
                    return
            else:
                latest = self._index.latest_event(known)
                if latest is None:
                    raise NotFound(job_id)
                events.cursor = latest.cursor
                yield latest
                if latest.is_terminal:
                    return
            async for event in events:
                yield event
                if event.is_terminal and self._over(known, event.cursor):
                    return

    async def all(self, job_filter: JobFilter, after: Cursor | None = None) -> AsyncGenerator[Event, None]:
        """Every event of jobs that match as of that event, from now on or from after a cursor. Never ends by itself.

        :raises InvalidArgument: if the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor.
        """
        async with aclosing(await self.open_all(job_filter, after)) as events:
            async for event in events:
                yield event

    async def open_all(self, job_filter: JobFilter, after: Cursor | None = None) -> AsyncGenerator[Event, None]:
        """What ``all`` brings, attached already and past every refusal, however long the first event is away."""
        events = self._all(job_filter, after)
        await anext(events)
        return cast("AsyncGenerator[Event, None]", events)

    async def _all(self, job_filter: JobFilter, after: Cursor | None) -> AsyncGenerator[Event | None, None]:
        """First None: it has begun."""
        async with self._bus.subscribe_all() as events:
            if after is not None:
                await self._check_cursor(after, self._index.horizon)
                events.start_after(after)
            yield None
            async for event in events:
                if job_filter.matches(event.job):
                    yield event

    def _over(self, job_id: str, cursor: Cursor) -> bool:
        """Whether the job has ended and nothing behind the cursor is left to tell; a retry goes on."""
        latest = self._index.latest_event(job_id)
        return latest is None or (latest.is_terminal and latest.cursor <= cursor)

    async def _require(self, job_id: str) -> None:
        if self._index.job(job_id) is not None:
            return
        job = await self._finder.find(job_id)
        if job is None:
            raise NotFound(job_id)
        if not await self._feed.wait_for(job.last_seq, PATIENCE):
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
        if not await self._feed.wait_for(cursor.seq, PATIENCE):
            raise QueueUnavailable("This process has not caught up with the cursor yet; try again.")
