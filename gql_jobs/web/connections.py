"""How many connections may stay open, in all and of each client: whoever opens a thousand costs only itself."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The end of long-lived connections, of old ones and when the process stops: one after another, so that clients do not
# return as one.

_PER_SECOND = 500
"""Connections that are closed in a second while there is time for it; a few are closed at once."""


RESTART = "Service restart"
AGE = "Maximum age reached"


class Closing:
    """The open sockets and streams of a process.

    :param max_age: seconds after which a connection has to end; up to a tenth less, so that those of one moment part.
    """

    def __init__(self, max_age: float = 86_400.0) -> None:
        self._max_age = max_age
        self._open: dict[object, Callable[[str], None]] = {}
        self._begun = False
        self._none_left = asyncio.Event()

    @contextmanager
    def told(self, leave: Callable[[str], None]) -> Iterator[None]:
        """Within the block, ``leave`` is called, with the reason, when the connection has to end."""
        key = object()
        self._open[key] = leave
        if self._begun:
            leave(RESTART)
        age = self._max_age * random.uniform(0.9, 1)  # noqa: S311
        old = asyncio.get_running_loop().call_later(age, leave, AGE)
        try:
            yield
        finally:
            old.cancel()
            del self._open[key]
            if self._begun and not self._open:
                self._none_left.set()

    async def finish(self, within: float) -> None:
        """Tell everybody to leave, each at a moment of its own, and wait until they have, or for ``within`` seconds."""
        self._begun = True
        if not self._open:
            return
        loop = asyncio.get_running_loop()
        spread = min(within, len(self._open) / _PER_SECOND)
        for key in list(self._open):
            loop.call_later(random.uniform(0, spread), self._tell, key)  # noqa: S311
        try:
            async with asyncio.timeout(within):
                await self._none_left.wait()
        except TimeoutError:
            pass

    def _tell(self, key: object) -> None:
        leave = self._open.get(key)
        if leave is not None:
            leave(RESTART)


# The WebSockets of this process: how many are open, and with which code each of them ended.

OTHER = "other"
"""The label of close codes that nobody here sends: clients may make up any."""
_LABELLED = frozenset(
    {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013}
    | {4400, 4401, 4403, 4406, 4408, 4409, 4429, 4499, 4500}
)
_ABNORMAL = 1006


class Sockets:
    """Counters of the sockets of one process."""

    def __init__(self) -> None:
        self.open = 0
        self.closes: dict[tuple[str, ...], int] = {}
        """By who closed it (``server`` or ``client``) and the code."""

    def closed(self, by: str, code: int) -> None:
        """Count the end of a socket."""
        label = (by, str(code) if code in _LABELLED else OTHER)
        self.closes[label] = self.closes.get(label, 0) + 1


class CountedSockets:
    """Counts what passes; plain ASGI."""

    def __init__(self, app: ASGIApp, sockets: Sockets) -> None:
        self._app = app
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a socket on, and whatever else comes."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        socket = _Socket(receive, send, self._sockets)
        try:
            await self._app(scope, socket.receive, socket.send)
        finally:
            socket.ended()


class _Socket:
    __slots__ = ("_is_counted", "_is_open", "_receive", "_send", "_sockets")

    def __init__(self, receive: Receive, send: Send, sockets: Sockets) -> None:
        self._receive = receive
        self._send = send
        self._sockets = sockets
        self._is_open = False
        self._is_counted = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._close("client", message.get("code") or _ABNORMAL)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self._is_open = True
            self._sockets.open += 1
        elif message["type"] == "websocket.close":
            self._close("server", message.get("code") or 1000)
        await self._send(message)

    def ended(self) -> None:
        if self._is_open:
            self._sockets.open -= 1
            self._close("server", _ABNORMAL)

    def _close(self, by: str, code: int) -> None:
        # The first close decides: the other side's is only its echo.
        if not self._is_counted:
            self._is_counted = True
            self._sockets.closed(by, code)


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
