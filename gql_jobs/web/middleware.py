"""The limits of HTTP request bodies, declared or chunked: none larger is held in memory, none is waited for long."""

import asyncio
from collections.abc import Awaitable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gql_jobs.graphql.engine.errors import DocumentError
from gql_jobs.jobs.errors import ErrorCode, PayloadTooLarge
from gql_jobs.web.graphql_request import refusal

# What every request must name and every response carries: the hosts served, and what browsers are told not to do.
#
# Both hand on what they call and do not await it, so that an open socket does not keep a frame of each.

PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for by address, by probes that know no name. They hold nothing of a client's."""
_SAID = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}


class SecurityHeaders:
    """Adds headers to every response that does not have them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message["headers"]
                named = {name for name, _ in own}
                message["headers"] = [*own, *(said for said in _SAID.items() if said[0] not in named)]
            await send(message)

        return self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class AllowedHosts:
    """Refuses requests to other names, which a page elsewhere can give this server's address (DNS rebinding)."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(host.lower() for host in hosts)
        self._endings = tuple(host[1:].lower() for host in hosts if host.startswith("*"))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on, or refuse it."""
        is_probe = scope["type"] == "http" and scope["path"] in PROBED
        if scope["type"] == "lifespan" or is_probe or self._allows(Headers(scope=scope).get("host", "")):
            return self._app(scope, receive, send)
        # A WebSocket is refused by the same answer, before its handshake.
        message = "The request was sent to a host name that is not served here (GQL_JOBS_ALLOWED_HOSTS)."
        return refusal(400, message, DocumentError.BAD_REQUEST.value)(scope, receive, send)

    def _allows(self, host: str) -> bool:
        name = _without_port(host).lower()
        return name in self._names or name.endswith(self._endings)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    # The address [::1] has colons, too.
    return name if colon and not port.endswith("]") else host


class BodyLimit:
    """Answers 413 to a request whose body is larger than ``limit`` bytes, and 408 to one whose body takes longer than
    ``timeout`` seconds to come in, however steadily. Plain ASGI: a body passes unbuffered.
    """

    def __init__(self, app: ASGIApp, limit: int, timeout: float) -> None:
        self._app = app
        self._limit = limit
        self._timeout = timeout

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on, or refuse it."""
        # What is passed on is not awaited here, so that an open socket does not keep a frame of this.
        return (self._limited if scope["type"] == "http" else self._app)(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = _declared(scope)
        if declared is not None and declared > self._limit:
            await self._refuse(declared, scope, receive, send)
            return
        body = _Body(receive, send, self._limit, self._timeout)
        try:
            await self._app(scope, body.receive, body.send)
        except _TooLarge:
            if body.answered:
                raise
            await self._refuse(None, scope, receive, send)
        except _TooSlow:
            if body.answered:
                raise
            message = f"The request body did not come within {self._timeout:g} s."
            # What comes later belongs to this request, not to the next one.
            headers = {"Connection": "close"}
            await refusal(408, message, ErrorCode.TIMEOUT.value, headers=headers)(scope, receive, send)

    async def _refuse(self, size: int | None, scope: Scope, receive: Receive, send: Send) -> None:
        error = PayloadTooLarge("The request body", size, self._limit)
        await refusal(413, error.message, **error.extensions)(scope, receive, send)


class _TooLarge(Exception):
    """More came than the limit allows. Raised into whoever reads the body."""


class _TooSlow(Exception):
    """The body has not come in time. Raised likewise."""


class _Body:
    """The body of one request, counted and timed while it comes in."""

    def __init__(self, receive: Receive, send: Send, limit: int, timeout: float) -> None:
        self._receive = receive
        self._send = send
        self._left = limit
        self._until: float | None = asyncio.get_running_loop().time() + timeout
        self.answered = False

    async def receive(self) -> Message:
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise _TooSlow from None
        if not message.get("more_body"):
            # Behind the body, only the client's leaving is waited for.
            self._until = None
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
