"""HTTP/1.1 requests over kept connections, answers counted and not parsed: a generator that is not the limit.

Against a server that answers with a constant it does several times what any server measured here does; the bench
``limits`` says how much.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

_QUIET = 2.0
"""Seconds after which a connection is not used again: servers close it after some more."""


class RequestFailed(RuntimeError):
    """An answer with another status than 200, or with GraphQL errors; the message holds it."""


def graphql_request(
    port: int, query: str, variables: dict[str, Any] | None = None, *, token: str | None = None
) -> bytes:
    """The bytes of a GraphQL request, from whoever comes with a token, if one is given."""
    body = json.dumps({"query": query, "variables": variables or {}}).encode()
    bearer = "" if token is None else f"Authorization: Bearer {token}\r\n"
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\n{bearer}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One kept connection with at most one request under way. ``answered`` is called with each whole answer."""

    def __init__(self, answered: Callable[["Connection", bytes], None]) -> None:
        self._answered = answered
        self._parts = b""
        self._transport: asyncio.Transport | None = None
        self.lost: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost()

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def send(self, request: bytes) -> None:
        """Write a request; nothing on a connection that is closed, which ``lost`` tells."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(request)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._parts:
            data = self._parts + data
        if _is_whole(data):
            self._parts = b""
            self._answered(self, data)
        else:
            self._parts = data


def _is_whole(answer: bytes) -> bool:
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    lowered = answer[:head].lower()
    at = lowered.find(b"content-length:")
    if at < 0:
        return answer.endswith(b"0\r\n\r\n")  # chunked
    end = lowered.find(b"\r", at)
    return len(answer) - head - 4 >= int(lowered[at + 15 : end if end > 0 else None])


def _checked(answer: bytes) -> bytes:
    if not answer.startswith(b"HTTP/1.1 200") or b'"errors"' in answer:
        raise RequestFailed(answer[:2000].decode(errors="replace"))
    return answer


async def connect(port: int, answered: Callable[[Connection, bytes], None]) -> Connection:
    """A connection to this machine."""
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(answered), "127.0.0.1", port)
    return connection


async def ask(
    port: int, query: str, variables: dict[str, Any] | None = None, within: float = 60.0, *, token: str | None = None
) -> Any:
    """The data of one operation.

    :raises RequestFailed: if the answer has errors.
    """
    async with Asker(port) as asker:
        return await asker.ask(query, variables, within, token=token)


class Asker:
    """One connection for operations whose answers matter."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._answer: asyncio.Future[bytes] | None = None
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    async def any_status(self, request: bytes, within: float = 60.0) -> bytes:
        """The whole answer to a request, whatever it says."""
        if self._connection is None or self._connection.closed:
            # Servers close a connection that has been quiet for some seconds.
            self._connection = await connect(self._port, self._take)
            self._connection.lost = self._lost
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(request)
        async with asyncio.timeout(within):
            return await self._answer

    async def ask(
        self, query: str, variables: dict[str, Any] | None = None, within: float = 60.0, *, token: str | None = None
    ) -> Any:
        """The data of an operation.

        :raises RequestFailed: if the answer has errors.
        """
        answer = _checked(await self.any_status(graphql_request(self._port, query, variables, token=token), within))
        start, end = answer.index(b"{", answer.index(b"\r\n\r\n")), answer.rindex(b"}") + 1
        return json.loads(answer[start:end])["data"]

    def _take(self, _: Connection, answer: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _lost(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RequestFailed("the connection was closed"))


class Repeater:
    """Kept connections over which one request is repeated a given number of times, as fast as it is answered."""

    def __init__(self, port: int, request: bytes, connections: int) -> None:
        self._port = port
        self._request = request
        self._number = connections
        self._connections: list[Connection] = []
        self._unsent = self._unanswered = 0
        self._used = 0.0
        self._ended: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    async def ready(self) -> None:
        """Have all connections open, each having answered once: the server closes those that have been quiet."""
        clock = asyncio.get_running_loop().time
        if self._connections and clock() - self._used < _QUIET and not any(one.closed for one in self._connections):
            return
        for connection in self._connections:
            connection.close()
        self._connections = [await connect(self._port, self._take) for _ in range(self._number)]
        for connection in self._connections:
            connection.lost = self._lost
        await self.repeat(self._number)

    async def repeat(self, times: int) -> None:
        """Send the request so many times over all connections together, and wait for the last answer.

        :raises RequestFailed: if an answer is no success, or a connection is lost.
        """
        self._unsent = self._unanswered = times
        self._ended = asyncio.get_running_loop().create_future()
        for connection in self._connections[:times]:
            self._send(connection)
        await self._ended
        self._used = asyncio.get_running_loop().time()

    def _send(self, connection: Connection) -> None:
        if self._unsent:
            self._unsent -= 1
            connection.send(self._request)

    def _take(self, connection: Connection, answer: bytes) -> None:
        if self._ended is None or self._ended.done():
            return
        try:
            _checked(answer)
        except RequestFailed as failure:
            self._ended.set_exception(failure)
            return
        self._unanswered -= 1
        self._send(connection)
        if not self._unanswered:
            self._ended.set_result(None)

    def _lost(self) -> None:
        if self._unanswered and self._ended is not None and not self._ended.done():
            self._ended.set_exception(RequestFailed("a connection was lost"))


@dataclass
class Tally:
    """Successes so far; ``failed`` counts the other answers, and ``wrong`` is one of them."""

    answers: int = 0
    failed: int = 0
    wrong: bytes = b""


@asynccontextmanager
async def hammering(port: int, request: bytes, connections: int) -> AsyncIterator[Tally]:
    """One request repeated on so many connections, each waiting for its answer, until the block ends.

    A server that is starved by others answers that it is: such answers are not counted, and said.

    :raises RequestFailed: at the end, if not most of the answers were successes or a connection was lost.
    """
    tally, going = Tally(), True

    def answered(connection: Connection, answer: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 200") or b'"errors"' in answer:
            tally.wrong = answer
            tally.failed += 1
        else:
            tally.answers += 1
        if going:
            connection.send(request)

    def lost() -> None:
        if going:
            tally.wrong, tally.failed = b"a connection was lost", 1 << 30

    opened = [await connect(port, answered) for _ in range(connections)]
    for connection in opened:
        connection.lost = lost
        connection.send(request)
    try:
        yield tally
        wrong = tally.wrong[-1000:].decode(errors="replace")
        if tally.failed >= tally.answers:
            raise RequestFailed(wrong or "no answer")
        if tally.failed:
            print(f"{tally.failed} answers were no successes: {wrong}", file=sys.stderr, flush=True)
    finally:
        going = False
        # What is under way is answered first: a request cut off midway would be logged as a fault.
        await asyncio.sleep(0.2)
        for connection in opened:
            connection.close()


def _nothing() -> None:
    """Nobody minds."""
