"""uvicorn's HTTP protocol with bounds on what one client costs.

uvicorn itself would wait without end for a request that does not come and for a client that does not read, would queue
every request that is pipelined, and would cut off a client that is still sending before it has read why it is refused.
"""

import asyncio
from functools import partial
from typing import Any

import httptools
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gql_jobs.jobs.errors import ErrorCode, RateLimited
from gql_jobs.web.connections import CONNECTION_EXTENSION, ByteBudget, PlainConnections, client_at
from gql_jobs.web.graphql_request import SECURITY_HEADERS, error_response, too_often

HEAD_BYTES = 1 << 16
"""Bytes that the request line and the headers may have together."""
MOST_QUEUED = 16
"""Requests of one connection that may wait until an earlier one is answered; more are not read meanwhile."""
LINGER_SECONDS = 10.0
"""Seconds for which a refused client may go on sending, so that it reads the refusal: a connection that is closed with
unread data is reset, and what was sent last with it."""
LINGER_BYTES = 1 << 28
"""Bytes that are thrown away meanwhile."""
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
            refusal = RateLimited("The server has as many connections as it can hold; try again later.", 10)
            self._refuse(too_often(refusal, 503, {"Connection": "close"}))

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
        lines = [b"%b: %b" % header for header in self.headers if header[0] not in hop_by_hop]
        asked = b",".join(value for name, value in self.headers if name == b"connection").lower().split(b",")
        if b"close" in map(bytes.strip, asked):
            lines.append(b"connection: close")
        version = self.parser.get_http_version().encode()
        target = b"%b %b HTTP/%b" % (self.scope["method"].encode(), self.url, version)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([target, *lines, b"", b""])

    def _await_head(self) -> None:
        _cancel(self._head_timer)
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.config.request_timeout, self.transport.abort)

    def _reject(self, status: int, message: str) -> None:
        self._refuse(error_response(status, message, ErrorCode.BAD_REQUEST.value, headers={"Connection": "close"}))

    def _refuse(self, response: Response) -> None:
        lines = (b"%b: %b\r\n" % header for header in (*response.raw_headers, *SECURITY_HEADERS))
        self.transport.write(b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", response.body]))
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


def end_writing(transport: asyncio.Transport) -> None:
    """End the server's side of a connection, once everything is written; the client may go on sending."""
    # TLS cannot end one direction alone; there the refusal is lost only if the client sends on for long.
    if transport.can_write_eof():
        transport.write_eof()
