"""The end of long-lived connections, of old ones and when the process stops: one after another, so that clients do not
return as one.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PER_SECOND = 500
"""Connections that are closed in a second while there is time for it; a few are closed at once."""


RESTART = "Service restart"
AGE = "Maximum age reached"


class Closing:
    """The open sockets and streams of a process.

    :param max_age: seconds after which a connection has to end; up to a tenth less, so that those of one moment part.
    """

    def __init__(self, max_age: float = 86_400.0) -> None:
        self._max_age = max_age
        self._open: dict[object, Callable[[str], None]] = {}
        self._begun = False
        self._none_left = asyncio.Event()

    @contextmanager
    def told(self, leave: Callable[[str], None]) -> Iterator[None]:
        """Within the block, ``leave`` is called, with the reason, when the connection has to end."""
        key = object()
        self._open[key] = leave
        if self._begun:
            leave(RESTART)
        age = self._max_age * random.uniform(0.9, 1)  # noqa: S311
        old = asyncio.get_running_loop().call_later(age, leave, AGE)
        try:
            yield
        finally:
            old.cancel()
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
            leave(RESTART)
