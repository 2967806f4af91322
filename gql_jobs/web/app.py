"""The composition root: one FastAPI application over one runtime."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from gql_jobs.background import in_background
from gql_jobs.graphql.schema import build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.metrics.loop_lag import LoopLag
from gql_jobs.settings import Settings
from gql_jobs.web import artifacts, graphiql, health, metrics
from gql_jobs.web.artifacts import ArtifactCache
from gql_jobs.web.body_limit import BodyLimit
from gql_jobs.web.endpoint import Endpoint
from gql_jobs.web.headers import AllowedHosts, SecurityHeaders
from gql_jobs.web.metrics import ApiMetrics
from gql_jobs.web.opening import Opening
from gql_jobs.web.runtime import Runtime
from gql_jobs.web.shortcut import Guarded, Shortcut
from gql_jobs.web.sockets import CountedSockets, Sockets

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
    app.state.metrics = ApiMetrics(app.state.opening, schema.times, sockets, lag)
    app.include_router(health.router)
    if settings.metrics:
        app.include_router(metrics.router)
    app.include_router(artifacts.router)
    app.router.routes += [Route(PATH, endpoint), WebSocketRoute(PATH, endpoint)]
    if settings.graphiql:
        app.router.routes += graphiql.routes()
    return app
