"""Who holds what of one process: connections and bytes, in all and by client; and how connections are closed.

``Admission`` limits what lasts, WebSockets and responses that are streams, so that whoever opens a thousand harms only
itself; ``Connections`` closes them; ``SocketCounts`` has the numbers of sockets for ``/metrics``. ``PlainConnections``
limits all other connections, and makes room by closing idle ones. ``ByteBudget`` limits what the process has to keep
of clients: bodies, messages that are incomplete, variables of subscriptions, answers that they have not read.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Literal, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from gql_jobs.jobs.errors import RateLimited

CONNECTION_EXTENSION = "gql_jobs.connection"
"""An extension of the HTTP scope, with two functions: ``close`` closes the connection once everything sent is written,
so that the response stays unfinished; ``lasts`` is called for a response that is a stream."""
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
_LARGEST_PER_CLIENT = 4
_LARGEST_AT_A_TIME = 8
"""Bodies of the largest size that may be there at a time, of one client and of all."""
_DOCUMENT_FACTOR = 256
"""Bytes that a document counts for each of its characters: its syntax tree and plans are that much larger."""
_ADMITTED_AFTER = 10
"""Seconds after which a connection may be tried again for which there was no room."""
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

    def check(self, scope: Scope) -> None:
        """Check that there is room for a connection.

        :raises RateLimited: if not; its message fits into a close frame.
        """
        if self._open[client_of(scope)] >= self._most_per_client:
            most = self._most_per_client
            raise RateLimited(f"{most} connections are open from this address, which is the limit.", _ADMITTED_AFTER)
        if self._total >= self._most:
            raise RateLimited("The server has as many connections as it can hold; try again later.", _ADMITTED_AFTER)

    @contextmanager
    def admitted(self, scope: Scope) -> Iterator[None]:
        """Count a connection until the block ends, whether or not it exceeds a limit."""
        client = client_of(scope)
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
        lasts = scope.get("extensions", {}).get(CONNECTION_EXTENSION, {}).get("lasts")
        if lasts is not None:
            lasts()
        with self._admission.admitted(scope):
            await self._response(scope, receive, send)


def client_of(scope: Scope) -> str:
    """Return who counts as one client: an IPv4 address, or the network of an IPv6 address."""
    client = scope.get("client")
    return client_at(str(client[0])) if client else ""


@lru_cache(4096)
def client_at(host: str) -> str:
    """Return who counts as one client among those with such an address."""
    try:
        address = ip_address(host)
    except ValueError:
        # The client came over a Unix socket, or a proxy has given it a name.
        return host
    if not isinstance(address, IPv6Address):
        return host
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else str(int(address) >> (128 - _IPV6_PREFIX))


class ByteBudget:
    """The bytes of clients that the process may keep at a time, in all and of one client.

    Counted is what came over the wire; what is made of it may take a multiple of that.

    :param most: bytes in all.
    :param most_per_client: bytes of one client, over all its requests and sockets.
    """

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._held: Counter[str] = Counter()
        self._total = 0
        self._documents: Counter[tuple[str, str]] = Counter()
        """How many subscriptions of a client have a document."""

    def hold(self, client: str, size: int) -> bool:
        """Count ``size`` bytes as held by the client; return whether they fit, and count nothing if they do not."""
        held = self._held[client] + size
        if held > self._most_per_client or self._total + size > self._most:
            return False
        self._held[client] = held
        self._total += size
        return True

    def release(self, client: str, size: int) -> None:
        """Count ``size`` bytes less, which the client held."""
        self._total -= size
        self._held[client] -= size
        if self._held[client] <= 0:
            del self._held[client]

    def hold_document(self, client: str, text: str) -> bool:
        """Count the document of a subscription, once for all of the client's that have it; return whether it fits."""
        key = client, text
        if key not in self._documents and not self.hold(client, len(text) * _DOCUMENT_FACTOR):
            return False
        self._documents[key] += 1
        return True

    def release_document(self, client: str, text: str) -> None:
        """Count one subscription less that has the document."""
        key = client, text
        self._documents[key] -= 1
        if not self._documents[key]:
            del self._documents[key]
            self.release(client, len(text) * _DOCUMENT_FACTOR)


class HeldBytes:
    """What one request, socket or operation holds of a budget, until it is released."""

    __slots__ = ("_budget", "_client", "_document", "size")

    def __init__(self, budget: ByteBudget, client: str) -> None:
        self._budget = budget
        self._client = client
        self._document: str | None = None
        self.size = 0

    def resize(self, size: int) -> bool:
        """Hold ``size`` bytes instead of what was held; return whether they fit. What was held stays if they do not."""
        if size > self.size:
            if not self._budget.hold(self._client, size - self.size):
                return False
        elif size < self.size:
            self._budget.release(self._client, self.size - size)
        self.size = size
        return True

    def keep(self, document: str, size: int) -> bool:
        """Hold the document of a subscription and ``size`` bytes beside it; return whether they fit."""
        if not self.resize(size) or not self._budget.hold_document(self._client, document):
            return False
        self._document = document
        return True

    def release(self) -> None:
        """Hold nothing any more."""
        self.resize(0)
        if self._document is not None:
            self._budget.release_document(self._client, self._document)
            self._document = None


