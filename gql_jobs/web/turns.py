"""How much of the event loop one client gets, where many of its operations are worked on at once.

All requests and subscriptions run on one event loop, and whatever is ready runs in the same turn of it: an answer takes
a few turns, so others wait as long as a few turns take. ``QueryTurns`` has the long queries of one client wait for each
other, ``ResultTurns`` the results of its subscriptions.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

_LONG_TURN = 0.005
"""Seconds of computing after which another query of the same client has to wait for its turn."""
_MADE_AT_ONCE = 4
"""Queries of one client whose results are made at a time: what they have read comes back at once, and is worked on in
one go."""
_SHARE = 0.005
"""Seconds of a turn in which any number of a client's subscriptions may begin with a result."""
_FEWEST, _FIRST, _MOST = 1, 4, 64
"""Subscriptions of a client that waited and go on in one turn: at least, in the first, and at most."""
_MOST_UNSENT = 32 << 20
"""Bytes of large results that a client may leave unread before another result is made for it."""
LARGE_RESULT = 1 << 16
"""Bytes of a result that counts: of smaller ones connections have a bound that is small enough."""


class QueryTurns:
    """Whose query is next: of one client so many are made at a time, and the others wait.

    After a long one they begin one for each turn of the event loop. Many requests that come at once would otherwise all
    be answered before anybody else's.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By client, the queries that wait; a client without an entry waits for nothing."""
        self._made: Counter[str] = Counter()
        """By client, how many are made."""
        self._scheduled: set[str] = set()
        """The clients of whom another one is looked for in the next turn."""

    @asynccontextmanager
    async def taken(self, client: str) -> AsyncIterator[None]:
        """Wait for the client's turn, and note afterwards how long it was."""
        if self._made[client] >= _MADE_AT_ONCE and client not in self._waiting:
            self._waiting[client] = deque()
        waiting = self._waiting.get(client)
        if waiting is not None:
            turn = asyncio.get_running_loop().create_future()
            waiting.append(turn)
            await turn
        self._made[client] += 1
        began = time.thread_time()
        try:
            yield
        finally:
            self._made[client] -= 1
            if not self._made[client]:
                del self._made[client]
            if client not in self._waiting and time.thread_time() - began > _LONG_TURN:
                self._waiting[client] = deque()
            self._schedule(client)

    def _schedule(self, client: str) -> None:
        if client in self._waiting and client not in self._scheduled:
            self._scheduled.add(client)
            asyncio.get_running_loop().call_soon(self._next, client)

    def _next(self, client: str) -> None:
        self._scheduled.discard(client)
        waiting = self._waiting[client]
        while waiting and waiting[0].done():
            # Whoever waited for it has gone.
            waiting.popleft()
        if not waiting:
            del self._waiting[client]
        elif self._made[client] < _MADE_AT_ONCE:
            waiting.popleft().set_result(None)
            self._schedule(client)


class ResultTurns:
    """Which subscriptions of a client may make a result in this turn of the event loop; the others wait for later ones.

    Results that are shared take microseconds, so that hundreds are made in a turn; of large ones few are.
    """

    def __init__(self, most_unsent: int = _MOST_UNSENT) -> None:
        """:param most_unsent: bytes of large results that a client may leave unread before another one is made."""
        self._most_unsent = most_unsent
        self._unsent: Counter[str] = Counter()
        """By client, the bytes of large results that it has not read yet."""
        self._full: dict[str, asyncio.Future[None]] = {}
        """By client that has too many of them, what is done when it has read some."""
        self._began: dict[str, float] = {}
        """By client, when the first result of this turn was begun."""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._sizes: dict[str, int] = {}
        """By client, how many of those that wait go on in a turn."""
        self._turned_at = 0.0
        self._is_scheduled = False

    async def begin(self, client: str) -> None:
        """Wait until the client may have another result made."""
        while True:
            if (later := self.next(client)) is not None:
                await later
            if client not in self._unsent or self._unsent[client] <= self._most_unsent:
                return
            if client not in self._full:
                self._full[client] = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._full[client])

    @contextmanager
    def unsent(self, client: str, size: int) -> Iterator[None]:
        """Count a result of so many bytes until the block ends: the client has not read it yet."""
        if size < LARGE_RESULT:
            yield
            return
        self._unsent[client] += size
        try:
            yield
        finally:
            self._unsent[client] -= size
            if self._unsent[client] <= self._most_unsent and client in self._full:
                self._full.pop(client).set_result(None)
            if not self._unsent[client]:
                del self._unsent[client]

    def next(self, client: str) -> asyncio.Future[None] | None:
        """Return what is done when the client may have another result made; None if it may now."""
        waiting = self._waiting.get(client)
        if waiting is None:
            began = self._began.get(client)
            if began is None:
                self._began[client] = time.monotonic()
                self._schedule()
                return None
            if time.monotonic() - began <= _SHARE:
                return None
            waiting = self._waiting[client] = deque()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        return turn

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._turned_at = time.monotonic()
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        is_long = time.monotonic() - self._turned_at > 2 * _SHARE
        self._began.clear()
        for client in list(self._waiting):
            size = self._sizes.get(client, _FIRST)
            self._sizes[client] = size = max(size // 2, _FEWEST) if is_long else min(size * 2, _MOST)
            self._go_on(client, size)
        if self._waiting:
            self._schedule()

    def _go_on(self, client: str, number: int) -> None:
        waiting = self._waiting[client]
        while waiting and number:
            turn = waiting.popleft()
            # Whoever waited for it may have gone.
            if not turn.done():
                turn.set_result(None)
                number -= 1
        if not waiting:
            del self._waiting[client]
            self._sizes.pop(client, None)


class StreamTurn:
    """The right of a stream to make a result, among those of its client."""

    def __init__(self, turns: ResultTurns, client: str) -> None:
        self._turns = turns
        self._client = client

    async def begin(self) -> None:
        """Wait until it may."""
        await self._turns.begin(self._client)

    def end(self) -> None:
        """Do nothing: the next turn of the event loop is for everybody."""
