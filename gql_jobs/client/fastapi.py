"""A client for the routes of a FastAPI application, which is opened and closed with it.

``FastAPI(lifespan=jobs_lifespan())``, and a parameter ``jobs: JobsClient`` in a route: docs/embedding.md has one.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from gql_jobs.client.async_client import AsyncClient
from gql_jobs.client.transport import Token, Transport

_ATTRIBUTE = "gql_jobs_client"
"""Of the application's ``state``."""


def jobs_lifespan(
    address: str | None = None, token: Token = None, *, patience: float = 30.0, transport: Transport | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan for an application, whose routes have a client while it runs.

    An application with a lifespan of its own enters it there: ``async with jobs_lifespan()(app): yield``.

    :param address: of the API or the NATS servers; all parameters are those of ``AsyncClient``. It is looked at, and
        ``GQL_JOBS_URL`` where there is none, when the application starts.
    :raises ValueError: at that start, if the address or the token can be none.
    :raises ModuleNotFoundError: then, if httpx is not installed (``pip install 'gql-jobs[client]'``).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(address, token, patience=patience, transport=transport) as client:
            setattr(app.state, _ATTRIBUTE, client)
            try:
                yield
            finally:
                delattr(app.state, _ATTRIBUTE)

    return lifespan


async def jobs_client(connection: HTTPConnection) -> AsyncClient:
    """Return the client of the application that a request or a socket is for.

    Tests put another one in its place: ``app.dependency_overrides[jobs_client] = …``.

    :raises RuntimeError: if its lifespan has opened none.
    """
    client: AsyncClient | None = getattr(connection.app.state, _ATTRIBUTE, None)
    if client is None:
        raise RuntimeError(
            "This application has no client of gql-jobs: make it with FastAPI(lifespan=jobs_lifespan(…)), or enter "
            "jobs_lifespan(…)(app) in its own lifespan, and run it. An application that is mounted in it needs one too."
        )
    return client


JobsClient = Annotated[AsyncClient, Depends(jobs_client)]
"""The type of a parameter of a route, ``async def``, that is given the client."""
