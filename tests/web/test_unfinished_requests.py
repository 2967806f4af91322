"""Requests that never end, come slowly or are none: each ends with an answer, and soon."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gql_jobs.web.http_protocol import HEAD_BYTES
from tests.serving import HOST, ServedApi, serving, without_nats

POST = "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HANDSHAKE = (
    "GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@asynccontextmanager
async def _connected(api: ServedApi) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, api.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the answer after which the server ends the connection, be it without politeness."""
    heard = b""
    with suppress(ConnectionResetError):
        while part := await reader.read(1000):
            heard += part
    head, _, body = heard.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def _code(body: bytes) -> str:
    (error,) = json.loads(body)["errors"]
    code: str = error["extensions"]["code"]
    return code


@pytest.mark.parametrize("said", ["", "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-"])
async def test_a_client_that_does_not_finish_the_head_of_its_request_is_cut_off(tmp_path: Path, said: str) -> None:
    settings = without_nats(tmp_path, request_timeout=0.1)
    async with serving(settings, opened=False) as api, _connected(api) as (reader, writer):
        writer.write(said.encode())
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_a_body_that_comes_too_slowly_is_answered_408(tmp_path: Path) -> None:
    settings = without_nats(tmp_path, request_timeout=0.1)
    async with serving(settings, opened=False) as api, _connected(api) as (reader, writer):
        writer.write(f"{POST}Content-Length: 100\r\n\r\n{{".encode())
        status, body = await _answer(reader)
    assert (status, _code(body)) == (408, "TIMEOUT")
    assert b"did not come within 0.1 s" in body


async def test_a_head_without_end_is_answered_431(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path), opened=False) as api, _connected(api) as (reader, writer):
        # More than the server reads in one piece, and all at once: a write after its answer could lose that.
        writer.write(f"{POST}Cookie: {'x' * 50 * HEAD_BYTES}".encode())
        status, body = await _answer(reader)
    assert (status, _code(body)) == (431, "BAD_REQUEST")


@pytest.mark.parametrize("headers", [f"Cookie: {'x' * 9000}\r\n", "X: y\r\n" * 200], ids=["long", "many"])
async def test_a_handshake_with_too_much_in_its_headers_is_answered_431(tmp_path: Path, headers: str) -> None:
    async with serving(without_nats(tmp_path), opened=False) as api, _connected(api) as (reader, writer):
        writer.write(f"{HANDSHAKE}{headers}\r\n".encode())
        status, body = await _answer(reader)
    assert status == 431
    assert body.startswith(b"Failed to open a WebSocket connection: ")


async def test_what_is_no_http_is_refused_in_graphql_json(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path), opened=False) as api, _connected(api) as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00\x01 hello\r\n\r\n")
        status, body = await _answer(reader)
    assert (status, _code(body)) == (400, "BAD_REQUEST")
