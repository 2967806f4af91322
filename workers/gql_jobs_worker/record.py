"""What came of an attempt, written into the log under its fence; only then the delivery is acked or handed back."""

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from msgspec import Raw

from gql_jobs.jobs.claim import TERMINAL
from gql_jobs.jobs.messages import AttemptBody, Completed, DeadLetter, Failed, Kind, Released
from gql_jobs.jobs.model import JobError
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog, Superseded, Write
from gql_jobs.settings import Settings
from gql_jobs_worker import telemetry as journal
from gql_jobs_worker.attempt import Attempt
from gql_jobs_worker.cancellations import Receipts
from gql_jobs_worker.context import AttemptContext
from gql_jobs_worker.invocation import Failure, Succeeded, job_error, with_errors
from gql_jobs_worker.telemetry import Counts

# When a failed attempt is tried again: exponential backoff with a cap, and jitter where it is asked for.


class Backoff(Protocol):
    """Delays in seconds; ``retry_jitter`` is the share of the delay that is random."""

    @property
    def base_retry_delay(self) -> float: ...
    @property
    def max_retry_delay(self) -> float: ...
    @property
    def retry_jitter(self) -> float: ...


_MAX_DOUBLINGS = 60


def retry_delay(backoff: Backoff, attempt: int, retry_after: float | None = None) -> float:
    """Seconds until the attempt after ``attempt`` (1 is the first): base, twice the base, and so on, capped.

    :param retry_after: seconds that the outside system asked for; kept to even above the cap.
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    delay: float = min(backoff.base_retry_delay * 2**doublings, backoff.max_retry_delay)
    if backoff.retry_jitter:
        delay *= 1 - backoff.retry_jitter * random.random()  # noqa: S311
    return max(delay, retry_after or 0.0)


log = logging.getLogger(__name__)

HAND_BACK_DELAY = 0.05
"""Seconds until a job handed back at shutdown is offered to others."""


class Records:
    """Writes outcomes, and tells log and counts of them."""

    def __init__(self, job_log: JobLog, settings: Settings, worker_id: str, receipts: Receipts, counts: Counts) -> None:
        self._log = job_log
        self._settings = settings
        self._worker_id = worker_id
        self._receipts = receipts
        self._counts = counts

    async def succeeded(
        self, attempt: Attempt, context: AttemptContext, errors: tuple[JobError, ...], outcome: Succeeded
    ) -> None:
        """Record the result, once and for all."""
        body = Completed(
            submission=attempt.delivery.seq,
            attempt=attempt.number,
            worker_id=self._worker_id,
            errors=errors,
            progress=100,
            message=context.message,
            result=Raw(outcome.result),
        )
        if await self._write(attempt, Kind.COMPLETED, body):
            self._ended(attempt, "completed")
            await attempt.delivery.ack()

    async def failed(
        self, attempt: Attempt, context: AttemptContext, errors: tuple[JobError, ...], failure: Failure
    ) -> None:
        """Have it tried again later, or dead-letter it."""
        now = datetime.now(UTC)
        error = job_error(failure, attempt.number, now)
        all_errors = (*errors, error)
        max_payload = self._log.max_payload
        facts: dict[str, Any] = {
            "submission": attempt.delivery.seq,
            "attempt": attempt.number,
            "worker_id": self._worker_id,
            "progress": context.percent,
            "message": context.message,
        }
        if not failure.retryable or attempt.number > attempt.spec.max_retries:
            letter = with_errors(DeadLetter(spec=attempt.spec, **facts), all_errors, max_payload)
            if await self._write(attempt, Kind.DEAD_LETTER, letter):
                self._ended(attempt, "dead-letter", error=error.message)
                await attempt.delivery.ack()
            return
        delay = retry_delay(self._settings, attempt.number, failure.retry_after)
        began = asyncio.get_running_loop().time()
        body = with_errors(Failed(next_attempt_at=now + timedelta(seconds=delay), **facts), all_errors, max_payload)
        if await self._write(attempt, Kind.FAILED, body):
            self._ended(attempt, "failed", error=error.message, retry_in=f"{delay:g}s")
            await attempt.delivery.nak(delay - (asyncio.get_running_loop().time() - began))

    async def handed_back(self, attempt: Attempt, context: AttemptContext, errors: tuple[JobError, ...]) -> None:
        """Give the job to another worker, without costing it the attempt."""
        body = Released(
            submission=attempt.delivery.seq,
            attempt=attempt.number,
            worker_id=self._worker_id,
            errors=errors,
            progress=context.percent,
            message=context.message,
        )
        if await self._write(attempt, Kind.RELEASED, body):
            self._ended(attempt, "released")
            await attempt.delivery.nak(HAND_BACK_DELAY)

    async def cancelled(self, attempt: Attempt) -> None:
        """The event that cancelled it is in the log already."""
        self._ended(attempt, "cancelled")
        await self._receipts.ended(attempt)
        await attempt.delivery.ack()

    def lost(self, attempt: Attempt) -> None:
        """Another worker has the job: neither ack nor nak, either would take the message from it."""
        self._counts.superseded += 1
        log.warning("attempt %d of job %s was superseded by another worker", attempt.number, attempt.job_id)

    def _ended(self, attempt: Attempt, outcome: str, **facts: Any) -> None:
        ran = asyncio.get_running_loop().time() - attempt.started_at
        self._counts.ran(attempt.spec.type, outcome, ran)
        journal.event(outcome, attempt.job_id, attempt=attempt.number, duration=journal.seconds(ran), **facts)

    async def _write(self, attempt: Attempt, kind: Kind, body: AttemptBody) -> bool:
        """Whether the outcome was recorded; if not, what the delivery needs has been done."""
        write = Write(attempt.job_id, codec.event_subject(attempt.job_id, kind), body, attempt.fence)
        try:
            await self._log.append(write, timeout=None)
        except Superseded as superseded:
            if superseded.last is None or superseded.last.kind in TERMINAL:
                self._counts.late += 1
                log.info("the outcome (%s) of job %s came after its end", kind, attempt.job_id)
                if superseded.last is not None and superseded.last.kind is Kind.CANCELLED:
                    attempt.cancelled_seq = superseded.last.seq
                    await self._receipts.ended(attempt)
                await attempt.delivery.ack()
            else:
                self.lost(attempt)
            return False
        return True
