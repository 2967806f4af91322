"""uvicorn's protocols with timeouts for clients that do not send or do not read, and with less memory per socket.

uvicorn itself would wait without end for a request that does not come and for a client that does not read. The memory
of a WebSocket matters because most of them are idle most of the time (docs/decisions.md).
"""

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.web.graphql_request import error_response

CLOSE_EXTENSION = "gql_jobs.close"
"""An extension of the HTTP scope: its ``close`` closes the connection once everything sent is written, so that the
response stays unfinished."""
HEAD_BYTES = 1 << 16
"""Bytes that the request line and the headers may have together."""


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, with the timeouts of ``TimedHttpProtocol``.

    :param write_timeout: seconds that a client may leave a full write buffer unread.
    :param request_timeout: seconds that a client has to send the head of a request.
    :param options: of uvicorn's configuration.
    """

    def __init__(self, app: ASGIApp, *, write_timeout: float, request_timeout: float, **options: Any) -> None:
        super().__init__(app, **options)
        self.write_timeout = write_timeout
        self.request_timeout = request_timeout


class TimedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which disconnects a client that does not read its response or send a whole head."""

    config: ServerConfig
    _write_timer: asyncio.TimerHandle | None = None
    """Runs while the write buffer is full."""
    _head_timer: asyncio.TimerHandle | None = None
    """Runs while the head of a request is awaited."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first request's head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Parse the data; reject a head that is too long. Its first chunk is not counted, for it is never long."""
        awaited = self._head_timer
        super().data_received(data)
        if awaited is None or awaited is not self._head_timer or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._reject(431, f"The head of a request may have {HEAD_BYTES} bytes; send long documents by POST.")

    def send_400_response(self, msg: str) -> None:
        """Reject a request that is no HTTP."""
        self._reject(400, msg)

    def on_message_begin(self) -> None:
        """Start the timeout of the head of the request that begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CLOSE_EXTENSION: {"close": self.transport.close}}
        self._await_head()

    def on_headers_complete(self) -> None:
        """Stop the timeout of the head, and have the request answered."""
        _cancel(self._head_timer)
        self._head_timer = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Stop writing, and disconnect the client if it does not read in time."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.config.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        _cancel(self._write_timer)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeouts of a connection that has ended."""
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
"""The event of all sockets that can be written to; an event for each would cost memory."""
_WRITABLE.set()


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with other closes for faulty clients and less memory for an open socket.

    An open socket drops its handshake, and its message queue has room for one waiting reader only.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.queue = _MessageQueue()  # type: ignore[assignment]  # has the methods of a queue that uvicorn calls
        self.writable = _WRITABLE

    def pause_writing(self) -> None:
        """Have senders wait, because the write buffer is full."""
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self.writable = _WRITABLE

    def data_received(self, data: bytes) -> None:
        """Parse the data; answer a handshake with too many or too long headers, which uvicorn leaves unanswered."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def start_keepalive(self) -> None:
        """Drop the headers of the handshake, cookies among them, and start the pings."""
        # The parser keeps the request too, so its headers are cleared.
        self.request.headers.clear()
        del self.request, self.response
        self.scope["headers"] = []
        super().start_keepalive()

    def keepalive_timeout(self) -> None:
        """Close the socket with a code after which clients reconnect; uvicorn's own, 1011, is fatal for them."""
        if not (self.close_sent or self.transport.is_closing()):
            self.conn.fail(CloseCode.GOING_AWAY, "keepalive ping timeout")
            # A close waits for the write buffer to be flushed, which a client that does not read prevents.
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        super().keepalive_timeout()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on; close the socket with the code 1007, without a traceback, if its text is no UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError as error:
                self.conn.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


class _MessageQueue:
    """The received messages of one socket, for one reader; an ``asyncio.Queue`` would take more memory."""

    __slots__ = ("_messages", "_waiter")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def empty(self) -> bool:
        return not self._messages

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        # uvicorn stops reading while a message waits, so that the list is never long.
        return self._messages.pop(0)
