"""From a delivery to an attempt that is ours: the claim, decided by ``jobs.claim`` and made by a fenced event."""

import asyncio
import logging
from datetime import UTC, datetime

from gql_jobs.jobs.claim import Decision, Drop, Exhausted, Leave, Start, Wait, decide, first_start
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import DeadLetter, Kind, Message, Started, Submission
from gql_jobs.log import subjects
from gql_jobs.log.codec import Newer, Unreadable
from gql_jobs.log.delivery import Delivery
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events
from gql_jobs.log.stored import StoredMessage
from workers import journal
from workers.abilities import Abilities
from workers.attempt import Attempt
from workers.counts import Counts
from workers.handover import Handovers
from workers.outcome import fitting, with_errors

log = logging.getLogger(__name__)

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

    async def _last_event(self, attempt: Attempt) -> StoredMessage | None:
        """Asked again while the lease lasts: a restart of NATS should not cost the job a whole lease."""
        while True:
            try:
                return await self._log.last(subjects.events(attempt.job_id))
            except QueueUnavailable:
                if not attempt.delivery.leased:
                    raise
            await asyncio.sleep(0.5)

    def _decide(self, attempt: Attempt, stored: StoredMessage | None) -> Decision:
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
        subject = subjects.event(attempt.job_id, Kind.STARTED)
        fence = job_events(attempt.job_id, start.event_seq)
        seq = await self._log.append(Write(attempt.job_id, subject, body, fence), patience=None)
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
        body = with_errors(body, exhausted.errors, self._log.connection.max_payload)
        subject = subjects.event(attempt.job_id, Kind.DEAD_LETTER)
        fence = job_events(attempt.job_id, exhausted.event_seq)
        try:
            await self._log.append(Write(attempt.job_id, subject, body, fence), patience=None)
        except Superseded:
            log.info("job %s was taken by another worker", attempt.job_id)
            return
        journal.event("dead-letter", attempt.job_id, attempt=exhausted.attempt, error=exhausted.errors[-1].message)
        await attempt.delivery.ack()
