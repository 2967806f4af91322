"""Results over HTTP as they happen: one response that is a stream, in one of two formats.

``EVENT_STREAM_FORMAT`` is Server-sent events: the protocol graphql-sse in its distinct connections mode, which an
``EventSource`` reads too. ``MULTIPART_FORMAT`` is multipart subscriptions as Apollo's clients read them
(``multipart/mixed;subscriptionSpec=1.0``).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any

from msgspec import Struct
from msgspec.json import encode
from starlette.types import Receive, Scope, Send

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.graphql.engine.operations import Result
from gql_jobs.web.connections import Connections
from gql_jobs.web.uvicorn_protocols import CLOSE_EXTENSION

_HEADERS = [
    (b"cache-control", b"no-cache, no-transform"),
    # nginx would collect events until its buffer is full.
    (b"x-accel-buffering", b"no"),
    (b"vary", b"Accept"),
]
"""Sent with either format."""
_RESUMED_WITHIN = 0.5
"""Seconds in which a stream that is over is expected to say so; the headers of a resumed one wait for that."""
_STOPPING = "The server is stopping; subscribe again."
_RETRY = (1000, 5000)
"""Milliseconds. Each client gets a delay of its own, so that those of a lost server do not come back as one."""
_PART = b"\r\nContent-Type: application/json\r\n\r\n%b\r\n--graphql"
"""A part is complete for a client when the next boundary has come, so each boundary is sent with the part before it."""
_CLOSING_BOUNDARY = b"--\r\n"


class StreamFormat(Struct, frozen=True):
    """How results are written into one response."""

    headers: list[tuple[bytes, bytes]]
    opening: Callable[[], bytes]
    """What comes first."""
    result: Callable[[Result], bytes]
    heartbeat: bytes
    """What is sent while there are no results; clients ignore it."""
    heartbeat_interval: float
    """Seconds without a result until a heartbeat is sent."""
    end: bytes
    """What is sent last where the operation has completed."""
    interruption: Callable[[], bytes]
    """What is sent last where the operation goes on elsewhere: anything but its completion."""
    leaves_unfinished: bool
    """Whether the response is left unfinished behind that, which no client takes for the end of its subscription."""


def _retry() -> bytes:
    return b"retry: %d\n\n" % random.randint(*_RETRY)  # noqa: S311


def _event(result: Result) -> bytes:
    # Lines end in LF alone: urql does not look for anything else.
    identity = b"" if result.cursor is None else b"id: %b\n" % result.cursor.encode()
    return b"event: next\n%bdata: %b\n\n" % (identity, result.payload)


def _part(result: Result) -> bytes:
    return _PART % (b'{"payload":%b}' % result.payload)


def _error_part() -> bytes:
    # An end that is not the completion: clients get an error and may subscribe again.
    errors = [{"message": _STOPPING, "extensions": {"code": DocumentError.SERVER_STOPPING}}]
    return _PART % encode({"payload": None, "errors": errors}) + _CLOSING_BOUNDARY


EVENT_STREAM_FORMAT = StreamFormat(
    headers=[(b"content-type", b"text/event-stream; charset=utf-8")],
    opening=_retry,
    result=_event,
    heartbeat=b":\n\n",
    # Proxies commonly close what is silent for half a minute or more.
    heartbeat_interval=12.0,
    # ``data`` is there, though empty: without it an ``EventSource`` would not call its listener.
    end=b"event: complete\ndata:\n\n",
    interruption=_retry,
    # urql takes the end of a response for the end of its subscription; a lost connection is an error for it.
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
    interruption=_error_part,
    leaves_unfinished=False,
)


class StreamedResponse:
    """An ASGI response. The status and the headers go out at once, not with the first result.

    :param results: of the operation; closed when the response ends.
    :param connections: where the response is registered, to be ended when it is old or the process stops.
    :param resumed: whether the client has come back to a stream. Where that is over it is answered 204, which tells an
        ``EventSource`` not to come back once more.
    :param finished: whether the operation is run to its end where the client goes away.
    """

    def __init__(
        self,
        results: AsyncGenerator[Result, None],
        stream_format: StreamFormat,
        connections: Connections,
        *,
        resumed: bool = False,
        finished: bool = False,
    ) -> None:
        self._results = results
        self._format = stream_format
        self._connections = connections
        self._resumed = resumed
        self._finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send results until there are no more, the client disconnects, or the connection has to be closed."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def close(_reason: str) -> None:
            if not closed.done():
                closed.set_result(None)

        with self._connections.registered(close):
            disconnected = asyncio.create_task(_disconnect(receive))
            try:
                await self._send_stream(scope, send, disconnected, closed)
            finally:
                disconnected.cancel()

    async def _send_stream(
        self, scope: Scope, send: Send, disconnected: "asyncio.Task[None]", closed: "asyncio.Future[None]"
    ) -> None:
        results = _TimedResults(self._results, disconnected, closed)
        written = self._format
        try:
            first = await results.next(_RESUMED_WITHIN) if self._resumed else None
            if results.exhausted:
                await send({"type": "http.response.start", "status": 204, "headers": _HEADERS})
                await send({"type": "http.response.body"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": written.headers + _HEADERS})
            chunk = written.opening() + (written.result(first) if first is not None else b"")
            while not (results.exhausted or closed.done()):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                result = await results.next(written.heartbeat_interval)
                if disconnected.done():
                    return
                silence = b"" if closed.done() else written.heartbeat
                chunk = silence if result is None else written.result(result)
            last = written.end if results.exhausted else chunk + written.interruption()
            close_connection = _close_of(scope) if written.leaves_unfinished and not results.exhausted else None
            await send({"type": "http.response.body", "body": last, "more_body": close_connection is not None})
            if close_connection is not None:
                close_connection()
                await disconnected
        finally:
            await results.close(finished=self._finished)


class _TimedResults:
    """Results, each waited for in a time of its own, and no longer than until one of some futures is done."""

    def __init__(self, results: AsyncGenerator[Result, None], *endings: "asyncio.Future[None]") -> None:
        self._results = results
        self._endings = endings
        self._step: asyncio.Task[Result | None] | None = None
        self.exhausted = False
        """Whether the last result has been taken."""

    async def next(self, within: float) -> Result | None:
        """Return the next result; None if there are no more, none came in ``within`` seconds, or a future is done."""
        if self._step is None:
            self._step = asyncio.create_task(self._take())
        awaited: list[asyncio.Future[Any]] = [self._step, *self._endings]
        await asyncio.wait(awaited, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not self._step.done():
            return None
        result, self._step = self._step.result(), None
        self.exhausted = result is None
        return result

    async def close(self, *, finished: bool) -> None:
        """End the operation; where a result is being waited for, at once or ``finished``."""
        if self._step is not None:
            if not finished:
                self._step.cancel()
            await asyncio.wait({self._step})
        await self._results.aclose()

    async def _take(self) -> Result | None:
        return await anext(self._results, None)


def _close_of(scope: Scope) -> Callable[[], None] | None:
    """Return what closes the connection; other servers than ours have nothing of the kind, and finish the response."""
    close: Callable[[], None] | None = scope.get("extensions", {}).get(CLOSE_EXTENSION, {}).get("close")
    return close


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
