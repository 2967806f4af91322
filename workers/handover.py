"""Passing a redelivery on to the worker that still runs the job.

A lease also runs out when NATS was away, and then the server offers the job to anybody, although its worker lives.
Whoever is offered it asks that worker before taking the job over. An answer only ever prevents a take-over: who has the
job is decided by the fence.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gql_jobs.jobs.claim import Exhausted, Leave, Start, Wait
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.log import subjects
from gql_jobs.log.connection import Connection
from workers.attempt import Attempt

log = logging.getLogger(__name__)

ANSWER = 1.0
"""Seconds that a living worker has to answer; a stopped or blocked one loses the job, as it has lost the lease."""
RETURN_GRACE = 5.0
"""Seconds after a reconnection during which other workers may not be back yet."""
RETURN_PAUSE = 1.0
"""Seconds until a job is offered again during that time."""
_YES, _NO = b"+", b"-"


class Offer(msgspec.Struct, frozen=True):
    """``started_seq``: of the attempt that is to go on; ``reply``: the delivery's; ``lease``: seconds left of it."""

    job_id: str
    submission: int
    started_seq: int
    reply: str
    lease: float


_decode = msgspec.json.Decoder(Offer).decode


class Handovers:
    """Offers redeliveries to other workers and takes theirs. One per worker."""

    def __init__(self, connection: Connection, worker_id: str, take: Callable[[Offer], Awaitable[bool]]) -> None:
        """:param take: whether the attempt of an offer is in hand here, and goes on under it."""
        self._connection = connection
        self._worker_id = worker_id
        self._take = take
        self._returned_at = -RETURN_GRACE

    async def before(self, decision: Start | Exhausted, attempt: Attempt) -> Start | Exhausted | Wait | Leave:
        """What becomes of a decision to take a job over, when its worker has been asked."""
        owner, delivery = decision.lost_worker, attempt.delivery
        if owner is None or owner == self._worker_id:
            return decision
        clock = asyncio.get_running_loop().time
        offer = Offer(attempt.job_id, delivery.seq, decision.event_seq, delivery.reply, delivery.deadline - clock())
        try:
            answer = await self._connection.request(subjects.handover(owner), msgspec.json.encode(offer), ANSWER)
        except QueueUnavailable:
            away = clock() - self._returned_at < RETURN_GRACE
            return Wait(RETURN_PAUSE) if away else decision
        return Leave() if answer.data == _YES else decision

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Answer the offers of others until the block ends."""

        async def answer(message: Any) -> None:
            taken = await self._answer(message.data)
            try:
                await self._connection.publish(message.reply, _YES if taken else _NO)
            except QueueUnavailable:
                log.debug("an offer could not be answered")

        subscription = await self._connection.subscribe(subjects.handover(self._worker_id), answer)
        self._connection.on_reconnect.append(self._returned)
        try:
            yield
        finally:
            self._connection.on_reconnect.remove(self._returned)
            await self._connection.unsubscribe(subscription)

    async def _answer(self, data: bytes) -> bool:
        try:
            return await self._take(_decode(data))
        except (msgspec.MsgspecError, QueueUnavailable) as error:
            log.info("an offer was not taken: %s", error)
            return False

    def _returned(self) -> None:
        self._returned_at = asyncio.get_running_loop().time()
