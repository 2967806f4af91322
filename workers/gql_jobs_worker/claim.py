"""From a delivery to an attempt that is ours: the claim, decided by ``jobs.claim`` and made by a fenced event."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import Unavailable
from gql_jobs.jobs.claim import Decision, Drop, Exhausted, Leave, Start, Wait, decide, first_start
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import DeadLetter, Kind, Message, Started, Submission
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage, Newer, Unreadable
from gql_jobs.log.deliveries import Delivery
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events, queue_errors
from gql_jobs_worker import telemetry as journal
from gql_jobs_worker.abilities import Abilities
from gql_jobs_worker.attempt import Attempt
from gql_jobs_worker.invocation import fitting, with_errors
from gql_jobs_worker.telemetry import Counts

# Passing a redelivery on to the worker that still runs the job.
#
# A lease also runs out when NATS was away, and then the server offers the job to anybody, although its worker lives.
# Whoever is offered it asks that worker before taking the job over. An answer only ever prevents a take-over: who has
# the job is decided by the fence.

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
            answer = await self._connection.request(codec.handover_subject(owner), msgspec.json.encode(offer), ANSWER)
        except Unavailable:
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
            except Unavailable:
                log.debug("an offer could not be answered")

        with queue_errors():
            subscription = await self._connection.subscribe(codec.handover_subject(self._worker_id), answer)
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


NEWER_DELAY = 60.0
"""Seconds until a submission of a newer version is offered again: a worker of that version may take it."""

UNABLE_DELAY = 0.5
MAX_UNABLE_DELAY = 10.0
"""Seconds, per delivery so far and at most, until a job that cannot be run here is offered again, to whoever can."""


class Claims:
    """Claims deliveries for one worker."""

    def __init__(
        self, job_log: JobLog, worker_id: str, abilities: Abilities, handovers: Handovers, counts: Counts
    ) -> None:
        self._log = job_log
        self._worker_id = worker_id
        self._abilities = abilities
        self._handovers = handovers
        self._counts = counts

    async def submission(self, delivery: Delivery) -> Submission | None:
        """What is to be done, or None if nobody here can read it: the message stays in the stream."""
        try:
            return delivery.submission()
        except Newer as error:
            log.warning("submission %d of job %s is left to newer workers: %s", delivery.seq, delivery.job_id, error)
            self._counts.newer += 1
            await delivery.nak(NEWER_DELAY)
        except Unreadable as error:
            log.error("submission %d on %s is set aside: %s", delivery.seq, delivery.subject, error)  # noqa: TRY400
            self._counts.unreadable += 1
            await delivery.ack()
        return None

    async def claim(self, attempt: Attempt) -> Start | None:
        """The start that is now ours and recorded, or None if the delivery has been dealt with otherwise."""
        decision: Decision = first_start(attempt.submission)
        able = await self._abilities.can_run(attempt.spec.type)
        if attempt.delivery.redelivered or not able:
            decision = self._decide(attempt, await self._last_event(attempt))
        while isinstance(decision, Start | Exhausted):
            if isinstance(decision := await self._handovers.before(decision, attempt), Exhausted | Wait | Leave):
                break
            if not able:
                self._counts.unable += 1
                decision = Wait(min(UNABLE_DELAY * attempt.delivery.delivered, MAX_UNABLE_DELAY))
                break
            try:
                attempt.started_seq = await self._started(attempt, decision)
            except Superseded as superseded:
                decision = self._decide(attempt, superseded.last)
            else:
                attempt.number = decision.attempt
                attempt.started_at = asyncio.get_running_loop().time()
                return decision
        await self._without_start(attempt, decision)
        return None

    async def _last_event(self, attempt: Attempt) -> JobMessage | None:
        """Asked again while the lease lasts: a restart of NATS should not cost the job a whole lease."""
        while True:
            try:
                return await self._log.last(codec.event_subjects(attempt.job_id))
            except QueueUnavailable:
                if not attempt.delivery.leased:
                    raise
            await asyncio.sleep(0.5)

    def _decide(self, attempt: Attempt, stored: JobMessage | None) -> Decision:
        last: Message | None
        try:
            last = stored.read() if stored is not None else None
        except Unreadable:
            # Another version's event: that version's workers know what it means.
            return Wait(NEWER_DELAY)
        delivery = attempt.delivery
        return decide(attempt.submission, delivery.seq, last, redelivered=delivery.redelivered, now=datetime.now(UTC))

    async def _started(self, attempt: Attempt, start: Start) -> int:
        body = Started(
            submission=attempt.delivery.seq,
            attempt=start.attempt,
            worker_id=self._worker_id,
            errors=fitting(start.errors),
            progress=start.progress,
            message=start.message,
            supersedes=start.supersedes,
        )
        subject = codec.event_subject(attempt.job_id, Kind.STARTED)
        fence = job_events(attempt.job_id, start.event_seq)
        seq = await self._log.append(Write(attempt.job_id, subject, body, fence), timeout=None)
        facts = {"type": attempt.spec.type, "attempt": start.attempt, "supersedes": start.supersedes}
        journal.event("started", attempt.job_id, **facts)
        self._counts.outcomes[attempt.spec.type, "started"] += 1
        return seq

    async def _without_start(self, attempt: Attempt, decision: Decision) -> None:
        delivery = attempt.delivery
        match decision:
            case Drop():
                await delivery.ack()
            case Wait(delay):
                await delivery.nak(delay)
            case Exhausted():
                await self._bury(attempt, decision)
            case Leave() | Start():
                self._counts.passed_on += attempt.delivery.redelivered
                log.info("job %s is run by another worker", attempt.job_id)

    async def _bury(self, attempt: Attempt, exhausted: Exhausted) -> None:
        """The last attempt's worker was lost: a payload that kills its worker ends here, not in a loop."""
        body = DeadLetter(
            submission=attempt.delivery.seq,
            attempt=exhausted.attempt,
            worker_id=self._worker_id,
            progress=exhausted.progress,
            message=exhausted.message,
            spec=attempt.spec,
        )
        body = with_errors(body, exhausted.errors, self._log.max_payload)
        subject = codec.event_subject(attempt.job_id, Kind.DEAD_LETTER)
        fence = job_events(attempt.job_id, exhausted.event_seq)
        try:
            await self._log.append(Write(attempt.job_id, subject, body, fence), timeout=None)
        except Superseded:
            log.info("job %s was taken by another worker", attempt.job_id)
            return
        journal.event("dead-letter", attempt.job_id, attempt=exhausted.attempt, error=exhausted.errors[-1].message)
        await attempt.delivery.ack()
