"""Several processes that do the same: ``gql-jobs api --processes N`` and ``gql-jobs worker --processes N``.

Owns how many there are and which port they share. What each of them does is its own affair: none knows of the others.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Literal

from gql_jobs.processes.children import STOP_WITHIN, Child, Children, workers_stop_message
from gql_jobs.processes.listening import claim
from gql_jobs.settings import Settings

Joins = Literal["at-once", "when-ready"]
"""When a process listens at the port that it shares: when it starts, or when its index is up to date."""


async def run_apis(settings: Settings, host: str, port: int, arguments: Sequence[str]) -> int:
    """Run as many API processes as the settings say until a signal comes; return the exit code, 0 after a clean stop.

    Each listens for itself (SO_REUSEPORT), so that the kernel spreads connections evenly: of one common socket the
    process that wakes first takes what is there, and long-lived connections stay where they are. The first one answers
    at once; all others, and each that comes back, take part when their index is up to date.

    :param arguments: of ``gql-jobs api``, without host, port and number.
    :raises CannotListen: if the port cannot be had.
    :raises StartFailed: if they cannot start as things are.
    """
    with ExitStack() as claimed:
        for bound in claim(host, port):
            port = claimed.enter_context(bound).getsockname()[1]
        where = ("--host", host, "--port", str(port), "--processes", "1")
        begun = False

        def command() -> list[str]:
            nonlocal begun
            joins, begun = "when-ready" if begun else "at-once", True
            return [sys.executable, "-P", "-m", "gql_jobs", "api", *where, "--joins", joins, *arguments]

        children = Children("stopping: connections are told to come back elsewhere")
        return await _run(children, "API process", settings.api_processes, command, STOP_WITHIN)


async def run_workers(settings: Settings, command: Sequence[str]) -> int:
    """Run as many worker processes as the settings say until a signal comes; return the exit code as ``run_apis``.

    :param command: of one worker process.
    :raises StartFailed: if they cannot start as things are.
    """
    grace = settings.shutdown_grace
    return await _run(
        Children(workers_stop_message(grace)), "worker", settings.worker_processes, lambda: command, grace + STOP_WITHIN
    )


async def _run(
    children: Children, name: str, number: int, command: Callable[[], Sequence[str]], stop_within: float
) -> int:
    started: list[Child] = []
    with children.signals():
        async with AsyncExitStack() as stack:
            try:
                for nth in range(1, number + 1):
                    child = Child(f"{name} {nth}", command, {}, stop_within)
                    started.append(await stack.enter_async_context(children.running(child)))
                await children.stopped()
            finally:
                # All at once: each may take its whole time.
                await asyncio.gather(*(child.stop() for child in started))
    return children.exit_code
