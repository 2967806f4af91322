"""A line between a client and an API on which answers are lost, after the API has done what was asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.serving import HOST

_CHUNK = 1 << 16


class LossyLine:
    """What passes bytes on to an API, and loses some of its answers.

    ``losing``: how many of the next answers are lost. ``passing``: how many bytes of answers still pass before all
    connections are cut, once; None while they are not counted. ``requests``: the bytes of all requests.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.losing = 0
        self.passing: int | None = None
        self.requests: list[bytes] = []
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The address of the API by this line."""
        return f"http://{HOST}:{self.port}"

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["LossyLine"]:
        """Listen until the block ends."""
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection(HOST, self.upstream)
            self._writers |= {writer, other_writer}
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._ask(reader, other_writer))
                    group.create_task(self._answer(other_reader, writer))
            finally:
                self._writers -= {writer, other_writer}
                other_writer.close()
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                self.requests.append(chunk)
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self.losing:
                    self.losing -= 1
                    break
                if self.passing is not None and len(chunk) >= self.passing:
                    writer.write(chunk[: self.passing])
                    await writer.drain()
                    self.passing = None
                    break
                self.passing = None if self.passing is None else self.passing - len(chunk)
                writer.write(chunk)
                await writer.drain()
        writer.close()
