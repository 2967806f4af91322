"""The event bus: every event that the index has applied, fanned out to subscribers of this process.

A subscriber never makes another one wait. One that reads slowly gets progress merged to the newest; where even that is
too much, its buffer is dropped and it reads on from the index, where nothing is lost. The same happens to whoever has
waited longest where subscribers together hold too much: what has been read for one of them alone, and large events.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, Self

from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Cursor
from gql_jobs.live.throttle import Throttle

BUFFER = 512
"""Events buffered for a subscriber at most; beyond that the buffer is dropped and it reads on from the index."""
BUFFER_BYTES = 4 << 20
"""Bytes that their jobs may take in memory."""
_REPLAY_LIMIT = 256
"""Events that are read from the index at once, at most."""
_REPLAY_BYTES = 1 << 20
"""Bytes that they may take in memory, but for a single event."""
LARGE = 16 << 10
"""Bytes from which on an event counts as large. All smaller ones of a buffer are those that others hold as well."""
HELD_BYTES = 32 << 20
"""Bytes that all subscribers together may hold of large events, and of what was read from the index for each."""

_LAST_NTH = 999
"""No message makes so many events."""

Replay = Callable[[Cursor, str | None, int, int], Awaitable[tuple[list[Event], bool]]]
"""Reads from the index the next events behind a cursor, oldest first, and whether these are all of them.

Given are the cursor, a job id (None for all jobs), and the most events and bytes that are wanted.
"""
ReadLatest = Callable[[str], Event | None]
"""Returns the latest event of the job with that id; None if there is no such job."""
Predicate = Callable[[Event], bool]
"""Whether something holds for an event."""


class Turn(Protocol):
    """The right to answer, of one of several readers whose answers go over one connection."""

    async def begin(self) -> None:
        """Wait until it is this reader's; return at once if it is already."""

    def end(self) -> None:
        """Pass it on, if it is this reader's."""


class WaitingReader:
    """A reader that waits until there is something for it, and whose answers may go over a connection with others'."""

    # Thousands of readers are idle at a time: the future that one awaits is made only when it has to wait.
    __slots__ = ("_waiter", "turn")

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        """Resolved when there may be something, or nothing further will come."""
        self.turn: Turn | None = None
        """Begun before something is handed out, and ended when there is nothing, or once the reader has answered.

        So that a reader who cannot send has nothing made for it but what is bounded elsewhere.
        """

    def wake(self) -> None:
        """Have the reader that waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, until: float | None) -> None:
        """Pass the turn on and wait until woken, or until that time of the event loop's clock."""
        if self.turn is not None:
            self.turn.end()
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if until is None:
            await self._waiter
            return
        alarm = loop.call_at(until, self.wake)
        try:
            await self._waiter
        finally:
            alarm.cancel()


