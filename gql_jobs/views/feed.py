"""The feed: the stream's tail applied to the index, then published on the bus. One per API process."""

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count

from gql_jobs.background import in_background
from gql_jobs.jobs.messages import Message
from gql_jobs.log import codec, subjects
from gql_jobs.log.connection import Connection
from gql_jobs.log.tail import Tail, TailMessage
from gql_jobs.views.bus import EventBus
from gql_jobs.views.index import Index, Unread

log = logging.getLogger(__name__)


class Feed:
    """``caught_up``: everything that was stored when it last looked has been applied; ``lag``: messages behind."""

    def __init__(self, connection: Connection, index: Index, bus: EventBus) -> None:
        self._index = index
        self._bus = bus
        self._tail = Tail(connection, subjects.FOLDED, index.position + 1)
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()
        self.caught_up = False
        self.lag = 0

    @property
    def position(self) -> int:
        """The sequence of the last message applied."""
        return self._index.position

    async def run(self) -> None:
        """Follow the stream; never ends by itself."""
        async for batch in self._tail.batches():
            if batch:
                self._apply(batch)
            self.lag = batch[-1].pending if batch else 0
            self.caught_up = self.caught_up or self.lag == 0
            # A long catch-up must leave the event loop to others now and then.
            await asyncio.sleep(0)

    async def wait_for(self, seq: int, timeout: float) -> bool:  # noqa: ASYNC109
        """Whether the index reaches that sequence within ``timeout`` seconds."""
        if self.position >= seq:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (seq, next(self._number), reached))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await reached
        return self.position >= seq

    def _apply(self, batch: list[TailMessage]) -> None:
        messages: list[Message] = []
        unread: list[Unread] = []
        for message in batch:
            try:
                read = codec.read(message.subject, message.data, message.seq, message.at)
            except codec.Unreadable as error:
                log.warning("message %d on %s is set aside: %s", message.seq, message.subject, error)
                unread.append(Unread(message.seq, message.subject, str(error)))
            else:
                if read is not None:
                    messages.append(read)
        events = self._index.apply(messages, batch[-1].seq, unread)
        self._bus.publish(events)
        while self._waiters and self._waiters[0][0] <= self.position:
            _, _, reached = heapq.heappop(self._waiters)
            if not reached.done():
                reached.set_result(None)


@asynccontextmanager
async def run_feed(connection: Connection, index: Index, bus: EventBus) -> AsyncIterator[Feed]:
    """The feed, running until the block ends; if it fails, so does the block."""
    feed = Feed(connection, index, bus)
    async with in_background(feed.run()):
        yield feed
