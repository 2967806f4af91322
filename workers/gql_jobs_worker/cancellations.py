"""Cancellations of running jobs: followed in the stream, and answered with receipts about the handler's end.

Receipts change neither a job's state nor its events. A receipt that cannot be stored is logged and given up: no
cancellation waits for it.
"""

import asyncio
import logging

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer
from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import Kind, Noted, Receipt
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events
from gql_jobs.logs import job_fields
from gql_jobs_worker.claim import Claimed
from gql_jobs_worker.execution import Stop
from gql_jobs_worker.intake import Leases

log = logging.getLogger(__name__)


async def follow_cancellations(connection: Connection, start: int, leases: Leases) -> None:
    """Cancel the lease of each job that the stream says is cancelled, with one ordered consumer for all; never return.

    :param start: the first sequence of the stream to read.
    """
    async for batch in OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_CANCELLATIONS,), start).batches():
        for message in batch:
            named = codec.job_and_kind(message.subject)
            if named is None:
                continue
            job_id = named[0]
            try:
                body = codec.decode_body(named[1], message.data)
            except codec.Unreadable as error:
                fields = job_fields(job_id=job_id, worker=leases.worker_id)
                log.warning("a cancellation of job %s cannot be read: %s", job_id, error, extra=fields)
                continue
            lease = leases.get(job_id, body.submission)
            if lease is not None:
                lease.cancel(message.seq)


class Receipts:
    """Writes the receipts of one worker: that a cancellation has reached the handler, and how the handler ended."""

    def __init__(self, job_log: JobLog, worker_id: str) -> None:
        self._log = job_log
        self._worker_id = worker_id
        self._delivered: dict[tuple[str, int], asyncio.Task[None]] = {}

    def delivered(self, claimed: Claimed, stopped: "asyncio.Future[Stop]") -> None:
        """Begin to write that a cancellation has reached the handler; do nothing if it was stopped for another reason.

        :param stopped: done, with the reason.
        """
        if stopped.result() is Stop.CANCELLED:
            key = (claimed.job_id, claimed.submission_seq)
            note = self._note(claimed, claimed.lease.cancelled_seq, Receipt.DELIVERED)
            self._delivered[key] = asyncio.create_task(note)
            self._delivered[key].add_done_callback(lambda _: self._delivered.pop(key, None))

    async def ended(self, claimed: Claimed, ending: Receipt) -> None:
        """Write how the handler of a cancelled job ended; after the receipt of its delivery, if there is one."""
        delivered = self._delivered.get((claimed.job_id, claimed.submission_seq))
        if delivered is not None:
            await delivered
        await self._note(claimed, claimed.lease.cancelled_seq, ending)

    async def _note(self, claimed: Claimed, cancelled_seq: int, receipt: Receipt) -> None:
        seq, subject = cancelled_seq, codec.note_subject(claimed.job_id)
        body = Noted(
            submission=claimed.submission_seq,
            receipt=receipt,
            cancelled_seq=cancelled_seq,
            attempt=claimed.attempt,
            worker_id=self._worker_id,
        )
        while True:
            try:
                # Fenced, so that nothing is left behind of a job whose retention has ended meanwhile.
                await self._log.append(Write(claimed.job_id, subject, body, job_events(claimed.job_id, seq)))
            except Superseded as superseded:
                if superseded.last is None or superseded.last.kind is Kind.EXPIRED:
                    return
                seq = superseded.last.seq
            except (QueueUnavailable, QueueFull) as error:
                message = "the receipt %s of job %s was not stored: %s"
                log.warning(message, receipt, claimed.job_id, error, extra=claimed.fields)
                return
            else:
                return
