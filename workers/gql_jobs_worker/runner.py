"""One job, as one pipeline: claim, run, record. Whatever happens in it, the delivery is dealt with by the rules."""

import asyncio
import logging

from gql_jobs.jobs.claim import Start
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import HEADROOM
from gql_jobs.log.deliveries import Delivery
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs_worker.abilities import Abilities
from gql_jobs_worker.attempt import Attempt, InHand, Stop
from gql_jobs_worker.cancellations import Receipts
from gql_jobs_worker.claim import Claims, Handovers, Offer
from gql_jobs_worker.context import AttemptContext
from gql_jobs_worker.execution import Execution
from gql_jobs_worker.invocation import Failure, Succeeded
from gql_jobs_worker.record import Records
from gql_jobs_worker.telemetry import Counts

log = logging.getLogger(__name__)


class Runner:
    """``running`` are the attempts in hand: whoever hears of a cancellation or a redelivery finds them here."""

    def __init__(
        self, job_log: JobLog, execution: Execution, abilities: Abilities, settings: Settings, worker_id: str
    ) -> None:
        self._log = job_log
        self._execution = execution
        self._artifacts = ArtifactStore(job_log, settings)
        self._worker_id = worker_id
        self.counts = Counts()
        self.handovers = Handovers(job_log.connection, worker_id, self._take)
        self._claims = Claims(job_log, worker_id, abilities, self.handovers, self.counts)
        self._receipts = Receipts(job_log, worker_id)
        self._records = Records(job_log, settings, worker_id, self._receipts, self.counts)
        self.running: dict[InHand, Attempt] = {}

    async def run(self, delivery: Delivery) -> None:
        """Deal with a delivery from its claim to its ack."""
        try:
            submission = await self._claims.submission(delivery)
            if submission is not None and not self.adopt(delivery):
                await self._run(Attempt(delivery, submission))
        except QueueUnavailable as error:
            # Nothing was decided: the lease runs out and the job is delivered again.
            log.warning("job %s is left to its lease: %s", delivery.job_id, error)
        except Exception:
            log.exception("job %s could not be run and is left to its lease", delivery.job_id)

    def adopt(self, delivery: Delivery) -> bool:
        """Whether an attempt of that submission is in hand, which then goes on under this delivery.

        Its lease had run out while NATS was away or the event loop stood still: to take the job over from itself would
        spend an attempt, and run the handler twice at once.
        """
        attempt = self.running.get((delivery.job_id, delivery.seq))
        if attempt is None:
            return False
        if attempt.delivery is not delivery:
            self._adopt(attempt, delivery)
        return True

    async def extend(self, attempt: Attempt) -> None:
        """Extend the lease of an attempt in hand."""
        if attempt.adopted and attempt.started_seq:
            try:
                if not await attempt.confirm(self._log):
                    return
            except QueueUnavailable:
                return
        await attempt.delivery.extend()

    def _adopt(self, attempt: Attempt, delivery: Delivery) -> None:
        log.info("job %s is delivered again while it runs here", delivery.job_id)
        self.counts.adopted += 1
        attempt.adopt(delivery)

    async def _take(self, offer: Offer) -> bool:
        attempt = self.running.get((offer.job_id, offer.submission))
        if attempt is None or attempt.started_seq != offer.started_seq or not await attempt.confirm(self._log):
            return False
        self._adopt(attempt, attempt.delivery.passed_on(offer.reply, offer.lease))
        return await attempt.delivery.extend()

    async def _run(self, attempt: Attempt) -> None:
        # Known before it is started: a cancellation that comes in between finds it.
        in_hand = (attempt.job_id, attempt.delivery.seq)
        self.running[in_hand] = attempt
        try:
            start = await self._claims.claim(attempt)
            if start is not None:
                await self._work(attempt, start)
        finally:
            del self.running[in_hand]

    async def _work(self, attempt: Attempt, start: Start) -> None:
        context = AttemptContext(self._log, self._artifacts, attempt, self._worker_id, start)
        if start.attempt > 1 or attempt.submission.event_seq or attempt.delivery.redelivered:
            await self._restored(context)
        max_result = self._log.max_payload - HEADROOM
        try:
            with self._receipts.handler_of(attempt):
                outcome = await self._execution.run(attempt, context, max_result)
        finally:
            await context.close()
        match outcome:
            case Succeeded():
                await self._records.succeeded(attempt, context, start.errors, outcome)
            case Failure():
                await self._records.failed(attempt, context, start.errors, outcome)
            case Stop.CANCELLED:
                await self._records.cancelled(attempt)
            case Stop.HANDED_BACK:
                await self._records.handed_back(attempt, context, start.errors)
            case Stop.SUPERSEDED:
                self._records.lost(attempt)

    async def _restored(self, context: AttemptContext) -> None:
        """The attempt is ours and counted: it waits for its checkpoint rather than begin from nothing."""
        while True:
            try:
                await context.restore()
            except QueueUnavailable:
                await asyncio.sleep(0.5)
            else:
                return
