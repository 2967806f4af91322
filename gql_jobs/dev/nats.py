"""The embedded NATS server under supervision: restarted on the same port for ``dev``, or run alone by ``nats``."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress

from gql_jobs.dev.nats_monitoring import monitoring_page
from gql_jobs.jetstream.server import EmbeddedServer, EmbeddedServerError, embedded_server
from gql_jobs.processes.children import exit_reason, restart_delay
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def supervised_server(settings: Settings, port: int) -> AsyncIterator[EmbeddedServer]:
    """Run a server until the block ends, and start it again on the same port when it dies; yield the first one.

    :param port: of its clients; 0 takes a free one.
    :raises FolderInUse, EmbeddedServerError: if the first one cannot be started.
    """
    started: asyncio.Future[EmbeddedServer] = asyncio.get_running_loop().create_future()
    stopping = asyncio.Event()
    supervision = asyncio.create_task(_supervise(settings, port, started, stopping))
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
    started: "asyncio.Future[EmbeddedServer]",
    stopping: asyncio.Event,
) -> None:
    failures = 0
    while True:
        try:
            async with _server(settings, port=port, monitored=True) as server:
                port = server.port
                if not started.done():
                    started.set_result(server)
                code = await _wait_for_end(server, stopping)
                reason = exit_reason(code) if code is not None else ""
        except EmbeddedServerError as error:
            if not started.done():
                raise
            reason = str(error)
        if stopping.is_set():
            return
        failures += 1
        log.warning("nats-server ended by itself (%s); starting it again in %.1f s", reason, restart_delay(failures))
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), restart_delay(failures))


def _server(
    settings: Settings, *, port: int, monitored: bool, host: str = "127.0.0.1"
) -> AbstractAsyncContextManager[EmbeddedServer]:
    return embedded_server(
        settings.data_dir,
        host=host,
        port=port,
        monitored=monitored,
        sync_always=settings.sync_always,
        max_store_bytes=settings.max_store_bytes,
        user=settings.nats_user,
        password=settings.nats_password.get_secret_value() if settings.nats_password else None,
    )


async def _wait_for_end(server: EmbeddedServer, stopping: asyncio.Event) -> int | None:
    """Wait until the server ends by itself, and return its exit code, or until it has to stop, and return None."""
    stopped, ended = asyncio.create_task(stopping.wait()), asyncio.create_task(server.wait())
    try:
        await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else None
    finally:
        stopped.cancel()
        ended.cancel()


async def run_nats(settings: Settings, host: str, port: int, monitor_port: int | None) -> int:
    """Run one server until Ctrl-C or SIGTERM and return the exit code: 0 after a clean stop.

    :param monitor_port: of its monitoring on loopback; 0 takes a free one, None is for none.
    :raises FolderInUse, EmbeddedServerError: if it cannot be started.
    :raises CannotListen: if the port of its monitoring is taken.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with nullcontext() if monitor_port is None else monitoring_page(settings.data_dir, monitor_port) as page:
        async with _server(settings, host=host, port=port, monitored=page is not None) as server:
            _announce(settings, server, page)
            code = await _wait_for_end(server, stopping)
            if code is not None:
                log.error("nats-server ended by itself (%s); its log is %s", exit_reason(code), server.log_file)
                return 1
    return 0


def _announce(settings: Settings, server: EmbeddedServer, page: str | None) -> None:
    print(f"NATS          {server.address}", flush=True)  # noqa: T201
    if page is not None:
        print(f"Monitoring    {page}", flush=True)  # noqa: T201
    if settings.nats_password is None:
        log.info("user and password of this server are in %s", server.url_file)
