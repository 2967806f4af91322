"""The feed: the stream applied to the index as it grows, then published on the bus. One per API process."""

import asyncio
import heapq
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import count

from msgspec import Struct

from gql_jobs.index.index import Index, UnreadableMessage
from gql_jobs.index.tables import empty_wal, move_wal
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.ordered_consumer import BATCH, OrderedConsumer, StreamMessage
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind, Message, SteeringMessage
from gql_jobs.jobs.model import Job
from gql_jobs.live.bus import EventBus
from gql_jobs.live.steering import Steering
from gql_jobs.live.tally import Tally
from gql_jobs.log import codec
from gql_jobs.log.commands import Created
from gql_jobs.processes.event_loop import in_background

log = logging.getLogger(__name__)

FALLEN_BEHIND = 50_000
"""Messages behind from which on this process is not ready: more than it can apply within a few seconds."""
RECOVERED = 1_000
"""Messages behind at most when it becomes ready again; far below ``FALLEN_BEHIND``, so that readiness does not flap."""
BATCH_WAIT_PER_MESSAGE = 0.001
"""Seconds to wait for further messages after a batch, for every message of it but the first.

A transaction costs as much as several messages, and a job whose events come in one batch is written once
(docs/decisions.md). A lone message is never kept waiting.
"""
BATCH_WAIT_WATCHED = 0.005
"""Seconds of that wait at most while somebody waits for the index or for events."""
BATCH_WAIT_FOLLOWED = 0.001
"""Seconds of that wait at most while what this process does next depends on what is applied."""
BATCH_WAIT_UNWATCHED = 0.02
"""Seconds of that wait at most while nobody does."""
CATCH_UP_BATCH = 8192
"""Messages applied together at most until the index has caught up: faster, but it holds the event loop longer."""
CATCH_UP_LOG_INTERVAL = 5.0
"""Seconds between two log lines about an index that is catching up."""
READ_BACK_TIMEOUT = 1.0
"""Seconds that ``Feed.read_back`` waits for the index."""
WAL_INTERVAL = 0.25
"""Seconds between two checks of how much was written to the write-ahead log."""
WAL_MESSAGES = 200
"""Messages after whose commits the write-ahead log is moved into the file."""
WAL_BYTES = 32 << 20
"""Bytes of jobs after which it is moved as well: a few large jobs fill it sooner than many messages do."""
_MAX_UNCOUNTED = 2048
"""Applied events that ``Tally`` has not counted yet, at most."""
_MAX_UNCOUNTED_BYTES = 4 << 20
"""Bytes that their jobs may take in memory."""


class FeedCounters(Struct, frozen=True):
    """The feed's figures for metrics.

    ``position``: the last sequence applied; ``lag``: messages stored and not applied; ``applied``: messages applied
    since this process started; ``unreadable``: messages that the index has set aside as unreadable; ``rebuilt``: 1 if
    the index was begun anew when this process started, else 0; ``percent``: 0 to 100, how much of what the index lacked
    at the start it has by now.
    """

    position: int
    lag: int
    applied: int
    unreadable: int
    rebuilt: int
    percent: float


