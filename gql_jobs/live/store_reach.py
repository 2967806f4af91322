"""Whether this process reaches the store, and since when: asked of NATS actively, once for all who want to know.

A connection that was lost is noticed at once, but a server that hangs keeps its connections open. So it is asked again
and again, while somebody watches or while the store was last found to be away; at other times only who asks has it
asked.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Self

from msgspec import Struct

from gql_jobs import clock
from gql_jobs.live.bus import WaitingReader

log = logging.getLogger(__name__)

ANSWER_WITHIN = 1.5
"""Seconds that the store has to answer; it counts as away without an answer."""
_PAUSE = 0.4
"""Seconds between two questions, and for which an answer holds for others who ask."""


class ReachState(Struct, frozen=True):
    """Whether the store can be reached, and since when that is so, as far as this process has noticed."""

    reachable: bool
    since: datetime


class StoreReach:
    """Knows whether the store can be reached; ``run`` keeps it up to date.

    ``state``: what was found last, away at first. ``watchers``: who is told when that changes.

    :param ask: asks the store, and returns whether it answers; it is cancelled after ``ANSWER_WITHIN`` seconds.
    :param on_change: called with what is so now, when that has changed.
    """

    def __init__(self, ask: Callable[[], Awaitable[bool]], on_change: Callable[[bool], None] | None = None) -> None:
        self._ask = ask
        self._on_change = on_change
        self._asking: asyncio.Task[None] | None = None
        self._asked_at: float | None = None
        """When the question was put whose answer holds, by the event loop's clock; None if none holds."""
        self._is_due = asyncio.Event()
        self.state = ReachState(False, clock.now())
        self.watchers: set[ReachWatch] = set()

    async def now(self) -> ReachState:
        """Return what is so, after asking the store unless that was done just now; takes ``ANSWER_WITHIN`` at most."""
        has_answer = self._asking is None and self._asked_at is not None
        if not (has_answer and self._clock() - (self._asked_at or 0) < _PAUSE):
            await self._answer()
        return self.state

    def watch(self) -> "ReachWatch":
        """Return the states from now on, which has to be closed."""
        watch = ReachWatch(self)
        self.watchers.add(watch)
        if len(self.watchers) == 1:
            self._is_due.set()
        return watch

    def look_soon(self) -> None:
        """Have the store asked at once, because its connection is another one or was lost."""
        self._asked_at = None
        self._is_due.set()

    async def run(self) -> None:
        """Ask again and again while there is reason to, until cancelled."""
        try:
            while True:
                self._is_due.clear()
                await self._answer()
                is_followed = self.watchers or not self.state.reachable
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE if is_followed else None):
                        await self._is_due.wait()
        finally:
            if self._asking is not None:
                self._asking.cancel()

    async def _answer(self) -> None:
        """Wait for the answer to the one question that is under way, putting it if there is none."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._find_out())
        # Of many who wait for it, one that gives up must not take the answer from the others.
        await asyncio.shield(self._asking)

    async def _find_out(self) -> None:
        self._asked_at = self._clock()
        found = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_WITHIN):
                    found = await self._ask()
        except Exception:
            log.exception("it could not be found out whether the store can be reached")
        finally:
            self._asking = None
        if found is not self.state.reachable:
            self.state = ReachState(found, clock.now())
            if self._on_change is not None:
                self._on_change(found)
            for watcher in self.watchers:
                watcher.wake()

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()


class ReachWatch(WaitingReader):
    """An async iterator over the states for one reader: the one that is known at once, then each that differs.

    It never ends by itself. Of changes that come faster than they are read, the last state is told.
    """

    def __init__(self, reach: StoreReach) -> None:
        super().__init__()
        self._reach = reach
        self._told: ReachState | None = None
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReachState:
        while not self._is_closed:
            if self._reach.state == self._told:
                await self._wait(None)
                continue
            if self.turn is not None:
                await self.turn.begin()
            self._told = self._reach.state
            return self._told
        raise StopAsyncIteration

    def step_back(self) -> None:
        """Bring the present state once more."""
        self._told = None

    async def aclose(self) -> None:
        """End the iteration, also of a reader that waits now."""
        self._is_closed = True
        self._reach.watchers.discard(self)
        self.wake()


async def _away() -> bool:
    return False


def no_store() -> StoreReach:
    """Return what a process without a store knows: that it is away."""
    return StoreReach(_away)
