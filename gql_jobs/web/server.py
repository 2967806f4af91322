"""The HTTP server: uvicorn with the application, its listening sockets and its shutdown."""

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import NamedTuple

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.processes.event_loop import let_the_loop_go_first, tune_memory
from gql_jobs.processes.listening import CannotListen, is_loopback, listen, listen_from, local_hosts, url
from gql_jobs.processes.siblings import Joins
from gql_jobs.settings import Settings
from gql_jobs.web import pages
from gql_jobs.web.app import SecurityHeaders, WrappedFastAPI, create_app
from gql_jobs.web.connections import PlainConnections
from gql_jobs.web.http_protocol import ServerConfig, TimedHttpProtocol
from gql_jobs.web.monitoring import OWN_PORT
from gql_jobs.web.runtime import RuntimeOpener
from gql_jobs.web.socket_protocol import SocketProtocol

log = logging.getLogger(__name__)

_CLOSE_CONNECTIONS_WITHIN = 3.0
"""Seconds over which sockets and streams are closed at shutdown, where there are many."""
_CLOSED_AT_ONCE_WITHIN = 0.5
"""Seconds for that where nobody is waited for."""
_END_REQUESTS_WITHIN = 5
"""Seconds that open requests get after that."""
_OWN_DESCRIPTORS = 40
"""Descriptors that the process needs beside its clients': the index, NATS, the event loop, files that it sends."""
_LEAST_CONNECTIONS = 16
"""Connections without which it is not worth to start."""
_METRICS = "/metrics"
_OWN_PATHS = frozenset({_METRICS, "/healthz", "/readyz"})
_ELSEWHERE = (
    "Several processes answer at this port, each with numbers of its own: "
    "GQL_JOBS_METRICS_PORT gives every one a port for its /metrics.\n"
)


