"""The application with somebody's own middleware, under a plain uvicorn, and mounted in another application."""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gql_jobs.jobs import viewer
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


async def _guarding(request: Request, call_next: RequestResponseEndpoint) -> Response:
    if request.headers.get("authorization") != "secret":
        return PlainTextResponse("no", 401)
    return await call_next(request)


def _guarded(app: FastAPI) -> None:
    app.add_middleware(Guard, seen=[])


def _guarded_by_a_function(app: FastAPI) -> None:
    app.middleware("http")(_guarding)


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


def _guarded_behind_layers_of_all_shapes(app: FastAPI) -> None:
    """The function is the innermost of three; one layer is a closure, and one calls what is inside ``_app``."""

    def layer(inner: ASGIApp) -> ASGIApp:
        async def passed_on(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, receive, send)

        return passed_on

    class Layer:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)

    app.middleware("http")(_guarding)
    app.add_middleware(layer)
    app.add_middleware(Layer)


GUARDS = [
    _guarded,
    _guarded_by_a_function,
    _guarded_by_the_stack,
    _guarded_around_the_stack,
    _guarded_around_the_router,
    _guarded_by_a_router,
    _guarded_behind_layers_of_all_shapes,
]
HOST_GUARDS: list[Callable[[FastAPI], None]] = [_guarded, _guarded_by_a_function, _guarded_behind_layers_of_all_shapes]


@pytest.mark.parametrize("guard", GUARDS)
async def test_nothing_is_answered_past_a_middleware(
    settings: Settings, guard: Callable[[WrappedFastAPI], None]
) -> None:
    app = create_app(settings, JOB_TYPES)
    guard(app)
    await _assert_guarded(app, app, "")


@pytest.mark.parametrize("guard", HOST_GUARDS)
@pytest.mark.parametrize("prefix", ["/jobs", "/", "/a/b"])
async def test_nothing_is_answered_past_a_middleware_of_the_host(
    settings: Settings, guard: Callable[[FastAPI], None], prefix: str
) -> None:
    host, jobs = _mounted(settings, prefix)
    guard(host)
    await _assert_guarded(host, jobs, prefix.rstrip("/"))


@pytest.mark.parametrize("guard", HOST_GUARDS)
async def test_nothing_is_answered_past_a_middleware_of_an_application_around_the_host(
    settings: Settings, guard: Callable[[FastAPI], None]
) -> None:
    jobs = create_app(settings, JOB_TYPES)
    host = FastAPI(lifespan=_lifespan_of(jobs))
    host.mount("/inner", Starlette(routes=[Mount("/jobs", jobs)]))
    guard(host)
    await _assert_guarded(host, jobs, "/inner/jobs")


async def test_nothing_is_answered_past_a_middleware_of_a_host_within_another(settings: Settings) -> None:
    jobs = create_app(settings, JOB_TYPES)
    inner = FastAPI(routes=[Mount("/jobs", jobs)])
    _guarded_by_a_function(inner)
    host = FastAPI(lifespan=_lifespan_of(jobs))
    host.mount("/inner", inner)
    await _assert_guarded(host, jobs, "/inner/jobs")


async def test_nothing_is_answered_past_a_middleware_of_the_mount(settings: Settings) -> None:
    jobs = create_app(settings, JOB_TYPES)
    guarded = Mount("/jobs", jobs, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guarding)])
    host = FastAPI(routes=[Mount("/api", routes=[guarded])], lifespan=_lifespan_of(jobs))
    await _assert_guarded(host, jobs, "/api/jobs")


async def test_nothing_is_answered_past_a_middleware_where_a_host_includes_the_routes(settings: Settings) -> None:
    jobs = create_app(settings, JOB_TYPES)
    host = FastAPI(lifespan=_lifespan_of(jobs))
    host.router.routes += jobs.router.routes
    _guarded_by_a_function(host)
    await _assert_guarded(host, jobs, "")


async def _assert_guarded(app: ASGIApp, jobs: WrappedFastAPI, prefix: str) -> None:
    async with _plain_uvicorn(app) as api:
        await until(lambda: jobs.state.opener.current is not None, "NATS was reached")
        events = {"Accept": "text/event-stream"}
        let_in = {"Authorization": "secret"}
        graphql = f"{prefix}/graphql"
        requests: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("POST", "/graphql", {"json": QUERY}),
            ("GET", "/graphql", {"params": QUERY}),
            ("GET", "/graphql", {"headers": {"Accept": "text/html"}}),
            ("GET", "/graphql/", {"params": QUERY}),
            ("POST", "/graphql", {"json": {"query": WATCH}, "headers": events}),
            ("POST", "/tickets", {"json": {}}),
            ("GET", "/healthz", {}),
            ("GET", "/metrics", {}),
            ("GET", "/artifacts/x/y", {}),
            ("GET", "/", {}),
            ("GET", "/dashboard/index.html", {}),
            ("GET", "/graphiql/graphiql.js", {}),
            ("GET", "/nowhere", {}),
        )
        for method, path, more in requests:
            refused = await api.http.request(method, prefix + path, **more)
            assert (refused.status_code, refused.text) == (401, "no"), path
        assert (await api.http.post(graphql, json=QUERY, headers=let_in)).json() == {"data": {"__typename": "Query"}}
        async with api.http.stream("POST", graphql, json={"query": WATCH}, headers={**events, **let_in}) as stream:
            assert stream.status_code == 200
            assert (await anext(stream.aiter_text())).startswith("retry:")
        options: dict[str, Any] = {"subprotocols": [Subprotocol(PROTOCOL)], "proxy": None}
        url = f"ws://{HOST}:{api.port}{graphql}"
        with pytest.raises(InvalidStatus):
            await connect(url, **options)
        async with connect(url, additional_headers=let_in, **options) as opened:
            await say(opened, type="connection_init")
            assert (await hear(opened))["type"] == "connection_ack"


