"""uvicorn's WebSockets, kept small while they wait, and ended with codes that clients come back after."""

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.web.graphql_request import refusal

# uvicorn's HTTP, made to end what a client leaves unfinished: uvicorn itself would wait without end.

CUT = "gql_jobs.cut"
"""An extension of the HTTP scope: ``now`` ends the connection behind what has been sent, the response unfinished."""
HEAD_BYTES = 1 << 16
"""What the request line and the headers may have together."""


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, and seconds: for which a client may take nothing of a response (``write_timeout``), and
    in which it has to send the head of a request (``request_timeout``).
    """

    def __init__(self, app: FastAPI, *, write_timeout: float, request_timeout: float, **options: Any) -> None:
        super().__init__(app, **options)
        self.write_timeout = write_timeout
        self.request_timeout = request_timeout


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, with an end for a client that does not read, or does not say what it wants: both would be waited
    for without end.
    """

    config: ServerConfig
    _unread: asyncio.TimerHandle | None = None
    _unasked: asyncio.TimerHandle | None = None
    """While a head is waited for."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; it has to ask for something soon."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head never ends. It is counted from its second part on: a part is bounded anyway."""
        awaited = self._unasked
        super().data_received(data)
        if awaited is None or awaited is not self._unasked or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The head of a request may have {HEAD_BYTES} bytes; send long documents by POST.")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(400, msg)

    def on_message_begin(self) -> None:
        """A request begins: its head has to come soon."""
        super().on_message_begin()
        self.scope["extensions"] = {CUT: {"now": self.transport.close}}
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        _cancel(self._unasked)
        self._unasked = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The buffer is full; the connection is cut if it is not emptied in time."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.config.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        _cancel(self._unread)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was cut off."""
        _cancel(self._unread)
        _cancel(self._unasked)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        _cancel(self._unasked)
        self._head_bytes = 0
        self._unasked = self.loop.call_later(self.config.request_timeout, self.transport.abort)

    def _refuse(self, status: int, message: str) -> None:
        response = refusal(status, message, DocumentError.BAD_REQUEST.value, headers={"Connection": "close"})
        lines = (b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", response.body]))
        self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


# The messages that a socket has for the application, in less memory than a queue takes.


class Inbox:
    """The messages of one socket for its one reader; an ``asyncio.Queue``, made for any number of both, takes 3 KiB."""

    __slots__ = ("_messages", "_put")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._put: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        """Called by the protocol."""
        self._messages.append(message)
        if self._put is not None and not self._put.done():
            self._put.set_result(None)

    def empty(self) -> bool:
        """Whether none waits."""
        return not self._messages

    async def get(self) -> Any:
        """The next message."""
        while not self._messages:
            self._put = asyncio.get_running_loop().create_future()
            await self._put
        # Reading pauses while one waits, so that there are never many.
        return self._messages.pop(0)


_WRITABLE = asyncio.Event()
"""What all sockets share while nobody has to wait: each event of its own would cost 0.8 KiB."""
_WRITABLE.set()


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSockets, with another end for a client that does not answer pings: it is gone, or does not read.

    An open socket is kept small, because most of them wait: it forgets its handshake, and has no room for more
    waiters than the one there is.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.queue = Inbox()  # type: ignore[assignment]
        self.writable = _WRITABLE

    def pause_writing(self) -> None:
        """The buffer is full: whoever writes waits."""
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self.writable = _WRITABLE

    def data_received(self, data: bytes) -> None:
        """Read on. A handshake with too many or too long headers is answered; uvicorn leaves it without a word."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def start_keepalive(self) -> None:
        """The handshake is over: its headers, cookies among them, are needed no more."""
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
