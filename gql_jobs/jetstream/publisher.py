"""Publishing into the stream: pipelined, in the order of the calls, each answered by the server's acknowledgement.

An own reply inbox with a future per message, because the client's ``publish_async`` never resolves its future when the
server refuses. It decides nothing: what a refusal means is the log's business.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from gql_jobs.jetstream.client import Received
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.errors import QueueUnavailable

FENCE_REFUSALS = frozenset({10071, 10164})
"""``wrong last sequence``; on a replicated stream also ``… by subject constraint``."""
STORE_REFUSALS = frozenset({10023, 10047, 10077, 10002})
"""No room: insufficient resources, storage exceeded, maximum bytes, account limit."""


class FenceRefused(Exception):
    """Somebody has written to the fenced subjects since, or the writer's own lost acknowledgement had succeeded."""


class StoreFull(Exception):
    """The server has no room for the message."""


class Unacknowledged(Exception):
    """The message was sent and nothing came back: stored or not, nobody here knows."""


class Refused(Exception):
    """The server refused for another reason, such as a stream that is missing; ``err_code`` is its number."""

    def __init__(self, description: str, err_code: int) -> None:
        super().__init__(f"{description} ({err_code})")
        self.description = description
        self.err_code = err_code


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Publishes with one inbox for all acknowledgements."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._waiting: dict[str, tuple[asyncio.Future[int], asyncio.TimerHandle]] = {}
        self._number = 0

    async def send(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        timeout: float,  # noqa: ASYNC109 - it is counted from the sending, whoever waits when
    ) -> asyncio.Future[int]:
        """Send and return the future of the message's sequence; messages are stored in the order of the calls.

        The future fails with ``FenceRefused``, ``StoreFull``, ``Refused``, ``Unacknowledged`` after ``timeout`` seconds
        or, where no stream listens, ``QueueUnavailable``.

        :raises QueueUnavailable: if nothing was sent because the server is away.
        """
        self._number += 1
        token = str(self._number)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        # A timer of the loop costs a fifth of a timeout context around each wait.
        timer = loop.call_later(timeout, self._give_up, token, timeout)
        self._waiting[token] = future, timer
        try:
            await self._connection.publish(subject, data, f"{self._inbox}.{token}", headers)
        except BaseException:
            self._answered(token)
            raise
        return future

    def _answered(self, token: str) -> asyncio.Future[int] | None:
        """The future of a message, taken from those that wait; None if it is done with."""
        future, timer = self._waiting.pop(token, (None, None))
        if timer is not None:
            timer.cancel()
        return future if future is not None and not future.done() else None

    def _give_up(self, token: str, timeout: float) -> None:
        if (future := self._answered(token)) is not None:
            _fail(future, Unacknowledged(f"no acknowledgement within {timeout:g} s"))

    def _close(self) -> None:
        for token in list(self._waiting):
            if (future := self._answered(token)) is not None:
                future.cancel()

    async def publish(self, subject: str, data: bytes, headers: dict[str, str], timeout: float) -> int:  # noqa: ASYNC109
        """The sequence under which the message was stored.

        :raises FenceRefused: | StoreFull | Refused | QueueUnavailable: nothing was stored.
        :raises Unacknowledged: no answer within ``timeout`` seconds.
        """
        return await (await self.send(subject, data, headers, timeout))

    def _on_ack(self, message: Received) -> None:
        future = self._answered(message.subject.rsplit(".", 1)[-1])
        if future is None:
            return
        if not message.data:
            _fail(future, QueueUnavailable("No JetStream stream takes this message; nothing was stored."))
            return
        ack = _decode(message.data)
        if ack.error is None:
            future.set_result(ack.seq)
        else:
            _fail(future, _refusal(ack.error))


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    future.set_exception(error)
    # Seen, also where nobody waits for it any more.
    future.exception()


def _refusal(error: _Error) -> Exception:
    if error.err_code in FENCE_REFUSALS:
        return FenceRefused(error.description)
    if error.err_code in STORE_REFUSALS:
        return StoreFull(error.description)
    return Refused(error.description, error.err_code)


@asynccontextmanager
async def open_publisher(connection: Connection) -> AsyncIterator[Publisher]:
    """A publisher that listens to its inbox until the block ends; futures still open then are cancelled."""
    publisher = Publisher(connection)
    subscription = await connection.receive(f"{publisher._inbox}.*", publisher._on_ack)  # noqa: SLF001
    try:
        yield publisher
    finally:
        publisher._close()  # noqa: SLF001
        await connection.unsubscribe(subscription)
