"""The composition root: one FastAPI application over one runtime."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gql_jobs.graphql.schema import build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.metrics import LoopLag
from gql_jobs.processes.background import in_background
from gql_jobs.settings import Settings
from gql_jobs.web import artifacts, graphiql, health, metrics
from gql_jobs.web.artifacts import ArtifactCache
from gql_jobs.web.connections import CountedSockets, Sockets
from gql_jobs.web.graphql_http import Endpoint
from gql_jobs.web.metrics import ApiMetrics
from gql_jobs.web.middleware import AllowedHosts, BodyLimit, SecurityHeaders
from gql_jobs.web.runtime import Opening, Runtime

# The way of the hot path past FastAPI: what it wraps around an application and each of its routes is a quarter of a
# creation, in time.
#
# A socket keeps a frame of every layer that it has come through for as long as it is open, so nothing is awaited here.
# The route stays where it is, for whatever is not exactly its path and is redirected to it.


class Guarded(FastAPI):
    """A FastAPI application whose layers are put around all of it, and not within.

    uvicorn has to be told that it is an ``asgi3`` one: it is no coroutine function, so that no frame of it stays.

    :param guards: what is called with the application, and gives it back with its layers.
    """

    def __init__(self, guards: Callable[[ASGIApp], ASGIApp], **options: Any) -> None:
        super().__init__(**options)
        self._guarded = guards(super().__call__)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Pass the request on, to the outermost layer."""
        scope["app"] = self
        return self._guarded(scope, receive, send)


class Shortcut:
    """Hands the requests and sockets of ``path`` to the application ``to``, which raises no ``HTTPException``."""

    def __init__(self, app: ASGIApp, path: str, to: ASGIApp) -> None:
        self._app = app
        self._path = path
        self._to = to

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on, to the one or the other."""
        return (self._to if self._is_short(scope) else self._app)(scope, receive, send)

    def _is_short(self, scope: Scope) -> bool:
        if scope["type"] == "lifespan":
            return False
        path: str = scope["path"]
        return path.removeprefix(scope.get("root_path", "")) == self._path


PATH = "/graphql"


def create_app(settings: Settings, imports: tuple[str, ...] = ()) -> FastAPI:
    """The application. Its lifespan opens the runtime, which takes until NATS is there; requests are answered before.

    ``app.state.opening`` has its state; ``app.state.runtime``, and ``app.state.bus`` for Python code, are there once
    it is open. ``app.state.closing`` ends sockets and streams when the process stops.

    :param imports: modules that register job types, beside the installed ones.
    :raises ImportError: naming the module that could not be imported.
    """
    schema = build_schema(
        load_job_types(imports), settings, plain_fields=settings.plain_fields, named=settings.metrics_operations
    )
    endpoint = Endpoint(schema, settings)
    sockets, lag = Sockets(), LoopLag()

    def opened(runtime: Runtime) -> None:
        app.state.runtime = runtime
        app.state.bus = runtime.bus
        folder = settings.data_dir / "artifacts"
        app.state.artifact_cache = ArtifactCache(runtime.artifacts, folder, settings.artifact_cache_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.create_task(app.state.opening.run())
        try:
            async with in_background(lag.run()):
                yield
        finally:
            opening.cancel()
            await asyncio.wait({opening})

    def guards(inner: ASGIApp) -> ASGIApp:
        app: ASGIApp = Shortcut(inner, PATH, endpoint)
        # FastAPI answers what is raised through it by itself, so this is for the endpoint: no other route reads a body.
        app = BodyLimit(app, settings.max_body_bytes, settings.request_timeout)
        app = CountedSockets(app, sockets)
        app = AllowedHosts(app, settings.allowed_hosts)
        app = SecurityHeaders(app)
        if not settings.cors_origins:
            return app
        # Outermost: a refusal of the limit must be readable for a browser as well.
        return CORSMiddleware(
            app, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )

    # The API is GraphQL and describes itself; pages about two health checks would only load scripts from elsewhere.
    app = Guarded(guards, title="gql-jobs", lifespan=lifespan, openapi_url=None)
    app.state.closing = endpoint.closing
    app.state.opening = Opening(settings, imports, opened)
    app.state.metrics = ApiMetrics(app.state.opening, schema.operations.times, sockets, lag)
    app.include_router(health.router)
    if settings.metrics:
        app.include_router(metrics.router)
    app.include_router(artifacts.router)
    app.router.routes += [Route(PATH, endpoint), WebSocketRoute(PATH, endpoint)]
    if settings.graphiql:
        app.router.routes += graphiql.routes()
    return app
