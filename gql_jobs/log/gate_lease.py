"""The lease of the gate: which process holds it, as messages in the stream, and the fences that follow from it.

It is sixteen messages, so that on a cluster as many fenced writes may be on their way at the same time. Whoever takes
the gate writes all of them, the first one under a fence that decides between two that try, and releases nothing before
it has applied the last of them. From then on every release of an earlier holder is refused, however late it comes. A
renewal is another message, fenced on the first lease, so that a holder that was replaced hears of it.
"""

import asyncio
import secrets
from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.log import codec
from gql_jobs.log.job_log import Fence, Superseded
from gql_jobs.log.steering import SteeringLog, as_value, steering_fence

LANES = 16
"""Messages of the lease."""
RENEWED_EVERY = 3.0
"""Seconds between two renewals."""
OLD_AFTER = 10.0
"""Seconds without a renewal, by the clock of whoever observes it, after which a lease may be taken."""
_RENEWAL = "renewal"


class GateLost(Exception):
    """Another process has taken the gate."""


class Holder(Struct, frozen=True, omit_defaults=True):
    """The value of a lease or a renewal: who holds the gate, and whether that has ended by itself."""

    holder: str
    ended: bool = False


_decode = msgspec.json.Decoder(Holder).decode


class GateLease:
    """The lease as one process knows it. ``observe`` has to be called with every message about it, in their order.

    ``id``: under which name this process holds it; ``held``: the sequences of its messages while it does, else empty;
    ``lost``: set once another process has taken it, until it is acquired again.
    """

    def __init__(self, steering_log: SteeringLog) -> None:
        self._log = steering_log
        self.id = secrets.token_hex(8)
        self.held: tuple[int, ...] = ()
        self.lost = asyncio.Event()
        self._known: dict[str, SteeringMessage] = {}
        self._heard_at = asyncio.get_running_loop().time()

    def observe(self, message: SteeringMessage) -> None:
        """Take note of a message about the lease."""
        self._known[message.name] = message
        self._heard_at = asyncio.get_running_loop().time()
        if self.held and message.name != _RENEWAL and not self._is_own(message):
            self.lose()

    @property
    def attended_until(self) -> datetime | None:
        """When it was last renewed, by the server's clock; None for never.

        That somebody has taken it says nothing: he may have ended before he had looked at what was due by then.
        """
        renewal = self._known.get(_RENEWAL)
        return renewal.at if renewal is not None else None

    def _is_own(self, message: SteeringMessage | None) -> bool:
        holder = _holder_of(message) if message is not None else None
        return holder is not None and holder.holder == self.id

    def free_in(self) -> float:
        """Return in how many seconds it may be taken; 0 if no other process holds it, or none was heard of for long."""
        if self.held:
            return 0.0
        first, renewal = self._known.get("0"), self._known.get(_RENEWAL)
        if first is None or self._is_own(first):
            # Nobody else, as far as it is known: the fence of the first message says whether that is so.
            return 0.0
        if renewal is not None and renewal.seq > first.seq and (said := _holder_of(renewal)) is not None and said.ended:
            return 0.0
        return max(self._heard_at + OLD_AFTER - asyncio.get_running_loop().time(), 0.0)

    def fence_of(self, job_id: str) -> Fence:
        """Return the condition of a release: this process has held the gate ever since it has acquired it.

        :raises GateLost: if it does not hold it.
        """
        if not self.held:
            raise GateLost
        lane = self.lane_of(job_id)
        return steering_fence(codec.GATE_LEASES, str(lane), self.held[lane])

    @staticmethod
    def lane_of(job_id: str) -> int:
        """Return by which of the leases the release of a job is fenced."""
        return int(job_id[-1], 16) % LANES

    async def acquire(self) -> int:
        """Take the gate; return the sequence up to which everything has to be applied before the first release.

        :raises GateLost: if another process has taken it meanwhile.
        :raises QueueUnavailable: | QueueFull: if the server does not answer, or has no room.
        """
        self.held = ()
        value = as_value(Holder(self.id))
        try:
            first = await self._log.write(codec.GATE_LEASES, "0", value, self._seq_of("0"))
        except Superseded as superseded:
            if superseded.last is not None and (read := self._read(superseded.last)) is not None:
                self.observe(read)
            raise GateLost from superseded
        # One is enough to keep others from trying; with the others a holder that was paused in here is shut out.
        rest = await asyncio.gather(*(self._take(str(lane), value, first) for lane in range(1, LANES)))
        self.held = (first, *rest)
        self.lost.clear()
        if any(known.seq > self.held[int(name)] for name, known in self._known.items() if name != _RENEWAL):
            self.lose()
            raise GateLost
        return max(self.held)

    async def renew(self, *, ends: bool = False) -> None:
        """Tell that the gate is still held, or, if it ``ends``, that anybody may take it at once.

        :raises GateLost: if another process has taken it.
        :raises QueueUnavailable: | QueueFull: if the server does not answer, or has no room.
        """
        if not self.held:
            raise GateLost
        fence = steering_fence(codec.GATE_LEASES, "0", self.held[0])
        try:
            await self._log.write(codec.GATE_LEASES, _RENEWAL, as_value(Holder(self.id, ends)), 0, fence=fence)
        except Superseded as superseded:
            self.lose()
            raise GateLost from superseded
        if ends:
            self.held = ()

    def lose(self) -> None:
        """Note that another process has taken it."""
        self.held = ()
        self.lost.set()

    async def _take(self, name: str, value: Raw, first: int) -> int:
        expected = self._seq_of(name)
        while True:
            try:
                return await self._log.write(codec.GATE_LEASES, name, value, expected)
            except Superseded as superseded:
                newest = await self._log.read(codec.GATE_LEASES, "0")
                if newest is None or newest.seq != first:
                    raise GateLost from superseded
                # One that was paused while it took the gate has written this; it has not the first one any more.
                expected = superseded.last.seq if superseded.last is not None else 0

    def _seq_of(self, name: str) -> int:
        known = self._known.get(name)
        return known.seq if known is not None else 0

    def _read(self, stored: codec.JobMessage) -> SteeringMessage | None:
        try:
            return codec.read_steering(stored)
        except codec.Unreadable:
            return None


def _holder_of(message: SteeringMessage) -> Holder | None:
    if message.value is None:
        return None
    try:
        return _decode(message.value)
    except msgspec.MsgspecError:
        return None
