"""Receipts for cancellations: whether the handler was told, and how it ended.

Outside the job's state and its events. Tried for a while only: a cancellation never waits for its receipt.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import Kind, Noted, Receipt
from gql_jobs.log import subjects
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events
from workers.attempt import Attempt, Stop

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
        seq, subject = attempt.cancelled_seq, subjects.note(attempt.job_id)
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
