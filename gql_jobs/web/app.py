"""The composition root: one FastAPI application over one runtime, and the layers around its routes."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from operator import is_
from types import FunctionType
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from strawberry.http.websocket_origin import is_same_origin

from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.errors import BadRequest, ErrorCode
from gql_jobs.jobs.payload_codec import StoredPayloads, load_codec
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.processes.event_loop import LoopLag, in_background
from gql_jobs.processes.listening import names_address
from gql_jobs.settings import Settings
from gql_jobs.web import pages
from gql_jobs.web.artifacts import ArtifactCache, artifacts_router
from gql_jobs.web.graphql_http import AllowedOrigins, GraphQLEndpoint
from gql_jobs.web.graphql_request import SECURITY_HEADERS, body_too_large, error_response
from gql_jobs.web.handshakes import BehindHost, with_handshakes
from gql_jobs.web.monitoring import OWN_PORT, ApiMetrics, health_router, metrics_router
from gql_jobs.web.rate_limits import RateLimits
from gql_jobs.web.request_authentication import RequestAuthentication, refusal_of, refuse_token_in_url
from gql_jobs.web.runtime import Runtime, RuntimeOpener

PATH = "/graphql"
TICKETS = "/tickets"

_HEALTH = frozenset({"/healthz", "/readyz"})
"""Paths that are served under any host name, since probes have their own. Nothing of a client's is there."""
_METRICS = "/metrics"


def create_app(settings: Settings, imports: tuple[str, ...] = (), schema: JobsSchema | None = None) -> "WrappedFastAPI":
    """Return the application. It answers requests while its lifespan opens the runtime, which waits for NATS.

    Middleware that is added to it, or to the FastAPI application that it is mounted in, sees every request and socket
    of every route; one of the kind ``http`` sees the handshake of a socket. It runs under any ASGI server, and mounted
    in another application whose lifespan enters ``app.router.lifespan_context(app)`` (docs/embedding.md).

    ``app.state`` has the ``opener`` of the runtime, the ``connections`` to be closed when the process stops, the
    ``budget`` of bytes, and, once the runtime is open, ``runtime``, ``bus`` (for Python code) and ``artifact_cache``.

    :param imports: modules that register job types, beside the installed ones.
    :param schema: one that was built before, by ``app_schema`` for the same types and settings.
    :raises ImportError: naming the module that could not be imported, or the codec that is not there.
    """
    stored = load_codec(settings.codec)
    if schema is None:
        schema = app_schema(settings, imports, stored)

    def on_open(runtime: Runtime) -> None:
        app.state.runtime = runtime
        app.state.bus = runtime.bus
        folder = settings.data_dir / "artifacts"
        app.state.artifact_cache = ArtifactCache(runtime.artifacts, folder, settings.artifact_cache_bytes)
        runtime.maintenance.on_cleared.append(app.state.artifact_cache.forget)

    opener, lag = RuntimeOpener(settings, imports, on_open, stored), LoopLag()
    authentication = RequestAuthentication(settings, opener, RateLimits(settings))
    endpoint = GraphQLEndpoint(schema, settings, opener, authentication)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.create_task(opener.run())
        try:
            async with in_background(lag.run()), in_background(opener.store_reach.run()):
                yield
        finally:
            opener.end()
            opening.cancel()
            await asyncio.wait({opening})

    def wrap(app: WrappedFastAPI) -> ASGIApp:
        # Outermost: what the front rejects must be readable for a browser as well.
        front = Front(app.routed, PATH, endpoint, settings, lambda: app.is_bare)
        return SecurityHeaders(Cors(front, endpoint.origins, varies=bool(settings.cors_origins)))

    async def reject_socket(socket: WebSocket) -> None:
        endpoint.socket_counts.closed("server", 1000)
        await socket.close()

    # In a thread, because it reads a file.
    def open_dashboard(request: Request) -> Response:
        try:
            refuse_token_in_url(request.scope)
        except BadRequest as refusal:
            return refusal_of(refusal)
        return pages.dashboard(has_graphiql=settings.graphiql)

    # The API is GraphQL and describes itself; pages about two health checks would only load scripts from elsewhere.
    app = WrappedFastAPI(wrap, title="gql-jobs", lifespan=lifespan, openapi_url=None)
    app.state.connections = endpoint.connections
    app.state.budget = endpoint.budget
    app.state.opener = opener
    app.state.authentication = authentication
    app.state.metrics = ApiMetrics(opener, schema.operations.times, endpoint.socket_counts, lag)
    app.include_router(health_router)
    if settings.metrics:
        app.include_router(metrics_router)
    app.include_router(artifacts_router)
    # For whatever is not exactly the path, and is redirected to it.
    app.router.routes += [Route(PATH, endpoint), WebSocketRoute(PATH, BehindHost(app, endpoint))]
    app.router.routes.append(Route(TICKETS, endpoint.tickets))
    if settings.dashboard:
        app.router.routes.append(Route("/", open_dashboard))
    app.router.routes += pages.routes_of_files(settings)
    app.router.routes.append(WebSocketRoute("/{path:path}", reject_socket))
    app.complete()
    return app


