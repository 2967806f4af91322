"""One program under a guard: started again whenever it ends, killed and paused on purpose, never left behind.

The guard holds a pipe from us; however we end, it ends the program, a paused one too.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from gql_jobs.processes import parent

_AGAIN_AFTER = 0.2
"""Seconds before a program that ended is started again."""
_STOP_WITHIN = 15.0
"""Seconds; the guard kills its program after 10."""


class Program:
    """``name`` for people; ``log`` takes what it prints. ``starts`` counts how often it was started."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.starts = 0
        self._command = command
        self._environment = {**os.environ, **environment}
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._stopping = False
        self._guard: Process | None = None
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """The program's own process id, None while it does not run."""
        return self._pid if self._guard is not None and self._guard.returncode is None else None

    async def run(self) -> None:
        """Keep it running until ``stop``, or until cancelled."""
        while not self._stopping:
            await self._may_run.wait()
            if not self._stopping:
                await self._run_once()
                await asyncio.sleep(_AGAIN_AFTER)

    def hold(self) -> None:
        """Do not start it again before ``release``."""
        self._may_run.clear()

    def release(self) -> None:
        """Start it again."""
        self._may_run.set()

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False if it does not run."""
        if self.pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return True

    async def ended(self, within: float) -> None:
        """Wait for the present process to end; kills it after ``within`` seconds."""
        process = self._guard
        if process is None:
            return
        try:
            async with asyncio.timeout(within):
                await process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await process.wait()

    def stop(self) -> None:
        """Tell it to end, and do not start it again."""
        self._stopping = True
        self.release()
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)

    async def _run_once(self) -> None:
        with self.log.open("ab") as log, parent.lifeline() as stdin:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", parent.__file__, "--", *self._command),
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
            self._guard = process
            self.starts += 1
            try:
                self._pid = await _child_of(process)
                if self._stopping:
                    self.signal(signal.SIGTERM)
                await process.wait()
            finally:
                self._pid = None
                if process.returncode is None:
                    await _end(process)


async def _child_of(process: Process) -> int | None:
    """The guarded program's id; None if both ended at once."""
    deadline = time.monotonic() + 10
    while process.returncode is None and time.monotonic() < deadline:
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children():
                return child.pid
        await asyncio.sleep(0.05)
    return None


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def left_behind(variable: str, value: str) -> list[psutil.Process]:
    """Processes that run with this in their environment, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append(process)
    return found
