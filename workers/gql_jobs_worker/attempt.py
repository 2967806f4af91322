"""An attempt, from its delivery to its ack: one pipeline over frozen values, ``Claimed → Ran → Recorded``.

Two rules hold whatever happens: the outcome is acknowledged by the stream before the delivery is acked, and what
another worker has is neither acked nor naked.
"""

import logging
from functools import partial
from typing import Any

from gql_jobs.jobs.claim import Drop, Leave, Wait
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Submission
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import HEADROOM, JobCommands
from gql_jobs.log.deliveries import Delivery
from gql_jobs.log.job_log import JobLog
from gql_jobs.logs import hidden_in_log, job_fields
from gql_jobs_worker.cancellations import Receipts
from gql_jobs_worker.claim import Claimed, Claims
from gql_jobs_worker.context import AttemptContext, FencedStore
from gql_jobs_worker.execution import HandlerExecution, Ran
from gql_jobs_worker.intake import Lease, Leases
from gql_jobs_worker.record import Records

log = logging.getLogger(__name__)


class Attempts:
    """Runs the attempts of one worker."""

    def __init__(
        self,
        job_log: JobLog,
        artifacts: ArtifactStore,
        commands: JobCommands,
        *,
        public_url: str | None,
        leases: Leases,
        claims: Claims,
        execution: HandlerExecution,
        records: Records,
        receipts: Receipts,
    ) -> None:
        """Put the parts of the pipeline together.

        :param commands: creates the jobs that handlers ask for.
        :param public_url: where clients reach the API.
        :param leases: where each attempt is entered, to be found by cancellations and redeliveries.
        """
        self._log = job_log
        self._artifacts = artifacts
        self._commands = commands
        self._public_url = public_url
        self._leases = leases
        self._claims = claims
        self._execution = execution
        self._records = records
        self._receipts = receipts

    async def run(self, delivery: Delivery) -> None:
        """Claim a delivery, run its handler, record the outcome, and ack, nak or leave the delivery.

        Raises nothing but a cancellation: a failure on the way is logged, and the job is left to its lease.
        """
        lease: Lease | None = None
        try:
            submission = self._claims.read(delivery)
            if not isinstance(submission, Submission):
                await _answer(delivery, submission)
                return

            # Entered before the attempt starts, so that a cancellation in between finds it.
            lease = self._leases.begin(delivery, submission)
            if lease is None:
                return
            try:
                claimed = await self._claims.claim(lease)
                if not isinstance(claimed, Claimed):
                    await _answer(lease.delivery, claimed)
                    return

                with hidden_in_log(claimed.hidden):
                    ran = await self._ran(claimed, lease)
                    recorded = await self._records.record(claimed, ran)

                # Not before: if we are killed in between, the redelivery finds the outcome and is dropped.
                await _answer(lease.delivery, recorded.then)
            finally:
                self._leases.end(lease)
        except QueueUnavailable as error:
            # Nothing was decided: the lease runs out and the job is delivered again.
            log.warning("job %s is left to its lease: %s", delivery.job_id, error, extra=self._fields(delivery, lease))
        except Exception:
            message = "job %s could not be run and is left to its lease"
            log.exception(message, delivery.job_id, extra=self._fields(delivery, lease))

    async def _ran(self, claimed: Claimed, lease: Lease) -> Ran:
        """Run the handler, from the checkpoint of an earlier attempt if there is one."""
        execution = self._execution
        store = FencedStore(self._log, self._artifacts, self._commands, claimed, self._leases.worker_id)
        context = AttemptContext(
            store, claimed, execution.stored, execution.registry, self._public_url, state=execution.state
        )
        if claimed.may_have_saved:
            await context.restore()
        on_stop = partial(self._receipts.delivered, claimed)
        max_result = self._log.max_payload - HEADROOM
        return await execution.run(
            claimed.spec, claimed.payload, context, max_result, stopped=lease.stopped, on_stop=on_stop
        )

    def _fields(self, delivery: Delivery, lease: Lease | None) -> dict[str, Any]:
        if lease is not None:
            return lease.fields
        return job_fields(job_id=delivery.job_id, worker=self._leases.worker_id)


async def _answer(delivery: Delivery, then: Drop | Wait | Leave) -> None:
    """Ack, nak or leave a delivery, as has been decided."""
    match then:
        case Drop():
            await delivery.ack()
        case Wait(delay):
            await delivery.nak(delay)
        case Leave():
            # An ack or a nak would take the message from the worker that has it.
            pass
