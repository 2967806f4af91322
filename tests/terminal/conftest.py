"""An API server that runs while a test does, and ``gql-jobs`` as a script or a person runs it against it."""

import asyncio
import os
import pty
import sys
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
def on_a_terminal(running: Running) -> Command:
    """``gql-jobs`` on a terminal of 200 columns: its exit code, and all that the terminal was sent, stderr too."""

    async def run(*arguments: str, **environment: str) -> Ended:
        master, slave = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50", **environment}
        env.pop("NO_COLOR", None)
        try:
            async with running(*arguments, stdin=slave, stdout=slave, stderr=slave, env=env) as process:
                os.close(slave)
                sent = await asyncio.to_thread(_read_all, master)
                return Ended(await process.wait(), sent.decode(), "")
        finally:
            os.close(master)

    return run


def _read_all(master: int) -> bytes:
    """Read what a terminal is sent until nobody has it open any more."""
    sent = b""
    while True:
        try:
            part = os.read(master, 65_536)
        except OSError:  # how Linux says that the other end is closed
            return sent
        if not part:
            return sent
        sent += part
