"""uvicorn's protocols with an end: for what a client leaves unfinished, and for a socket whose client is gone.

uvicorn itself would wait without end for a request that does not come and for a client that does not read. WebSockets
are kept small besides, because most of them wait.
"""

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.web.graphql_request import error_response

CLOSE_EXTENSION = "gql_jobs.close"
"""An extension of the HTTP scope: its ``close`` closes the connection behind what has been sent, so that the response
stays unfinished."""
HEAD_BYTES = 1 << 16
"""What the request line and the headers may have together."""


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, with the timeouts of ``TimedHttpProtocol``.

    :param write_timeout: seconds for which a client may take nothing of a response.
    :param request_timeout: seconds in which it has to send the head of a request.
    :param options: uvicorn's own.
    """

    def __init__(self, app: FastAPI, *, write_timeout: float, request_timeout: float, **options: Any) -> None:
        super().__init__(app, **options)
        self.write_timeout = write_timeout
        self.request_timeout = request_timeout


class TimedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, which cuts off a client that does not read its response, or does not send a whole head."""

    config: ServerConfig
    _write_timer: asyncio.TimerHandle | None = None
    """While the client has to read."""
    _head_timer: asyncio.TimerHandle | None = None
    """While the head of a request has to come."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head never ends. It is counted from its second part on: a part is bounded anyway."""
        awaited = self._head_timer
        super().data_received(data)
        if awaited is None or awaited is not self._head_timer or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._reject(431, f"The head of a request may have {HEAD_BYTES} bytes; send long documents by POST.")

    def send_400_response(self, msg: str) -> None:
        """Reject what is no HTTP."""
        self._reject(400, msg)

    def on_message_begin(self) -> None:
        """Begin to wait for the head of the request that begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CLOSE_EXTENSION: {"close": self.transport.close}}
        self._await_head()

    def on_headers_complete(self) -> None:
        """Answer the request, whose head is there."""
        _cancel(self._head_timer)
        self._head_timer = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Cut off the client if it does not empty the full buffer in time."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.config.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        _cancel(self._write_timer)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client, which has gone or was cut off."""
        _cancel(self._write_timer)
        _cancel(self._head_timer)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        _cancel(self._head_timer)
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.config.request_timeout, self.transport.abort)

    def _reject(self, status: int, message: str) -> None:
        response = error_response(status, message, DocumentError.BAD_REQUEST.value, headers={"Connection": "close"})
        lines = (b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", response.body]))
        self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


_WRITABLE = asyncio.Event()
"""What all sockets share while nobody has to wait, because each event of its own would cost memory."""
_WRITABLE.set()


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSockets, with another end for a client that does not answer pings: it is gone, or does not read.

    An open socket forgets its handshake, and has no room for more waiters than the one there is.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.queue = _Inbox()  # type: ignore[assignment]  # has the methods of a queue that uvicorn calls
        self.writable = _WRITABLE

    def pause_writing(self) -> None:
        """Have whoever writes wait: the buffer is full."""
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self.writable = _WRITABLE

    def data_received(self, data: bytes) -> None:
        """Read on. A handshake with too many or too long headers is answered; uvicorn leaves it without a word."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def start_keepalive(self) -> None:
        """Forget the handshake, which is over: its headers, cookies among them, are needed no more."""
        # The parser keeps the request, too.
        self.request.headers.clear()
        del self.request, self.response
        self.scope["headers"] = []
        super().start_keepalive()

    def keepalive_timeout(self) -> None:
        """Close the socket with a code that clients come back after; uvicorn's own, 1011, is fatal for them."""
        if not (self.close_sent or self.transport.is_closing()):
            self.conn.fail(CloseCode.GOING_AWAY, "keepalive ping timeout")
            # What a client does not read is never flushed, and a close waits for that.
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        super().keepalive_timeout()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on. What is no text is the client's fault: it gets the code for that, the log no traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError as error:
                self.conn.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


class _Inbox:
    """The messages of one socket for its one reader; an ``asyncio.Queue`` is made for any number of both, and large."""

    __slots__ = ("_messages", "_put")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._put: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._put is not None and not self._put.done():
            self._put.set_result(None)

    def empty(self) -> bool:
        return not self._messages

    async def get(self) -> Any:
        while not self._messages:
            self._put = asyncio.get_running_loop().create_future()
            await self._put
        # Reading pauses while one waits, so that there are never many.
        return self._messages.pop(0)
