"""Serving the application with uvicorn until a signal comes."""

import asyncio
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from gql_jobs.listening import listen, url
from gql_jobs.settings import Settings
from gql_jobs.web.app import PATH, create_app
from gql_jobs.web.opening import Opening

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


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, and seconds: for which a client may take nothing of a response (``write_timeout``), and
    in which it has to send the head of a request (``request_timeout``).
    """

    def __init__(self, app: FastAPI, *, write_timeout: float, request_timeout: float, **options: Any) -> None:
        super().__init__(app, **options)
        self.write_timeout = write_timeout
        self.request_timeout = request_timeout


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, with an end for a client that does not read, or does not say what it wants: both would be waited
    for without end.
    """

    config: ServerConfig
    _unread: asyncio.TimerHandle | None = None
    _unasked: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; it has to ask for something soon."""
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        """A request begins: its head has to come soon."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        _cancel(self._unasked)
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The buffer is full; the connection is cut if it is not emptied in time."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.config.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        _cancel(self._unread)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was cut off."""
        _cancel(self._unread)
        _cancel(self._unasked)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        _cancel(self._unasked)
        self._unasked = self.loop.call_later(self.config.request_timeout, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSockets, with another end for a client that does not answer pings: it is gone, or does not read."""

    def keepalive_timeout(self) -> None:
        """Close the socket with a code that clients come back after; uvicorn's own, 1011, is fatal for them."""
        if not (self.close_sent or self.transport.is_closing()):
            self.conn.fail(CloseCode.GOING_AWAY, "keepalive ping timeout")
            # What a client does not read is never flushed, and a close waits for that.
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        super().keepalive_timeout()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on. What is no text is the client's fault: it gets the code for that, the log no traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError as error:
                self.conn.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


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
