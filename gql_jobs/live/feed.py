"""The feed: the stream's tail applied to the index, then published on the bus. One per API process."""

import asyncio
import heapq
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count

from msgspec import Struct

from gql_jobs.index.index import Index, Unread, keep_log_short
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.ordered_consumer import BATCH, OrderedConsumer, StreamMessage
from gql_jobs.jobs.messages import Message
from gql_jobs.live.bus import EventBus
from gql_jobs.live.tally import Tally
from gql_jobs.log import codec
from gql_jobs.processes.background import in_background

log = logging.getLogger(__name__)


FALLEN_BEHIND = 50_000
"""Messages behind from which on this process should be sent nothing: a second or two of what it can apply."""
RECOVERED = 1_000
"""Messages behind at most when it may be sent requests again; far below the other, so that it does not flap."""
PAUSE = 0.001
"""Seconds that more is waited for after a batch, for every message of it but the first.

A transaction costs as much as four messages, and a job whose events come in one batch is written once. A lone message
is never kept waiting, so that this costs time only where there is so much of it that batches save more.
"""
WATCHED_PAUSE = 0.005
UNWATCHED_PAUSE = 0.02
"""Seconds at most, while somebody waits for the index or for events, and while nobody does."""
CATCH_UP_BATCH = 8192
"""Messages applied together at most while nobody relies on this process yet: a fifth less time for an index that is
built anew, and a loop that is busy for 0.2 s at a time."""
SAY_EVERY = 5.0
"""Seconds between two lines of the log about an index that is catching up."""


class FeedCounters(Struct, frozen=True):
    """What monitoring wants to know. ``applied`` and ``rebuilt`` count since this process started.

    ``position``: the last sequence applied; ``lag``: messages stored and not applied; ``unreadable``: messages in the
    index that nobody here can read; ``rebuilt``: times that the index was begun anew; ``percent``: how much it has of
    what it lacked when the process started or the index was begun anew.
    """

    position: int
    lag: int
    applied: int
    unreadable: int
    rebuilt: int
    percent: float


class Feed:
    """``caught_up``: everything that was stored when it started, or was built anew, has been applied, and it has not
    fallen behind since; ``lag``: messages behind.
    """

    def __init__(self, connection: Connection, index: Index, bus: EventBus, tally: Tally) -> None:
        self._index = index
        self._bus = bus
        self._tally = tally
        # Checkpoints come as well and are passed over: to leave them out takes many filters, hence the server seconds.
        self._tail = OrderedConsumer(connection, codec.JOBS_STREAM, (), index.position + 1)
        self._tail.largest = CATCH_UP_BATCH
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waited_for = asyncio.Event()
        self._number = count()
        self._applied = 0
        self._missing = 0
        self._was_there = False
        self._said_at = time.monotonic()
        self.applying = asyncio.Lock()
        """Held while messages are written into the index."""
        self.caught_up = False
        self.lag = 0
        index.on_renewal = self._begin_anew

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

    async def run(self) -> None:
        """Follow the stream; never ends by itself."""
        async for batch in self._tail.batches():
            if batch:
                generation = self._index.generation
                async with self.applying:
                    # Begun anew while this waited, the index gets these again, after all that is before them.
                    if generation == self._index.generation:
                        self._apply(batch)
            self._judge()
            await self._gather(len(batch))

    async def _gather(self, applied: int) -> None:
        pause = PAUSE * (applied - 1) if applied and self._tail.is_emptied else 0
        # Also without a pause: a long catch-up must leave the event loop to others now and then.
        await asyncio.sleep(min(pause, WATCHED_PAUSE))
        pause = min(pause, UNWATCHED_PAUSE) - WATCHED_PAUSE
        if pause > 0 and not (self.caught_up and (self._waiters or self._bus.is_watched)):
            self._waited_for.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._waited_for.wait()

    def _begin_anew(self) -> None:
        self.caught_up = self._was_there = False
        self._missing = 0
        self._tail.rewind(1)

    def _judge(self) -> None:
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
        if not self.caught_up and time.monotonic() - self._said_at >= SAY_EVERY:
            self._said_at = time.monotonic()
            log.info("the index is %d messages behind (%.1f %% done)", lag, self.counters.percent)

    async def wait_for(self, seq: int, timeout: float) -> bool:  # noqa: ASYNC109
        """Whether the index reaches that sequence within ``timeout`` seconds."""
        if self.position >= seq:
            return True
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()
        self._waited_for.set()
        heapq.heappush(self._waiters, (seq, next(self._number), reached))
        # A timer costs a fifth of a timeout context around each wait.
        timer = loop.call_later(timeout, _reach, reached)
        try:
            await reached
        finally:
            timer.cancel()
        return self.position >= seq

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
        self._applied += len(batch)
        events = self._index.apply(messages, batch[-1].seq, unread)
        self._bus.publish(events)
        self._tally.count(events)
        while self._waiters and self._waiters[0][0] <= self.position:
            _, _, reached = heapq.heappop(self._waiters)
            _reach(reached)


def _reach(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


@asynccontextmanager
async def run_feed(connection: Connection, index: Index, bus: EventBus, tally: Tally) -> AsyncIterator[Feed]:
    """The feed, running until the block ends; if it fails, so does the block."""
    feed = Feed(connection, index, bus, tally)
    async with keep_log_short(index, feed.applying), in_background(feed.run()):
        yield feed
