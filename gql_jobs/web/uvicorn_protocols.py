"""uvicorn's protocols with bounds on what one client costs, and with less memory per socket.

uvicorn itself would wait without end for a request that does not come and for a client that does not read, would queue
every request that is pipelined, would handle all frames of a read in one turn of the event loop, and would cut off a
client that is still sending before it has read why it is refused. The memory of a WebSocket matters because most of
them are idle most of the time (docs/decisions.md).
"""

import asyncio
from functools import partial
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp, Message
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.jobs.errors import ErrorCode
from gql_jobs.web.connections import (
    CONNECTION_EXTENSION,
    ByteBudget,
    HeldBytes,
    PlainConnections,
    Rate,
    client_at,
    client_of,
)
from gql_jobs.web.graphql_request import BUSY, UNCOUNTED_BYTES, error_response

HEAD_BYTES = 1 << 16
"""Bytes that the request line and the headers may have together."""
MOST_QUEUED = 16
"""Requests of one connection that may wait until an earlier one is answered; more are not read meanwhile."""
LINGER_SECONDS = 10.0
"""Seconds for which a refused client may go on sending, so that it reads the refusal: a connection that is closed with
unread data is reset, and what was sent last with it."""
LINGER_BYTES = 1 << 28
"""Bytes that are thrown away meanwhile."""
_PIECE = 2048
"""Bytes of a socket that are parsed at a time: a few hundred frames at most."""
_FRAMES_A_TURN = 128
"""Frames of a socket after which other work of the event loop has its turn."""
_SMALL_FRAME = 512
"""Bytes below which a fragment is counted as a control frame is: it carries next to nothing."""
_SMALL_FRAMES = 1000
_SMALL_FRAMES_A_SECOND = 100
"""Control frames and small fragments that a socket may bring at once, and how many more a second."""
_HEAD_END = b"\r\n\r\n"


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, with the limits of the protocols.

    :param write_timeout: seconds that a client may leave a full write buffer unread.
    :param request_timeout: seconds that a client has to send the head of a request.
    :param plain: where connections are counted that carry neither a socket nor a stream.
    :param budget: counts the incomplete messages of sockets.
    :param options: of uvicorn's configuration.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        write_timeout: float,
        request_timeout: float,
        plain: PlainConnections,
        budget: ByteBudget,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self.write_timeout = write_timeout
        self.request_timeout = request_timeout
        self.plain = plain
        self.budget = budget


class TimedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which bounds what a client sends ahead, and how long it takes to send and to read."""

    config: ServerConfig
    flow: "_Flow"
    _write_timer: asyncio.TimerHandle | None = None
    """Runs while the write buffer is full."""
    _head_timer: asyncio.TimerHandle | None = None
    """Runs while the head of a request is awaited."""
    _linger_timer: asyncio.TimerHandle | None = None
    """Runs while data is thrown away: of a body that nobody wants, or all of a connection that is to end."""
    _head_bytes = 0
    _unparsed = b""
    """Data whose requests have no place in the queue yet, from ``_unparsed_from`` on."""
    _unparsed_from = 0
    _thrown_away = 0
    _is_ending = False
    """Whether everything that comes is thrown away until the client ends the connection."""
    _carries_stream = False
    _has_foreign_upgrade = False
    """Whether the request's head asks for a protocol that is not spoken here, and is parsed again without that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first request's head; refuse a connection for which there is no room."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._client = client_at(self.client[0]) if self.client else ""
        self._await_head()
        if not self.config.plain.admit(self._client, self):
            message = "The server has as many connections as it can hold; try again later."
            self._reject(503, message, ErrorCode.RATE_LIMITED.value, {"Retry-After": "10"})

    @property
    def is_idle(self) -> bool:
        """Return whether no request is being answered, and nothing of an answer is still to be written."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return self._is_ending or (is_answered and not self.transport.get_write_buffer_size())

    @property
    def is_unfinished(self) -> bool:
        """Return whether the client holds up its request: it does not send the body, or does not read the answer."""
        return self.transport.get_write_buffer_size() > 0 or (self.cycle is not None and self.cycle.more_body)

    def give_way(self) -> None:
        """End, because another connection needs the place."""
        self.config.plain.ended(self._client, self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse the data as far as there is room for its requests; reject a head that is too long.

        The first chunk of a head is not counted, for it is never long.
        """
        if self._is_ending:
            self._throw_away(len(data))
            return
        self._unset_keepalive_if_required()
        awaited = self._head_timer
        self._unparsed, self._unparsed_from = self._unparsed[self._unparsed_from :] + data, 0
        self._parse()
        if awaited is None or awaited is not self._head_timer or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._reject(431, f"The head of a request may have {HEAD_BYTES} bytes; send long documents by POST.")

    def _parse(self) -> None:
        """Parse what has come, in pieces that have no more requests than there is room for."""
        data = self._unparsed
        while self._unparsed_from < len(data) and self.parser is not None and not self._is_ending:
            room = MOST_QUEUED - len(self.pipeline)
            self.flow.is_full = room <= 0
            if self.flow.is_full:
                self.flow.pause_reading()
                return
            start = self._unparsed_from
            end = start
            while room and end < len(data):
                found = data.find(_HEAD_END, end)
                end = found + len(_HEAD_END) if found >= 0 else len(data)
                room -= 1
            self._unparsed_from = end
            if not self._feed(data if start == 0 and end == len(data) else data[start:end]):
                break
        self._unparsed, self._unparsed_from = b"", 0

    def _feed(self, data: bytes) -> bool:
        """Have a piece parsed; return whether more can follow."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._has_foreign_upgrade:
                self.config.plain.ended(self._client, self)
                self.handle_websocket_upgrade()
                return False
            self._has_foreign_upgrade = False
            if self.scope["method"] == "CONNECT":
                self._reject(405, "CONNECT is not served.")
                return False
            return self._feed(self._head_without_upgrade() + data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("This is no HTTP request.")
            return False
        return True

    def _parse_more(self) -> None:
        if self._is_ending or self.transport.is_closing():
            return
        self._parse()
        self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Reject a request that is no HTTP."""
        self._reject(400, msg)

    def on_message_begin(self) -> None:
        """Start the timeout of the head of the request that begins."""
        super().on_message_begin()
        functions: dict[object, object] = {"close": self.transport.close, "lasts": self._lasts}
        self.scope["extensions"] = {CONNECTION_EXTENSION: functions}
        self._await_head()

    def _should_upgrade(self) -> bool:
        # A request with a body is read to its end: nothing would limit it otherwise.
        return self.scope["method"] == "GET" and not _has_body(self.headers) and super()._should_upgrade()

    def on_headers_complete(self) -> None:
        """Stop the timeout of the head, and have the request answered."""
        _cancel(self._head_timer)
        self._head_timer = None
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self._has_foreign_upgrade = not self._should_upgrade()
            if self._has_foreign_upgrade:
                return
        super().on_headers_complete()
        if self.cycle is None or self.cycle.scope is not self.scope:
            return
        self.cycle.transport = _Lingering(self)  # type: ignore[assignment]  # has what a cycle needs of a transport
        if self.scope["http_version"] == "1.0":
            self.cycle.send = partial(_send_unchunked, self.cycle)  # type: ignore[method-assign]

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; of one that nobody waits for any more only so much."""
        if self.cycle is not None and self.cycle.response_complete:
            self._throw_away(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of the request, also of one that has been answered already."""
        if self._has_foreign_upgrade:
            return
        super().on_message_complete()
        if self._linger_timer is not None and not self._is_ending:
            self._linger_timer.cancel()
            self._linger_timer = None
            self._thrown_away = 0
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Go on with the next request; wait a while for the end of a body that was not read."""
        if self._carries_stream and not self.transport.is_closing():
            self._carries_stream = False
            self.config.plain.count(self._client, self)
        if self._is_ending:
            return
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._unset_keepalive_if_required()
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        if self._unparsed:
            self.loop.call_soon(self._parse_more)

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
        self.config.plain.ended(self._client, self)
        for timer in self._write_timer, self._head_timer, self._linger_timer:
            _cancel(timer)
        self._unparsed = b""
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection once its request is answered; at once if it only waits for the client."""
        if self._is_ending:
            self.transport.close()
        else:
            super().shutdown()

    def end(self) -> None:
        """End the connection once the client has read what was written, even if it is still sending."""
        if self.transport.is_closing() or self._is_ending:
            return
        self._is_ending = True
        self.flow.is_full = False
        self.flow.resume_reading()
        end_writing(self.transport)
        _cancel(self._head_timer)
        _cancel(self._linger_timer)
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _throw_away(self, size: int) -> None:
        self._thrown_away += size
        if self._thrown_away > LINGER_BYTES:
            self.transport.abort()

    def _lasts(self) -> None:
        """Note that the response is a stream, which is counted elsewhere."""
        self._carries_stream = True
        self.config.plain.ended(self._client, self)

    def _head_without_upgrade(self) -> bytes:
        """Return the head of a request that asks for another protocol, as one that does not."""
        hop_by_hop = {b"upgrade", b"connection"}
        lines = (b"%b: %b" % header for header in self.headers if header[0] not in hop_by_hop)
        version = self.parser.get_http_version().encode()
        target = b"%b %b HTTP/%b" % (self.scope["method"].encode(), self.url, version)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([target, *lines, b"", b""])

    def _await_head(self) -> None:
        _cancel(self._head_timer)
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.config.request_timeout, self.transport.abort)

    def _reject(
        self,
        status: int,
        message: str,
        code: str = DocumentError.BAD_REQUEST.value,
        headers: dict[str, str] | None = None,
    ) -> None:
        response = error_response(status, message, code, headers={"Connection": "close", **(headers or {})})
        lines = (b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", response.body]))
        self.end()


class _Flow(FlowControl):
    """uvicorn's flow control, which does not go on reading while there is no room for more requests."""

    is_full = False

    def resume_reading(self) -> None:
        if not self.is_full:
            super().resume_reading()


class _Lingering:
    """The transport of one response: its end waits for a client that is still sending the body."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: TimedHttpProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        protocol = self._protocol
        if protocol.cycle.more_body:
            protocol.end()
        else:
            protocol.transport.close()


async def _send_unchunked(cycle: RequestResponseCycle, message: Message) -> None:
    """Send a part of a response without chunks, which HTTP/1.0 does not know: the end of the connection ends it."""
    if message["type"] == "http.response.start":
        if all(name.lower() != b"content-length" for name, _ in message.get("headers", ())):
            cycle.chunked_encoding = False
    elif cycle.chunked_encoding is False and not cycle.expected_content_length:
        cycle.expected_content_length = len(message.get("body", b""))
    await RequestResponseCycle.send(cycle, message)  # type: ignore[arg-type]


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0")) for name, value in headers
    )


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


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


def end_writing(transport: asyncio.Transport) -> None:
    """End the server's side of a connection, once everything is written; the client may go on sending."""
    # TLS cannot end one direction alone; there the refusal is lost only if the client sends on for long.
    if transport.can_write_eof():
        transport.write_eof()


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
