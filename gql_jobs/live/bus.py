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
"""Events buffered for a subscriber at most; beyond that the buffer is dropped and it reads on from the index."""
_REPLAY_LIMIT = 256
"""Events that are read from the index at once, at most."""

Replay = Callable[[Cursor, str | None, int], Awaitable[list[Event]]]
"""Given a cursor, a job id (None for all jobs) and a limit: reads the next events behind the cursor, oldest first."""
Predicate = Callable[[Event], bool]
"""Whether something holds for an event."""


class Subscriber:
    """The events of one job, or of all, from the moment it was made: an async iterator for one reader.

    It is endless, unless ``ends_after`` says otherwise of an event that it has handed out. The bus holds it until it
    has ended or is closed: ``async with``, or ``aclose``. Reading on from the index raises what ``Replay`` raises.
    """

    # Thousands of subscribers are idle at a time: the future that a reader awaits is made only when it has to wait,
    # and a dict instead of a deque or a queue takes no memory worth mentioning while it is empty (docs/decisions.md).
    __slots__ = (
        "_buffer",
        "_bus",
        "_closed",
        "_must_replay",
        "_replayed",
        "_terminal",
        "_waiter",
        "cursor",
        "ends_after",
        "job_id",
        "matches",
    )

    def __init__(self, bus: "EventBus", job_id: str | None, cursor: Cursor) -> None:
        self._bus = bus
        self._buffer: dict[str | Cursor, Event] = {}
        self._replayed: list[Event] = []
        """Events read from the index and not handed out yet, newest first."""
        self._must_replay = False
        """Whether the index may hold events behind ``cursor`` that are not in the buffer."""
        self._waiter: asyncio.Future[None] | None = None
        """Resolved when there is an event, or no further one will come."""
        self._terminal: Event | None = None
        """The event handed out last, if it was a terminal one and ``ends_after`` has to be called with it."""
        self._closed = False
        self.job_id = job_id
        self.cursor = cursor
        """The position of the last event handed out; events at or below it are dropped."""
        self.matches: Predicate | None = None
        """Which events are handed out; None for all."""
        self.ends_after: Predicate | None = None
        """Called with each terminal event after it was handed out; if it returns true, iteration ends."""

    def start_after(self, cursor: Cursor) -> None:
        """Hand out first what the index holds behind that cursor. Call it before the first event is read."""
        self.cursor = cursor
        self._must_replay = True

    def start_with(self, event: Event) -> None:
        """Hand out that event first, then what comes behind it. Call it before the first event is read."""
        self.cursor = Cursor(0)
        self._replayed = [event]

    def put(self, event: Event) -> None:
        """Buffer an event; never waits. Newer progress of a job replaces older."""
        key = event.job.id if event.kind is Kind.PROGRESS else event.cursor
        self._buffer.pop(key, None)
        self._buffer[key] = event
        if len(self._buffer) > BUFFER:
            self._buffer.clear()
            self._must_replay = True
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self.ends_after is not None and self._terminal is not None and self.ends_after(self._terminal):
            self.close()
        while not self._closed:
            if self._replayed:
                event = self._replayed.pop()
            elif self._must_replay:
                await self._replay()
                continue
            elif self._buffer:
                event = self._buffer.pop(next(iter(self._buffer)))
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
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
        """Leave the bus and end the iteration, also of a reader that waits for an event now."""
        if not self._closed:
            self._closed = True
            self._bus.remove(self)
            self._wake()

    async def aclose(self) -> None:
        """Close it as ``close`` does; for code that expects an async generator."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _replay(self) -> None:
        # Cleared first: an overflow during the read sets it again.
        self._must_replay = False
        try:
            replayed = await self._bus.replay(self.cursor, self.job_id, _REPLAY_LIMIT)
        except BaseException:
            self._must_replay = True
            raise
        self._replayed = replayed[::-1]
        self._must_replay = self._must_replay or len(replayed) == _REPLAY_LIMIT


class EventBus:
    """Hands events to the subscribers of this process, by job or of all jobs.

    ``async with bus.subscribe(job_id) as events: async for event in events: …``
    """

    def __init__(self, replay: Replay, position: int) -> None:
        """:param position: the sequence that the index has applied; subscribers get later events only."""
        self.replay = replay
        self._published = Cursor(position)
        self._by_job: dict[str, set[Subscriber]] = {}
        self._all: set[Subscriber] = set()

    @property
    def subscribers(self) -> int:
        """The number of subscribers."""
        return len(self._all) + sum(len(subscribers) for subscribers in self._by_job.values())

    @property
    def is_watched(self) -> bool:
        """Whether there is any subscriber."""
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
        """Remove a subscriber: it is handed no further events."""
        if subscriber.job_id is None:
            self._all.discard(subscriber)
            return
        subscribers = self._by_job[subscriber.job_id]
        subscribers.discard(subscriber)
        if not subscribers:
            del self._by_job[subscriber.job_id]

    def publish(self, events: Sequence[Event]) -> None:
        """Hand events, oldest first, to their subscribers. The index must have applied them."""
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
