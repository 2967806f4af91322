"""Child processes that are restarted when they end by themselves, and that never outlive this process.

``Child`` is one such process. ``Children`` keeps several running and handles the signals of this process. The caller
decides which children there are, and in which order they start and stop.
"""

import asyncio
import logging
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from gql_jobs.environment import with_variables
from gql_jobs.processes import parent

log = logging.getLogger(__name__)

STOP_WITHIN = 10.0
"""Seconds that a child has to stop, in addition to the time that its work may take."""
_FIRST_DELAY = 0.5
"""Seconds before the first restart."""
_LONGEST_DELAY = 10.0
"""Seconds before any restart, at most."""
_STABLE_AFTER = 30.0
"""Seconds; a child that ran for longer is restarted as if it had ended for the first time."""
FASTER = signal.SIGINT
"""Has a worker that is stopping hand its jobs back at once."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StartFailed(RuntimeError):
    """A child process cannot start; its own messages say why."""


class Child:
    """One child process, in a session of its own, so that Ctrl-C in the terminal reaches only this process.

    Its stdin is a ``parent.lifeline``, so that it ends when this process does.

    :param command: called before each start, because ports may have become known since.
    :param environment: added to that of this process.
    :param stop_within: seconds between SIGTERM and SIGKILL.
    :param faster: the signal after SIGTERM that has it stop at once; None if it knows none. Not SIGTERM again: of two
        signals of one number that a process has not handled yet the second is lost.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        environment: dict[str, str],
        stop_within: float,
        faster: signal.Signals | None = None,
    ) -> None:
        self.name = name
        self.failures = 0
        """How often in a row it has ended by itself soon after its start."""
        self.killed = False
        """Whether it had to be killed when it was stopped."""
        self.is_edited = False
        """Whether ``restart`` is called when what it runs has changed: one that cannot start waits for that."""
        self._command = command
        self._environment = with_variables(os.environ, {**environment, parent.VARIABLE: "1", "PYTHONUNBUFFERED": "1"})
        self._stop_within = stop_within
        self._faster = faster
        self._hurried = asyncio.Event()
        self._restarting = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._process: Process | None = None

    async def run(self) -> None:
        """Start it, and start it again whenever it ends, until ``stop`` is called.

        :raises StartFailed: once it has ended with the exit code ``CANNOT_START``, unless it is edited.
        """
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                self._restarting.clear()
                code = await self._run_once()
                if self._stopping.is_set():
                    return
                if self._restarting.is_set():
                    self.failures = 0
                    continue
                if code == parent.CANNOT_START and not self.is_edited:
                    raise StartFailed(f"The {self.name} cannot start; its message above says why.")
                if code == parent.CANNOT_START:
                    log.error("the %s cannot start; it is started again when a file changes", self.name)
                    await self._stopped_or_restarted(None)
                    continue
                self.failures = 1 if time.monotonic() - began > _STABLE_AFTER else self.failures + 1
                delay, reason = restart_delay(self.failures), exit_reason(code)
                log.warning("the %s ended by itself (%s); starting it again in %.1f s", self.name, reason, delay)
                await self._stopped_or_restarted(delay)
        finally:
            self._ended.set()

    def restart(self) -> None:
        """Have it stop as fast as it can and start again, now: also one that waits for its next start."""
        self._restarting.set()

    async def _stopped_or_restarted(self, within: float | None, *ended: "asyncio.Task[int]") -> None:
        """Wait until it is to be stopped or started again; or until so many seconds have passed, or it has ended."""
        waiting = [asyncio.create_task(event.wait()) for event in (self._stopping, self._restarting)]
        try:
            await asyncio.wait((*waiting, *ended), timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def stop(self) -> None:
        """Stop it by SIGTERM, after ``stop_within`` seconds by SIGKILL, and wait until ``run`` has returned."""
        self._stopping.set()
        await self._ended.wait()

    def stop_faster(self) -> None:
        """Have ``stop`` send it the signal ``faster`` too, whether it has been called already or is called later."""
        if self._faster is not None:
            self._hurried.set()

    def signal(self, number: int) -> None:
        """Send it a signal, if it is running."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _run_once(self) -> int:
        with parent.lifeline() as stdin:
            process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=stdin, env=self._environment, start_new_session=True
            )
            self._process = process
            ended = asyncio.create_task(process.wait())
            try:
                await self._stopped_or_restarted(None, ended)
                if not ended.done():
                    await self._terminate(process, ended)
            finally:
                if process.returncode is None:
                    self.killed = self.killed or not self._restarting.is_set()
                    process.kill()
                await ended
            return ended.result()

    async def _terminate(self, process: Process, ended: "asyncio.Task[int]") -> None:
        """Send the signals that stop it, and wait until it has ended or its time is over."""
        until = time.monotonic() + self._stop_within
        process.terminate()
        if self._restarting.is_set() and self._faster is not None:
            self.signal(self._faster)
        hurried = asyncio.create_task(self._hurried.wait())
        try:
            await asyncio.wait((hurried, ended), timeout=self._stop_within, return_when=asyncio.FIRST_COMPLETED)
            if hurried.done() and self._faster is not None:
                self.signal(self._faster)
                await asyncio.wait((ended,), timeout=max(until - time.monotonic(), 0))
        finally:
            hurried.cancel()


def restart_delay(failures: int) -> float:
    """Return the seconds to wait after so many ends in a row: doubling with each, up to ten."""
    return min(_FIRST_DELAY * 2.0 ** min(failures - 1, 10), _LONGEST_DELAY)


def exit_reason(code: int) -> str:
    """Return an exit code in words; a negative one is the number of a signal."""
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"


class Children:
    """Several children, and the signals that stop them.

    :param stop_message: logged at the first signal.
    """

    def __init__(self, stop_message: str) -> None:
        self._stop_message = stop_message
        self._children: list[Child] = []
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._interrupts = 0

    @property
    def exit_code(self) -> int:
        """The exit code of this process: 1 if a child had to be killed when it was stopped, else 0."""
        return 1 if any(child.killed for child in self._children) else 0

    @asynccontextmanager
    async def running(self, child: Child) -> AsyncIterator[Child]:
        """Keep a child running until the block ends, then stop it. If it fails, ``stopped`` raises its error."""
        self._children.append(child)
        running = asyncio.create_task(child.run())
        running.add_done_callback(self._child_ended)
        try:
            yield child
        finally:
            await child.stop()
            await asyncio.wait((running,))

    def _child_ended(self, running: "asyncio.Task[None]") -> None:
        error = running.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def stopped(self, starting: "asyncio.Task[Any] | None" = None) -> None:
        """Wait for the first signal.

        :param starting: a task that starts the children; it is cancelled when this returns or raises.
        :raises StartFailed: if a child ends with the exit code ``CANNOT_START``.
        :raises Exception: if ``starting`` fails: its error.
        """
        stopped = asyncio.create_task(self._stopping.wait())
        tasks = [stopped] if starting is None else [stopped, starting]
        try:
            await self._first_of(*tasks)
            if starting is not None and starting.done():
                starting.result()
                await self._first_of(stopped)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _first_of(self, *tasks: "asyncio.Task[Any]") -> None:
        # Or until a child has failed.
        await asyncio.wait((*tasks, self._failure), return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP until the block ends.

        At the first one ``stopped`` returns, at the second all children are stopped faster (workers then hand their
        jobs back at once), and the third kills them.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            log.info("%s", self._stop_message)
            self._stopping.set()
            return
        for child in self._children:
            if self._interrupts > 2:  # noqa: PLR2004  # the third
                child.signal(signal.SIGKILL)
            else:
                child.stop_faster()


def workers_stop_message(grace: float) -> str:
    """Return the ``stop_message`` of ``Children`` with workers; ``grace`` is in seconds."""
    return f"stopping: running jobs get {grace:g} s; once more hands them back at once"
