"""Serving the application with uvicorn until a signal comes."""

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gql_jobs.settings import Settings
from gql_jobs.web.app import create_app

GRACE = 5
"""Seconds that open requests get at shutdown."""
_POLL = 0.1
"""Seconds; a signal handler cannot wake the loop that starts."""


def serve(settings: Settings, imports: tuple[str, ...], host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. WebSockets are then closed with 1012, which tells clients to come back.

    :raises ImportError: naming the module of job types that could not be imported.
    """
    server = http_server(settings, imports, host, port)
    # uvicorn raises the signal once more after a clean stop, which would make an error of it.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _stopped)
    server.run()
    if server.app.state.failed.is_set():
        sys.exit(1)


def http_server(settings: Settings, imports: tuple[str, ...], host: str, port: int) -> "HttpServer":
    """The server that ``serve`` runs, not started yet."""
    app = create_app(settings, imports)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="auto",
        http="httptools",
        ws="websockets-sansio",
        # Compression costs every socket memory and every event time, for messages of some hundred bytes.
        ws_per_message_deflate=False,
        ws_max_size=settings.max_body_bytes,
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    return HttpServer(config, app)


class HttpServer(uvicorn.Server):
    """uvicorn with an end: neither the wait for NATS nor an open subscription holds it up."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """A signal ends the wait for NATS too: the start waits for it without end, and uvicorn for the start."""
        starting = asyncio.create_task(super().startup(sockets))
        while not starting.done() and not self.should_exit:
            await asyncio.wait({starting}, timeout=_POLL)
        if not starting.done():
            # uvicorn would log the start that is given up here as a failure, with its traceback.
            logging.getLogger("uvicorn.error").disabled = True
            starting.cancel()
            return
        await starting

    async def on_tick(self, counter: int) -> bool:
        """Stop as well when the application cannot go on; a supervisor starts it anew."""
        return await super().on_tick(counter) or self.app.state.failed.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Requests are waited for, so the endless ones have to end first."""
        self.app.state.stopping.set()
        await super().shutdown(sockets)


def _stopped(_signal: int, _frame: FrameType | None) -> None:
    """The server has stopped by then."""
