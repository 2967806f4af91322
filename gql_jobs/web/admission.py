"""How many connections may stay open, in all and of each client: whoever opens a thousand costs only itself."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = 64
"""Bits of an IPv6 address that tell one client from another: the rest is the client's own choice."""


class Admission:
    """The sockets and streams of one process, by the address that they come from.

    A proxy in front has to name the clients (``X-Forwarded-For``, which uvicorn believes of 127.0.0.1 or of
    ``FORWARDED_ALLOW_IPS``), or all of them count as one.

    :param most: connections in all.
    :param most_per_client: connections from one IPv4 address, or from one IPv6 network.
    """

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._open: Counter[str] = Counter()
        self._total = 0

    def refusal(self, scope: Scope) -> str | None:
        """Why one more connection cannot be had now, in a sentence of a close frame's length."""
        if self._open[_client(scope)] >= self._most_per_client:
            return f"{self._most_per_client} connections are open from this address, which is the limit"
        if self._total >= self._most:
            return "the server has as many connections as it can hold; try again later"
        return None

    @contextmanager
    def held(self, scope: Scope) -> Iterator[None]:
        """Count a connection for as long as the block lasts."""
        client = _client(scope)
        self._open[client] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]


class Held:
    """An ASGI response that counts as a connection while it is sent."""

    def __init__(self, response: ASGIApp, admission: Admission) -> None:
        self._response = response
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        with self._admission.held(scope):
            await self._response(scope, receive, send)


def _client(scope: Scope) -> str:
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ip_address(host)
    except ValueError:
        # A Unix socket, or a proxy that gave its client a name.
        return host
    if not isinstance(address, IPv6Address):
        return host
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else str(int(address) >> (128 - _PREFIX))
