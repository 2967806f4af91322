"""The event bus: every event that the index has applied, fanned out to subscribers of this process.

A subscriber never makes another one wait. One that reads slowly gets progress merged to the newest; where even that is
too much, its buffer is dropped and it reads on from the index, where nothing is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Cursor

BUFFER = 512
"""Events that may wait for a subscriber before it has to read on from the index."""
_REPLAYED = 256

Replay = Callable[[Cursor, str | None, int], Awaitable[list[Event]]]
"""Reads the next events behind a cursor, of one job or (None) of all, at most so many."""
Predicate = Callable[[Event], bool]


class Subscriber:
    """The events of one job, or of all, from the moment it was made: an async iterator for one reader.

    It is endless, unless ``ends_after`` says otherwise of an event that it has handed out. The bus holds it until it
    has ended or is closed: ``async with``, or ``aclose``. Reading on from the index raises what ``Replay`` raises.
    """

    # One for each idle subscriber: what waits, and the means of waiting, are made when they are needed.
    __slots__ = (
        "_arrival",
        "_behind",
        "_buffer",
        "_bus",
        "_closed",
        "_replayed",
        "_terminal",
        "cursor",
        "ends_after",
        "job_id",
        "matches",
    )

    def __init__(self, bus: "EventBus", job_id: str | None, cursor: Cursor) -> None:
        self._bus = bus
        self._buffer: dict[str | Cursor, Event] = {}
        self._replayed: list[Event] = []
        """Read from the index, the last one first."""
        self._behind = False
        """Whether the index has to be read before the buffer."""
        self._arrival: asyncio.Future[None] | None = None
        """What the reader waits for."""
        self._terminal: Event | None = None
        """The event handed out last, where it was a terminal one and ``ends_after`` is to be asked about it."""
        self._closed = False
        self.job_id = job_id
        self.cursor = cursor
        """The last event handed out; what is at or below it is dropped."""
        self.matches: Predicate | None = None
        """Which events are handed out; None for all."""
        self.ends_after: Predicate | None = None
        """Asked about each terminal event that was handed out, before the next is looked for."""

    def start_after(self, cursor: Cursor) -> None:
        """Begin with what the index holds behind that cursor."""
        self.cursor = cursor
        self._behind = True

    def start_with(self, event: Event) -> None:
        """Begin with that event, and go on behind it."""
        self.cursor = Cursor(0)
        self._replayed = [event]

    def put(self, event: Event) -> None:
        """Take an event of the bus; never waits."""
        key = event.job.id if event.kind is Kind.PROGRESS else event.cursor
        self._buffer.pop(key, None)
        self._buffer[key] = event
        if len(self._buffer) > BUFFER:
            self._buffer.clear()
            self._behind = True
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self.ends_after is not None and self._terminal is not None and self.ends_after(self._terminal):
            self.close()
        while not self._closed:
            if self._replayed:
                event = self._replayed.pop()
            elif self._behind:
                await self._read_on()
                continue
            elif self._buffer:
                event = self._buffer.pop(next(iter(self._buffer)))
            else:
                self._arrival = asyncio.get_running_loop().create_future()
                await self._arrival
                continue
            if event.cursor <= self.cursor:
                continue
            self.cursor = event.cursor
            if self.matches is not None and not self.matches(event):
                continue
            if self.ends_after is not None:
                self._terminal = event if event.is_terminal else None
            return event
        raise StopAsyncIteration

    def close(self) -> None:
        """Leave the bus. Whoever waits for an event gets no more."""
        if not self._closed:
            self._closed = True
            self._bus.remove(self)
            self._wake()

    async def aclose(self) -> None:
        """Do as ``close`` does."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def _read_on(self) -> None:
        # Cleared first: an overflow during the read sets it again.
        self._behind = False
        try:
            replayed = await self._bus.replay(self.cursor, self.job_id, _REPLAYED)
        except BaseException:
            self._behind = True
            raise
        self._replayed = replayed[::-1]
        self._behind = self._behind or len(replayed) == _REPLAYED


class EventBus:
    """``async with bus.subscribe(job_id) as events: async for event in events: …``."""

    def __init__(self, replay: Replay, position: int) -> None:
        """:param position: the sequence up to which events are no news."""
        self.replay = replay
        self._published = Cursor(position)
        self._by_job: dict[str, set[Subscriber]] = {}
        self._all: set[Subscriber] = set()

    @property
    def subscribers(self) -> int:
        """How many subscribers there are."""
        return len(self._all) + sum(len(subscribers) for subscribers in self._by_job.values())

    @property
    def is_watched(self) -> bool:
        """Whether anybody subscribes to anything."""
        return bool(self._all or self._by_job)

    def subscribe(self, job_id: str) -> Subscriber:
        """Return a subscriber to the events of one job from now on, which has to be closed."""
        subscriber = Subscriber(self, job_id, self._published)
        self._by_job.setdefault(job_id, set()).add(subscriber)
        return subscriber

    def subscribe_all(self) -> Subscriber:
        """Return a subscriber to the events of every job from now on, which has to be closed."""
        subscriber = Subscriber(self, None, self._published)
        self._all.add(subscriber)
        return subscriber

    def remove(self, subscriber: Subscriber) -> None:
        """Hand nothing more to a subscriber."""
        if subscriber.job_id is None:
            self._all.discard(subscriber)
            return
        subscribers = self._by_job[subscriber.job_id]
        subscribers.discard(subscriber)
        if not subscribers:
            del self._by_job[subscriber.job_id]

    def publish(self, events: Sequence[Event]) -> None:
        """Hand events to their subscribers; the index must have applied them."""
        if not events:
            return
        self._published = events[-1].cursor
        if not self.is_watched:
            return
        for event in events:
            for subscriber in self._by_job.get(event.job.id, ()):
                subscriber.put(event)
            for subscriber in self._all:
                subscriber.put(event)
