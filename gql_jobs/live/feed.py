"""The feed: the stream applied to the index as it grows, then published on the bus. One per API process."""

import asyncio
import heapq
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count

from msgspec import Struct

from gql_jobs.index.index import Index, Unread, keep_wal_short
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.ordered_consumer import BATCH, OrderedConsumer, StreamMessage
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Message
from gql_jobs.jobs.model import Job
from gql_jobs.live.bus import EventBus
from gql_jobs.live.tally import Tally
from gql_jobs.log import codec
from gql_jobs.log.commands import Created
from gql_jobs.processes.event_loop import in_background

log = logging.getLogger(__name__)

FALLEN_BEHIND = 50_000
"""Messages behind from which on this process should be sent nothing: a second or two of what it can apply."""
RECOVERED = 1_000
"""Messages behind at most when it may be sent requests again; far below the other, so that it does not flap."""
GATHER_PER_MESSAGE = 0.001
"""Seconds that more is waited for after a batch, for every message of it but the first.

A transaction costs as much as several messages, and a job whose events come in one batch is written once. A lone
message is never kept waiting, so that this costs time only where there is so much of it that batches save more.
"""
GATHER_WATCHED = 0.005
"""Seconds that more is waited for at most while somebody waits for the index or for events."""
GATHER_UNWATCHED = 0.02
"""Seconds that more is waited for at most while nobody does."""
CATCH_UP_BATCH = 8192
"""Messages applied together at most while nobody relies on this process yet: faster, and a loop that is busy longer."""
CATCH_UP_LOG_INTERVAL = 5.0
"""Seconds between two lines of the log about an index that is catching up."""
READ_BACK_TIMEOUT = 1.0
"""Seconds that what was written is waited for before it is shown without the index."""
_UNCOUNTED = 2048
"""Events that may wait to be counted."""


class FeedCounters(Struct, frozen=True):
    """What monitoring wants to know. ``applied`` counts since this process started.

    ``position``: the last sequence applied; ``lag``: messages stored and not applied; ``unreadable``: messages in the
    index that nobody here can read; ``rebuilt``: whether the index was begun anew when this process started, 0 or 1;
    ``percent``: how much it has of what it lacked when the process started.
    """

    position: int
    lag: int
    applied: int
    unreadable: int
    rebuilt: int
    percent: float


