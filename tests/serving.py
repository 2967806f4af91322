"""API servers in tests: one within this process, or a real process to be killed; and real clients of them."""

import asyncio
import json
import os
import random
import socket
import ssl
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from websockets.asyncio.client import ClientConnection, connect

from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs.web.server import http_server
from tests.child_processes import running_process
from tests.deadline import until
from tests.running import JOB_TYPES, ROOT, python_path

HOST = "127.0.0.1"
PROTOCOL = "graphql-transport-ws"
_TLS = ssl.create_default_context()
"""Made once: reading all authorities takes longer than many a test, and no client here needs any."""
_CLOSE_WITHIN = 0.5
"""Seconds: a client that has not read everything never finds the server's answer to its own end of a socket."""

Data = dict[str, Any]


class Api:
    """Where a server listens, and what clients do with it."""

    def __init__(self, port: int, session: AsyncClientSession, http: httpx.AsyncClient) -> None:
        self.port = port
        self.http = http
        self._session = session

    async def ask(self, document: str, **variables: Any) -> Data:
        """The data of a query or mutation over HTTP.

        :raises TransportQueryError: if the answer has errors.
        """
        return await self._session.execute(request_of(document, variables))

    async def refusal(self, document: str, **variables: Any) -> Data:
        """The one error of an operation over HTTP that has to be refused."""
        try:
            data = await self.ask(document, **variables)
        except TransportQueryError as error:
            (refusal,) = error.errors or []
            return dict(refusal)
        raise AssertionError(f"not refused: {data}")

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[AsyncClientSession]:
        """A WebSocket of the client library."""
        async with Client(transport=_socket_transport(self.port), execute_timeout=None) as session:
            yield session

    async def events(self, document: str, **variables: Any) -> AsyncGenerator[Data, None]:
        """The results of a subscription on a WebSocket of its own, each without the name of its field."""
        async with self.socket() as session, aclosing(subscribed(session, document, **variables)) as events:
            async for event in events:
                yield event

    @asynccontextmanager
    async def raw_socket(self, **options: Any) -> AsyncIterator[ClientConnection]:
        """A WebSocket without a client library, acknowledged and ready for ``subscribe``."""
        url = f"ws://{HOST}:{self.port}/graphql"
        options = {"compression": None, "proxy": None, "close_timeout": _CLOSE_WITHIN, **options}
        async with connect(url, subprotocols=[PROTOCOL], **options) as opened:  # type: ignore[list-item]
            await say(opened, type="connection_init")
            assert (await hear(opened))["type"] == "connection_ack"
            yield opened

    @asynccontextmanager
    async def socket_streams(self, document: str, each: list[Data]) -> AsyncIterator[tuple[AsyncIterator[Data], ...]]:
        """Subscriptions that are open at once, one for each set of variables; what comes waits until it is taken."""
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            session = await stack.enter_async_context(self.socket())
            queues: list[asyncio.Queue[Data]] = [asyncio.Queue() for _ in each]
            pumps = [
                group.create_task(_pump(session, document, variables, queue))
                for variables, queue in zip(each, queues, strict=True)
            ]
            try:
                yield tuple(map(_taken, queues))
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)

    async def refused_on(self, opened: ClientConnection, number: str, query: str) -> Data:
        """The one error of a subscription that has to be refused; the socket stays open."""
        await say(opened, id=number, type="subscribe", payload={"query": query})
        message = await hear(opened)
        assert (message["type"], message["id"]) == ("error", number), message
        (refusal,) = message["payload"]
        return dict(refusal)


class ServedApi(Api):
    """A server within this process; ``app`` is its application."""

    app: FastAPI

    @property
    def runtime(self) -> Runtime:
        """What the server consists of."""
        runtime: Runtime = self.app.state.runtime
        return runtime

    async def subscribers(self, number: int, *, within: float = 10.0) -> None:
        """Wait until exactly so many subscriptions are open."""
        bus = self.runtime.bus
        await until(lambda: bus.subscribers == number, f"there are {number} subscribers", within=within)