async def test_the_handshake_of_a_socket_is_answered_by_middleware_as_a_request_would_be(settings: Settings) -> None:
    """Its answer is the client's, and who asks, as it finds out, is who asks on the socket."""
    app = create_app(settings, JOB_TYPES)
    seen: list[str] = []

    @app.middleware("http")
    async def know(request: Request, call_next: RequestResponseEndpoint) -> Response:
        seen.append(f"{request.method} {request.url.path} {await request.body()!r}")
        if (name := request.query_params.get("name")) is None:
            return PlainTextResponse("Who is it?", 402)
        request.scope["gql_jobs.viewer"] = viewer.Viewer(name, frozenset({viewer.Scope.READ}))
        response = await call_next(request)
        return PlainTextResponse("Too late.", 418) if name == "late" else response

    async with _plain_uvicorn(app) as api:
        options: dict[str, Any] = {"subprotocols": [Subprotocol(PROTOCOL)], "proxy": None}
        url = f"ws://{HOST}:{api.port}/graphql"
        for address, status, body in ((url, 402, b"Who is it?"), (f"{url}?name=late", 418, b"Too late.")):
            with pytest.raises(InvalidStatus) as refused:
                await connect(address, **options)
            assert (refused.value.response.status_code, refused.value.response.body) == (status, body)
        async with connect(f"{url}?name=ann", **options) as opened:
            await say(opened, type="connection_init")
            assert (await hear(opened))["type"] == "connection_ack"
            await say(opened, id="1", type="subscribe", payload={"query": "{ viewer { subject } }"})
            assert (await hear(opened))["payload"] == {"data": {"viewer": {"subject": "ann"}}}
    assert seen == ["GET /graphql b''"] * 3


async def test_no_socket_passes_a_middleware_of_the_host_that_cannot_be_found(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    host, _ = _mounted(settings, "/jobs")
    host.middleware("http")(_guarding)

    hidden: WeakKeyDictionary[object, ASGIApp] = WeakKeyDictionary()

    class Hidden:
        """A layer that shows to nobody what is inside of it."""

        def __init__(self, app: ASGIApp) -> None:
            hidden[self] = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await hidden[self](scope, receive, send)

    host.add_middleware(Hidden)
    async with _plain_uvicorn(host) as api:
        with pytest.raises(InvalidStatus):
            await connect(
                f"ws://{HOST}:{api.port}/jobs/graphql",
                subprotocols=[Subprotocol(PROTOCOL)],
                proxy=None,
                additional_headers={"Authorization": "secret"},
            )
        answer = await api.http.post("/jobs/graphql", json=QUERY, headers={"Authorization": "secret"})
        assert answer.json() == {"data": {"__typename": "Query"}}
    assert "FastAPI has middleware of the kind 'http' behind a layer" in caplog.text


async def test_the_shortcut_is_taken_where_there_are_no_layers_but_the_frameworks_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that watches applications replaces methods of their classes; it sees the requests to all routes."""
    app = create_app(settings, JOB_TYPES)
    async with _plain_uvicorn(app):
        assert app.is_bare

    build = FastAPI.build_middleware_stack
    with monkeypatch.context() as patched:
        patched.setattr(FastAPI, "build_middleware_stack", lambda self: Guard(build(self), []))
        watched = create_app(settings, JOB_TYPES)
        async with _plain_uvicorn(watched) as api:
            assert (await api.http.post("/graphql", json=QUERY)).status_code == 401

    call, seen = Starlette.__call__, list[str]()

    async def watching(self: Starlette, scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope.get("path", ""))
        await call(self, scope, receive, send)

    monkeypatch.setattr(Starlette, "__call__", watching)
    async with _plain_uvicorn(create_app(settings, JOB_TYPES)) as api:
        assert (await api.http.post("/graphql", json=QUERY)).status_code == 200
        assert "/graphql" in seen


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


def _lifespan_of(jobs: WrappedFastAPI) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_host: FastAPI) -> AsyncIterator[None]:
        async with jobs.router.lifespan_context(jobs):
            yield

    return lifespan


def _mounted(settings: Settings, prefix: str) -> tuple[FastAPI, WrappedFastAPI]:
    """A host, and the application that it has at a path and whose lifespan it runs."""
    jobs = create_app(settings, JOB_TYPES)
    host = FastAPI(lifespan=_lifespan_of(jobs), openapi_url=None)
    host.mount(prefix, jobs)
    return host, jobs


async def test_a_host_mounts_the_application_and_runs_its_lifespan(settings: Settings) -> None:
    host, jobs = _mounted(settings, "/jobs")
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
