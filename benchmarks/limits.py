"""Servers that answer with constants: what the load generators can count, so that they are never the limit.

``python -m benchmarks.limits PORT`` answers every HTTP request on PORT, and sends to every WebSocket each time that one
of them asks.
"""

import asyncio
import base64
import hashlib
import sys
from typing import cast

import uvloop

ANSWER = b'{"data":{"createJob":{"job":{"id":"0","status":"QUEUED","createdAt":"2026"},"deduplicated":false}}}'
HTTP = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
EVENT = (
    b'{"id":"1","type":"next","payload":{"data":{"jobEvents":{"__typename":"JobQueued","cursor":"1234567","job":'
    b'{"id":"550e8400-e29b-41d4-a716-446655440000","status":"QUEUED","progress":0}}}}}'
)
FRAME = b"\x81\x7e" + len(EVENT).to_bytes(2) + EVENT
ACK = b'{"type":"connection_ack"}'
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_AT_ONCE = 10
sockets: set[asyncio.Transport] = set()


class Constant(asyncio.Protocol):
    """HTTP until it is asked to be a WebSocket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket = False
        self._rest = b""

    def connection_lost(self, _error: Exception | None) -> None:
        sockets.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._socket:
            if b"connection_init" in data:
                self._transport.write(b"\x81" + bytes([len(ACK)]) + ACK)
            elif b"subscribe" in data:
                sockets.add(self._transport)
            return
        data = self._rest + data
        self._rest = b""
        if b"Sec-WebSocket-Key: " in data:
            self._upgrade(data)
        elif b"createJobs" in data:
            for socket in sockets:
                socket.write(FRAME * _AT_ONCE)
            self._transport.write(HTTP)
        elif data.endswith(b"}"):
            self._transport.write(HTTP)
        else:
            self._rest = data

    def _upgrade(self, data: bytes) -> None:
        key = data.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r")[0]
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        self._socket = True
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
