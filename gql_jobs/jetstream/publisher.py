"""Publishing into a stream: pipelined, in the order of the calls, each answered by the server's acknowledgement.

An own reply inbox with a future per message, because the client's ``publish_async`` never resolves its future when the
server refuses. It decides nothing: what a refusal means is the caller's business.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from gql_jobs.jetstream.client import Received
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import Unacknowledged, Unavailable, publication_refused

EXPECTED_SEQ_HEADER = "Nats-Expected-Last-Subject-Sequence"
"""The fence: the message is stored only while this is the last sequence of the subjects …"""
EXPECTED_SUBJECT_HEADER = "Nats-Expected-Last-Subject-Sequence-Subject"
"""… that this matches."""
ROLLUP_HEADER = "Nats-Rollup"
"""``sub``: the message replaces the older ones of its subject."""
SCHEDULE_HEADER = "Nats-Schedule"
"""``@at <time>``: when the server publishes the message again …"""
SCHEDULE_TARGET_HEADER = "Nats-Schedule-Target"
"""… to this subject."""
TTL_HEADER = "Nats-TTL"
"""How long the server keeps the message, such as ``60s``."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Publishes with one inbox for all acknowledgements."""

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client
        self._inbox = connection.new_inbox()
        self._waiting: dict[str, tuple[asyncio.Future[int], asyncio.TimerHandle]] = {}
        self._number = 0

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message the server takes."""
        return self._client.max_payload

    async def send(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        timeout: float,  # noqa: ASYNC109 - it is counted from the sending, whoever waits when
    ) -> asyncio.Future[int]:
        """Send and return the future of the message's sequence; messages are stored in the order of the calls.

        The future fails with a ``PublicationError``, ``Unacknowledged`` after ``timeout`` seconds among them, or, where
        no stream listens, with ``Unavailable``.

        :raises Unavailable: if nothing was sent because the server is away.
        :raises MessageTooLarge: if no server would take it.
        """
        self._number += 1
        token = str(self._number)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        # A timer of the loop is cheaper than a timeout context around each wait (docs/decisions.md).
        timer = loop.call_later(timeout, self._give_up, token, timeout)
        self._waiting[token] = future, timer
        try:
            await self._client.send(subject, data, f"{self._inbox}.{token}", headers)
        except BaseException:
            self._take_waiting(token)
            raise
        return future

    async def publish(self, subject: str, data: bytes, headers: dict[str, str], timeout: float) -> int:  # noqa: ASYNC109
        """Publish and return the sequence under which the message was stored.

        :raises FenceRefused: | StoreFull | PublicationRefused | Unavailable | MessageTooLarge: nothing was stored.
        :raises Unacknowledged: no answer within ``timeout`` seconds.
        """
        return await (await self.send(subject, data, headers, timeout))

    def _take_waiting(self, token: str) -> asyncio.Future[int] | None:
        """Return the future of a message, taken from those that wait; None if it is done with."""
        future, timer = self._waiting.pop(token, (None, None))
        if timer is not None:
            timer.cancel()
        return future if future is not None and not future.done() else None

    def _give_up(self, token: str, timeout: float) -> None:
        if (future := self._take_waiting(token)) is not None:
            _fail(future, Unacknowledged(f"no acknowledgement within {timeout:g} s"))

    def _on_ack(self, message: Received) -> None:
        future = self._take_waiting(message.subject.rsplit(".", 1)[-1])
        if future is None:
            return
        if not message.data:
            _fail(future, Unavailable("No JetStream stream takes this message; nothing was stored."))
            return
        ack = _decode_ack(message.data)
        if ack.error is None:
            future.set_result(ack.seq)
        else:
            _fail(future, publication_refused(ack.error.err_code, ack.error.description))

    def _close(self) -> None:
        for token in list(self._waiting):
            if (future := self._take_waiting(token)) is not None:
                future.cancel()


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    future.set_exception(error)
    # Looked at here, so that asyncio does not complain where nobody waits for it any more.
    future.exception()


@asynccontextmanager
async def open_publisher(connection: Connection) -> AsyncIterator[Publisher]:
    """Yield a publisher that listens to its inbox until the block ends; futures still open then are cancelled.

    :raises Unavailable: if the server is away.
    """
    publisher = Publisher(connection)
    subscription = await connection.receive(f"{publisher._inbox}.*", publisher._on_ack)  # noqa: SLF001
    try:
        yield publisher
    finally:
        publisher._close()  # noqa: SLF001
        await connection.unsubscribe(subscription)
