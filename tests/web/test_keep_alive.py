"""A client that does not answer pings is closed with a code that it comes back after, and its operations end."""

import asyncio
import base64
import json
import os
import socket
import struct

import pytest
from websockets.frames import Close

from gql_jobs.settings import Settings
from gql_jobs.web.socket_protocol import SocketProtocol
from tests.deadline import until
from tests.serving import HOST, PROTOCOL, ServedApi, serving

FEED = "subscription { jobEvents { cursor } }"
LARGE = "{ __schema { types { description fields { description } } } }"


class _Deaf:
    """A WebSocket client that answers no pings; the libraries all do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, api: ServedApi) -> "_Deaf":
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect((HOST, api.port))
        # It reads no more than this while nobody asks for more.
        reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
        headers = {
            "Host": f"{HOST}:{api.port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Protocol": PROTOCOL,
        }
        lines = ["GET /graphql HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    def say(self, **message: object) -> None:
        text = json.dumps(message).encode()
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(text))
        self._writer.write(bytes([0x81, 0x80 | len(text)]) + mask + masked)

    async def close_frame(self) -> Close:
        """The close that comes after whatever frames, all of which are short."""
        while True:
            opcode, size = struct.unpack("!BB", await self._reader.readexactly(2))
            body = await self._reader.readexactly(size)
            if opcode & 0x0F == 8:
                return Close.parse(body)

    def go(self) -> None:
        self._writer.transport.abort()


@pytest.fixture
def protocols(monkeypatch: pytest.MonkeyPatch) -> list[SocketProtocol]:
    """The server's ends of the sockets, as they open; they wait for a twentieth of a second."""
    opened: list[SocketProtocol] = []

    def noted(protocol: SocketProtocol) -> None:
        protocol.ping_timeout = protocol.close_timeout = 0.05
        opened.append(protocol)

    monkeypatch.setattr(SocketProtocol, "start_keepalive", noted)
    return opened


async def test_a_client_that_does_not_answer_pings_is_told_to_come_back(
    settings: Settings, protocols: list[SocketProtocol]
) -> None:
    async with serving(settings) as api:
        deaf = await _Deaf.connected(api)
        deaf.say(type="connection_init")
        deaf.say(id="1", type="subscribe", payload={"query": FEED})
        await api.subscribers(1)
        protocols[0].send_keepalive_ping()
        closed = await asyncio.wait_for(deaf.close_frame(), 10)
        assert (closed.code, closed.reason) == (1001, "keepalive ping timeout")
        await api.subscribers(0)
        deaf.go()


async def test_a_client_that_does_not_read_is_given_up(settings: Settings, protocols: list[SocketProtocol]) -> None:
    async with serving(settings, send_buffer=4096) as api:
        deaf = await _Deaf.connected(api)
        deaf.say(type="connection_init")
        deaf.say(id="feed", type="subscribe", payload={"query": FEED})
        await api.subscribers(1)
        for number in range(90):
            deaf.say(id=str(number), type="subscribe", payload={"query": LARGE})
        await until(lambda: not protocols[0].writable.is_set(), "the server has to wait for the client")
        protocols[0].send_keepalive_ping()
        await api.subscribers(0)
        await until(lambda: protocols[0].disconnected, "the connection has been given up")
        deaf.go()