class Subscriber(WaitingReader):
    """The events of one job, or of all, from the moment it was made: an async iterator for one reader.

    It is endless, unless ``ends_after`` says otherwise of an event that it has handed out. The bus holds it until it
    has ended or is closed: ``async with``, or ``aclose``. Reading on from the index raises what ``Replay`` raises, and
    iterating raises ``QueueUnavailable`` once the bus has ended it.
    """

    # Thousands of subscribers are idle at a time, and a dict instead of a deque or a queue takes no memory worth
    # mentioning while it is empty (docs/decisions.md).
    __slots__ = (
        "_buffer",
        "_buffered",
        "_bus",
        "_closed",
        "_failure",
        "_latest",
        "_must_replay",
        "_read_latest",
        "_replayed",
        "_terminal",
        "_throttle",
        "cursor",
        "ends_after",
        "ids",
        "job_id",
        "matches",
    )

    def __init__(self, bus: "EventBus", job_id: str | None, cursor: Cursor) -> None:
        super().__init__()
        self._bus = bus
        self._buffer: dict[str | Cursor, Event] = {}
        self._buffered = 0
        """Bytes that the buffered events take in memory."""
        self._replayed: list[Event] = []
        """Events read from the index and not handed out yet, newest first."""
        self._latest: list[tuple[Cursor, str]] = []
        """Position and job of those events that are read one by one before all others, newest first."""
        self._read_latest: ReadLatest = lambda _: None
        self._must_replay = False
        """Whether the index may hold events behind ``cursor`` that are not in the buffer."""
        self._terminal: Event | None = None
        """The event handed out last, if it was a terminal one and ``ends_after`` has to be called with it."""
        self._throttle: Throttle | None = None
        """What holds progress back; None if all of it is handed out."""
        self._closed = False
        self._failure: str | None = None
        """Why the bus has ended it; None if it has not."""
        self.job_id = job_id
        self.ids: frozenset[str] | None = None
        """The jobs whose events are handed out, where the subscriber is for some that are named; None for any."""
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
        # So that it is read again if it is dropped.
        self.cursor = _before(event.cursor)
        self._replayed = [event]
        self._bus.held.hold_replay(self, event.job.weight)

    def start_with_latest(self, events: list[tuple[Cursor, str]], read: "ReadLatest") -> None:
        """Hand out first the latest events of some jobs, each read when its turn comes, then what comes behind them.

        Call it before the first event is read.

        :param events: their positions and the jobs' ids; all of them were there when this subscriber was made.
        :param read: returns the latest event of a job. One that has another position by now is left out, because the
            bus brings it.
        """
        self._latest = sorted(events, reverse=True)
        self._read_latest = read
        if events:
            self.cursor = _before(self._latest[-1][0])

    def limit_progress(self, per_second: float) -> None:
        """Hand out at most so many reports of progress in a second: of each job the newest, those of all together.

        Other events are handed out as soon as without it. Call it before the first event is read.
        """
        self._throttle = Throttle(per_second, self.cursor, self._forgotten)

    def step_back(self) -> None:
        """Hand out the last event once more, if it matches by now. Call it before the next event is read."""
        if self._throttle is not None and self._throttle.step_back():
            return
        self._drop_read()
        # All of them are behind it.
        self._latest.clear()
        self.cursor = _before(self.cursor)
        self._must_replay = True
        self._terminal = None

    def put(self, event: Event, weight: int) -> None:
        """Buffer an event; never waits. Newer progress of a job replaces older.

        :param weight: bytes that the event takes in memory.
        """
        key = event.job.id if event.kind is Kind.PROGRESS else event.cursor
        if key in self._buffer:
            self._unbuffer(key)
        self._buffer[key] = event
        self._buffered += weight
        if weight >= LARGE:
            self._bus.held.hold(self, event, weight)
        if len(self._buffer) > BUFFER or self._buffered > BUFFER_BYTES:
            self._clear_buffer()
        self.wake()

    def drop(self) -> None:
        """Drop what has been buffered or read for this subscriber, to be read from the index when it is wanted."""
        self._drop_read()
        if self._throttle is not None:
            self._throttle.clear()

    def _drop_read(self) -> None:
        if self._replayed:
            self._replayed = []
            self._must_replay = True
            self._bus.held.release_replay(self)
        if self._buffer:
            self._clear_buffer()

    def _clear_buffer(self) -> None:
        if self._throttle is None:
            self._bus.held.release_buffer(self)
        else:
            # What waits is held on.
            for event in self._buffer.values():
                self._forgotten(event)
        self._buffer.clear()
        self._buffered = 0
        self._must_replay = True

    def _forgotten(self, event: Event) -> None:
        if event.job.weight >= LARGE:
            self._bus.held.release_one(self, event)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self.ends_after is not None and self._terminal is not None and self.ends_after(self._terminal):
            self.close()
        while not self._closed:
            if self._throttle is not None and (report := await self._report(self._throttle)) is not None:
                return report
            if not (self._latest or self._replayed or self._must_replay or self._buffer):
                await self._wait(self._throttle.due if self._throttle is not None else None)
                continue
            if self.turn is not None:
                await self.turn.begin()
            event = await self._replayed_or_buffered()
            if event is None or event.cursor <= self.cursor:
                continue
            self.cursor = event.cursor
            if self._throttle is not None and not self._passes(event, self._throttle):
                continue
            if self.matches is not None and not self.matches(event):
                continue
            if self.ends_after is not None:
                self._terminal = event if event.is_terminal else None
            return event
        raise StopAsyncIteration if self._failure is None else QueueUnavailable(self._failure)

    def _passes(self, event: Event, throttle: Throttle) -> bool:
        """Return whether an event is handed out at once; progress that is not, and matches, waits."""
        if event.kind is not Kind.PROGRESS:
            throttle.pass_on(event)
            return True
        if self.matches is None or self.matches(event):
            # Behind those that wait already, whose turn is first.
            throttle.hold(event)
            if (weight := event.job.weight) >= LARGE:
                self._bus.held.hold(self, event, weight)
        else:
            throttle.outdate(event.job.id)
        return False

    async def _report(self, throttle: Throttle) -> Event | None:
        """Return progress that has waited, if it is time and it still matches."""
        due = throttle.due
        if due is None or self._must_replay or asyncio.get_running_loop().time() < due:
            return None
        # A message may have made several events, which are told together: nothing has a place in between.
        following = self._replayed[-1] if self._replayed else next(iter(self._buffer.values()), None)
        if following is not None and following.cursor.seq <= self.cursor.seq:
            return None
        if self.turn is not None:
            await self.turn.begin()
        event = throttle.take()
        if event is None or (self.matches is not None and not self.matches(event)):
            return None
        throttle.count(event, asyncio.get_running_loop().time())
        self._terminal = None
        return event

    def fail(self, reason: str) -> None:
        """Leave the bus and end the iteration with ``QueueUnavailable``, also of a reader that waits for an event now.

        :param reason: the message of the error.
        """
        if not self._closed:
            self._failure = reason
            self.close()

    async def _replayed_or_buffered(self) -> Event | None:
        """Return the next event, which may be one that was handed out already; None if there is none after all."""
        if self._latest:
            cursor, job_id = self._latest.pop()
            latest = self._read_latest(job_id)
            return latest if latest is not None and latest.cursor == cursor else None
        if not self._replayed and self._must_replay:
            await self._replay()
        if self._replayed:
            event = self._replayed.pop()
            if not self._replayed:
                self._bus.held.release_replay(self)
            return event
        return self._unbuffer(next(iter(self._buffer))) if self._buffer and not self._must_replay else None

    def close(self) -> None:
        """Leave the bus and end the iteration, also of a reader that waits for an event now."""
        if not self._closed:
            self._closed = True
            self.drop()
            self._bus.remove(self)
            self.wake()

    async def aclose(self) -> None:
        """Close it as ``close`` does; for code that expects an async generator."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _unbuffer(self, key: str | Cursor) -> Event:
        event = self._buffer.pop(key)
        weight = event.job.weight
        self._buffered -= weight
        if weight >= LARGE:
            self._bus.held.release_one(self, event)
        return event

    async def _replay(self) -> None:
        # Cleared first: an overflow during the read sets it again.
        self._must_replay = False
        try:
            replayed, is_complete = await self._bus.replay(self.cursor, self.job_id, _REPLAY_LIMIT, _REPLAY_BYTES)
        except BaseException:
            self._must_replay = True
            raise
        self._must_replay = self._must_replay or not is_complete
        if not self._closed and replayed:
            self._replayed = replayed[::-1]
            self._bus.held.hold_replay(self, sum([event.job.weight for event in replayed]))


def _before(cursor: Cursor) -> Cursor:
    """Return the position before an event."""
    seq, nth = cursor
    return Cursor(seq, nth - 1) if nth else Cursor(seq - 1, _LAST_NTH)


class HeldEvents:
    """What subscribers hold in memory that no other part of the process holds: large events, and replays.

    A large event counts once, however many hold it. If all together take more than ``HELD_BYTES``, what the subscriber
    holds that has waited longest is dropped.
    """

    def __init__(self) -> None:
        self.bytes = 0
        """Bytes that are held now."""
        self._holders: OrderedDict[Subscriber, dict[Cursor, Event]] = OrderedDict()
        """The large events that each subscriber holds, by their cursors; the longest waiting one first."""
        self._shared: dict[Cursor, tuple[int, int]] = {}
        """Of each of these events the bytes, and how many hold it."""
        self._replays: dict[Subscriber, int] = {}

    def hold(self, subscriber: Subscriber, event: Event, weight: int) -> None:
        """Count a large event that a subscriber has buffered or holds back."""
        held = self._holders.setdefault(subscriber, {})
        if event.cursor in held:
            # It was held back as it was read from the index, and is in the buffer as well.
            return
        held[event.cursor] = event
        _, holders = self._shared.get(event.cursor, (weight, 0))
        self._shared[event.cursor] = (weight, holders + 1)
        if holders == 0:
            self.bytes += weight
            self._drop_oldest(subscriber)

    def hold_replay(self, subscriber: Subscriber, weight: int) -> None:
        """Count what has been read from the index for a subscriber."""
        self.release_replay(subscriber)
        self._replays[subscriber] = weight
        self._holders.setdefault(subscriber, {})
        self.bytes += weight
        self._drop_oldest(subscriber)

    def release_one(self, subscriber: Subscriber, event: Event) -> None:
        """Count an event no longer that has left a subscriber's buffer."""
        events = self._holders.get(subscriber, {})
        if events.pop(event.cursor, None) is not None:
            self._release(event.cursor)
        self._forget_if_empty(subscriber)

    def release_replay(self, subscriber: Subscriber) -> None:
        """Count a subscriber's replay no longer."""
        self.bytes -= self._replays.pop(subscriber, 0)
        self._forget_if_empty(subscriber)

    def release_buffer(self, subscriber: Subscriber) -> None:
        """Count none of the events in a subscriber's buffer any longer."""
        events = self._holders.get(subscriber)
        if events is not None:
            for cursor in events:
                self._release(cursor)
            events.clear()
            self._forget_if_empty(subscriber)

    def _release(self, cursor: Cursor) -> None:
        weight, holders = self._shared.pop(cursor)
        if holders > 1:
            self._shared[cursor] = (weight, holders - 1)
        else:
            self.bytes -= weight

    def _forget_if_empty(self, subscriber: Subscriber) -> None:
        if subscriber not in self._replays and not self._holders.get(subscriber, True):
            del self._holders[subscriber]

    def _drop_oldest(self, newest: Subscriber) -> None:
        # The newest may keep what it has just got, however large: else it would read that again and again.
        while self.bytes > HELD_BYTES:
            oldest = next((holder for holder in self._holders if holder is not newest), None)
            if oldest is None:
                return
            oldest.drop()


