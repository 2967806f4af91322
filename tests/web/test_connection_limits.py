"""What a browser may cost that opens a thousand sockets, never reads, or stays: only itself."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.schema import build_schema
from gql_jobs.settings import Settings
from gql_jobs.web.app import create_app
from gql_jobs.web.graphql_request import operation_request
from gql_jobs.web.monitoring import OWN_PORT
from tests.api.operations import asked, create_many
from tests.serving import HOST, PROTOCOL, ServedApi, hear, say, serving, without_nats
from tests.shipped import shipped_types

WATCH = "subscription { jobEvents { cursor job { rawPayload } } }"
EVENTS = {"Accept": "text/event-stream"}


async def _end(opened: ClientConnection) -> tuple[int, str]:
    """The close code and the reason of a socket that the server closes."""
    async with asyncio.timeout(10):
        await opened.wait_closed()
    assert opened.close_code is not None
    return opened.close_code, opened.close_reason or ""


async def _turned_away(port: int) -> tuple[int, str]:
    url = f"ws://{HOST}:{port}/graphql"
    async with connect(url, subprotocols=[Subprotocol(PROTOCOL)], proxy=None) as opened:
        return await _end(opened)


async def test_a_client_may_hold_so_many_connections_and_is_told_to_try_later(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, max_sockets_per_client=2), opened=False) as api:
        async with api.raw_socket(), api.raw_socket() as last:
            code, reason = await _turned_away(api.port)
            assert code == 1013
            assert reason == "2 connections are open from this address, which is the limit"
            answer = await api.http.post("/graphql", json={"query": WATCH}, headers=EVENTS)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
            assert answer.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
            assert (await api.ask("{ __typename }"))["__typename"] == "Query"
            await last.close()
        async with api.raw_socket():
            pass


async def test_a_stream_is_a_connection_until_it_ends(settings: Settings) -> None:
    watch = {"query": WATCH}
    async with serving(settings.model_copy(update={"max_sockets_per_client": 1})) as api:
        async with api.http.stream("GET", "/graphql", params=watch, headers=EVENTS) as stream:
            assert stream.status_code == 200
            for accept in EVENTS["Accept"], "multipart/mixed;subscriptionSpec=1.0":
                answer = await api.http.get("/graphql", params=watch, headers={"Accept": accept})
                assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
                (error,) = answer.json()["errors"]
                assert error["message"] == "1 connections are open from this address, which is the limit."
                assert error["extensions"] == {"code": "RATE_LIMITED", "retryAfter": 10}
            assert (await _turned_away(api.port))[0] == 1013
        await api.subscribers(0)
        async with api.http.stream("GET", "/graphql", params=watch, headers=EVENTS) as stream:
            assert stream.status_code == 200


async def test_text_that_is_no_utf_8_closes_the_socket_with_1007(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(without_nats(tmp_path), opened=False) as api:
        for text in b"\xff", [b'{"type": "\xc3', b'\x28"}']:
            async with api.raw_socket() as opened:
                await opened.send(text, text=True)
                assert (await _end(opened))[0] == 1007
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_socket_that_lasts_is_closed_so_that_its_client_comes_back(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, max_socket_age=0.2), opened=False) as api, api.raw_socket() as opened:
        assert await _end(opened) == (1012, "Maximum age reached")


async def test_a_stream_that_lasts_breaks_off(settings: Settings) -> None:
    async with (
        serving(settings.model_copy(update={"max_socket_age": 0.2})) as api,
        asyncio.timeout(10),
        api.http.stream("GET", "/graphql", params={"query": WATCH}, headers=EVENTS) as stream,
    ):
        texts = stream.aiter_text()
        assert (await anext(texts)).startswith("retry:")
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            assert not [text async for text in texts if "event:" in text]


async def test_a_socket_without_an_operation_is_closed_after_a_while(tmp_path: Path) -> None:
    async with (
        serving(without_nats(tmp_path, socket_idle_timeout=0.2), opened=False) as api,
        api.raw_socket() as opened,
    ):
        await say(opened, id="1", type="subscribe", payload={"query": "{ __typename }"})
        assert [(await hear(opened))["type"] for _ in range(2)] == ["next", "complete"]
        assert await _end(opened) == (1001, "Idle: no operation has been running")


async def test_a_socket_may_run_so_many_operations_at_a_time(settings: Settings) -> None:
    limited = settings.model_copy(update={"max_socket_operations": 1, "socket_idle_timeout": 0.05})
    async with serving(limited) as api, api.raw_socket() as opened:
        await say(opened, id="1", type="subscribe", payload={"query": WATCH})
        await api.subscribers(1)
        refusal = await api.refused_on(opened, "2", "{ __typename }")
        assert refusal["extensions"]["code"] == "RATE_LIMITED"
        # The socket is not idle while its subscription waits for events.
        await create_many(api, [asked()])
        assert (await hear(opened))["id"] == "1"


async def test_a_message_above_the_size_limit_closes_the_socket(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, max_body_bytes=2000), opened=False) as api, api.raw_socket() as opened:
        await say(opened, type="ping", payload={"pad": "x" * 2000})
        assert (await _end(opened))[0] == 1009


async def test_a_socket_that_answers_no_ping_is_closed(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, socket_ping_interval=0.2), opened=False) as api:
        reader, writer = await asyncio.open_connection(HOST, api.port)
        handshake = [
            "GET /graphql HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: graphql-transport-ws",
        ]
        writer.write("\r\n".join([*handshake, "", ""]).encode())
        async with asyncio.timeout(20):
            heard = await reader.read()
        assert b"\x03\xe9keepalive ping timeout" in heard
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def unread(settings: Settings) -> AsyncIterator[ServedApi]:
    """An API that gives up at once on who does not read, with one such client on a stream."""
    async with serving(settings.model_copy(update={"write_timeout": 0.3}), send_buffer=4096) as api:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect((HOST, api.port))
        request = httpx.Request("GET", f"http://{HOST}:{api.port}/graphql", params={"query": WATCH}, headers=EVENTS)
        target = request.url.raw_path.decode()
        narrow.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
        try:
            yield api
        finally:
            narrow.close()


async def test_a_client_that_does_not_read_its_stream_is_given_up(unread: ServedApi) -> None:
    await unread.subscribers(1)
    await create_many(unread, [asked({"saves": "x" * 20_000}) for _ in range(50)])
    await unread.subscribers(0)


async def test_a_query_may_take_so_long() -> None:
    async def page(*_: object, **__: object) -> None:
        await asyncio.get_running_loop().create_future()

    services: Any = SimpleNamespace(reader=SimpleNamespace(page=page))
    operations = build_schema(shipped_types(), Settings(query_timeout=0.05)).operations
    request = operation_request({"query": "{ jobs { totalCount } }"})
    result = await operations.result(operations.operation(request, Context(lambda: services)))
    assert result.refused
    (error,) = result.errors or []
    assert (error.extensions or {})["code"] == "TIMEOUT"
    assert "longer than 0.05 s" in error.message


async def test_other_host_names_are_refused_but_for_probes() -> None:
    app = create_app(Settings(allowed_hosts=("jobs.example.com", "*.example.org", "[::1]")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        query = {"query": "{ __typename }"}
        served = "Jobs.example.com", "a.example.org:8000", "[::1]:8000"
        for host, status in *((host, 200) for host in served), ("evil.example", 400):
            answer = await client.get("/graphql", params=query, headers={"Host": host})
            assert answer.status_code == status
        (error,) = answer.json()["errors"]
        assert error["extensions"] == {"code": "BAD_REQUEST"}
        assert "GQL_JOBS_ALLOWED_HOSTS" in error["message"]
        assert (await client.get("/healthz", headers={"Host": "10.0.0.1"})).status_code == 200
        odd = "jobs.example.com:80@evil.example", "jobs.example.com:evil", "jobs.example.com.", "[::1]evil", "[::1", ""
        for host in odd:
            assert (await client.get("/graphql", params=query, headers={"Host": host})).status_code == 400, host
        two = [("Host", "jobs.example.com"), ("Host", "evil.example")]
        for given in two, two[::-1]:
            assert (await client.get("/graphql", params=query, headers=given)).status_code == 400


@pytest.mark.parametrize("auth", ["none", "required"])
async def test_metrics_that_need_no_token_are_shown_under_no_name_that_a_page_may_have_given_this_machine(
    auth: Literal["none", "required"],
) -> None:
    app = create_app(Settings(allowed_hosts=("localhost",), auth=auth))
    open_to_all, asked = (200, 400) if auth == "none" else (401, 401)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        for host in "127.0.0.1:8000", "10.0.0.7:8000", "[::1]:8000", "localhost:8000":
            assert (await client.get("/metrics", headers={"Host": host})).status_code == open_to_all, host
        for host in "evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8000", "10.0.0.7.", "":
            assert (await client.get("/metrics", headers={"Host": host})).status_code == asked, host
            own_port = httpx.ASGITransport(_AtOwnPort(app))
            async with httpx.AsyncClient(transport=own_port, base_url="http://api") as own:
                assert (await own.get("/metrics", headers={"Host": host})).status_code == 400, host


class _AtOwnPort:
    """An application as it is asked at the port of its process alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, OWN_PORT: True}, receive, send)