def app_schema(settings: Settings, imports: tuple[str, ...] = (), stored: StoredPayloads | None = None) -> JobsSchema:
    """Return the schema of an application, the slowest part of it to make.

    :param stored: how payloads are stored; by default as the settings say.
    :raises ImportError: as ``create_app`` does.
    """
    return build_schema(
        load_job_types(imports, settings.types),
        settings,
        plain_fields=settings.plain_fields,
        named=settings.metrics_operations,
        stored=stored or load_codec(settings.codec),
    )


class WrappedFastAPI(FastAPI):
    """A FastAPI application with layers around all of it; FastAPI's own middleware is inside its error handling.

    It is called like any other ASGI application. The server of this package calls ``outermost`` instead, so that no
    frame of ``__call__`` stays while a socket is open.

    :param wrap: called with this application; returns the outermost layer around its ``routed``.
    """

    def __init__(self, wrap: Callable[["WrappedFastAPI"], ASGIApp], **options: Any) -> None:
        super().__init__(**options)
        self._own_stack: ASGIApp | None = None
        self.routed: ASGIApp = super().__call__
        self.outermost = wrap(self)
        self._within_host = BehindHost(self, self.outermost)
        self._own_routes: list[BaseRoute] = []
        self._own_router = self._router_in_use

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, to the outermost layer."""
        await self._within_host(scope, receive, send)

    def complete(self) -> None:
        """Note the routes: what is added in front of one of them from now on is somebody else's."""
        self._own_routes = list(self.router.routes)

    def build_middleware_stack(self) -> ASGIApp:
        """Return the layers around the routes, and note which they are if nobody has added one."""
        self.user_middleware = with_handshakes(self.user_middleware)
        stack = super().build_middleware_stack()
        self._own_stack = None if self.user_middleware or _has_foreign_layers(stack, self.router) else stack
        return stack

    @property
    def _router_in_use(self) -> tuple[object, ...]:
        """Return what requests pass through between the middleware and the routes."""
        return self.router, type(self.router), self.router.middleware_stack

    @property
    def is_bare(self) -> bool:
        """Return whether nobody has put a middleware around the routes, or a route in front of them."""
        # Before the first request of all, which builds it, there is no stack.
        if self._own_stack is None or self.middleware_stack is not self._own_stack:
            return False
        if self.user_middleware or self._router_in_use != self._own_router:
            return False
        routes = self.router.routes
        return all(map(is_, routes, self._own_routes)) and len(routes) >= len(self._own_routes)


def _has_foreign_layers(stack: ASGIApp, router: ASGIApp) -> bool:
    """Return whether there is more around the routes than what FastAPI and Starlette put there on their own.

    Libraries that watch applications replace methods of these classes.
    """
    for kind in (FastAPI, Starlette):
        call = kind.__call__
        if type(call) is not FunctionType or call.__code__.co_filename != sys.modules[kind.__module__].__file__:
            return True
    layer: object = stack
    while layer is not router:
        if type(layer).__module__.partition(".")[0] not in {"fastapi", "starlette"}:
            return True
        layer = getattr(layer, "app", None)
    return False


class SecurityHeaders:
    """The ASGI layer that adds to each response the headers that it does not have. Sockets leave no frame of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on."""
        return self._app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = message["headers"]
            named = {name for name, _ in own}
            message["headers"] = [*own, *(header for header in SECURITY_HEADERS if header[0] not in named)]
        await send(message)

    return send_with_headers


