"""Serving the application with uvicorn until a signal comes."""

import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gql_jobs import garbage
from gql_jobs.listening import listen, url
from gql_jobs.settings import Settings
from gql_jobs.web.app import PATH, create_app
from gql_jobs.web.http_protocol import PatientProtocol, ServerConfig
from gql_jobs.web.opening import Opening
from gql_jobs.web.socket_protocol import SocketProtocol

FAREWELL = 3.0
"""Seconds over which sockets and streams are closed at shutdown, where there are many."""
GRACE = 5
"""Seconds that open requests get after that."""


def serve(settings: Settings, imports: tuple[str, ...], host: str, port: int, *, announce: bool) -> None:
    """Serve until SIGINT or SIGTERM. Sockets and streams are then ended so that clients come back elsewhere.

    :param announce: whether to print where.
    :raises ImportError: naming the module of job types that could not be imported.
    :raises CannotListen: if the port cannot be had.
    :raises UnsuitableServer: if the NATS server is too old, or has no JetStream.
    :raises FolderInUse, OSError: if the data folder cannot be used.
    """
    server = http_server(settings, imports)
    listeners = listen(host, port)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # Before uvicorn listens to signals, or once more after a clean stop: it raises what it has heard again.
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if announce:
        graphql = f"{url(host, listeners[0].getsockname()[1])}{PATH}"
        names = ("GraphiQL", "API") if settings.graphiql else ("API",)
        print("\n".join(f"{name:<13} {graphql}" for name in names), flush=True)  # noqa: T201
    garbage.settle()
    server.run(listeners)
    opening: Opening = server.app.state.opening
    if opening.refusal is not None:
        raise opening.refusal
    if opening.failed.is_set():
        sys.exit(1)


def http_server(settings: Settings, imports: tuple[str, ...]) -> "HttpServer":
    """The server that ``serve`` runs, not started yet; it is given the sockets to listen on."""
    app = create_app(settings, imports)
    config = ServerConfig(
        app,
        write_timeout=settings.write_timeout,
        request_timeout=settings.request_timeout,
        loop="auto",
        http=PatientProtocol,
        ws=SocketProtocol,
        # Compression costs every socket memory and every event time, for messages of some hundred bytes.
        ws_per_message_deflate=False,
        ws_max_size=settings.max_body_bytes,
        ws_ping_interval=settings.socket_ping_interval,
        ws_ping_timeout=settings.socket_ping_interval,
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    return HttpServer(config, app)


class HttpServer(uvicorn.Server):
    """uvicorn with an end: an open subscription does not hold it up, and a failed part brings it about."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.app = app

    async def on_tick(self, counter: int) -> bool:
        """Stop as well when the application cannot go on; a supervisor starts it anew."""
        return await super().on_tick(counter) or self.app.state.opening.failed.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Requests are waited for, so the endless ones have to end first, and nobody new may come meanwhile."""
        for server in self.servers:
            server.close()
        await self.app.state.closing.finish(FAREWELL)
        await super().shutdown(sockets)
