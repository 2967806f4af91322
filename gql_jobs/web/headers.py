"""What every request must name and every response carries: the hosts served, and what browsers are told not to do.

Both hand on what they call and do not await it, so that an open socket does not keep a frame of each.
"""

from collections.abc import Awaitable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gql_jobs.graphql.enums import DocumentError
from gql_jobs.web.replies import refusal

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
