"""Deliveries of submissions with their leases, and the pull consumers that they come from.

There is a pull consumer per queue and priority, with at most one open pull. The caller closes a pull that is
``silent``, or was open when the connection was lost, and opens a new one.
"""

import asyncio
import logging
from collections.abc import Callable
from copy import copy
from datetime import datetime
from typing import Any

import msgspec

from gql_jobs import clock
from gql_jobs.jetstream.client import Received, SubjectSubscription
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import Unavailable
from gql_jobs.jetstream.ordered_consumer import ack_tokens, time_of
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log import codec
from gql_jobs.log.job_log import queue_error

log = logging.getLogger(__name__)

PULL_EXPIRES = 30.0
"""Seconds that a pull waits for jobs."""
PULL_HEARTBEAT = 3.0
"""Seconds between the server's heartbeats on an open pull."""
MAX_NAK_DELAY = 86_400.0
"""Seconds after which a delivery comes back at the latest; what is not due yet then is handed back again."""
POLL_TIMEOUT = 2.0
"""Seconds to wait for the answer to a pull that does not wait for jobs."""
_DELETED = "consumer deleted"
"""What the server says, whatever the case of its letters, of a pull whose consumer has been deleted."""


class Delivery:
    """One delivery of a submission with its lease, which runs out at ``deadline`` (by the event loop's clock).

    After that the server may deliver the submission to another worker. ``seq`` is the sequence of the submission,
    ``delivered`` the number of its deliveries, this one included, and ``reply`` the subject on which it is acked.
    """

    def __init__(self, connection: Connection, message: Received, ack_wait: float) -> None:
        self._connection = connection
        self.reply = message.reply
        self._data = message.data
        self._ack_wait = ack_wait
        self._clock = asyncio.get_running_loop().time
        _, delivered, seq, _, _, _ = ack_tokens(message.reply)
        self.subject = message.subject
        named = codec.job_and_kind(message.subject)
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
        """Whether the lease has not run out, so that no other worker can have the delivery."""
        return self._clock() < self.deadline

    def passed_on(self, reply: str, lease: float) -> "Delivery":
        """Return a later delivery of the same submission, which another worker got and passed on.

        :param reply: the reply subject of that delivery.
        :param lease: the seconds that are left of its lease.
        """
        later = copy(self)
        _, delivered, _, _, _, _ = ack_tokens(reply)
        later.reply, later.delivered = reply, int(delivered)
        later.deadline = self._clock() + lease
        return later

    @property
    def stored_at(self) -> datetime:
        """When the submission was stored, by the server's clock: for a scheduled job, when it was due."""
        return time_of(int(ack_tokens(self.reply)[4]))

    def submission(self) -> Submission:
        """Return the submission.

        :raises Unreadable: if the message is not one of this version.
        """
        if not codec.is_job_id(self.job_id):
            raise codec.Unreadable(f"{self.job_id!r} is no job id")
        body = codec.decode_body(Kind.QUEUED, self._data)
        assert isinstance(body, Submission)
        return body

    async def extend(self) -> bool:
        """Extend the lease by ``ack_wait`` seconds from now; return whether that has succeeded.

        Never past the deadline, because a superseded worker would keep the job from its successor.
        """
        if not self.leased:
            return False
        asked = self._clock()
        try:
            await self._connection.request(self.reply, b"+WPI", timeout=max(self._ack_wait / 6, 1.0))
        except Unavailable:
            return False
        self.deadline = asked + self._ack_wait
        return True

    async def ack(self) -> None:
        """Acknowledge the delivery. If the ack is lost, the redelivery is recognised and dropped."""
        await self._answer(b"+ACK")

    async def nak(self, delay: float) -> None:
        """Have it redelivered after ``delay`` seconds; do nothing past the deadline: another worker may have it.

        :param delay: at most ``MAX_NAK_DELAY`` of it is waited.
        """
        if self.leased:
            # With a delay of 0, or one beyond 64 bits, the server would redeliver at once, again and again.
            seconds = clock.delay_at_server(min(max(delay, 0.001), MAX_NAK_DELAY))
            await self._answer(b'-NAK {"delay": %d}' % round(seconds * 1e9))

    async def _answer(self, what: bytes) -> None:
        try:
            await self._connection.client.send(self.reply, what)
        except Unavailable:
            self.deadline = 0.0