class Cors(CORSMiddleware):
    """The ASGI layer that lets browsers show answers to pages of other origins. Sockets leave no frame of it.

    :param varies: whether there are such origins, so that caches have to be told.
    """

    def __init__(self, app: ASGIApp, origins: AllowedOrigins, *, varies: bool) -> None:
        listed = ("*",) if origins.any else ()
        super().__init__(
            app,
            allow_origins=listed,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "WWW-Authenticate"],
        )
        self._origins = origins
        self._varies = varies

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Answer a preflight, or pass the request on and mark its answer."""
        if scope["type"] != "http" or not (self._varies or _origin_elsewhere(scope)):
            return self.app(scope, receive, send)
        return super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        """Return whether pages of that origin may read the answer."""
        return self._origins.allow(origin)


def _origin_elsewhere(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    return bool(origin) and not is_same_origin(origin, headers.get(b"host", b"").decode("latin-1"))


class Front:
    """The ASGI layer that rejects other host names and too large bodies, and routes.

    Requests and sockets of exactly ``path`` go to their application directly, because FastAPI's layers around a route
    are a large part of the cost of a short request (docs/decisions.md); but not if there is a middleware, which has to
    see them. A socket keeps a frame of every layer that has awaited it for as long as it is open, so nothing is awaited
    here.

    :param routed: the application of all other paths.
    :param direct: the application of ``path``; it raises no ``HTTPException``.
    :param is_bare: returns whether there is nothing around the routes or in front of them.
    """

    def __init__(
        self,
        routed: ASGIApp,
        path: str,
        direct: ASGIApp,
        settings: Settings,
        is_bare: Callable[[], bool] = lambda: True,
    ) -> None:
        self._routed = routed
        self._is_bare = is_bare
        self._path = path
        self._direct = direct
        self._max_body_bytes = settings.max_body_bytes
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._asks = settings.auth == "required"
        self._host_endings = tuple(host[1:].lower() for host in settings.allowed_hosts if host.startswith("*"))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on, or reject it."""
        if scope["type"] == "lifespan":
            return self._routed(scope, receive, send)
        # Where this application is mounted in another one, that one's path is in front.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        app = self._rejection(scope, path)
        if app is None:
            app = self._direct if path == self._path and self._is_bare() else self._routed
        return app(scope, receive, send)

    def _rejection(self, scope: Scope, path: str) -> ASGIApp | None:
        """Return the response to a rejected request, or None; a WebSocket gets the same, before its handshake."""
        host, declared = _host_and_size(scope)
        if host is None:
            return error_response(400, "A request has one header Host.", ErrorCode.BAD_REQUEST.value)
        if not (self._serves(host) or (scope["type"] == "http" and self._is_probe(scope, path, host))):
            # A page of another origin can give this server's address a host name of its own (DNS rebinding).
            message = "The request was sent to a host name that is not served here (GQL_JOBS_ALLOWED_HOSTS)."
            return error_response(400, message, ErrorCode.BAD_REQUEST.value)
        if scope["type"] == "http" and declared.isdigit() and int(declared) > self._max_body_bytes:
            return body_too_large(self._max_body_bytes, int(declared))
        return None

    def _is_probe(self, scope: Scope, path: str, host: str) -> bool:
        """Return whether a request of monitoring is answered although its host is not served.

        Where nobody has to say who asks, a page must not read metrics under a name of its own.
        """
        if path != _METRICS:
            return path in _HEALTH
        return (self._asks and not scope.get(OWN_PORT)) or names_address(host)

    def _serves(self, host: str) -> bool:
        name = _without_port(host).lower()
        return name in self._hosts or name.endswith(self._host_endings)


def _host_and_size(scope: Scope) -> tuple[str | None, bytes]:
    """Return the host, empty where none is given and None where two are, and the size that the body is said to have."""
    hosts = []
    size: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length" and size is None:
            size = value
    host = b"".join(hosts).decode("latin-1") if len(hosts) < 2 else None  # noqa: PLR2004
    return host, size or b""


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    # The address [::1] has colons, too.
    return name if name and port.isdecimal() else host
