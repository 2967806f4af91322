"""The application with somebody's own middleware, under a plain uvicorn, and mounted in another application."""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gql_jobs.settings import Settings
from gql_jobs.web.app import WrappedFastAPI, create_app
from tests.child_processes import running_process
from tests.deadline import until
from tests.running import JOB_TYPES, ROOT
from tests.serving import HOST, PROTOCOL, Api, connected, hear, say, without_nats

WATCH = "subscription { jobEvents { cursor } }"
QUERY = {"query": "{ __typename }"}


@asynccontextmanager
async def _plain_uvicorn(app: ASGIApp) -> AsyncIterator[Api]:
    """The application as ``uvicorn host:app`` serves it."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    listener = socket.socket()
    listener.bind((HOST, 0))
    running = asyncio.create_task(server._serve([listener]))  # noqa: SLF001
    try:
        await until(lambda: server.started or running.done(), "uvicorn serves")
        async with connected(listener.getsockname()[1]) as api:
            yield api
    finally:
        server.should_exit = True
        await running


class Guard:
    """A middleware that lets nobody in without a password."""

    def __init__(self, app: ASGIApp, seen: list[str]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self._seen.append(scope["path"])
            if (b"authorization", b"secret") not in scope["headers"]:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close"})
                else:
                    await PlainTextResponse("no", 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _guarded(app: WrappedFastAPI) -> None:
    app.add_middleware(Guard, seen=[])


def _guarded_by_a_function(app: WrappedFastAPI) -> None:
    @app.middleware("http")
    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if request.headers.get("authorization") != "secret":
            return PlainTextResponse("no", 401)
        return await call_next(request)


def _guarded_by_the_stack(app: WrappedFastAPI) -> None:
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Guard(build(), [])  # type: ignore[method-assign]


def _guarded_around_the_stack(app: WrappedFastAPI) -> None:
    app.middleware_stack = Guard(app.build_middleware_stack(), [])


def _guarded_around_the_router(app: WrappedFastAPI) -> None:
    app.router.middleware_stack = Guard(app.router.middleware_stack, [])


def _guarded_by_a_router(app: WrappedFastAPI) -> None:
    class GuardedRouter(type(app.router)):  # type: ignore[misc]  # whatever class FastAPI has chosen
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await Guard(super().__call__, [])(scope, receive, send)

    app.router.__class__ = GuardedRouter


GUARDS = [
    _guarded,
    _guarded_by_a_function,
    _guarded_by_the_stack,
    _guarded_around_the_stack,
    _guarded_around_the_router,
    _guarded_by_a_router,
]


@pytest.mark.parametrize("guard", GUARDS)
async def test_nothing_is_answered_past_a_middleware(
    settings: Settings, guard: Callable[[WrappedFastAPI], None]
) -> None:
    app = create_app(settings, JOB_TYPES)
    guard(app)
    async with _plain_uvicorn(app) as api:
        await until(lambda: app.state.opener.current is not None, "NATS was reached")
        events = {"Accept": "text/event-stream"}
        let_in = {"Authorization": "secret"}
        requests: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("POST", "/graphql", {"json": QUERY}),
            ("GET", "/graphql", {"params": QUERY}),
            ("GET", "/graphql", {"headers": {"Accept": "text/html"}}),
            ("GET", "/graphql/", {"params": QUERY}),
            ("POST", "/graphql", {"json": {"query": WATCH}, "headers": events}),
            ("GET", "/healthz", {}),
            ("GET", "/metrics", {}),
            ("GET", "/artifacts/x/y", {}),
            ("GET", "/graphiql/graphiql.js", {}),
            ("GET", "/nowhere", {}),
        )
        for method, path, more in requests:
            refused = await api.http.request(method, path, **more)
            assert (refused.status_code, refused.text) == (401, "no"), path
        assert (await api.http.post("/graphql", json=QUERY, headers=let_in)).json() == {"data": {"__typename": "Query"}}
        async with api.http.stream("POST", "/graphql", json={"query": WATCH}, headers={**events, **let_in}) as stream:
            assert stream.status_code == 200
            assert (await anext(stream.aiter_text())).startswith("retry:")
        if guard is not _guarded_by_a_function:  # which sees no sockets, whatever the application
            options: dict[str, Any] = {"subprotocols": [Subprotocol(PROTOCOL)], "proxy": None}
            url = f"ws://{HOST}:{api.port}/graphql"
            with pytest.raises(InvalidStatus):
                await connect(url, **options)
            async with connect(url, additional_headers=let_in, **options) as opened:
                await say(opened, type="connection_init")
                assert (await hear(opened))["type"] == "connection_ack"


async def test_a_route_that_somebody_puts_in_front_is_taken(settings: Settings) -> None:
    app = create_app(settings, JOB_TYPES)

    async def own() -> str:
        return "own"

    app.add_api_route("/graphql", own)
    (route,) = [route for route in app.router.routes if getattr(route, "endpoint", None) is own]
    app.router.routes.remove(route)
    async with _plain_uvicorn(app) as api:
        assert (await api.http.get("/graphql", params=QUERY)).json()["data"] == {"__typename": "Query"}
        app.router.routes.insert(0, route)
        assert (await api.http.get("/graphql", params=QUERY)).json() == "own"


async def test_a_plain_uvicorn_serves_the_application(settings: Settings) -> None:
    app = create_app(settings, JOB_TYPES)
    async with _plain_uvicorn(app) as api:
        await until(lambda: app.state.opener.current is not None, "NATS was reached")
        assert await api.ask("{ jobs { totalCount } }") == {"jobs": {"totalCount": 0}}
        async with api.raw_socket() as opened:
            await say(opened, id="1", type="subscribe", payload={"query": "{ jobs { totalCount } }"})
            assert (await hear(opened))["payload"] == {"data": {"jobs": {"totalCount": 0}}}


async def test_a_host_mounts_the_application_and_runs_its_lifespan(settings: Settings) -> None:
    jobs = create_app(settings, JOB_TYPES)

    @asynccontextmanager
    async def lifespan(_host: FastAPI) -> AsyncIterator[None]:
        async with jobs.router.lifespan_context(jobs):
            yield

    host = FastAPI(lifespan=lifespan)
    host.mount("/jobs", jobs)
    async with _plain_uvicorn(host) as api:
        await until(lambda: jobs.state.opener.current is not None, "NATS was reached")
        answer = await api.http.post("/jobs/graphql", json={"query": "{ jobs { totalCount } }"})
        assert answer.json() == {"data": {"jobs": {"totalCount": 0}}}
        assert (await api.http.get("/jobs/readyz")).status_code in {200, 503}
        url = f"ws://{HOST}:{api.port}/jobs/graphql"
        async with connect(url, subprotocols=[Subprotocol(PROTOCOL)], proxy=None) as opened:
            await say(opened, type="connection_init")
            assert (await hear(opened))["type"] == "connection_ack"


async def test_a_host_that_does_not_run_the_lifespan_is_told_so(tmp_path: Any) -> None:
    host = FastAPI()
    host.mount("/jobs", create_app(without_nats(tmp_path, allowed_hosts=("jobs.example",)), JOB_TYPES))
    async with _plain_uvicorn(host) as api:
        named = {"Host": "jobs.example"}
        answer = await api.http.post("/jobs/graphql", json={"query": "{ jobs { totalCount } }"}, headers=named)
        (error,) = answer.json()["errors"]
        assert error["extensions"]["code"] == "QUEUE_UNAVAILABLE"
        assert "has to run its lifespan (app.router.lifespan_context(app))" in error["message"]
        # A probe comes by address, also where the application is mounted.
        ready = await api.http.get("/jobs/readyz")
        assert ready.status_code == 503
        assert "lifespan" in ready.json()["checks"]["nats"]["message"]


@asynccontextmanager
async def _uvicorn_program(name: str, folder: Path, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """What ``uvicorn name`` serves, run in the folder; asserts that it ends by Ctrl-C, without a complaint."""
    environment = {**os.environ, "GQL_JOBS_NATS_URL": settings.nats_url or "", "PYTHONWARNINGS": "error"}
    command = (sys.executable, "-m", "uvicorn", name, "--host", HOST, "--port", "0")
    async with running_process(*command, cwd=folder, env=environment, stderr=PIPE) as process:
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(30):
            while not (found := re.search(r"running on (http://\S+)", said)):
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        async with httpx.AsyncClient(base_url=found[1], trust_env=False) as client:
            yield client
        process.send_signal(signal.SIGINT)
        _, rest = await asyncio.wait_for(process.communicate(), 20)
    assert "Traceback" not in said + rest.decode()


async def test_the_modules_of_the_document_run_under_a_plain_uvicorn(settings: Settings, tmp_path: Path) -> None:
    shown = "".join((ROOT / path).read_text() for path in ("README.md", "docs/embedding.md"))
    for path, code in re.findall(r"```python\n# (\w+(?:/\w+)*\.py)\n(.*?)```", shown, re.DOTALL):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(code)
    query = {"query": '{ jobs { totalCount } __type(name: "SmsJob") { name } }'}
    answer = {"data": {"jobs": {"totalCount": 0}, "__type": {"name": "SmsJob"}}}
    let_in = {"Authorization": "Bearer s3cret"}

    async with _uvicorn_program("host:app", tmp_path, settings) as client:
        refused = await client.get("/graphql", params=query)
        assert (refused.status_code, refused.text) == (401, "Who is it?\n")

        async def answered() -> bool:
            return bool((await client.get("/graphql", params=query, headers=let_in)).json() == answer)

        await until(answered, "NATS was reached")
        url = f"ws://{client.base_url.netloc.decode()}/graphql"
        with pytest.raises(InvalidStatus):
            await connect(url, subprotocols=[Subprotocol(PROTOCOL)], proxy=None)
        async with connect(url, subprotocols=[Subprotocol(PROTOCOL)], proxy=None, additional_headers=let_in) as opened:
            await say(opened, type="connection_init")
            assert (await hear(opened))["type"] == "connection_ack"

    async with _uvicorn_program("website:app", tmp_path, settings) as client:

        async def answered_below_jobs() -> bool:
            return bool((await client.get("/jobs/graphql", params=query)).json() == answer)

        await until(answered_below_jobs, "NATS was reached")
