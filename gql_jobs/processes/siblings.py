"""Several processes of one kind: ``gql-jobs api --processes N`` and ``gql-jobs worker --processes N``.

This module starts them and reserves the port that API processes share. The processes do not know of each other.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Literal

from gql_jobs.processes.children import FASTER, STOP_WITHIN, Child, Children, workers_stop_message
from gql_jobs.processes.listening import claim
from gql_jobs.settings import Settings

Joins = Literal["at-once", "when-ready"]
"""When an API process begins to listen at the shared port: when it starts, or when its index has caught up."""


async def run_apis(settings: Settings, host: str, port: int, arguments: Sequence[str]) -> int:
    """Run as many API processes as the settings say until a signal comes; return the exit code, 0 after a clean stop.

    Each has a listening socket of its own (SO_REUSEPORT), so that the kernel spreads connections evenly; from a common
    socket the process that wakes first would accept all of them. The first process listens at once; the others, and
    each that is restarted, when their index has caught up.

    :param arguments: of ``gql-jobs api``, without host, port and number of processes.
    :raises CannotListen: if the port is in use, or the host is not an address of this machine.
    :raises StartFailed: if a process ends with the exit code ``CANNOT_START``.
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

    :param command: the command line of one worker process.
    :raises StartFailed: if a process ends with the exit code ``CANNOT_START``.
    """
    grace = settings.shutdown_grace
    children, number = Children(workers_stop_message(grace)), settings.worker_processes
    return await _run(children, "worker", number, lambda: command, grace + STOP_WITHIN, faster=FASTER)


async def _run(
    children: Children,
    name: str,
    number: int,
    command: Callable[[], Sequence[str]],
    stop_within: float,
    *,
    faster: signal.Signals | None = None,
) -> int:
    started: list[Child] = []
    with children.signals():
        async with AsyncExitStack() as stack:
            try:
                for nth in range(1, number + 1):
                    child = Child(f"{name} {nth}", command, {}, stop_within, faster)
                    started.append(await stack.enter_async_context(children.running(child)))
                await children.stopped()
            finally:
                # All at once: each may take its whole time.
                await asyncio.gather(*(child.stop() for child in started))
    return children.exit_code
