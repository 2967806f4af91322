"""A read side without a server: an index, its reader and a bus, fed with messages."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gql_jobs.index.index import Index, open_index
from gql_jobs.index.reader import Reader, open_reader
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Message
from gql_jobs.live.bus import EventBus

CREATED = "2026-01-31T12:00:00Z"


class Library:
    """What a feed drives, driven by a test."""

    def __init__(self, index: Index, reader: Reader) -> None:
        self.index = index
        self.reader = reader
        self.bus = EventBus(reader.events_after, index.position)

    def tell(self, *messages: Message) -> list[Event]:
        """Apply messages to the index and publish their events, as the feed does."""
        events = self.index.apply(messages, messages[-1].seq)
        self.bus.publish(events)
        return events


@asynccontextmanager
async def open_library(path: Path) -> AsyncIterator[Library]:
    """An empty one, until the block ends."""
    async with AsyncExitStack() as stack:
        index = stack.enter_context(open_index(path, CREATED, 0, 86_400))
        yield Library(index, await stack.enter_async_context(open_reader(index)))