def serve(
    settings: Settings, imports: tuple[str, ...], host: str, port: int, *, announce: bool, joins: Joins | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; then close sockets and streams so that their clients reconnect elsewhere.

    :param announce: whether to print the addresses.
    :param joins: when to listen at a port that is shared with other processes; None if it is not shared.
    :raises ImportError: naming the module of job types that could not be imported.
    :raises CannotListen: if the port cannot be had.
    :raises TooFewDescriptors: if the process may have too few open files.
    :raises UnsuitableServer: if the NATS server is too old, or has no JetStream.
    :raises FolderInUse, OSError: if the data folder cannot be used.
    :raises SystemExit: with code 1 if a part has failed that all answers depend on.
    """
    if "allowed_hosts" not in settings.model_fields_set and is_loopback(host):
        # A page elsewhere can give a name of its own the address of this machine (DNS rebinding).
        settings = settings.model_copy(update={"allowed_hosts": local_hosts(host)})
    server = http_server(settings, imports)
    listen_here = partial(listen, host, port, shared=joins is not None)
    listeners = [] if joins == "when-ready" else listen_here()
    if server.max_sockets < settings.max_sockets:
        log.info("%d sockets and streams at most: more need more open files (ulimit -n)", server.max_sockets)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # For signals before uvicorn handles them, and for the one that it raises again after its shutdown.
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if announce:
        _announce(url(host, listeners[0].getsockname()[1]), settings)
    if joins is not None:
        listeners += server.separate_metrics(settings)
    if joins == "when-ready":
        server.join = listen_here
    tune_memory()
    let_the_loop_go_first()
    server.run(listeners)
    opener: RuntimeOpener = server.app.state.opener
    if opener.startup_error is not None:
        raise opener.startup_error
    if opener.failed.is_set():
        sys.exit(1)


def _announce(origin: str, settings: Settings) -> None:
    lines = [f"{name:<13} {address}" for name, address in pages.addresses(origin, settings)]
    print("\n".join(lines), flush=True)  # noqa: T201


def http_server(settings: Settings, imports: tuple[str, ...], schema: JobsSchema | None = None) -> "HttpServer":
    """Return the server that ``serve`` runs, not started yet; its ``run`` takes the listening sockets.

    :param schema: one that was built before, as ``create_app`` takes it.
    :raises TooFewDescriptors: if the process may have so few open files that it could serve hardly anybody.
    """
    room = _room(settings)
    app = create_app(settings.model_copy(update=room.lasting), imports, schema)
    config = ServerConfig(
        app.outermost,
        plain=PlainConnections(room.plain, min(settings.max_sockets_per_client, room.plain_per_client)),
        budget=app.state.budget,
        write_timeout=settings.write_timeout,
        request_timeout=settings.request_timeout,
        interface="asgi3",
        loop="auto",
        http=TimedHttpProtocol,
        ws=SocketProtocol,
        # Compression would cost memory for each socket and time for each event, and most events are short.
        ws_per_message_deflate=False,
        ws_max_size=settings.max_body_bytes,
        ws_ping_interval=settings.socket_ping_interval,
        ws_ping_timeout=settings.socket_ping_interval,
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=_END_REQUESTS_WITHIN,
        server_header=False,
    )
    return HttpServer(config, app, room.lasting["max_sockets"])


class TooFewDescriptors(CannotListen):
    """The process may have so few open files that it could serve hardly anybody; the message says how many it needs."""


class _Room(NamedTuple):
    """How the descriptors of the process are shared out: what one kind of connection takes, it takes from no other."""

    lasting: dict[str, int]
    """The settings about sockets and streams, where they have to be lower."""
    plain: int
    plain_per_client: int


def _room(settings: Settings) -> _Room:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = limit - _OWN_DESCRIPTORS if limit != resource.RLIM_INFINITY else 2 * settings.max_sockets
    if room < _LEAST_CONNECTIONS:
        needed = _OWN_DESCRIPTORS + _LEAST_CONNECTIONS
        raise TooFewDescriptors(
            f"The process may open {limit} files, and an API process needs {needed} at the least, better thousands: "
            "raise the limit (ulimit -n, LimitNOFILE)."
        )
    sockets = min(settings.max_sockets, room * 3 // 4)
    plain = min(settings.max_sockets, room - sockets)
    lasting = {"max_sockets": sockets, "max_sockets_per_client": min(settings.max_sockets_per_client, -(-sockets // 2))}
    return _Room(lasting, plain, -(-plain * 3 // 4))


class HttpServer(uvicorn.Server):
    """uvicorn's server, whose shutdown no open subscription delays, and which stops if the application has failed.

    ``max_sockets``: sockets and streams that its descriptors allow, the settings' number at most.
    """

    def __init__(self, config: uvicorn.Config, app: WrappedFastAPI, max_sockets: int) -> None:
        super().__init__(config)
        self.app = app
        self.max_sockets = max_sockets
        self.join: Callable[[], list[socket.socket]] | None = None
        """Listens at a port that others share; called once the index is up to date, because they serve until then."""

    async def serve_beside(self, listeners: list[socket.socket]) -> None:
        """Serve on the running event loop until ``should_exit`` is set, and leave signals to whoever has that loop.

        Where it is cancelled, nobody is waited for: what is open is cut off.
        """
        try:
            await self._serve(listeners)
        except asyncio.CancelledError:
            if self.started:
                await self._end_at_once()
            raise

    async def _end_at_once(self) -> None:
        for server in self.servers:
            server.close()
        await self.app.state.connections.close_all(_CLOSED_AT_ONCE_WITHIN)
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self.lifespan.shutdown()

    def separate_metrics(self, settings: Settings) -> list[socket.socket]:
        """Serve the metrics and health of this process at a port of its own, and return the sockets that listen there.

        The shared port has no metrics then. Without ``metrics_port`` in the settings there are none at all.

        :raises OSError: if no port can be had.
        """
        if settings.metrics_port is None:
            self.config.app = SeparatePorts(self.app.outermost, None)
            return []
        own = listen_from(settings.metrics_host, settings.metrics_port)
        port = own.getsockname()[1]
        log.info("health and metrics of this process at %s", url(settings.metrics_host, port))
        self.config.app = SeparatePorts(self.app.outermost, port, is_private=is_loopback(settings.metrics_host))
        return [own]

    async def on_tick(self, counter: int) -> bool:
        """Listen at a shared port once that is due; return whether to stop, for uvicorn or after a failure."""
        await self._join_when_ready()
        return await super().on_tick(counter) or self.app.state.opener.failed.is_set()

    async def _join_when_ready(self) -> None:
        runtime = self.app.state.opener.current
        if self.join is None or runtime is None or not runtime.feed.caught_up:
            return
        listeners, self.join = self.join(), None
        # uvicorn does the same with the sockets that it is given at the start.
        config, state = self.config, self.lifespan.state
        protocol = partial(TimedHttpProtocol, config=config, server_state=self.server_state, app_state=state)
        for listener in listeners:
            loop = asyncio.get_running_loop()
            self.servers.append(await loop.create_server(protocol, sock=listener, backlog=config.backlog))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, close sockets and streams, then have uvicorn wait for the other requests."""
        for server in self.servers:
            server.close()
        await self.app.state.connections.close_all(_CLOSE_CONNECTIONS_WITHIN)
        await super().shutdown(sockets)


class SeparatePorts:
    """An ASGI layer for a process that shares its port with others.

    The shared port has no metrics, because each scrape would reach another process.

    :param own_port: the port of this process alone, for its health and metrics only; None for none.
    :param is_private: whether only this machine can reach that, so that nobody has to say who asks.
    """

    def __init__(self, app: ASGIApp, own_port: int | None, *, is_private: bool = False) -> None:
        self._app = app
        self._own_port = own_port
        self._is_private = is_private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that belongs to the port it came to; answer 404 to others."""
        if scope["type"] == "lifespan" or self._is_here(scope["server"][1], scope["path"]):
            if self._is_private and scope["type"] == "http" and scope["server"][1] == self._own_port:
                scope[OWN_PORT] = True
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            text = _ELSEWHERE if scope["path"] == _METRICS else "Only health and metrics are here.\n"
            await SecurityHeaders(PlainTextResponse(text, 404))(scope, receive, send)

    def _is_here(self, port: int, path: str) -> bool:
        return path in _OWN_PATHS if port == self._own_port else path != _METRICS
