"""What an attacker puts on the wire: requests and WebSocket frames as bytes, without a library that would refuse to."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

TEXT, PING, PONG, CLOSE, CONTINUATION = 0x1, 0x9, 0xA, 0x8, 0x0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A plain connection, closed without a word at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def post(query: str, variables: dict[str, Any] | None = None, *, accept: str = "application/json") -> bytes:
    """A GraphQL request over HTTP."""
    return with_body(json.dumps({"query": query, "variables": variables or {}}).encode(), accept=accept)


def with_body(body: bytes, *, length: int | None = None, accept: str = "application/json") -> bytes:
    """A POST to ``/graphql``; ``length`` declares another size than it has."""
    size = len(body) if length is None else length
    head = (
        "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Accept: {accept}\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body


async def send(writer: asyncio.StreamWriter, data: bytes, within: float = 5.0) -> bool:
    """Write; false if the server did not take it all in time, or closed."""
    try:
        async with asyncio.timeout(within):
            writer.write(data)
            await writer.drain()
    except (TimeoutError, OSError):
        return False
    return True


async def answer(reader: asyncio.StreamReader, within: float = 30.0) -> str:
    """A word for the next answer on a connection: its status and the code of its first error."""
    try:
        async with asyncio.timeout(within):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0] or 0)
            size, start = 0, b""
            while size < length:
                part = await reader.read(min(1 << 16, length - size))
                if not part:
                    return "cut"
                start = start[: 1 << 16] + part if len(start) < 1 << 16 else start
                size += len(part)
    except TimeoutError:
        return "no answer"
    except (OSError, asyncio.IncompleteReadError):
        return "cut"
    code = start.partition(b'"code":')[2].partition(b'"')[2].partition(b'"')[0].decode(errors="replace")
    mebibytes = f" {size >> 20} MiB" if size >> 20 else ""
    return head.split(b" ", 2)[1].decode() + (f" {code}" if code else "") + mebibytes


async def asked(port: int, request: bytes, within: float = 30.0) -> str:
    """A word for the answer to one request on a connection of its own."""
    try:
        async with connected(port) as (reader, writer):
            sending = asyncio.create_task(send(writer, request, within))
            try:
                return await answer(reader, within)
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending
    except OSError:
        return "not connected"


@asynccontextmanager
async def websocket(port: int) -> AsyncIterator[Connection]:
    """A WebSocket after its handshake and before ``connection_init``.

    :raises ConnectionRefusedError: if the server answers anything but 101.
    """
    async with connected(port) as (reader, writer):
        writer.write(
            b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionRefusedError("cut in the handshake") from error
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionRefusedError(head.split(b"\r\n", 1)[0].decode())
        yield reader, writer


def frame(kind: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """One frame of a client; its mask is zero, so that the payload is as it is."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - RFC 6455, 5.2
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes([(0x80 if last else 0) | kind]) + length + b"\0\0\0\0" + payload


def message(**fields: Any) -> bytes:
    """A message of ``graphql-transport-ws``."""
    return frame(TEXT, json.dumps(fields).encode())


async def heard(reader: asyncio.StreamReader, within: float = 5.0) -> str:
    """A word for the next frame of a server: its ``type`` and code, or the code that closed the socket."""
    try:
        async with asyncio.timeout(within):
            kind, size = await reader.readexactly(2)
            if size == 126:  # noqa: PLR2004 - RFC 6455, 5.2
                size = int.from_bytes(await reader.readexactly(2))
            elif size == 127:  # noqa: PLR2004
                size = int.from_bytes(await reader.readexactly(8))
            payload = await reader.readexactly(size)
    except TimeoutError:
        return "no frame"
    except (OSError, asyncio.IncompleteReadError):
        return "cut"
    if kind & 0xF == CLOSE:
        return f"close {int.from_bytes(payload[:2])}"
    if kind & 0xF != TEXT:
        return "frame"
    said = str(json.loads(payload).get("type"))
    code = payload.partition(b'"code":')[2].partition(b'"')[2].partition(b'"')[0].decode(errors="replace")
    return f"{said} {code}" if code else said


def words(seen: Counter[str]) -> str:
    """What was answered how often, the most frequent first."""
    return ", ".join(f"{number} x {word}" for word, number in seen.most_common(4))