class Feed:
    """Follows the stream: applies each batch to the index, then publishes its events on the bus.

    Used from the event loop's thread only. ``caught_up``: everything that was stored when it started has been applied,
    and it has not fallen behind since; ``lag``: messages stored and not applied, as far as the server has said.
    """

    def __init__(self, connection: Connection, index: Index, bus: EventBus, tally: Tally) -> None:
        self._index = index
        self._bus = bus
        self._tally = tally
        self._uncounted: list[Event] = []
        self._uncounted_bytes = 0
        # No filter: one that leaves out checkpoints would have many subjects, which slow down the consumer's creation.
        self._consumer = OrderedConsumer(connection, codec.JOBS_STREAM, (), index.position + 1)
        self._consumer.max_batch = CATCH_UP_BATCH
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self.is_followed: Callable[[], bool] = lambda: False
        """Returns whether what this process does next depends on what the index applies."""
        self._awaited = asyncio.Event()
        self._tie_breaker = count()
        self._applied = 0
        self._initial_lag = 0
        self._has_caught_up = False
        self._logged_at = time.monotonic()
        self.applying = asyncio.Lock()
        """Held while messages are written into the index."""
        self.caught_up = False
        self.lag = 0
        self.steering = Steering(index.steering())
        """What steers jobs, as of ``position``."""

    @property
    def position(self) -> int:
        """The sequence of the last message applied."""
        return self._index.position

    def is_limited(self, queue: str, type_name: str) -> bool | None:
        """Return whether jobs of a queue and a type have limits; None while too little of the stream is applied."""
        return self.steering.is_limited(queue, type_name) if self.caught_up else None

    @property
    def counters(self) -> FeedCounters:
        """The present figures."""
        done = 1 - self.lag / self._initial_lag if self._initial_lag else float(self.caught_up)
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
        self._count()
        return self._tally

    async def run(self) -> None:
        """Follow the stream; never ends by itself.

        :raises UnusableIndex: if the index cannot be read or written any more.
        """
        async for batch in self._consumer.batches():
            if batch:
                async with self.applying:
                    self._apply(batch)
            self._update_readiness()
            await self._wait_for_more(len(batch))

    def _apply(self, batch: list[StreamMessage]) -> None:
        messages: list[Message] = []
        steering: list[SteeringMessage] = []
        unreadable: list[UnreadableMessage] = []
        for message in batch:
            try:
                read = codec.read_message(message.subject, message.data, message.seq, message.at)
                if read is not None:
                    messages.append(read)
                elif steered := codec.read_steering(message):
                    steering.append(steered)
            except codec.Unreadable as error:
                log.warning("message %d on %s is set aside: %s", message.seq, message.subject, error)
                is_newer = isinstance(error, codec.Newer)
                unreadable.append(UnreadableMessage(message.seq, message.subject, str(error), is_newer))
        kept = [message for message in steering if message.what != codec.KEYS]
        applied = 0
        for portion in self._index.portions(messages):
            applied += len(portion)
            position = batch[-1].seq if applied == len(messages) else portion[-1].seq
            self._apply_portion(portion, position, unreadable, kept)
            # Stored with the first portion: whoever goes on behind it must not look for them again.
            unreadable, kept = [], []
        self._applied += len(batch)
        while self._waiters and self._waiters[0][0] <= self.position:
            _, _, reached = heapq.heappop(self._waiters)
            _resolve(reached)

    def _apply_portion(
        self,
        messages: Sequence[Message],
        position: int,
        unreadable: Sequence[UnreadableMessage],
        steering: Sequence[SteeringMessage],
    ) -> None:
        events = self._index.apply(messages, position, unreadable, steering)
        if steering:
            self.steering.apply(steering)
        self._bus.publish(events)
        for message in messages:
            if message.kind is Kind.EXPIRED and message.body.deleted:
                # A job that somebody watches may be deleted before it has ended: nothing further comes of it.
                self._bus.end(f"Job {message.job_id} was deleted.", message.job_id)
        # Counted when metrics are read or many have come, so that no subscriber waits for it.
        self._uncounted += events
        self._uncounted_bytes += sum([event.job.weight for event in events])
        if len(self._uncounted) > _MAX_UNCOUNTED or self._uncounted_bytes > _MAX_UNCOUNTED_BYTES:
            self._count()

    def _count(self) -> None:
        self._tally.count(self._uncounted)
        self._uncounted.clear()
        self._uncounted_bytes = 0

    def _update_readiness(self) -> None:
        """Update ``lag`` and ``caught_up``."""
        lag = self._consumer.lag
        if lag is None:
            return
        self.lag = lag
        if not self._has_caught_up:
            self._initial_lag = max(self._initial_lag, self._consumer.pending or 0, lag)
        if self.caught_up:
            self.caught_up = lag <= FALLEN_BEHIND
        elif lag <= (RECOVERED if self._has_caught_up else 0):
            self.caught_up = self._has_caught_up = True
        self._consumer.max_batch = BATCH if self.caught_up else CATCH_UP_BATCH
        if not self.caught_up and time.monotonic() - self._logged_at >= CATCH_UP_LOG_INTERVAL:
            self._logged_at = time.monotonic()
            log.info("the index is %d messages behind (%.1f %% done)", lag, self.counters.percent)

    async def _wait_for_more(self, applied: int) -> None:
        """Wait after a batch of ``applied`` messages, so that the next transaction has more of them."""
        pause = BATCH_WAIT_PER_MESSAGE * (applied - 1) if applied and self._consumer.is_emptied else 0
        # Also with nothing to wait for: a long catch-up has to let other tasks run between two batches.
        await asyncio.sleep(min(pause, BATCH_WAIT_FOLLOWED if self.is_followed() else BATCH_WAIT_WATCHED))
        pause = min(pause, BATCH_WAIT_UNWATCHED) - BATCH_WAIT_WATCHED
        if pause > 0 and not (self.caught_up and (self._waiters or self._bus.is_watched or self.is_followed())):
            self._awaited.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._awaited.wait()

    async def read_back(self, written: Job | Created) -> Job:
        """Return the job as the index has it after a write.

        If the index has not applied the write within ``READ_BACK_TIMEOUT``, it is the job as it was written.
        """
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
        self._awaited.set()
        heapq.heappush(self._waiters, (seq, next(self._tie_breaker), reached))
        # A timer of the loop is cheaper than a timeout context around each wait (docs/decisions.md).
        timer = loop.call_later(timeout, _resolve, reached)
        try:
            await reached
        finally:
            timer.cancel()
        return self.position >= seq


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


