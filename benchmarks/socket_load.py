"""GraphQL subscriptions over many WebSockets; frames are counted by their headers and their JSON is not parsed."""

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

TEXT, CLOSE, PING = 1, 8, 9
_OPEN_AT_ONCE = 64
_SHORT, _MEDIUM = 126, 1 << 16

OnText = Callable[[bytes, int, int], None]


class SocketFailed(RuntimeError):
    """A socket was refused or closed, or an operation on it failed; the message says how."""


def frame(text: bytes, opcode: int = TEXT) -> bytes:
    """A client's frame. Its mask is zero, which the protocol allows and which leaves the text as it is."""
    if len(text) < _SHORT:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(text))
    elif len(text) < _MEDIUM:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(text))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, len(text))
    return head + b"\0\0\0\0" + text


def _frame_at(data: bytes, position: int) -> tuple[int, int] | None:
    """Where the content of a server's frame begins and ends; None while part of it is missing."""
    start = position + 2
    if start > len(data):
        return None
    length = data[position + 1]
    if length >= _SHORT:
        bytes_of_length = 2 if length == _SHORT else 8
        start += bytes_of_length
        length = int.from_bytes(data[start - bytes_of_length : start])
    stop = start + length
    return (start, stop) if stop <= len(data) else None


class Socket(asyncio.Protocol):
    """One socket of the protocol graphql-transport-ws with one subscription. ``frames`` counts its results."""

    def __init__(self, port: int, subscribe: bytes) -> None:
        self._port = port
        self._subscribe = frame(subscribe)
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._upgraded = False
        self._acknowledged = False
        self.frames = 0
        self.failure: str | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_text: OnText | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            (
                f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
            ).encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection was lost: {error}")

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._upgraded:
            data = self._upgrade(data)
        position = 0
        while (found := _frame_at(data, position)) is not None:
            start, stop = found
            if data[position] & 15 == TEXT and self._acknowledged:
                self.frames += 1
                if self.on_text is not None:
                    self.on_text(data, start, stop)
            else:
                self._other(data[position] & 15, data[start:stop])
            position = stop
        if position < len(data):
            self._rest = data[position:]

    def close(self) -> None:
        """Drop the connection."""
        self.failure = self.failure or "closed by us"
        if self._transport is not None:
            self._transport.abort()

    def _upgrade(self, data: bytes) -> bytes:
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._rest = data
            return b""
        if not data.startswith(b"HTTP/1.1 101"):
            self._fail(data[:500].decode(errors="replace"))
            return b""
        self._upgraded = True
        self._write(frame(b'{"type":"connection_init"}'))
        return data[head + 4 :]

    def _other(self, opcode: int, content: bytes) -> None:
        if opcode == PING:
            self._write(frame(content, 10))
        elif opcode == CLOSE:
            self._fail(f"closed by the server: {content[2:].decode(errors='replace')}")
        elif b"connection_ack" in content:
            self._acknowledged = True
            self._write(self._subscribe)
            if not self.opened.done():
                self.opened.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _fail(self, why: str) -> None:
        self.failure = self.failure or why
        if not self.opened.done():
            self.opened.set_exception(SocketFailed(why))


class Sockets:
    """Many of them, counted together."""

    def __init__(self, sockets: Sequence[Socket]) -> None:
        self._sockets = sockets

    @property
    def frames(self) -> int:
        """Results so far, on all of them."""
        return sum(socket.frames for socket in self._sockets)

    def on_text(self, told: OnText | None) -> None:
        """Have every result's bytes handed on: data, start, end."""
        for socket in self._sockets:
            socket.on_text = told

    def on_each(self, teller: Callable[[], OnText]) -> None:
        """Have each socket's results handed on to one of its own."""
        for socket in self._sockets:
            socket.on_text = teller()

    def check(self) -> None:
        """See that all are open.

        :raises SocketFailed: if one is not.
        """
        for socket in self._sockets:
            if socket.failure is not None:
                raise SocketFailed(socket.failure)

    async def each_has(self, frames: int, within: float = 60.0) -> None:
        """Wait until every socket has had so many results.

        :raises SocketFailed: if one is closed, or time runs out.
        """
        await self._until(lambda: min(s.frames for s in self._sockets) >= frames, f"{frames} results each", within)

    async def have(self, frames: int, within: float = 60.0) -> None:
        """Wait until all sockets together have had so many results."""
        await self._until(lambda: self.frames >= frames, f"{frames} results", within)

    async def _until(self, reached: Callable[[], bool], what: str, within: float) -> None:
        deadline = asyncio.get_running_loop().time() + within
        while not reached():
            self.check()
            if asyncio.get_running_loop().time() > deadline:
                raise SocketFailed(f"there were not {what} within {within:g} s, but {self.frames} in all")
            await asyncio.sleep(0.005)


@asynccontextmanager
async def subscriptions(port: int, query: str, variables: Sequence[dict[str, Any]]) -> AsyncIterator[Sockets]:
    """A socket with one subscription for each set of variables; acknowledged, the subscription on its way."""
    loop = asyncio.get_running_loop()
    sockets: list[Socket] = []
    gate = asyncio.Semaphore(_OPEN_AT_ONCE)

    async def open_one(given: dict[str, Any]) -> None:
        message = {"id": "1", "type": "subscribe", "payload": {"query": query, "variables": given}}
        async with gate:
            socket = Socket(port, json.dumps(message).encode())
            socket.on_text = _no_errors
            sockets.append(socket)
            await loop.create_connection(lambda: socket, "127.0.0.1", port)
            await socket.opened

    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for given in variables:
                group.create_task(open_one(given))
        yield Sockets(sockets)
    finally:
        for socket in sockets:
            socket.close()
        await asyncio.sleep(0)


def _no_errors(data: bytes, start: int, end: int) -> None:
    text = data[start:end]
    if not (b'"next"' in text or b'"complete"' in text) or b'"errors"' in text:
        raise SocketFailed(text.decode(errors="replace"))
