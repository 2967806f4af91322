"""uvicorn's HTTP, made to end what a client leaves unfinished: uvicorn itself would wait without end."""

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gql_jobs.graphql.enums import DocumentError
from gql_jobs.web.replies import refusal

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
