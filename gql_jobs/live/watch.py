"""What subscribers see: a job's events from its present state to its end, or every job's events, both resumable.

A subscription joins the bus first and reads the index second; what the bus brings at or below the cursor of that read
is dropped. So there is no gap, no repetition and no race with a creation. This module decides where a subscription
begins and ends; the events in between go from the bus to the subscriber without it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from msgspec.structs import replace

from gql_jobs.index.index import Index
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import InvalidArgument, NotFound, QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import NOBODYS_ID, Cursor, Job, parse_job_id
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import EVERYTHING, Visibility
from gql_jobs.live.bus import EventBus, Subscriber
from gql_jobs.live.feed import Feed
from gql_jobs.log.streams import stream_info

CATCH_UP_TIMEOUT = 5.0
"""Seconds to wait for the index to reach a cursor or a job that another process has answered with."""


class Finder(Protocol):
    """Looks a job up in the stream instead of the index."""

    async def find(self, job_id: str, charge: Callable[[], None]) -> Job | None:
        """Return the job as the leader has it, or None.

        :param charge: called for each message that is read for it; what it raises ends the read.
        :raises QueueUnavailable: if the leader does not answer.
        """


class Watcher(Protocol):
    """Who watches. A renewal may change which jobs there are for them while they do."""

    @property
    def visibility(self) -> Visibility:
        """Which jobs there are for them now; asked for at each event."""


class Watch:
    """Opens subscriptions over bus and index. The caller has to close each, unless it has ended by itself."""

    def __init__(self, connection: Connection, index: Index, feed: Feed, bus: EventBus, finder: Finder) -> None:
        self._connection = connection
        self._index = index
        self._feed = feed
        self._bus = bus
        self._finder = finder

    async def job(
        self,
        job_id: str,
        watcher: Watcher,
        after: Cursor | None = None,
        charge: Callable[[], None] = lambda: None,
    ) -> Subscriber:
        """Open the job's latest event and all later ones, ending after the terminal one.

        :param watcher: for whom; events of a job that is not there for them (any more) are left out.
        :param after: begin with the first event behind this cursor instead.
        :param charge: called for each message that is read to find a job that the index does not know yet; what it
            raises ends that.
        :raises NotFound: if there is no such job; for one that is not there for the watcher after the same time.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor or the job.
        """
        known = parse_job_id(job_id)
        if known is None:
            raise NotFound(job_id)
        with _closed_on_failure(self._bus.subscribe(known)) as events:
            events.ends_after = self._is_over
            events.matches = lambda event: watcher.visibility.shows(event.job)
            await self._require(known, watcher.visibility, charge)
            if after is not None:
                # A job that exists has lost no event to expiry, whatever others have lost.
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

    async def all(
        self, job_filter: JobFilter, watcher: Watcher, after: Cursor | None = None, *, latest: bool = False
    ) -> Subscriber:
        """Open the events of all jobs from now on; never ends by itself.

        :param job_filter: which events: it is applied to the job as of each event. Its visibility is that of the
            watcher at each event.
        :param watcher: for whom.
        :param after: begin with the first event behind this cursor instead.
        :param latest: begin with the latest event of each job that the filter names by its id, unless there is a
            cursor.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor.
        """
        with _closed_on_failure(self._bus.subscribe_all()) as events:
            asked = replace(job_filter, visibility=EVERYTHING)
            events.ids = asked.ids
            if asked == JobFilter():
                events.matches = lambda event: watcher.visibility.shows(event.job)
            else:
                events.matches = lambda event: watcher.visibility.shows(event.job) and asked.matches(event.job)
            if after is not None:
                await self._check_cursor(after, self._index.horizon)
                events.start_after(after)
            elif latest:
                named = self._index.latest_cursors(asked.ids or ())
                events.start_with_latest(named, self._index.latest_event)
            return events

    def _is_over(self, event: Event) -> bool:
        return self._has_ended_by(event.job.id, event.cursor)

    def _has_ended_by(self, job_id: str, cursor: Cursor) -> bool:
        """Return whether the job has ended with no event behind the cursor; a job that was retried has not."""
        latest = self._index.latest_event(job_id)
        return latest is None or (latest.is_terminal and latest.cursor <= cursor)

    async def _require(self, job_id: str, visibility: Visibility, charge: Callable[[], None]) -> None:
        shown = self._index.shows(job_id, visibility)
        if shown:
            return
        job = await self._finder.find(job_id if shown is None else NOBODYS_ID, charge)
        if job is None or not visibility.shows(job):
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
def _closed_on_failure(events: Subscriber) -> Iterator[Subscriber]:
    """Close the subscriber if the block fails."""
    try:
        yield events
    except BaseException:
        events.close()
        raise
