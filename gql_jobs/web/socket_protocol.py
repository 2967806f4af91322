"""uvicorn's WebSocket protocol with bounds on what one client costs, and with less memory for each socket.

uvicorn itself would handle all frames of a read in one turn of the event loop, and would cut off a client that is still
sending before it has read why it is refused. The memory matters because most sockets are idle most of the time
(docs/decisions.md).
"""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode

from gql_jobs.web.connections import HeldBytes, Rate, client_of
from gql_jobs.web.graphql_request import BUSY, UNCOUNTED_BYTES
from gql_jobs.web.http_protocol import LINGER_BYTES, LINGER_SECONDS, ServerConfig, end_writing

_PIECE = 2048
"""Bytes of a socket that are parsed at a time: a few hundred frames at most."""
_FRAMES_A_TURN = 128
"""Frames of a socket after which other work of the event loop has its turn."""
_SMALL_FRAME = 512
"""Bytes below which a fragment is counted as a control frame is: it carries next to nothing."""
_SMALL_FRAMES = 1000
_SMALL_FRAMES_A_SECOND = 100
"""Control frames and small fragments that a socket may bring at once, and how many more a second."""
_WRITABLE = asyncio.Event()
"""The event of all sockets that can be written to; an event for each would cost memory."""
_WRITABLE.set()


def _empty(frame: Frame) -> None:
    """Take its data from a frame that was handled: the parser keeps the frame until the next one is there."""
    frame.data = b""


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with other closes for faulty clients and less memory for an open socket.

    An open socket drops its handshake, and its message queue has room for one waiting reader only. Frames are handled
    in small pieces, between which others have their turn.
    """

    config: ServerConfig
    _unparsed = b""
    """Data that waits for its turn, or for the application to take a message, from ``_unparsed_from`` on."""
    _unparsed_from = 0
    _is_scheduled = False
    _is_paused = False
    _rate: Rate | None = None
    """Of small frames; None until there is one."""
    _held: HeldBytes | None = None
    """What the incomplete message holds of the budget; None as long as it is small."""
    _thrown_away: int | None = None
    """Bytes that have been thrown away since the socket was closed for a fault; None before that."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.queue: _MessageQueue = _MessageQueue()  # type: ignore[assignment]  # has the methods that uvicorn calls
        self.writable = _WRITABLE

    async def send(self, message: Any) -> None:
        """Send a message, and wait until the client has read most of what was sent before it, and of a text itself.

        uvicorn waits before the next message only: of what was sent nobody could tell that it still takes memory.
        """
        await super().send(message)
        if message["type"] == "websocket.send" and self.writable is not _WRITABLE:
            await self.writable.wait()

    def pause_writing(self) -> None:
        """Have senders wait, because the write buffer is full."""
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self.writable = _WRITABLE

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the socket holds."""
        self._unparsed = b""
        if self._held is not None:
            self._held.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data, piece by piece."""
        if self._thrown_away is not None:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self.transport.abort()
            return
        self._unparsed, self._unparsed_from = self._unparsed[self._unparsed_from :] + data, 0
        if not self._is_scheduled:
            self._parse()

    def _parse(self) -> None:
        """Parse pieces until a message waits for the application, or others are to have their turn."""
        self._is_scheduled = False
        frames = 0
        while self._unparsed_from < len(self._unparsed) and not self.transport.is_closing():
            start = self._unparsed_from
            self._unparsed_from = start + _PIECE
            frames += self._parse_piece(self._unparsed[start : self._unparsed_from])
            if self._thrown_away is not None:
                return
            if frames > _FRAMES_A_TURN or self.read_paused:
                break
        if self._unparsed_from < len(self._unparsed):
            self._is_paused = True
            self.transport.pause_reading()
            if not self.read_paused:
                self._schedule()
            return
        self._unparsed, self._unparsed_from = b"", 0
        if self._is_paused and not self.read_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._parse)

    def _parse_piece(self, data: bytes) -> int:
        """Parse a piece and return how many frames it has ended."""
        self.conn.receive_data(data)
        frames = len(self.conn.events)
        small = sum(map(_is_small, self.conn.events)) if frames else 0
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        else:
            self.handle_events()
            self._check(small)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            # A handshake with too many or too long headers, which uvicorn leaves unanswered.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        return frames

    def _check(self, small: int) -> None:
        """Close a socket that brings too many small frames, or whose incomplete message does not fit."""
        if small:
            self._rate = self._rate or Rate(_SMALL_FRAMES, _SMALL_FRAMES_A_SECOND)
            if not self._rate.spend(small, self.loop.time()):
                self._fail(CloseCode.POLICY_VIOLATION, "too many pings, pongs or fragments")
                return
        if not self._hold():
            self._fail(CloseCode.TRY_AGAIN_LATER, BUSY)

    def _hold(self) -> bool:
        """Hold what has come and is not taken by the application; return whether it fits into the client's budget."""
        waiting = max(0, len(self._unparsed) - self._unparsed_from)
        size = len(self.conn.reader.buffer) + (self.conn.current_size or 0) + self.queue.size + waiting
        if size <= UNCOUNTED_BYTES:
            size = 0
        elif self._held is None:
            self._held = HeldBytes(self.config.budget, client_of(self.scope))  # type: ignore[arg-type]
        return self._held is None or self._held.resize(size)

    def _fail(self, code: CloseCode, reason: str) -> None:
        if self._thrown_away is None and not self.transport.is_closing():
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    async def receive(self) -> Any:
        """Return the next message; once there is none that waits, go on reading."""
        message = await self.queue.get()
        if self._held is not None:
            self._hold()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self._unparsed:
                self._schedule()
            else:
                self.transport.resume_reading()
        return message

    def handle_text(self, event: Frame) -> None:
        """Take a frame of text."""
        super().handle_text(event)
        _empty(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take a frame of bytes."""
        super().handle_bytes(event)
        _empty(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a further part of a message."""
        super().handle_cont(event)
        _empty(event)

    def handle_parser_exception(self) -> None:
        """Close a faulty socket so that its client reads why, although it may still be sending."""
        if self.conn.close_sent is None:
            # Before the handshake there is no way to say it.
            self.transport.abort()
            return
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._unparsed = b""
        self._thrown_away = 0
        if self._held is not None:
            self._held.release()
        self.transport.resume_reading()
        end_writing(self.transport)
        # uvicorn closes the connection when the application has ended, unless this timer runs.
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def start_keepalive(self) -> None:
        """Drop the headers of the handshake, cookies among them, and start the pings."""
        # The parser keeps the request too, so its headers are cleared.
        self.request.headers.clear()
        del self.request, self.response
        self.scope["headers"], self.scope["subprotocols"], self.scope["query_string"] = [], [], b""
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
                self._fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        super().send_receive_event_to_app()


def _is_small(event: Any) -> bool:
    if not isinstance(event, Frame):
        return False
    is_whole = event.fin and event.opcode in {Opcode.TEXT, Opcode.BINARY}
    return not is_whole and len(event.data) < _SMALL_FRAME


class _MessageQueue:
    """The received messages of one socket, for one reader; an ``asyncio.Queue`` would take more memory."""

    __slots__ = ("_messages", "_waiter", "size")

    def __init__(self) -> None:
        self.size = 0
        self._messages: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        self.size += _size(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def empty(self) -> bool:
        return not self._messages

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        # Nothing is parsed while a message waits, so that the list is never longer than the messages of one piece.
        message = self._messages.pop(0)
        self.size -= _size(message)
        return message


def _size(message: Any) -> int:
    return len(message.get("text") or message.get("bytes") or ())
