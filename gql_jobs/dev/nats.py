"""The embedded NATS server under supervision: restarted on the same ports for ``dev``, or run alone by ``nats``."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gql_jobs.jetstream.server import EmbeddedServer, EmbeddedServerError, embedded_server
from gql_jobs.processes.children import exit_reason, restart_delay
from gql_jobs.processes.listening import CannotListen, port_to_use
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

USUAL_MONITOR_PORT = 8222
"""The port where NATS servers usually have their monitoring."""


@asynccontextmanager
async def supervised_server(
    settings: Settings, port: int, monitor_port: int | None = None
) -> AsyncIterator[EmbeddedServer]:
    """Run a server until the block ends, and start it again on the same ports when it dies; yield the first one.

    :param port: of its clients; 0 takes a free one.
    :param monitor_port: of its monitoring; None for 8222, or a free one where that is taken.
    :raises FolderInUse, EmbeddedServerError: if the first one cannot be started.
    """
    started: asyncio.Future[EmbeddedServer] = asyncio.get_running_loop().create_future()
    stopping = asyncio.Event()
    supervision = asyncio.create_task(_supervise(settings, port, monitor_port, started, stopping))
    try:
        await asyncio.wait((supervision, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            supervision.result()
        yield started.result()
    finally:
        stopping.set()
        if not started.done():
            supervision.cancel()
        await asyncio.wait((supervision,))


async def _supervise(
    settings: Settings,
    port: int,
    monitor_port: int | None,
    started: "asyncio.Future[EmbeddedServer]",
    stopping: asyncio.Event,
) -> None:
    failures = 0
    may_move = monitor_port is None
    if monitor_port is None:
        monitor_port = _usual_port()
    while True:
        try:
            async with embedded_server(
                settings.data_dir,
                port=port,
                monitor_port=monitor_port,
                sync_always=settings.sync_always,
                max_store_bytes=settings.max_store_bytes,
            ) as server:
                port, monitor_port = server.port, server.monitor_port
                if not started.done():
                    started.set_result(server)
                code = await _wait_for_end(server, stopping)
                reason = exit_reason(code) if code is not None else ""
        except EmbeddedServerError as error:
            if not started.done():
                if not may_move:
                    raise
                # Another server may have taken the port since it was found free.
                may_move, monitor_port = False, 0
                continue
            reason = str(error)
        if stopping.is_set():
            return
        failures += 1
        log.warning("nats-server ended by itself (%s); starting it again in %.1f s", reason, restart_delay(failures))
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), restart_delay(failures))


def _usual_port() -> int:
    try:
        return port_to_use("127.0.0.1", USUAL_MONITOR_PORT)
    except CannotListen:
        return 0


async def _wait_for_end(server: EmbeddedServer, stopping: asyncio.Event) -> int | None:
    """Wait until the server ends by itself, and return its exit code, or until it has to stop, and return None."""
    stopped, ended = asyncio.create_task(stopping.wait()), asyncio.create_task(server.wait())
    try:
        await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else None
    finally:
        stopped.cancel()
        ended.cancel()


async def run_nats(settings: Settings, host: str, port: int, monitor_port: int) -> int:
    """Run one server until Ctrl-C or SIGTERM and return the exit code: 0 after a clean stop.

    :raises FolderInUse, EmbeddedServerError: if it cannot be started.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with embedded_server(
        settings.data_dir,
        host=host,
        port=port,
        monitor_port=monitor_port,
        sync_always=settings.sync_always,
        max_store_bytes=settings.max_store_bytes,
    ) as server:
        print(f"NATS          {server.url}\nMonitoring    {server.monitor_url}", flush=True)  # noqa: T201
        code = await _wait_for_end(server, stopping)
        if code is not None:
            log.error("nats-server ended by itself (%s); its log is %s", exit_reason(code), server.log_file)
            return 1
    return 0
