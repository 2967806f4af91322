"""A line between a browser and the API that a test can cut, or leave standing with nothing passing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.serving import HOST

_CHUNK = 1 << 16


class Line:
    """What a proxy does: passes bytes on to ``upstream``, a port of this machine.

    :param prefix: a path below which the API is; taken away from the addresses of requests.
    :param sockets: whether WebSockets pass; some proxies end each connection that asks for one.
    """

    def __init__(self, upstream: int, prefix: str = "", *, sockets: bool = True) -> None:
        self.upstream = upstream
        self.port = 0
        self.served = 0
        """Connections that were begun, ended ones included."""
        self._prefix = prefix.encode()
        self._sockets = sockets
        self._passing = _open()
        self._stranded: list[asyncio.Event] = []
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """End all connections, and every new one at once."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing pass, in either direction, and end nothing: whoever waits learns nothing of it."""
        self._passing.clear()

    def strand(self) -> None:
        """Let nothing pass on the connections that there are, ever again; new ones are as before."""
        self._passing.clear()
        self._stranded.append(self._passing)
        self._passing = _open()

    def mend(self) -> None:
        """Let everything pass again."""
        self._is_cut = False
        self._passing.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Line"]:
        """Listen until the block ends."""
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.mend()
            server.close()
            self.cut()
            for passing in self._stranded:
                passing.set()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.served += 1
        try:
            if not self._is_cut:
                with suppress(OSError):
                    await self._connect(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(HOST, self.upstream)
        self._writers.add(other_writer)
        try:
            async with asyncio.TaskGroup() as group:
                passing = self._passing
                group.create_task(self._pump(reader, other_writer, passing, is_request=True))
                group.create_task(self._pump(other_reader, writer, passing, is_request=False))
        finally:
            self._writers.discard(other_writer)
            other_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event, *, is_request: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await passing.wait()
                if is_request and not self._sockets and b"Upgrade: websocket" in chunk:
                    break
                if is_request and self._prefix:
                    # A browser begins each request with a chunk of its own.
                    method, space, rest = chunk.partition(b" ")
                    chunk = method + space + rest.removeprefix(self._prefix) if method.isalpha() else chunk
                writer.write(chunk)
                await writer.drain()
        writer.close()


def _open() -> asyncio.Event:
    passing = asyncio.Event()
    passing.set()
    return passing