async def test_a_socket_under_another_host_name_is_refused_before_it_opens(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, allowed_hosts=("jobs.example.com",)), opened=False) as api:
        there: dict[str, Any] = {"host": HOST, "port": api.port, "proxy": None}
        with pytest.raises(InvalidStatus) as refused:
            await connect("ws://evil.example/graphql", **there)
        assert refused.value.response.status_code == 400
        (error,) = json.loads(refused.value.response.body or b"{}")["errors"]
        assert error["extensions"] == {"code": "BAD_REQUEST"}
        async with connect("ws://jobs.example.com/graphql", subprotocols=[Subprotocol(PROTOCOL)], **there):
            pass


async def test_every_answer_tells_browsers_what_not_to_do(tmp_path: Path) -> None:
    host, from_page = "Host: localhost\r\n", "Origin: https://shop.example\r\n"
    asked = {
        f"GET /healthz HTTP/1.1\r\n{host}": 200,
        f"GET /graphql?query={{__typename}} HTTP/1.1\r\n{host}": 200,
        f"GET /nowhere HTTP/1.1\r\n{host}": 404,
        f"PUT /graphql HTTP/1.1\r\n{host}": 405,
        f"POST /graphql HTTP/1.1\r\n{host}Content-Length: 999999999\r\n": 413,
        f"OPTIONS /graphql HTTP/1.1\r\n{host}{from_page}Access-Control-Request-Method: POST\r\n": 200,
        "GET /graphql HTTP/1.1\r\nHost: evil.example\r\n": 400,
        "This is no HTTP\r\n": 400,
        f"CONNECT a:1 HTTP/1.1\r\n{host}": 405,
        f"GET / HTTP/1.1\r\n{host}X: {'x' * 300_000}\r\n": 431,
    }
    settings = without_nats(tmp_path, allowed_hosts=("localhost",), cors_origins=("https://shop.example",))
    async with serving(settings, opened=False) as api:
        for head, status in asked.items():
            reader, writer = await asyncio.open_connection(HOST, api.port)
            writer.write(f"{head}\r\n".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.close()
            first, *lines = answer.strip().splitlines()
            assert int(first.split()[1]) == status, head[:60]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["content-security-policy"].startswith("default-src 'none'")
