"""The size limit of request bodies, declared and chunked."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from gql_jobs.settings import Settings
from gql_jobs.web.app import Front, create_app
from gql_jobs.web.connections import budget_for
from gql_jobs.web.graphql_request import BodyRejected, LimitedBody

LIMIT = 1000


async def _echo_size(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = await Request(
            scope, LimitedBody(receive, scope, budget_for(LIMIT), limit=LIMIT, timeout=10).receive
        ).body()
    except BodyRejected as rejected:
        await rejected.response(scope, receive, send)
        return
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    front = Front(_echo_size, "/graphql", _echo_size, Settings().model_copy(update={"max_body_bytes": LIMIT}))
    transport = httpx.ASGITransport(app=front)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 100):
        yield b"x" * min(100, size - start)


async def test_a_body_of_the_limit_passes(client: httpx.AsyncClient) -> None:
    assert (await client.post("/", content=b"x" * LIMIT)).text == "1000"
    assert (await client.post("/", content=_chunks(LIMIT))).text == "1000"
    assert (await client.get("/")).text == "0"


async def test_a_declared_body_above_the_limit_is_refused_unread(client: httpx.AsyncClient) -> None:
    response = await client.post("/", content=b"x" * (LIMIT + 1))
    assert response.status_code == 413
    (error,) = response.json()["errors"]
    assert error["extensions"] == {"code": "PAYLOAD_TOO_LARGE", "sizeBytes": LIMIT + 1, "limitBytes": LIMIT}
    assert error["message"] == "The request body has 1001 bytes; the limit is 1000 bytes."


async def test_a_chunked_body_is_counted(client: httpx.AsyncClient) -> None:
    response = await client.post("/", content=_chunks(LIMIT + 1))
    assert response.status_code == 413
    assert response.json()["errors"][0]["extensions"] == {"code": "PAYLOAD_TOO_LARGE", "limitBytes": LIMIT}


async def test_a_declared_body_above_the_limit_is_refused_at_every_path() -> None:
    app = create_app(Settings(max_body_bytes=2000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        for path in "/graphql", "/healthz", "/nowhere":
            response = await client.post(path, content=b"x" * 2001)
            assert response.status_code == 413
            assert response.headers["x-content-type-options"] == "nosniff"
