"""Streams of results in one HTTP response, in one of two formats.

``EVENT_STREAM_FORMAT`` is Server-sent events: the protocol graphql-sse in its distinct connections mode, which an
``EventSource`` reads too. ``MULTIPART_FORMAT`` is multipart subscriptions as Apollo's clients read them
(``multipart/mixed;subscriptionSpec=1.0``).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.json import encode
from starlette.types import Receive, Scope, Send

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.graphql.engine.operations import Result
from gql_jobs.jobs.errors import Unauthenticated
from gql_jobs.web.connections import CONNECTION_EXTENSION, Connections
from gql_jobs.web.turns import LARGE_RESULT

_HEADERS = [
    (b"cache-control", b"no-cache, no-store, no-transform"),
    # nginx would buffer events otherwise.
    (b"x-accel-buffering", b"no"),
    (b"vary", b"Accept"),
]
"""Headers of both formats."""
_RESUMED_WITHIN = 0.5
"""Seconds that the headers of a resumed stream wait, because it is answered 204 if it has ended."""
_STOPPING = "The server is stopping; subscribe again."
_RETRY = (1000, 5000)
"""Milliseconds until a client reconnects, chosen at random, so that all clients of a lost server do not at once."""
_PART = b"\r\nContent-Type: application/json\r\n\r\n%b\r\n--graphql"
"""A part is complete for a client once it has the next boundary, so each boundary is sent with the part before it."""
_CLOSING_BOUNDARY = b"--\r\n"


class StreamFormat(Struct, frozen=True):
    """How results are written into one response, as bytes of its body."""

    headers: list[tuple[bytes, bytes]]
    opening: Callable[[], bytes]
    """Returns the beginning."""
    result: Callable[[Result], bytes]
    """Returns one result."""
    heartbeat: bytes
    """What is sent while there are no results, and ignored by clients."""
    heartbeat_interval: float
    """Seconds without a result until a heartbeat is sent."""
    end: bytes
    """The end, if the operation has completed."""
    interruption: Callable[[], bytes]
    """Returns the end if the operation has not completed: the client is to subscribe again."""
    refusal: Callable[[], bytes]
    """Returns the end if the credential of whoever asked has ended: the client is to subscribe again with another."""
    leaves_unfinished: bool
    """Whether the connection is closed after an interruption with the response unfinished, which clients treat as an
    error."""


def _retry() -> bytes:
    return b"retry: %d\n\n" % random.randint(*_RETRY)  # noqa: S311


def _event(result: Result) -> bytes:
    # Lines end in LF alone: urql accepts nothing else.
    identity = b"" if result.cursor is None else b"id: %b\n" % result.cursor.encode()
    return b"event: next\n%bdata: %b\n\n" % (identity, result.payload)


def _part(result: Result) -> bytes:
    return _PART % (b'{"payload":%b}' % result.payload)


def _error_part(error: dict[str, Any]) -> bytes:
    # An error, because without one clients would take this for the completion.
    errors = [error]
    return _PART % encode({"payload": None, "errors": errors}) + _CLOSING_BOUNDARY


_STOPS = {"message": _STOPPING, "extensions": {"code": DocumentError.SERVER_STOPPING}}
_END = b"event: complete\ndata:\n\n"
"""Without ``data``, even if it is empty, an ``EventSource`` would not call its listener."""


def _ended_credential() -> dict[str, Any]:
    error = Unauthenticated("The key or token has ended; subscribe again with another one.")
    return {"message": error.message, "extensions": error.extensions}


EVENT_STREAM_FORMAT = StreamFormat(
    headers=[(b"content-type", b"text/event-stream; charset=utf-8")],
    opening=_retry,
    result=_event,
    heartbeat=b":\n\n",
    # Proxies commonly close connections that are idle for half a minute or more.
    heartbeat_interval=12.0,
    end=_END,
    interruption=_retry,
    # Without an id, so that the last event's stays the one to go on behind.
    refusal=lambda: b"event: next\ndata: %b\n\n%b" % (encode({"errors": [_ended_credential()]}), _END),
    # urql takes the end of a response for the completion, but a lost connection for an error.
    leaves_unfinished=True,
)
MULTIPART_FORMAT = StreamFormat(
    headers=[(b"content-type", b'multipart/mixed;boundary="graphql";subscriptionSpec=1.0')],
    opening=lambda: b"\r\n--graphql",
    result=_part,
    heartbeat=_PART % b"{}",
    # As Apollo's own servers have it.
    heartbeat_interval=5.0,
    end=_CLOSING_BOUNDARY,
    interruption=partial(_error_part, _STOPS),
    refusal=lambda: _error_part(_ended_credential()),
    leaves_unfinished=False,
)


class StreamedResponse:
    """An ASGI response. The status and the headers are sent at once, unless the stream is resumed.

    :param results: of the operation; closed when the response ends.
    :param connections: where the response is registered, to be ended when it is old or the process stops.
    :param resumed: whether the client reconnects to a stream. If that has ended the answer is 204, after which an
        ``EventSource`` does not reconnect again.
    :param finished: whether the operation runs to its end even if the client disconnects.
    :param until_ended: has a function called when the credential of whoever asked has ended, and with it the stream.
    :param unsent: counts so many bytes until the block ends, in which the client has not read them.
    """

    def __init__(
        self,
        results: AsyncGenerator[Result, None],
        stream_format: StreamFormat,
        connections: Connections,
        *,
        resumed: bool = False,
        finished: bool = False,
        until_ended: Callable[[Callable[[], None]], AbstractContextManager[None]] = lambda _end: nullcontext(),
        unsent: Callable[[int], AbstractContextManager[None]] = lambda _size: nullcontext(),
    ) -> None:
        self._results = results
        self._format = stream_format
        self._connections = connections
        self._resumed = resumed
        self._finished = finished
        self._until_ended = until_ended
        self._unsent = unsent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send results until there are no more, the client disconnects, or the connection has to be closed."""
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        ended: asyncio.Future[None] = loop.create_future()
        with self._connections.registered(lambda _reason: _settle(closed)), self._until_ended(partial(_settle, ended)):
            disconnected = asyncio.create_task(_disconnect(receive))
            try:
                await self._send_stream(scope, send, disconnected, closed, ended)
            finally:
                disconnected.cancel()

    async def _send_stream(
        self,
        scope: Scope,
        send: Send,
        disconnected: "asyncio.Task[None]",
        closed: "asyncio.Future[None]",
        ended: "asyncio.Future[None]",
    ) -> None:
        results = _TimedResults(self._results, disconnected, closed, ended)
        written = self._format
        try:
            first = await results.next(_RESUMED_WITHIN) if self._resumed else None
            if results.exhausted():
                await send({"type": "http.response.start", "status": 204, "headers": _HEADERS})
                await send({"type": "http.response.body"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": written.headers + _HEADERS})
            chunk = written.opening() + (written.result(first) if first is not None else b"")
            unsent = chunk
            while not (results.exhausted() or closed.done() or ended.done()):
                await self._send_chunk(chunk, send)
                chunk = unsent = b""
                result = await results.next(written.heartbeat_interval)
                if disconnected.done():
                    return
                idle = b"" if closed.done() else written.heartbeat
                chunk = idle if result is None else written.result(result)
            if results.exhausted():
                await send({"type": "http.response.body", "body": written.end})
            elif ended.done():
                # A result that was made meanwhile is not sent any more.
                await send({"type": "http.response.body", "body": unsent + written.refusal()})
            elif await _interrupt(scope, send, written, chunk):
                await disconnected
        finally:
            await results.close(finished=self._finished)

    async def _send_chunk(self, chunk: bytes, send: Send) -> None:
        """Send a chunk; of a large one wait until the client has read most of it, so that it counts for as long."""
        if len(chunk) < LARGE_RESULT:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            return
        with self._unsent(len(chunk)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            del chunk
            # The server takes nothing more before the client has read.
            await send({"type": "http.response.body", "body": b"", "more_body": True})


class InterruptedResponse:
    """An ASGI response that is interrupted before its first result: the client is to come again, a little later."""

    def __init__(self, stream_format: StreamFormat) -> None:
        self._format = stream_format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers and the interruption."""
        await send({"type": "http.response.start", "status": 200, "headers": self._format.headers + _HEADERS})
        if await _interrupt(scope, send, self._format):
            await _disconnect(receive)


async def _interrupt(scope: Scope, send: Send, written: StreamFormat, chunk: bytes = b"") -> bool:
    """End a response that has begun with a last chunk and the word that the client is to subscribe again.

    Return whether the connection is being closed, so that its end is to be awaited.
    """
    close_connection = _close_of(scope) if written.leaves_unfinished else None
    body = chunk + written.interruption()
    await send({"type": "http.response.body", "body": body, "more_body": close_connection is not None})
    if close_connection is None:
        return False
    close_connection()
    return True


class _TimedResults:
    """Results that are awaited with a timeout each, and only until one of the ``endings`` is done."""

    def __init__(self, results: AsyncGenerator[Result, None], *endings: "asyncio.Future[None]") -> None:
        self._results = results
        self._endings = endings
        self._step: asyncio.Task[Result | None] | None = None
        self._exhausted = False

    def exhausted(self) -> bool:
        """Return whether the last result has been taken."""
        return self._exhausted

    async def next(self, within: float) -> Result | None:
        """Return the next result; None if there are no more, none came in ``within`` seconds, or a future is done."""
        if self._step is None:
            self._step = asyncio.create_task(self._take())
        awaited: list[asyncio.Future[Any]] = [self._step, *self._endings]
        await asyncio.wait(awaited, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not self._step.done():
            return None
        result, self._step = self._step.result(), None
        self._exhausted = result is None
        return result

    async def close(self, *, finished: bool) -> None:
        """End the operation.

        :param finished: await the result that is being computed instead of cancelling it.
        """
        if self._step is not None:
            if not finished:
                self._step.cancel()
            await asyncio.wait({self._step})
        await self._results.aclose()

    async def _take(self) -> Result | None:
        return await anext(self._results, None)


def _close_of(scope: Scope) -> Callable[[], None] | None:
    """Return what closes the connection; None under a server that does not have our extension."""
    close: Callable[[], None] | None = scope.get("extensions", {}).get(CONNECTION_EXTENSION, {}).get("close")
    return close


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
