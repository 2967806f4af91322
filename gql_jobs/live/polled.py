"""Figures that are read again and again while somebody watches them: once for all who watch the same.

What they are made of (counts of the index, heartbeats) changes with nearly every message, so it is not followed: it is
read when something has changed, no more often than the fastest of those who watch wants it, and told if it differs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from itertools import count
from typing import Any, Self

from gql_jobs.live.bus import WaitingReader

_IDLE_READ = 1.0
"""Seconds after which figures are read although no message has come: workers fall silent, and time goes on."""


class Figures(list[Any]):
    """Figures as they were read, as an event of whoever watches them."""

    cursor = None
    """Whoever comes back is told the present ones: there is nothing to go on after."""

    def __init__(self, values: list[Any], key: str) -> None:
        """:param key: tells them from all others that were read."""
        super().__init__(values)
        self.key = key


class PolledFigures:
    """Figures of one kind for those who may see the same, read while anybody watches.

    :param read: reads them.
    :param position: returns what is equal as long as no message has come.
    """

    def __init__(self, read: Callable[[], Awaitable[list[Any]]], position: Callable[[], Hashable], name: str) -> None:
        self._read = read
        self._position = position
        self._name = name
        self._versions = count(1)
        self._reading: asyncio.Task[None] | None = None
        self.now: Figures | None = None
        """What was read last; None before the first time."""
        self.failure: Exception | None = None
        """Why they could not be read, if that has ended it."""
        self.watchers: set[FiguresWatch] = set()

    def join(self, watcher: "FiguresWatch") -> None:
        """Read for one more."""
        self.watchers.add(watcher)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_repeatedly())

    def leave(self, watcher: "FiguresWatch") -> None:
        """Read for one less; for nobody nothing is read."""
        self.watchers.discard(watcher)
        if not self.watchers and self._reading is not None:
            self._reading.cancel()
            self._reading = None
            self.now = None

    async def _read_repeatedly(self) -> None:
        clock = asyncio.get_running_loop().time
        position: Hashable = None
        due = clock()
        try:
            while True:
                if self._position() != position or clock() >= due:
                    position, due = self._position(), clock() + _IDLE_READ
                    values = await self._read()
                    if self.now is None or values != list(self.now):
                        self.now = Figures(values, f"{self._name}.{next(self._versions)}")
                        self._wake()
                await asyncio.sleep(min([watcher.pause for watcher in self.watchers], default=_IDLE_READ))
        except Exception as error:  # noqa: BLE001 -- whatever it is, whoever watches is told
            self.failure, self._reading = error, None
            self._wake()

    def _wake(self) -> None:
        for watcher in list(self.watchers):
            watcher.wake()


class FiguresWatch(WaitingReader):
    """An async iterator over figures of one kind, for one reader, which never ends by itself.

    Iterating raises what reading them has raised.

    :param figures: returns the figures for the watcher of now, who may become another one.
    :param pause: seconds between two of them, at least.
    """

    def __init__(self, figures: Callable[[], PolledFigures], pause: float) -> None:
        super().__init__()
        self._of_now = figures
        self.pause = pause
        self._told: Figures | None = None
        self._next_at = 0.0
        self._is_closed = False
        self._figures = figures()
        self._figures.join(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Figures:
        loop = asyncio.get_running_loop()
        while not self._is_closed:
            # Looked at first: for others there are new figures by then.
            if self._figures.failure is not None:
                raise self._figures.failure
            if (figures := self._of_now()) is not self._figures:
                self._figures.leave(self)
                self._figures, self._told = figures, None
                figures.join(self)
            if figures.now is None or figures.now is self._told:
                await self._wait(None)
            elif loop.time() < self._next_at:
                await self._wait(self._next_at)
            else:
                if self.turn is not None:
                    await self.turn.begin()
                if (found := figures.now) is not None and self._of_now() is figures:
                    self._told, self._next_at = found, loop.time() + self.pause
                    return found
        raise StopAsyncIteration

    def step_back(self) -> None:
        """Bring the last figures once more."""
        self._told, self._next_at = None, 0.0

    async def aclose(self) -> None:
        """End the iteration, also of a reader that waits now."""
        if not self._is_closed:
            self._is_closed = True
            self._figures.leave(self)
            self.wake()


class PolledFiguresByKind:
    """The figures that are watched in this process, by their kind and by who may see them."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, Hashable], PolledFigures] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._figures)

    def of(
        self,
        kind: str,
        visibility: Hashable,
        read: Callable[[], Awaitable[list[Any]]],
        position: Callable[[], Hashable],
    ) -> PolledFigures:
        """Return the figures of a kind for those who may see so much: the ones that others watch, if there are any."""
        key = kind, visibility
        found = self._figures.get(key)
        if found is None or found.failure is not None:
            self._forget_unwatched()
            found = self._figures[key] = PolledFigures(read, position, f"{kind}.{next(self._numbers)}")
        return found

    def _forget_unwatched(self) -> None:
        self._figures = {key: figures for key, figures in self._figures.items() if figures.watchers}
