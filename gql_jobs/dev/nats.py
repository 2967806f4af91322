"""The embedded server kept up: started again on the same ports when it dies, or run alone by ``gql-jobs nats``."""

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

MONITORING = 8222
"""Where NATS's monitoring is looked for by habit."""


@asynccontextmanager
async def kept_server(settings: Settings, port: int, monitor_port: int | None = None) -> AsyncIterator[EmbeddedServer]:
    """Keep a server running until the block ends; return the first one, whose ports all later ones have.

    :param monitor_port: where its monitoring is; without one at 8222, or at a free port where that is taken.
    :raises FolderInUse, EmbeddedServerError: if the first one cannot be started.
    """
    started: asyncio.Future[EmbeddedServer] = asyncio.get_running_loop().create_future()
    stopping = asyncio.Event()
    keeper = asyncio.create_task(_keep(settings, port, monitor_port, started, stopping))
    try:
        await asyncio.wait((keeper, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            keeper.result()
        yield started.result()
    finally:
        stopping.set()
        if not started.done():
            keeper.cancel()
        await asyncio.wait((keeper,))


async def _keep(
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
                code = await _first(server, stopping)
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
        return port_to_use("127.0.0.1", MONITORING)
    except CannotListen:
        return 0


async def _first(server: EmbeddedServer, stopping: asyncio.Event) -> int | None:
    """Return the exit code of a server that ended by itself, or None when it is to be stopped."""
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
        code = await _first(server, stopping)
        if code is not None:
            log.error("nats-server ended by itself (%s); its log is %s", exit_reason(code), server.log_file)
            return 1
    return 0