def budget_for(largest: int) -> ByteBudget:
    """Return the budget of a process that takes bodies and messages of up to ``largest`` bytes.

    One client may have four of them there at a time, and all clients together eight: enough for a slow network, and
    little beside the memory of a process that has them read.
    """
    return ByteBudget(_LARGEST_AT_A_TIME * largest, _LARGEST_PER_CLIENT * largest)


class Rate:
    """How often something may happen: so many times at once, and so many more each second.

    :param burst: how many times at once.
    :param per_second: how many times a second in the long run.
    """

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, burst: int, per_second: int) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._since: float | None = None

    def spend(self, number: int, now: float) -> bool:
        """Count ``number`` times more; return whether that is not too often.

        :param now: seconds of a clock that only goes forward.
        """
        passed = now - self._since if self._since is not None else 0.0
        self._since = now
        self._left = min(self._burst, self._left + passed * self._per_second) - number
        return self._left >= 0


class PlainConnection(Protocol):
    """A connection that carries neither a socket nor a stream, as ``PlainConnections`` sees it."""

    @property
    def is_idle(self) -> bool:
        """Return whether no request is being answered, so that a client loses nothing but the time to connect."""

    @property
    def is_unfinished(self) -> bool:
        """Return whether the body of its request is still awaited."""

    def give_way(self) -> None:
        """End, because another connection needs the place."""


class PlainConnections:
    """The limits of connections that carry neither a socket nor a stream, in all and from one address.

    A connection above a limit takes the place of an idle one: of the same client where the limit is its own, else of
    the client that has most. Where none is idle, one whose body does not come has to go, of a client that has more than
    the new one. Addresses are those of the network: whom a proxy stands for is only known once a request is there.

    :param most: connections in all.
    :param most_per_client: connections from one IPv4 address, or from one IPv6 network.
    """

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._open: dict[str, dict[PlainConnection, None]] = {}
        self._total = 0

    def admit(self, client: str, connection: PlainConnection) -> bool:
        """Count a connection; return whether there is room for it. If not, it has to be refused."""
        own = self._open.get(client, {})
        has_room = len(own) < self._most_per_client or _gives_way(own)
        if has_room and self._total >= self._most:
            has_room = self._make_room(len(own))
        self.count(client, connection)
        return has_room

    def count(self, client: str, connection: PlainConnection) -> None:
        """Count a connection, whether or not there is room for it. It may be called twice."""
        own = self._open.setdefault(client, {})
        if connection not in own:
            own[connection] = None
            self._total += 1

    def ended(self, client: str, connection: PlainConnection) -> None:
        """Count it no more: it has ended, or carries something that lasts. It may be called twice."""
        own = self._open.get(client, {})
        if connection in own:
            del own[connection]
            self._total -= 1
            if not own:
                del self._open[client]

    def _make_room(self, own: int) -> bool:
        by_number = sorted(self._open.values(), key=len, reverse=True)
        if any(_gives_way(connections) for connections in by_number):
            return True
        return any(_gives_way(connections, unfinished=True) for connections in by_number if len(connections) > own + 1)


def _gives_way(connections: dict[PlainConnection, None], *, unfinished: bool = False) -> bool:
    """End the oldest connection that may be; return whether there was one."""
    for connection in connections:
        if connection.is_unfinished if unfinished else connection.is_idle:
            connection.give_way()
            return True
    return False


class Connections:
    """The open connections of one process, each with the function that closes it.

    They are closed when they are old and when the process stops, each at a random time, so that their clients do not
    reconnect all at once.

    :param max_age: seconds after which a connection is closed; up to a tenth less, chosen at random for each.
    """

    def __init__(self, max_age: float = 86_400.0) -> None:
        self._max_age = max_age
        self._open: dict[object, Callable[[str], None]] = {}
        self.is_stopping = False
        """Whether the process ends."""
        self._none_open = asyncio.Event()

    @contextmanager
    def registered(self, close: Callable[[str], None]) -> Iterator[None]:
        """Register a connection until the block ends.

        :param close: called with the reason when the connection has to end, from the event loop; at once if the process
            is stopping already. It may be called twice.
        """
        key = object()
        self._open[key] = close
        if self.is_stopping:
            close(_RESTART)
        age = self._max_age * random.uniform(0.9, 1)  # noqa: S311
        timer = asyncio.get_running_loop().call_later(age, close, _MAX_AGE)
        try:
            yield
        finally:
            timer.cancel()
            del self._open[key]
            if self.is_stopping and not self._open:
                self._none_open.set()

    async def close_all(self, within: float) -> None:
        """Close all connections, spread over up to ``within`` seconds; return once none is open or that time is over.

        From now on new ones are closed when they are registered.
        """
        self.is_stopping = True
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