class EventBus:
    """Hands events to the subscribers of this process, by job or of all jobs.

    ``async with bus.subscribe(job_id) as events: async for event in events: …``
    """

    def __init__(self, replay: Replay, position: int) -> None:
        """:param position: the sequence that the index has applied; subscribers get later events only."""
        self.replay = replay
        self.held = HeldEvents()
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

    def end(self, reason: str, job_id: str | None = None) -> None:
        """End the subscribers who have named one job, or (None) all there are, with ``QueueUnavailable``.

        :param reason: the message of the error.
        """
        jobs = list(self._by_job) if job_id is None else [job_id]
        ended = [subscriber for job in jobs for subscriber in self._by_job.get(job, ())]
        ended += [one for one in self._all if job_id is None or (one.ids is not None and job_id in one.ids)]
        for subscriber in ended:
            subscriber.fail(reason)

    def publish(self, events: Sequence[Event]) -> None:
        """Hand events, oldest first, to their subscribers. The index must have applied them."""
        if not events:
            return
        self._published = events[-1].cursor
        if not self.is_watched:
            return
        for event in events:
            subscribers = self._by_job.get(event.job.id)
            if not subscribers and not self._all:
                continue
            weight = event.job.weight
            for subscriber in subscribers or ():
                subscriber.put(event, weight)
            for subscriber in self._all:
                subscriber.put(event, weight)
