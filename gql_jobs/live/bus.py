"""The event bus: every event that the index has applied, fanned out to subscribers of this process.

A subscriber never makes another one wait. One that reads slowly gets progress merged to the newest; where even that is
too much, its buffer is dropped and it reads on from the index, where nothing is lost.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Self

from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Cursor

BUFFER = 512
"""Events that may wait for a subscriber before it has to read on from the index."""
_REPLAYED = 256

Replay = Callable[[Cursor, str | None, int], Awaitable[list[Event]]]


class Subscription:
    """The events of one job, or of all, from the moment it was made: an endless async iterator for one reader."""

    # One for each idle subscriber: what waits, and the means of waiting, are made when they are needed.
    __slots__ = ("_behind", "_buffer", "_job_id", "_put", "_replay", "_replayed", "cursor")

    def __init__(self, job_id: str | None, replay: Replay, cursor: Cursor) -> None:
        self._job_id = job_id
        self._replay = replay
        self._buffer: dict[str | Cursor, Event] = {}
        self._replayed: list[Event] = []
        """The last one first."""
        self._behind = False
        self._put: asyncio.Future[None] | None = None
        """What a reader waits for."""
        self.cursor = cursor
        """The last event handed out; what is at or below it is dropped."""

    def start_after(self, cursor: Cursor) -> None:
        """Begin with what the index holds behind that cursor."""
        self.cursor = cursor
        self._behind = True

    def put(self, event: Event) -> None:
        """Called by the bus: never waits."""
        key = event.job.id if event.kind is Kind.PROGRESS else event.cursor
        self._buffer.pop(key, None)
        self._buffer[key] = event
        if len(self._buffer) > BUFFER:
            self._buffer.clear()
            self._behind = True
        if self._put is not None and not self._put.done():
            self._put.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._replayed:
                event = self._replayed.pop()
            elif self._behind:
                await self._read_on()
                continue
            elif self._buffer:
                event = self._buffer.pop(next(iter(self._buffer)))
            else:
                self._put = asyncio.get_running_loop().create_future()
                await self._put
                continue
            if event.cursor > self.cursor:
                self.cursor = event.cursor
                return event

    async def _read_on(self) -> None:
        # Cleared first: an overflow during the read sets it again.
        self._behind = False
        self._replayed = (await self._replay(self.cursor, self._job_id, _REPLAYED))[::-1]
        self._behind = self._behind or len(self._replayed) == _REPLAYED


class EventBus:
    """``async with bus.subscribe(job_id) as events: async for event in events: …``."""

    def __init__(self, replay: Replay, position: int) -> None:
        self._replay = replay
        self._published = Cursor(position)
        self._by_job: dict[str, set[Subscription]] = {}
        self._all: set[Subscription] = set()

    @property
    def subscribers(self) -> int:
        """Subscriptions that are open."""
        return len(self._all) + sum(len(subscriptions) for subscriptions in self._by_job.values())

    @property
    def is_watched(self) -> bool:
        """Whether anybody subscribes to anything."""
        return bool(self._all or self._by_job)

    @asynccontextmanager
    async def subscribe(self, job_id: str) -> AsyncIterator[Subscription]:
        """The events of one job, from now on until the block ends."""
        subscription = Subscription(job_id, self._replay, self._published)
        self._by_job.setdefault(job_id, set()).add(subscription)
        try:
            yield subscription
        finally:
            subscriptions = self._by_job[job_id]
            subscriptions.discard(subscription)
            if not subscriptions:
                del self._by_job[job_id]

    @asynccontextmanager
    async def subscribe_all(self) -> AsyncIterator[Subscription]:
        """The events of every job, from now on until the block ends."""
        subscription = Subscription(None, self._replay, self._published)
        self._all.add(subscription)
        try:
            yield subscription
        finally:
            self._all.discard(subscription)

    def publish(self, events: Sequence[Event]) -> None:
        """Hand events to their subscribers; the index must have applied them."""
        if not events:
            return
        # An index that is built anew brings old events once more, which are news to nobody.
        self._published = max(self._published, events[-1].cursor)
        if not self.is_watched:
            return
        for event in events:
            for subscription in self._by_job.get(event.job.id, ()):
                subscription.put(event)
            for subscription in self._all:
                subscription.put(event)
