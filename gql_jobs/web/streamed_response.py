"""Results over HTTP as they happen: the sending, whatever the format."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from msgspec import Struct
from starlette.types import Receive, Scope, Send

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.graphql.engine.operations import Result
from gql_jobs.web import event_stream, multipart
from gql_jobs.web.connections import Closing
from gql_jobs.web.uvicorn_protocols import CUT

_ALWAYS = [
    (b"cache-control", b"no-cache, no-transform"),
    # nginx would collect events until its buffer is full.
    (b"x-accel-buffering", b"no"),
    (b"vary", b"Accept"),
]
_RESUMED_WITHIN = 0.5
"""Seconds in which a stream that is over is expected to say so; the headers of a resumed one wait for that."""
_STOPPING = "The server is stopping; subscribe again."


class StreamFormat(Struct, frozen=True):
    """How results are written into one response."""

    headers: list[tuple[bytes, bytes]]
    opening: Callable[[], bytes]
    result: Callable[[Result], bytes]
    heartbeat: bytes
    heartbeat_interval: float
    end: bytes
    interrupted: Callable[[], bytes]
    """What is sent last where the operation goes on elsewhere: anything but its completion."""
    broken_off: bool
    """Whether the response is left unfinished behind that, which no client takes for the end of its subscription."""


AS_EVENTS = StreamFormat(
    headers=event_stream.HEADERS,
    opening=event_stream.opening,
    result=lambda result: event_stream.event(result.payload, result.cursor),
    heartbeat=event_stream.HEARTBEAT,
    heartbeat_interval=event_stream.HEARTBEAT_INTERVAL,
    end=event_stream.END,
    interrupted=event_stream.opening,
    # urql takes the end of a response for the end of its subscription; a lost connection is an error for it.
    broken_off=True,
)
AS_PARTS = StreamFormat(
    headers=multipart.HEADERS,
    opening=lambda: multipart.OPENING,
    result=lambda result: multipart.part(result.payload),
    heartbeat=multipart.HEARTBEAT,
    heartbeat_interval=multipart.HEARTBEAT_INTERVAL,
    end=multipart.END,
    interrupted=lambda: multipart.failure(_STOPPING, DocumentError.SERVER_STOPPING),
    broken_off=False,
)


class StreamedResponse:
    """An ASGI response. The status and the headers go out at once, not with the first result.

    :param resumed: whether the client has come back to a stream. Where that is over it is answered 204, which tells an
        ``EventSource`` not to come back once more.
    :param finished: whether the operation is let run to its end where the client goes away.
    """

    def __init__(
        self,
        results: AsyncGenerator[Result, None],
        stream_format: StreamFormat,
        closing: Closing,
        *,
        resumed: bool = False,
        finished: bool = False,
    ) -> None:
        self._results = results
        self._format = stream_format
        self._closing = closing
        self._resumed = resumed
        self._finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send results until there are no more, the client goes away, or the process stops."""
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def leave(_reason: str) -> None:
            if not left.done():
                left.set_result(None)

        with self._closing.told(leave):
            gone = asyncio.create_task(_gone(receive))
            try:
                await self._send_stream(send, gone, left, _cut(scope) if self._format.broken_off else None)
            finally:
                gone.cancel()

    async def _send_stream(
        self, send: Send, gone: "asyncio.Task[None]", left: "asyncio.Future[None]", cut: Callable[[], None] | None
    ) -> None:
        pace = _Pace(self._results, gone, left)
        written = self._format
        try:
            first = await pace.next(_RESUMED_WITHIN) if self._resumed else None
            if pace.over:
                await send({"type": "http.response.start", "status": 204, "headers": _ALWAYS})
                await send({"type": "http.response.body"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": written.headers + _ALWAYS})
            chunk = written.opening() + (written.result(first) if first is not None else b"")
            while not (pace.over or left.done()):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                result = await pace.next(written.heartbeat_interval)
                if gone.done():
                    return
                silence = b"" if left.done() else written.heartbeat
                chunk = silence if result is None else written.result(result)
            last = written.end if pace.over else chunk + written.interrupted()
            break_off = None if pace.over else cut
            await send({"type": "http.response.body", "body": last, "more_body": break_off is not None})
            if break_off is not None:
                break_off()
                await gone
        finally:
            await pace.close(finished=self._finished)


class _Pace:
    """Results as they come, in a wait that ends early with whichever of some futures."""

    def __init__(self, results: AsyncGenerator[Result, None], *endings: "asyncio.Future[None]") -> None:
        self._results = results
        self._endings = endings
        self._step: asyncio.Task[Result | None] | None = None
        self.over = False
        """Whether the last result has been taken."""

    async def next(self, within: float) -> Result | None:
        """The next result; None if there are no more, none came within so many seconds, or a future is done."""
        if self._step is None:
            self._step = asyncio.create_task(self._taken())
        awaited: list[asyncio.Future[Any]] = [self._step, *self._endings]
        await asyncio.wait(awaited, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not self._step.done():
            return None
        result, self._step = self._step.result(), None
        self.over = result is None
        return result

    async def close(self, *, finished: bool) -> None:
        """End the operation; where a result is being waited for, at once or ``finished``."""
        if self._step is not None:
            if not finished:
                self._step.cancel()
            await asyncio.wait({self._step})
        await self._results.aclose()

    async def _taken(self) -> Result | None:
        return await anext(self._results, None)


def _cut(scope: Scope) -> Callable[[], None] | None:
    """What ends the connection; other servers than ours have nothing of the kind, and finish the response."""
    now: Callable[[], None] | None = scope.get("extensions", {}).get(CUT, {}).get("now")
    return now


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
