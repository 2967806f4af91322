"""An ordered consumer: every message of a stream that matches, in order, without a gap, across restarts of the server.

It uses an ephemeral consumer without acks, which is deleted and created again, from the last sequence seen, when a
message is missing, the heartbeats stop or the connection is lost. A plain subscription would not do: it also brings
messages that the stream refused to store.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from gql_jobs import clock
from gql_jobs.jetstream.client import Received, SubjectSubscription
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError, Unavailable

log = logging.getLogger(__name__)

IDLE_HEARTBEAT = 2.0
"""Seconds between the server's heartbeats while it has nothing to send; two missed ones recreate the consumer."""
CREATE_TIMEOUT = 10.0
"""Seconds to wait for the creation, at which the server counts the messages behind the first sequence.

With a shorter timeout it would be asked to count them again and again.
"""
BATCH = 2048
"""Messages in a batch at most, unless ``max_batch`` is set to another number."""
BATCH_BYTES = 8 << 20
"""Bytes of the messages of a batch at most, unless it has a single message."""
TRIES_A_LINE = 120
"""Tries to begin, two a second, of which one is logged."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StreamMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of the stream; ``pending`` more were stored behind it when it was sent."""

    subject: str
    seq: int
    at: datetime
    data: bytes
    pending: int


class _Created(msgspec.Struct):
    name: str
    num_pending: int = 0