class PullConsumer:
    """The durable pull consumer of one queue and priority.

    ``deliver`` is called with each delivery as it comes, and ``lost`` when the server says that there is no such
    consumer any more, so that all its deliveries are void: a new one delivers again whatever there is.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        priority: JobPriority,
        *,
        ack_wait: float,
        deliver: Callable[["PullConsumer", Delivery], None],
        lost: Callable[["PullConsumer"], None] = lambda _: None,
    ) -> None:
        self.queue = queue
        self.priority = priority
        self.name = codec.consumer_name(queue, priority)
        self._connection = connection
        self._ack_wait = ack_wait
        self._deliver = deliver
        self._lost = lost
        self._ended_with = ""
        self._subscription: SubjectSubscription | None = None
        self._inbox = ""
        self._pull_ended = asyncio.Event()
        self._last_message_at = 0.0
        self._received = 0
        self.wanted = 0
        """The number of deliveries that the open pull may still bring; 0 if no pull is open."""
        self.waiting = False
        """Whether the open pull waits for jobs: the server had no more for it."""

    @property
    def silent(self) -> bool:
        """Whether nothing has come on a waiting pull for longer than two heartbeats."""
        return self.waiting and asyncio.get_running_loop().time() - self._last_message_at > 2.5 * PULL_HEARTBEAT

    async def poll(self, batch: int) -> bool:
        """Pull the deliveries that are there now, at most ``batch``; return whether any came.

        :raises QueueUnavailable: if the server is away or does not answer.
        """
        before = self._received
        await self._pull({"batch": batch, "no_wait": True}, batch)
        try:
            async with asyncio.timeout(POLL_TIMEOUT):
                await self._pull_ended.wait()
        except TimeoutError:
            await self.close()
            raise QueueUnavailable(f"The consumer {self.name} does not answer.") from None
        return self._received > before

    async def wait(self, batch: int) -> None:
        """Open a pull that waits for at most ``batch`` jobs.

        :raises QueueUnavailable: if the server is away.
        """
        body = {"batch": batch, "expires": round(PULL_EXPIRES * 1e9), "idle_heartbeat": round(PULL_HEARTBEAT * 1e9)}
        await self._pull(body, batch)
        self.waiting = True

    async def close(self) -> None:
        """Close the open pull, which ends a poll. Deliveries that the server has already sent still come."""
        self.wanted, self.waiting = 0, False
        self._pull_ended.set()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._connection.drain(subscription)

    async def _pull(self, body: dict[str, Any], batch: int) -> None:
        if self._subscription is None:
            self._inbox = self._connection.new_inbox()
            try:
                self._subscription = await self._connection.receive(self._inbox, self._on_message)
            except Unavailable as error:
                raise queue_error(error) from error
        self._pull_ended.clear()
        self.wanted, self.waiting = batch, False
        self._last_message_at = asyncio.get_running_loop().time()
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{codec.JOBS_STREAM}.{self.name}"
            await self._connection.client.send(subject, msgspec.json.encode(body), self._inbox)
        except Unavailable as error:
            self.wanted = 0
            raise queue_error(error) from error

    def _on_message(self, message: Received) -> None:
        self._last_message_at = asyncio.get_running_loop().time()
        if message.reply.startswith("$JS.ACK."):
            self._received += 1
            self.wanted = max(self.wanted - 1, 0)
            if self.wanted == 0:
                self.waiting = False
            self._deliver(self, Delivery(self._connection, message, self._ack_wait))
            if self.wanted == 0:
                self._pull_ended.set()
            return
        status = (message.headers or {}).get("Status", "")
        if status == "100":
            return
        # All other statuses end the pull: 404 no messages, 408 expired, 409 consumer deleted or leader changed, 503.
        reason = "" if status in {"404", "408"} else (message.headers or {}).get("Description", status)
        if reason and reason != self._ended_with:
            log.info("pull on %s ended: %s", self.name, reason)
        self._ended_with = reason
        if reason.lower() == _DELETED:
            self._lost(self)
        self.wanted, self.waiting = 0, False
        self._pull_ended.set()
