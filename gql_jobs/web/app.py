"""The composition root: one FastAPI application over one runtime."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute

from gql_jobs.graphql.schema import build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.settings import Settings
from gql_jobs.web import artifacts, health
from gql_jobs.web.artifacts import ArtifactCache
from gql_jobs.web.body_limit import BodyLimit
from gql_jobs.web.endpoint import Endpoint
from gql_jobs.web.runtime import open_runtime

log = logging.getLogger(__name__)

PATH = "/graphql"


def create_app(settings: Settings, imports: tuple[str, ...] = ()) -> FastAPI:
    """The application. Its lifespan opens the runtime: ``app.state.runtime``, and ``app.state.bus`` for Python code.

    Setting ``app.state.stopping`` ends the subscriptions over HTTP; ``app.state.failed`` is set when a part that all
    answers depend on has failed.

    :param imports: modules that register job types, beside the installed ones.
    :raises ImportError: naming the module that could not be imported.
    """
    endpoint = Endpoint(build_schema(load_job_types(imports), settings), settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with open_runtime(settings, imports) as runtime:
                app.state.runtime = runtime
                app.state.bus = runtime.bus
                folder = settings.data_dir / "artifacts"
                app.state.artifact_cache = ArtifactCache(runtime.artifacts, folder, settings.artifact_cache_bytes)
                yield
        except* Exception as failure:
            # Without its feed the process would go on to answer, from an index that stands still.
            log.critical("the API cannot go on", exc_info=failure)
            app.state.failed.set()

    # The API is GraphQL and describes itself; pages about two health checks would only load scripts from elsewhere.
    app = FastAPI(title="gql-jobs", lifespan=lifespan, openapi_url=None)
    app.state.stopping = endpoint.stopping
    app.state.failed = asyncio.Event()
    app.include_router(health.router)
    app.include_router(artifacts.router)
    app.router.routes += [Route(PATH, endpoint), WebSocketRoute(PATH, endpoint)]
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    if settings.cors_origins:
        # Added last and so outermost: a refusal of the limit must be readable for a browser as well.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return app
