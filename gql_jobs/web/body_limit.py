"""The size limit of HTTP request bodies: nothing larger is ever held in memory, declared or chunked."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gql_jobs.jobs.errors import PayloadTooLarge
from gql_jobs.web.replies import refusal


class BodyLimit:
    """Answers 413 to a request whose body is larger than ``limit`` bytes. Plain ASGI: a body passes unbuffered."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = _declared(scope)
        if declared is not None and declared > self._limit:
            await self._refuse(declared, scope, receive, send)
            return
        body = _Body(receive, send, self._limit)
        try:
            await self._app(scope, body.receive, body.send)
        except _TooLarge:
            if body.answered:
                raise
            await self._refuse(None, scope, receive, send)

    async def _refuse(self, size: int | None, scope: Scope, receive: Receive, send: Send) -> None:
        error = PayloadTooLarge("The request body", size, self._limit)
        await refusal(413, error.message, **error.extensions)(scope, receive, send)


class _TooLarge(Exception):
    """More came than the limit allows. Raised into whoever reads the body."""


class _Body:
    """The body of one request, counted while it comes in."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._left = limit
        self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise _TooLarge
        return message

    async def send(self, message: Message) -> None:
        self.answered = True
        await self._send(message)


def _declared(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
