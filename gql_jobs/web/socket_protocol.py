"""uvicorn's WebSockets, kept small while they wait, and ended with codes that clients come back after."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from gql_jobs.web.inbox import Inbox

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