@asynccontextmanager
async def keep_wal_short(index: Index, applying: asyncio.Lock) -> AsyncIterator[None]:
    """Move the write-ahead log of an index into its file in a thread, again and again until the block ends.

    SQLite would do it at a commit that makes the log long enough, and keep the event loop waiting for the disk. The
    log begins again only when all of it has been moved, so there are two steps: most of it is moved while messages are
    written, the rest while writing waits (docs/decisions.md).

    :param applying: the lock that is held while messages are written into the index.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="write-ahead-log") as thread:
        async with in_background(_move_repeatedly(index, applying, thread)):
            yield


async def _move_repeatedly(index: Index, applying: asyncio.Lock, thread: ThreadPoolExecutor) -> None:
    loop, moved, moved_bytes = asyncio.get_running_loop(), index.position, index.written
    while True:
        await asyncio.sleep(WAL_INTERVAL)
        index.check_files()
        if index.has_erased:
            # Most of it while messages are written.
            await loop.run_in_executor(thread, move_wal, index.path)
            async with applying:
                # Tried again until nobody reads at that moment.
                index.has_erased = not await loop.run_in_executor(thread, empty_wal, index.path)
        if index.position - moved < WAL_MESSAGES and index.written - moved_bytes < WAL_BYTES:
            continue
        moved, moved_bytes = index.position, index.written
        await loop.run_in_executor(thread, move_wal, index.path)
        async with applying:
            await loop.run_in_executor(thread, move_wal, index.path)


@asynccontextmanager
async def run_feed(connection: Connection, index: Index, bus: EventBus, tally: Tally) -> AsyncIterator[Feed]:
    """Run the feed until the block ends.

    :raises ExceptionGroup: if the feed fails, or the index cannot be used any more; the block is cancelled.
    """
    feed = Feed(connection, index, bus, tally)
    async with (
        in_background(index.until_unusable()),
        keep_wal_short(index, feed.applying),
        in_background(feed.run()),
    ):
        yield feed
