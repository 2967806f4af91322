"""A small HTTP server on loopback whose answers a test writes down, odd ones included."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Answer:
    """What a path answers. ``length`` replaces the true Content-Length; ``hangs`` stops before the end of the body."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    chunked: bool = False
    hangs: bool = False

    def head(self) -> bytes:
        """Status line and headers."""
        length = len(self.body) if self.length is None else self.length
        framing = {"Transfer-Encoding": "chunked"} if self.chunked else {"Content-Length": str(length)}
        lines = [f"HTTP/1.1 {self.status} Said", *(f"{k}: {v}" for k, v in (framing | self.headers).items())]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


class FileServer:
    """Answers by path; 404 to all others."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers of what was asked for."""

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Where a path is."""
        return f"http://{host}:{self.port}{path}"

    def put(self, path: str, answer: Answer | bytes) -> str:
        """Answer a path from now on, and return its URL."""
        self.answers[path] = answer if isinstance(answer, Answer) else Answer(answer)
        return self.url(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one answer."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            self.requests.append((path, dict(line.lower().split(": ", 1) for line in head[1:] if line)))
            answer = self.answers.get(path, Answer(status=404))
            writer.write(answer.head())
            if answer.chunked:
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(answer.body), answer.body))
            else:
                writer.write(answer.body)
            await writer.drain()
            if answer.hangs:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def file_server(host: str = "127.0.0.1") -> AsyncIterator[FileServer]:
    """A server on a free port; gone when the block ends."""
    files = FileServer()
    talks: set[asyncio.Task[None]] = set()

    def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(files.serve(reader, writer))
        talks.add(task)
        task.add_done_callback(talks.discard)

    server = await asyncio.start_server(talk, host, 0)
    files.port = server.sockets[0].getsockname()[1]
    try:
        yield files
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
