"""The long-lived connections of one process: how many may be open, how they are counted, and how they are closed.

A connection is a WebSocket or a response that is a stream. ``Admission`` limits them by client, so that whoever opens a
thousand harms only itself; ``Connections`` closes them; ``SocketCounts`` has the numbers of sockets for ``/metrics``.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

_IPV6_PREFIX = 64
"""Bits of an IPv6 address that identify a client, which is free to choose the rest."""
_CLOSED_PER_SECOND = 500
"""Connections that are closed per second at shutdown, unless the time for it is too short."""
_RESTART = "Service restart"
_MAX_AGE = "Maximum age reached"
_OTHER_CODE = "other"
"""The label of all other close codes, which clients may choose freely."""
_LABELLED = frozenset(
    {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013}
    | {4400, 4401, 4403, 4406, 4408, 4409, 4429, 4499, 4500}
)
_ABNORMAL = 1006
"""The close code of a socket that ended without a close frame."""


class Admission:
    """The limits of open connections, in all and from one client's address.

    A proxy in front has to name the clients (``X-Forwarded-For``, which uvicorn accepts from 127.0.0.1 or from
    ``FORWARDED_ALLOW_IPS``), or all of them count as one.

    :param most: connections in all.
    :param most_per_client: connections from one IPv4 address, or from one IPv6 network.
    """

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._open: Counter[str] = Counter()
        self._total = 0

    def rejection(self, scope: Scope) -> str | None:
        """Return why a connection is rejected now, as a sentence that fits into a close frame; None if it is not."""
        if self._open[_client(scope)] >= self._most_per_client:
            return f"{self._most_per_client} connections are open from this address, which is the limit"
        if self._total >= self._most:
            return "the server has as many connections as it can hold; try again later"
        return None

    @contextmanager
    def admitted(self, scope: Scope) -> Iterator[None]:
        """Count a connection until the block ends, whether or not it exceeds a limit."""
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


class AdmittedResponse:
    """An ASGI response that counts as a connection while it is sent."""

    def __init__(self, response: ASGIApp, admission: Admission) -> None:
        self._response = response
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        with self._admission.admitted(scope):
            await self._response(scope, receive, send)


def _client(scope: Scope) -> str:
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ip_address(host)
    except ValueError:
        # The client came over a Unix socket, or a proxy has given it a name.
        return host
    if not isinstance(address, IPv6Address):
        return host
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else str(int(address) >> (128 - _IPV6_PREFIX))


class Connections:
    """The open connections of one process, each with the function that closes it.

    They are closed when they are old and when the process stops, each at a random time, so that their clients do not
    reconnect all at once.

    :param max_age: seconds after which a connection is closed; up to a tenth less, chosen at random for each.
    """

    def __init__(self, max_age: float = 86_400.0) -> None:
        self._max_age = max_age
        self._open: dict[object, Callable[[str], None]] = {}
        self._is_stopping = False
        self._none_open = asyncio.Event()

    @contextmanager
    def registered(self, close: Callable[[str], None]) -> Iterator[None]:
        """Register a connection until the block ends.

        :param close: called with the reason when the connection has to end, from the event loop; at once if the process
            is stopping already. It may be called twice.
        """
        key = object()
        self._open[key] = close
        if self._is_stopping:
            close(_RESTART)
        age = self._max_age * random.uniform(0.9, 1)  # noqa: S311
        timer = asyncio.get_running_loop().call_later(age, close, _MAX_AGE)
        try:
            yield
        finally:
            timer.cancel()
            del self._open[key]
            if self._is_stopping and not self._open:
                self._none_open.set()

    async def close_all(self, within: float) -> None:
        """Close all connections, spread over up to ``within`` seconds; return once none is open or that time is over.

        From now on new ones are closed when they are registered.
        """
        self._is_stopping = True
        if not self._open:
            return
        loop = asyncio.get_running_loop()
        spread = min(within, len(self._open) / _CLOSED_PER_SECOND)
        for key in list(self._open):
            loop.call_later(random.uniform(0, spread), self._close, key)  # noqa: S311
        try:
            async with asyncio.timeout(within):
                await self._none_open.wait()
        except TimeoutError:
            pass

    def _close(self, key: object) -> None:
        close = self._open.get(key)
        if close is not None:
            close(_RESTART)


class SocketCounts:
    """Counters of the WebSockets of one process."""

    def __init__(self) -> None:
        self.open = 0
        """Sockets that have been accepted and have not ended."""
        self.closes: dict[tuple[str, ...], int] = {}
        """Sockets that have ended, by who closed them (``server`` or ``client``) and the close code."""

    def closed(self, by: Literal["server", "client"], code: int) -> None:
        """Count the end of a socket, or the refusal of its handshake."""
        label = (by, str(code) if code in _LABELLED else _OTHER_CODE)
        self.closes[label] = self.closes.get(label, 0) + 1


class CountedSocket:
    """One socket's part in the counters. Its transport calls this when it opens and closes, not for each frame."""

    __slots__ = ("_counts", "_is_closed", "_is_open")

    def __init__(self, counts: SocketCounts) -> None:
        self._counts = counts
        self._is_open = False
        self._is_closed = False

    def opened(self) -> None:
        """Count it as open."""
        self._is_open = True
        self._counts.open += 1

    def closed_by_server(self, code: int) -> None:
        """Count that the server closed it, unless the client did so first."""
        self._closed("server", code)

    def closed_by_client(self, code: int | None) -> None:
        """Count that the client closed it, unless the server did so first. Without a code the connection was lost."""
        self._closed("client", code or _ABNORMAL)

    def ended(self) -> None:
        """Count it as no longer open; if neither side closed it, as closed by the server, abnormally."""
        if self._is_open:
            self._counts.open -= 1
            self._closed("server", _ABNORMAL)

    def _closed(self, by: Literal["server", "client"], code: int) -> None:
        # The first close decides: the other side's is only its echo.
        if not self._is_closed:
            self._is_closed = True
            self._counts.closed(by, code)