@asynccontextmanager
async def serving(
    settings: Settings,
    imports: tuple[str, ...] = JOB_TYPES,
    *,
    send_buffer: int | None = None,
    opened: bool = True,
) -> AsyncIterator[ServedApi]:
    """The API as ``gql-jobs api`` serves it, in this process on a free port, until the block ends.

    :param send_buffer: bytes that the kernel takes for a client that does not read.
    :param opened: whether to wait until NATS was reached.
    """
    server = http_server(settings, imports)
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listener.bind((HOST, 0))
    port = listener.getsockname()[1]
    running = asyncio.create_task(server.serve_beside([listener]))
    try:
        await until(lambda: server.started or running.done(), "the API serves")
        if opened:
            # A cluster that has just begun may take its time to choose leaders.
            await until(lambda: hasattr(server.app.state, "runtime") or running.done(), "NATS was reached", within=30)
        async with _clients(port) as (session, http):
            api = ServedApi(port, session, http)
            api.app = server.app
            yield api
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def api_process(
    settings: Settings,
    port: int,
    *,
    ready: bool = True,
    program: tuple[str, ...] = ("gql_jobs",),
    imports: tuple[str, ...] = JOB_TYPES,
    root: Path = ROOT,
    **options: Any,
) -> AsyncIterator[tuple[Api, Process]]:
    """``gql-jobs api`` with the test job types, as a process of its own; killed when the block ends.

    :param imports: the modules that register its job types.
    :param program: what Python is to run instead, and its first arguments.
    :param root: another checkout, from which it is run.
    :param options: those of ``asyncio.create_subprocess_exec``.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(root),
        "GQL_JOBS_NATS_URL": settings.nats_url or "",
    }
    arguments = ("--port", str(port), "--data-dir", str(settings.data_dir))
    command = (sys.executable, "-m", *program, "api", *arguments, *(f"--import={module}" for module in imports))
    options = {"cwd": root, **options}
    async with running_process(*command, env=environment, **options) as process, connected(port) as api:
        if ready:
            await until(lambda: is_ready(api), "the API process is ready", within=20)
        yield api, process


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Api]:
    """Clients of whatever serves at that port."""
    async with _clients(port) as (session, http):
        yield Api(port, session, http)


async def is_ready(api: Api) -> bool:
    """Whether the server calls itself ready."""
    try:
        return (await api.http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports_in_a_row(number: int) -> int:
    """The first of so many ports that nobody listened on a moment ago, where connections are not given theirs."""
    while True:
        first = random.randrange(20_000, 30_000)  # noqa: S311 - a port is no secret
        with ExitStack() as probes:
            try:
                for port in range(first, first + number):
                    probes.enter_context(socket.socket()).bind((HOST, port))
            except OSError:
                continue
        return first


def without_nats(folder: Path, **limits: Any) -> Settings:
    """Settings of a server that will not find NATS: what is refused before a job is asked for needs none."""
    return Settings(nats_url=f"nats://{HOST}:{free_port()}", data_dir=folder, **limits)


def request_of(document: str, variables: Data) -> GraphQLRequest:
    """An operation with its variables."""
    return GraphQLRequest(document, variable_values=variables)


async def subscribed(session: AsyncClientSession, document: str, **variables: Any) -> AsyncGenerator[Data, None]:
    """The results of a subscription on an open WebSocket, each without the name of its field."""
    async with aclosing(session.subscribe(request_of(document, variables))) as results:
        async for result in results:
            (event,) = result.values()
            yield event


async def say(opened: ClientConnection, **message: Any) -> None:
    """Send one message of the protocol."""
    await opened.send(json.dumps(message))


async def hear(opened: ClientConnection, *, within: float = 10.0) -> Data:
    """The next message of the protocol."""
    async with asyncio.timeout(within):
        message: Data = json.loads(await opened.recv())
        return message


async def _pump(session: AsyncClientSession, document: str, variables: Data, queue: "asyncio.Queue[Data]") -> None:
    async with aclosing(subscribed(session, document, **variables)) as events:
        async for event in events:
            queue.put_nowait(event)


async def _taken(queue: "asyncio.Queue[Data]") -> AsyncIterator[Data]:
    while True:
        yield await queue.get()


def _socket_transport(port: int) -> WebsocketsTransport:
    return WebsocketsTransport(
        f"ws://{HOST}:{port}/graphql",
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        connect_args={"proxy": None, "compression": None},
        close_timeout=_CLOSE_WITHIN,
    )


@asynccontextmanager
async def _clients(port: int) -> AsyncIterator[tuple[AsyncClientSession, httpx.AsyncClient]]:
    url = f"http://{HOST}:{port}"
    transport = HTTPXAsyncTransport(f"{url}/graphql", timeout=30, trust_env=False, verify=_TLS)
    async with (
        Client(transport=transport, execute_timeout=None) as session,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=_TLS) as http,
    ):
        yield session, http