class OrderedConsumer:
    """Follows ``stream``: iterate over ``batches``.

    :param filters: patterns of the subjects wanted; empty for all. With more than one the server looks at every subject
        of the stream when the consumer is created, which takes long where it has millions.
    :param start: the first sequence wanted.
    :param headers_only: leave the data of messages out: what is brought of each is its subject, sequence and time.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: tuple[str, ...],
        start: int,
        *,
        headers_only: bool = False,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._filters = filters
        self._headers_only = headers_only
        self._description = ", ".join(filters) or stream
        self._next = start
        self._arrived: deque[Received] = deque()
        self._wake = asyncio.Event()
        self._broken = True
        self._consumer: str | None = None
        self._consumer_seq = 0
        self._behind = 0
        self._idle = False
        self._subscription: SubjectSubscription | None = None
        self.max_batch = BATCH
        """Messages in a batch at most; may be changed at any time."""
        self.pending: int | None = None
        """Messages that were not handed out yet when the consumer was created last; None before its creation."""

    @property
    def lag(self) -> int | None:
        """Messages stored and not handed out, as of the server's latest message; None while there is no consumer."""
        return None if self._broken else max(self._behind, len(self._arrived))

    @property
    def is_emptied(self) -> bool:
        """Whether everything that has arrived is handed out."""
        return not self._arrived

    def rewind(self, start: int) -> None:
        """Recreate the consumer with ``start`` as the first sequence wanted."""
        self._next = start
        self._break()

    async def batches(self) -> AsyncGenerator[list[StreamMessage], None]:
        """Yield messages as they come, oldest first, in lists of at most ``max_batch``; never ends by itself.

        A list of large messages is shorter. An empty list means that all messages of the stream have been handed out.
        """
        self._connection.on_reconnect.append(self._break)
        try:
            while True:
                if self._broken:
                    await self._restart()
                    if self.pending == 0:
                        yield []
                batch = await self._next_batch()
                if batch or self._idle:
                    self._idle = False
                    yield batch
                if not self._broken and not self._arrived:
                    await self._wait()
        finally:
            self._connection.on_reconnect.remove(self._break)
            await self._drop()

    def _break(self) -> None:
        self._broken = True
        self._wake.set()

    async def _wait(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(2.5 * IDLE_HEARTBEAT):
                await self._wake.wait()
        except TimeoutError:
            log.info("the consumer of %s is silent and is made anew", self._description)
            self._broken = True

    async def _next_batch(self) -> list[StreamMessage]:
        """Return the messages that have arrived, up to ``max_batch`` or a gap."""
        batch: list[StreamMessage] = []
        size = 0
        while self._arrived and len(batch) < self.max_batch and not self._broken and size < BATCH_BYTES:
            if not self._arrived[0].reply.startswith("$JS.ACK."):
                if batch:
                    # Answering awaits: a rewind meanwhile would make these messages come twice.
                    break
                await self._answer_status(self._arrived.popleft())
                continue
            message = self._arrived.popleft()
            size += len(message.data)
            _, _, seq, consumer_seq, nanoseconds, pending = ack_tokens(message.reply)
            if int(consumer_seq) != self._consumer_seq + 1:
                log.info("the consumer of %s has a gap and is made anew", self._description)
                self._broken = True
                break
            self._consumer_seq += 1
            self._next = int(seq) + 1
            self._behind = int(pending)
            batch.append(
                StreamMessage(message.subject, int(seq), time_of(int(nanoseconds)), message.data, self._behind)
            )
        return batch

    async def _answer_status(self, message: Received) -> None:
        """Answer flow control, and compare the last message that a heartbeat names with the last one taken."""
        headers = message.headers or {}
        if message.reply:
            await self._publish_or_break(self._connection.publish(message.reply, b""))
        if stalled := headers.get("Nats-Consumer-Stalled"):
            await self._publish_or_break(self._connection.publish(stalled, b""))
        last = headers.get("Nats-Last-Consumer")
        if last is None:
            return
        if int(last) != self._consumer_seq:
            self._broken = True
        elif not stalled:
            # The server has nothing to send: messages that the last delivery counted as pending have been removed
            # since, replaced by newer progress or expired.
            self._behind = 0
            self._idle = True

    async def _publish_or_break(self, publication: Any) -> None:
        try:
            await publication
        except Unavailable:
            self._broken = True

    async def _restart(self) -> None:
        tries = 0
        while True:
            await self._drop()
            try:
                await self._create()
            except (Unavailable, ApiError) as error:
                if not tries % TRIES_A_LINE:
                    log.info("the stream cannot be followed yet: %s (tries so far: %d)", error, tries + 1)
                tries += 1
                await asyncio.sleep(0.5)
            else:
                return

    async def _create(self) -> None:
        self._broken = False
        self._consumer_seq = 0
        inbox = self._connection.new_inbox()
        self._subscription = await self._connection.receive(inbox, self._on_message)
        config = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(self._next, 1),
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": round(IDLE_HEARTBEAT * 1e9),
            "inactive_threshold": 30_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
            "replay_policy": "instant",
        }
        if self._filters:
            config["filter_subjects"] = list(self._filters)
        if self._headers_only:
            config["headers_only"] = True
        body = {"stream_name": self._stream, "config": config}
        created = await self._connection.api(f"CONSUMER.CREATE.{self._stream}", body, CREATE_TIMEOUT)
        answer = msgspec.json.decode(created, type=_Created)
        self._consumer, self.pending = answer.name, answer.num_pending
        self._behind = answer.num_pending

    def _on_message(self, message: Received) -> None:
        self._arrived.append(message)
        self._wake.set()

    async def _drop(self) -> None:
        self._arrived.clear()
        subscription, self._subscription = self._subscription, None
        consumer, self._consumer = self._consumer, None
        if subscription is not None:
            await self._connection.unsubscribe(subscription)
        if consumer is not None and self._connection.connected:
            try:
                await self._connection.api(f"CONSUMER.DELETE.{self._stream}.{consumer}")
            except (Unavailable, ApiError):
                log.debug("the server forgets the consumer %s by itself", consumer)


def ack_tokens(reply: str) -> list[str]:
    """Split a delivery's reply subject: ``[consumer, delivered, stream seq, consumer seq, nanoseconds, pending]``."""
    tokens = reply.split(".")
    # Servers with domains put the domain and the account's hash in front of the stream's name.
    first = 3 if len(tokens) == 9 else 5  # noqa: PLR2004
    return tokens[first : first + 6]


def time_of(nanoseconds: int) -> datetime:
    """Return the time of the server so many nanoseconds after 1970, rounded as msgspec rounds times in JSON."""
    moment = _EPOCH + timedelta(0, 0, (nanoseconds + 500) // 1000)
    # Called for every message: the clock is asked only where it may have been moved.
    return moment if clock.advances is None else clock.told_by_server(moment)
