"""The end of long-lived connections when the process stops: one after another, so that clients do not return as one."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PER_SECOND = 500
"""Connections that are closed in a second while there is time for it; a few are closed at once."""


class Closing:
    """The open sockets and streams of a process."""

    def __init__(self) -> None:
        self._open: dict[object, Callable[[], None]] = {}
        self._begun = False
        self._none_left = asyncio.Event()

    @contextmanager
    def told(self, leave: Callable[[], None]) -> Iterator[None]:
        """Within the block, ``leave`` is called (once, and from the event loop) when the connection has to end."""
        key = object()
        self._open[key] = leave
        if self._begun:
            leave()
        try:
            yield
        finally:
            del self._open[key]
            if self._begun and not self._open:
                self._none_left.set()

    async def finish(self, within: float) -> None:
        """Tell everybody to leave, each at a moment of its own, and wait until they have, or for ``within`` seconds."""
        self._begun = True
        if not self._open:
            return
        loop = asyncio.get_running_loop()
        spread = min(within, len(self._open) / _PER_SECOND)
        for key in list(self._open):
            loop.call_later(random.uniform(0, spread), self._tell, key)  # noqa: S311
        try:
            async with asyncio.timeout(within):
                await self._none_left.wait()
        except TimeoutError:
            pass

    def _tell(self, key: object) -> None:
        leave = self._open.get(key)
        if leave is not None:
            leave()
