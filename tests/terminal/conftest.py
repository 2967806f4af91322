"""An API server that runs while a test does, and ``gql-jobs`` as a script or a person runs it against it."""

import asyncio
import os
import pty
import select
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from gql_jobs.settings import Settings
from tests.child_processes import running_process
from tests.forked import Ended, run_command
from tests.serving import HOST, ServedApi, serving

Command: TypeAlias = Callable[..., Awaitable[Ended]]
_PROGRAM = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from gql_jobs.cli import main
main()
"""
"""Takes its stdin for the controlling terminal of its session, so that Ctrl-C is a signal."""

Running: TypeAlias = Callable[..., AbstractAsyncContextManager[Process]]


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """The API on the test's nats-server."""
    async with serving(settings) as served:
        yield served


@pytest.fixture
def command(api: ServedApi, tmp_path: Path) -> Command:
    """``gql-jobs`` against that API, whose output is no terminal."""

    async def run(*arguments: str, **environment: str) -> Ended:
        given = {"GQL_JOBS_URL": f"http://{HOST}:{api.port}", **environment}
        return await asyncio.to_thread(run_command, *arguments, folder=tmp_path, environment=given)

    return run


@pytest.fixture
def running(tmp_path: Path) -> Running:
    """``gql-jobs`` as a process of its own, for what happens while it runs."""

    @asynccontextmanager
    async def run(*arguments: str, **options: object) -> AsyncIterator[Process]:
        program = (sys.executable, "-m", "gql_jobs", *arguments)
        options = {"cwd": tmp_path, "stdout": PIPE, "stderr": PIPE, **options}
        async with running_process(*program, **options) as process:
            yield process

    return run


@pytest.fixture
def on_a_terminal(tmp_path: Path) -> Command:
    """``gql-jobs`` on a terminal of 200 columns: its exit code, and all that the terminal was sent, stderr too.

    ``answers`` are a text to wait for and what is typed then.
    """

    async def run(*arguments: str, answers: tuple[bytes, bytes] = (b"", b""), **environment: str) -> Ended:
        master, slave = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50", **environment}
        env.pop("NO_COLOR", None)
        try:
            program = (sys.executable, "-c", _PROGRAM, *arguments)
            streams = {"stdin": slave, "stdout": slave, "stderr": slave}
            async with running_process(*program, cwd=tmp_path, env=env, start_new_session=True, **streams) as process:
                os.close(slave)
                sent = await asyncio.to_thread(_read_all, master, *answers)
                return Ended(await process.wait(), sent.decode(), "")
        finally:
            os.close(master)

    return run


def _read_all(master: int, awaited: bytes, typed: bytes) -> bytes:
    """Read what a terminal is sent until nobody has it open any more."""
    sent, due = b"", 0.0
    while True:
        if typed and awaited in sent and time.monotonic() > due:
            os.write(master, typed)
            # Once a second, as a person does: Python does not see a signal that comes right before it reads.
            due = time.monotonic() + 1
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            part = os.read(master, 65_536)
        except OSError:  # how Linux says that the other end is closed
            return sent
        if not part:
            return sent
        sent += part
