"""Real processes in tests: which belong to a tree, which of them are left."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil

from tests.deadline import until


@asynccontextmanager
async def running_process(*command: str, **options: Any) -> AsyncIterator[Process]:
    """A child of this process; killed when the block ends, if it still runs.

    :param options: those of ``asyncio.create_subprocess_exec``.
    """
    process = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants, as of now."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def has_ended(process: psutil.Process) -> bool:
    """Gone, or dead and only not yet collected by whoever inherited it."""
    try:
        if not process.is_running():
            return True
        # While a thread of a killed process is still ending, its files and its listening sockets are open.
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


async def all_ended(processes: list[psutil.Process], *, within: float = 10.0) -> None:
    """Wait until none of them runs any more; kills what is left, then fails."""
    try:
        await until(lambda: all(has_ended(p) for p in processes), "every process has ended", within=within)
    finally:
        for process in processes:
            if not has_ended(process):
                process.kill()
