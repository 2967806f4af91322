"""One delivery of a submission, and the lease that comes with it."""

import asyncio
import logging
from collections.abc import Callable
from copy import copy
from typing import Any

import msgspec
from nats.aio.subscription import Subscription

from gql_jobs.jetstream.client import Received
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.ordered_consumer import ack_tokens
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import JobPriority, parse_job_id
from gql_jobs.log import codec, subjects


class Delivery:
    """``seq`` is the submission's. Past ``deadline`` the server may have given the job to somebody else.

    ``delivered`` counts its deliveries, this one included; a hand-back counts as well. ``reply``: where it is acked.
    """

    def __init__(self, connection: Connection, message: Received, ack_wait: float) -> None:
        self._connection = connection
        self.reply = message.reply
        self._data = message.data
        self._ack_wait = ack_wait
        self._clock = asyncio.get_running_loop().time
        _, delivered, seq, _, _, _ = ack_tokens(message.reply)
        self.subject = message.subject
        named = subjects.kind_of(message.subject)
        self.job_id = named[0] if named is not None else ""
        self.seq = int(seq)
        self.delivered = int(delivered)
        self.arrived = self._clock()
        self.deadline = self.arrived + ack_wait

    @property
    def redelivered(self) -> bool:
        """Whether the submission has been delivered before."""
        return self.delivered > 1

    @property
    def leased(self) -> bool:
        """Whether the message is still ours for certain."""
        return self._clock() < self.deadline

    def passed_on(self, reply: str, lease: float) -> "Delivery":
        """A later delivery of the same submission, given to another worker with ``lease`` seconds left of it."""
        later = copy(self)
        _, delivered, _, _, _, _ = ack_tokens(reply)
        later.reply, later.delivered = reply, int(delivered)
        later.deadline = self._clock() + lease
        return later

    def submission(self) -> Submission:
        """:raises Unreadable: if the message is none of ours."""
        if parse_job_id(self.job_id) != self.job_id:
            raise codec.Unreadable(f"{self.job_id!r} is no job id")
        body = codec.decode(Kind.QUEUED, self._data)
        assert isinstance(body, Submission)
        return body

    async def extend(self) -> bool:
        """Extend the lease; past the deadline never: a zombie's heartbeat would keep the job from its successor."""
        if not self.leased:
            return False
        asked = self._clock()
        try:
            await self._connection.request(self.reply, b"+WPI", timeout=max(self._ack_wait / 6, 1.0))
        except QueueUnavailable:
            return False
        self.deadline = asked + self._ack_wait
        return True

    async def ack(self) -> None:
        """The delivery is done with. One that is lost costs a redelivery, which is recognised and dropped."""
        await self._say(b"+ACK")

    async def nak(self, delay: float) -> None:
        """Have it redelivered after ``delay`` seconds; never past the deadline: that would start a second attempt."""
        if self.leased:
            # Without a delay the server would redeliver at once, in a hot loop.
            await self._say(b'-NAK {"delay": %d}' % round(max(delay, 0.001) * 1e9))

    async def _say(self, what: bytes) -> None:
        try:
            await self._connection.publish(self.reply, what)
        except QueueUnavailable:
            self.deadline = 0.0


# Pulling deliveries from the consumers of queues and priorities.
#
# A lane is one consumer. At most one pull is open per lane; its heartbeat is watched, and a pull that falls silent, or
# was open when the connection was lost, is given up and made anew.

log = logging.getLogger(__name__)

EXPIRES = 30.0
"""Seconds a pull waits for jobs."""
HEARTBEAT = 3.0
"""Seconds between the server's signs of life on an open pull."""
ANSWER = 2.0
"""Seconds for the answer to a pull that does not wait."""


class Lane:
    """The deliveries of one queue and priority. ``deliver`` takes each as it comes."""

    def __init__(
        self,
        connection: Connection,
        queue: str,
        priority: JobPriority,
        *,
        ack_wait: float,
        deliver: Callable[["Lane", Delivery], None],
    ) -> None:
        self.queue = queue
        self.priority = priority
        self.consumer = subjects.consumer(queue, priority)
        self._connection = connection
        self._ack_wait = ack_wait
        self._deliver = deliver
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._answered = asyncio.Event()
        self._heard = 0.0
        self._came = 0
        self.wanted = 0
        """Deliveries that the open pull may still bring; 0 means that no pull is open."""
        self.waiting = False
        """Whether the open pull waits for jobs to come: the server has none for this lane."""

    async def poll(self, batch: int) -> bool:
        """Pull what is there now, at most ``batch``; True if anything came.

        :raises QueueUnavailable: if the server is away or does not answer.
        """
        came = self._came
        await self._pull({"batch": batch, "no_wait": True}, batch)
        try:
            async with asyncio.timeout(ANSWER):
                await self._answered.wait()
        except TimeoutError:
            await self.close()
            raise QueueUnavailable(f"The consumer {self.consumer} does not answer.") from None
        return self._came > came

    async def wait(self, batch: int) -> None:
        """Open a pull that waits for jobs.

        :raises QueueUnavailable: if the server is away.
        """
        body = {"batch": batch, "expires": round(EXPIRES * 1e9), "idle_heartbeat": round(HEARTBEAT * 1e9)}
        await self._pull(body, batch)
        self.waiting = True

    @property
    def silent(self) -> bool:
        """Whether the open pull shows no sign of life."""
        return self.waiting and asyncio.get_running_loop().time() - self._heard > 2.5 * HEARTBEAT

    async def close(self) -> None:
        """Give up the open pull. Deliveries that are on their way still come."""
        self.wanted, self.waiting = 0, False
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._connection.drain(subscription)

    async def _pull(self, body: dict[str, Any], batch: int) -> None:
        if self._subscription is None:
            self._inbox = self._connection.new_inbox()
            self._subscription = await self._connection.receive(self._inbox, self._on_message)
        self._answered.clear()
        self.wanted, self.waiting = batch, False
        self._heard = asyncio.get_running_loop().time()
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.STREAM}.{self.consumer}"
            await self._connection.publish(subject, msgspec.json.encode(body), self._inbox)
        except QueueUnavailable:
            self.wanted = 0
            raise

    def _on_message(self, message: Received) -> None:
        self._heard = asyncio.get_running_loop().time()
        if message.reply.startswith("$JS.ACK."):
            self._came += 1
            self.wanted = max(self.wanted - 1, 0)
            if self.wanted == 0:
                self.waiting = False
            self._deliver(self, Delivery(self._connection, message, self._ack_wait))
            if self.wanted == 0:
                self._answered.set()
            return
        status = (message.headers or {}).get("Status", "")
        if status == "100":
            return
        # Everything else ends the pull: 404 nothing there, 408 expired, 409 consumer gone or leader changed, 503.
        if status not in {"404", "408"}:
            log.info("pull on %s ended: %s", self.consumer, message.headers)
        self.wanted, self.waiting = 0, False
        self._answered.set()
