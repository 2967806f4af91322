"""Processes under measurement: started, listened to, metered, and stopped whatever happens."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import ROOT

STOP_WITHIN = 20.0
"""Seconds between SIGTERM and SIGKILL."""


class Failed(RuntimeError):
    """A process under measurement ended or said nothing; the message holds the end of its log."""


class Program:
    """One running process. Its log is read only when something goes wrong."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    async def line(self, within: float = 240.0) -> str:
        """The next line that it prints.

        :raises Failed: if it prints none in ``within`` seconds.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise Failed(f"nothing was said within {within:g} s: {self.last_words()}") from None
        if not line:
            raise Failed(f"it ended: {self.last_words()}")
        return line.decode().strip()

    async def value(self, within: float = 240.0) -> Any:
        """The next line that is JSON; libraries may print what they like before it."""
        while True:
            with suppress(json.JSONDecodeError):
                return json.loads(await self.line(within))

    async def ended(self, within: float = 600.0) -> None:
        """Wait for its end.

        :raises Failed: if that is an error.
        """
        async with asyncio.timeout(within):
            if await self._process.wait() != 0:
                raise Failed(f"it failed: {self.last_words()}")

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def kill(self) -> None:
        """End it without a word."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:].strip()


@asynccontextmanager
async def program(
    *command: str | Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    stop: bool = True,
) -> AsyncIterator[Program]:
    """A process with its stdout piped to us and its stderr in a file; gone when the block ends.

    :param stop: false waits for its own end instead of asking for it.
    """
    with tempfile.NamedTemporaryFile(prefix="gql-jobs-bench-", suffix=".log") as log:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            stdout=PIPE,
            stderr=log,
            limit=1 << 24,
        )
        try:
            yield Program(process, Path(log.name))
            if not stop:
                await process.wait()
        finally:
            await _stop(process)


async def _stop(process: Process) -> None:
    family = tree(process.pid)
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        # Whatever it still prints must not keep it from ending.
        pipe = asyncio.create_task(process.communicate())
        await asyncio.wait({pipe}, timeout=STOP_WITHIN)
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await pipe
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()


def tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants; nothing for one that is gone."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds of processes and their descendants, so far."""
    total = 0.0
    for pid in pids:
        for process in tree(pid):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def exact_cpu_seconds(pid: int) -> float:
    """CPU seconds of one process without its descendants, so far; to the nanosecond where its clock can be read."""
    if sys.platform != "linux":
        return cpu_seconds([pid])
    # As clock_getcpuclockid() makes the name of a process' clock.
    return time.clock_gettime(~pid << 3 | 2)


def resident_mib(pids: Iterable[int]) -> float:
    """Resident memory of processes and their descendants; shared pages count once where the kernel tells."""
    total = 0
    for pid in pids:
        for process in tree(pid):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                try:
                    total += process.memory_full_info().pss
                except AttributeError:
                    total += process.memory_info().rss
    return total / (1 << 20)


def disk_bytes(folder: Path) -> int:
    """Bytes that a folder's files take on the disk."""
    blocks = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                blocks += path.stat().st_blocks
    return blocks * 512


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def listening(port: int, process: Program, within: float = 240.0) -> None:
    """Wait until somebody listens on a port.

    :raises Failed: if the process has ended, or nobody does in time.
    """
    deadline = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < deadline and process.running:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.02)
    raise Failed(f"nobody listens: {process.last_words()}")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """A command that has to succeed.

    :raises Failed: with its output.
    """
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, check=False)
    if done.returncode:
        raise Failed(f"{command[0]} failed: {(done.stderr or done.stdout)[-2000:]}")
