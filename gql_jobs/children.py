"""Children that live as long as we do: kept running, told of our signals, and none left behind.

Owns the signals of this process. Which children there are, and in which order they stop, is their owner's affair.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from gql_jobs.child import Child

log = logging.getLogger(__name__)

STOP_WITHIN = 10.0
"""Seconds that a child gets to stop, beside what its work may take."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def handing_back(grace: float) -> str:
    """The farewell of those who have workers among their children."""
    return f"stopping: running jobs get {grace:g} s; once more hands them back at once"


class Children:
    """:param farewell: what the first signal has us say."""

    def __init__(self, farewell: str) -> None:
        self._farewell = farewell
        self._children: list[Child] = []
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._interrupts = 0

    @property
    def exit_code(self) -> int:
        """1 if one of them had to be killed when it was stopped."""
        return 1 if any(child.killed for child in self._children) else 0

    @asynccontextmanager
    async def running(self, child: Child) -> AsyncIterator[Child]:
        """Keep it running until the block ends."""
        self._children.append(child)
        running = asyncio.create_task(child.run())
        running.add_done_callback(self._ended)
        try:
            yield child
        finally:
            await child.stop()
            await asyncio.wait((running,))

    async def stopped(self, starting: "asyncio.Task[Any] | None" = None) -> None:
        """Return when a signal has come.

        :param starting: ends with us, and its failure ends us.
        :raises StartFailed: if a child cannot start as things are.
        """
        stopped = asyncio.create_task(self._stopping.wait())
        tasks = [stopped] if starting is None else [stopped, starting]
        try:
            await self._first(*tasks)
            if starting is not None and starting.done():
                starting.result()
                await self._first(stopped)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _first(self, *tasks: "asyncio.Task[Any]") -> None:
        """Wait for one of them, or for the failure of a child."""
        await asyncio.wait((*tasks, self._failure), return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()

    def _ended(self, running: "asyncio.Task[None]") -> None:
        error = running.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within the block signals stop us, and do not reach the children by themselves."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        """First stop; the second time the workers hand their jobs back at once; the third time all are killed."""
        self._interrupts += 1
        if self._interrupts == 1:
            log.info("%s", self._farewell)
            self._stopping.set()
            return
        for child in self._children:
            if self._interrupts > 2:  # noqa: PLR2004
                child.signal(signal.SIGKILL)
            else:
                child.hurry()
