"""One delivery of a submission, and the lease that comes with it."""

import asyncio
from copy import copy

from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.ids import parse_job_id
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.log import codec, subjects
from gql_jobs.log.client import Received
from gql_jobs.log.connection import Connection
from gql_jobs.log.tail import ack_tokens


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
