"""Hearing of cancellations of what runs here: one ordered consumer per process, of cancelled events only."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer
from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import Kind, Noted, Receipt
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events
from gql_jobs_worker.attempt import Attempt, InHand, Stop

# Receipts for cancellations: whether the handler was told, and how it ended.
#
# Outside the job's state and its events. Tried for a while only: a cancellation never waits for its receipt.

log = logging.getLogger(__name__)


class Receipts:
    """Writes them for one worker."""

    def __init__(self, job_log: JobLog, worker_id: str) -> None:
        self._log = job_log
        self._worker_id = worker_id

    @contextmanager
    def handler_of(self, attempt: Attempt) -> Iterator[None]:
        """While its handler runs: a cancellation that stops it is receipted at once."""

        def told(stopped: "asyncio.Future[Stop]") -> None:
            if stopped.result() is Stop.CANCELLED:
                attempt.told = asyncio.create_task(self._note(attempt, Receipt.DELIVERED))

        attempt.stopped.add_done_callback(told)
        try:
            yield
        finally:
            attempt.stopped.remove_done_callback(told)

    async def ended(self, attempt: Attempt) -> None:
        """How the handler of a cancelled job ended; after the receipt that it was told."""
        if attempt.told is not None:
            await attempt.told
        await self._note(attempt, attempt.ending)

    async def _note(self, attempt: Attempt, receipt: Receipt) -> None:
        seq, subject = attempt.cancelled_seq, codec.note_subject(attempt.job_id)
        body = Noted(
            submission=attempt.delivery.seq,
            receipt=receipt,
            cancelled_seq=seq,
            attempt=attempt.number,
            worker_id=self._worker_id,
        )
        while True:
            try:
                # Fenced, so that nothing is left behind of a job whose retention has ended meanwhile.
                await self._log.append(Write(attempt.job_id, subject, body, job_events(attempt.job_id, seq)))
            except Superseded as superseded:
                if superseded.last is None or superseded.last.kind is Kind.EXPIRED:
                    return
                seq = superseded.last.seq
            except (QueueUnavailable, QueueFull) as error:
                log.warning("the receipt %s of job %s was not stored: %s", receipt, attempt.job_id, error)
                return
            else:
                return


async def follow_cancellations(connection: Connection, start: int, running: Mapping[InHand, Attempt]) -> None:
    """Stop each running attempt that is cancelled; never ends by itself. ``start``: the first sequence to look at."""
    async for batch in OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_CANCELLATIONS,), start).batches():
        for message in batch:
            named = codec.job_and_kind(message.subject)
            if named is None:
                continue
            try:
                body = codec.decode_body(named[1], message.data)
            except codec.Unreadable as error:
                log.warning("a cancellation of job %s cannot be read: %s", named[0], error)
                continue
            attempt = running.get((named[0], body.submission))
            if attempt is not None:
                attempt.cancel(message.seq)
