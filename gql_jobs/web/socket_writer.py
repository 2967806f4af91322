"""The writing side of one WebSocket: what the messages of graphql-transport-ws look like, and when no more are sent."""

from typing import Any

from starlette.types import Send

from gql_jobs.web.json_codec import encode

_LONGEST_REASON = 123
"""Bytes: a close frame has 125, two of which are the code."""


class SocketWriter:
    """Sends messages until the socket is closed from either side; those that come later are dropped.

    A send waits while the client does not read, and so holds up the operation that it belongs to, and no other.
    """

    __slots__ = ("_closed", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._closed = False

    async def acknowledge(self) -> None:
        """``connection_ack``"""
        await self._text(b'{"type":"connection_ack"}')

    async def pong(self, payload: dict[str, Any] | None) -> None:
        """``pong``, with what the ping carried."""
        await self._text(encode({"type": "pong", "payload": payload} if payload is not None else {"type": "pong"}))

    async def next(self, operation_id: str, payload: bytes) -> None:
        """``next``. The payload is JSON already, so that many sockets may be sent the same."""
        await self._text(b'{"id":%b,"type":"next","payload":%b}' % (encode(operation_id), payload))

    async def error(self, operation_id: str, errors: list[dict[str, Any]]) -> None:
        """``error``, which ends the operation."""
        await self._text(encode({"id": operation_id, "type": "error", "payload": errors}))

    async def complete(self, operation_id: str) -> None:
        """``complete``"""
        await self._text(encode({"id": operation_id, "type": "complete"}))

    async def close(self, code: int, reason: str) -> None:
        """Close the socket, with as much of the reason as a close frame holds."""
        fitting = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        await self._pass_on({"type": "websocket.close", "code": code, "reason": fitting})
        self._closed = True

    async def _text(self, message: bytes) -> None:
        await self._pass_on({"type": "websocket.send", "text": message.decode()})

    async def _pass_on(self, message: dict[str, Any]) -> None:
        if self._closed:
            return
        try:
            await self._send(message)
        except (OSError, RuntimeError):
            # The socket has gone (OSError) or is being closed (RuntimeError) by the server's own protocol code, which
            # tells the reading side; for whoever sends it is no failure.
            self._closed = True