class Feed:
    """Follows the stream. Used from the event loop's thread only.

    ``caught_up``: everything that was stored when it started has been applied, and it has not fallen behind since;
    ``lag``: messages behind.
    """

    def __init__(self, connection: Connection, index: Index, bus: EventBus, tally: Tally) -> None:
        self._index = index
        self._bus = bus
        self._tally = tally
        self._uncounted: list[Event] = []
        # Checkpoints come as well and are passed over: to leave them out takes many filters, hence the server seconds.
        self._tail = OrderedConsumer(connection, codec.JOBS_STREAM, (), index.position + 1)
        self._tail.largest = CATCH_UP_BATCH
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waited_for = asyncio.Event()
        self._number = count()
        self._applied = 0
        self._missing = 0
        self._was_there = False
        self._logged_at = time.monotonic()
        self.applying = asyncio.Lock()
        """Held while messages are written into the index."""
        self.caught_up = False
        self.lag = 0

    @property
    def position(self) -> int:
        """The sequence of the last message applied."""
        return self._index.position

    @property
    def counters(self) -> FeedCounters:
        """The figures of this moment."""
        done = 1 - self.lag / self._missing if self._missing else float(self.caught_up)
        return FeedCounters(
            position=self.position,
            lag=self.lag,
            applied=self._applied,
            unreadable=self._index.unreadable,
            rebuilt=self._index.rebuilt,
            percent=100.0 if self.caught_up else round(100 * done, 1),
        )

    @property
    def tally(self) -> Tally:
        """What has happened to jobs, with every event that was applied."""
        self._tally.count(self._uncounted)
        self._uncounted.clear()
        return self._tally

    async def run(self) -> None:
        """Follow the stream; never ends by itself.

        :raises DamagedIndex: if the index turns out to be damaged.
        :raises sqlite3.Error: if it cannot be written for another reason.
        """
        async for batch in self._tail.batches():
            if batch:
                async with self.applying:
                    self._apply(batch)
            self._judge()
            await self._gather(len(batch))

    def _apply(self, batch: list[StreamMessage]) -> None:
        messages: list[Message] = []
        unread: list[Unread] = []
        for message in batch:
            try:
                read = codec.read_message(message.subject, message.data, message.seq, message.at)
            except codec.Unreadable as error:
                log.warning("message %d on %s is set aside: %s", message.seq, message.subject, error)
                unread.append(Unread(message.seq, message.subject, str(error)))
            else:
                if read is not None:
                    messages.append(read)
        events = self._index.apply(messages, batch[-1].seq, unread)
        self._applied += len(batch)
        self._bus.publish(events)
        while self._waiters and self._waiters[0][0] <= self.position:
            _, _, reached = heapq.heappop(self._waiters)
            _reach(reached)
        # Counted when somebody looks or enough has come, so that no subscriber waits for it.
        self._uncounted += events
        if len(self._uncounted) > _UNCOUNTED:
            self._tally.count(self._uncounted)
            self._uncounted.clear()

    def _judge(self) -> None:
        """Say how far behind it is, and whether this process may be relied on."""
        lag = self._tail.lag
        if lag is None:
            return
        self.lag = lag
        if not self._was_there:
            self._missing = max(self._missing, self._tail.pending or 0, lag)
        if self.caught_up:
            self.caught_up = lag <= FALLEN_BEHIND
        elif lag <= (RECOVERED if self._was_there else 0):
            self.caught_up = self._was_there = True
        self._tail.largest = BATCH if self.caught_up else CATCH_UP_BATCH
        if not self.caught_up and time.monotonic() - self._logged_at >= CATCH_UP_LOG_INTERVAL:
            self._logged_at = time.monotonic()
            log.info("the index is %d messages behind (%.1f %% done)", lag, self.counters.percent)

    async def _gather(self, applied: int) -> None:
        """Let more come together after a batch of so many messages."""
        pause = GATHER_PER_MESSAGE * (applied - 1) if applied and self._tail.is_emptied else 0
        # Also without a pause: a long catch-up must leave the event loop to others now and then.
        await asyncio.sleep(min(pause, GATHER_WATCHED))
        pause = min(pause, GATHER_UNWATCHED) - GATHER_WATCHED
        if pause > 0 and not (self.caught_up and (self._waiters or self._bus.is_watched)):
            self._waited_for.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._waited_for.wait()

    async def read_back(self, written: Job | Created) -> Job:
        """Return the job as the index has it once it has applied the write, or as it was written after a second."""
        await self.wait_for(written.last_seq, READ_BACK_TIMEOUT)
        known = self._index.job(written.id)
        if known is not None:
            return known
        return written.job if isinstance(written, Created) else written

    async def wait_for(self, seq: int, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until the index reaches that sequence; return whether it did within ``timeout`` seconds."""
        if self.position >= seq:
            return True
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()
        self._waited_for.set()
        heapq.heappush(self._waiters, (seq, next(self._number), reached))
        # A timer costs a fraction of a timeout context around each wait.
        timer = loop.call_later(timeout, _reach, reached)
        try:
            await reached
        finally:
            timer.cancel()
        return self.position >= seq


def _reach(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


@asynccontextmanager
async def run_feed(connection: Connection, index: Index, bus: EventBus, tally: Tally) -> AsyncIterator[Feed]:
    """Run the feed until the block ends; if it fails, or anybody finds the index damaged, so does the block."""
    feed = Feed(connection, index, bus, tally)
    async with (
        in_background(index.until_damaged()),
        keep_wal_short(index, feed.applying),
        in_background(feed.run()),
    ):
        yield feed
