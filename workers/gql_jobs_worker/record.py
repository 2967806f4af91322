"""The record of an attempt's outcome: one fenced event, or none where the job has ended or is another worker's.

Never acks or naks a delivery: ``Recorded`` says what the pipeline has to do with it.
"""

import asyncio
import logging
import random
from datetime import datetime, timedelta
from typing import Any, Protocol

from msgspec import Raw, Struct

from gql_jobs import clock
from gql_jobs.jobs.claim import TERMINAL, Drop, Leave, Wait
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import AttemptBody, Completed, DeadLetter, Failed, Kind, Released
from gql_jobs.log import codec
from gql_jobs.log.codec import with_errors
from gql_jobs.log.job_log import JobLog, Superseded, Write
from gql_jobs.settings import Settings
from gql_jobs_worker.cancellations import Receipts
from gql_jobs_worker.claim import Claimed
from gql_jobs_worker.execution import Ran, Stop, Succeeded
from gql_jobs_worker.failures import Failure, job_error
from gql_jobs_worker.intake import HAND_BACK_DELAY
from gql_jobs_worker.telemetry import Counts, log_event, shown_seconds

log = logging.getLogger(__name__)

_MAX_DOUBLINGS = 60
"""Doublings of the delay that are calculated; after so many, every cap has been reached."""


class Recorded(Struct, frozen=True):
    """What was recorded of an attempt, and what has to become of its delivery.

    ``outcome``: completed, failed, dead-letter, released, cancelled, late (the job had ended) or superseded;
    ``then``: an ack (``Drop``), a nak with a delay (``Wait``), or neither (``Leave``).
    """

    outcome: str
    then: Drop | Wait | Leave


class Records:
    """Writes the outcomes of one worker's attempts, and logs and counts them."""

    def __init__(self, job_log: JobLog, settings: Settings, worker_id: str, receipts: Receipts, counts: Counts) -> None:
        self._log = job_log
        self._settings = settings
        self._worker_id = worker_id
        self._receipts = receipts
        self._counts = counts

    async def record(self, claimed: Claimed, ran: Ran) -> Recorded:
        """Write the outcome and return once it is stored, however long NATS is away.

        A refused write means that the job has ended or is another worker's: nothing of this attempt is stored then, and
        the outcome that is returned is ``late`` or ``superseded``.
        """
        match ran.outcome:
            case Succeeded():
                return await self._succeeded(claimed, ran, ran.outcome)
            case Failure():
                return await self._failed(claimed, ran, ran.outcome)
            case Stop.CANCELLED:
                # The stream has the event that cancelled the job, so only the receipt is written.
                self._ended(claimed, "cancelled")
                await self._receipts.ended(claimed, ran.ending)
                return Recorded("cancelled", Drop())
            case Stop.HANDED_BACK:
                return await self._handed_back(claimed, ran)
            case Stop.SUPERSEDED:
                return self._superseded(claimed)

    async def _succeeded(self, claimed: Claimed, ran: Ran, succeeded: Succeeded) -> Recorded:
        body = Completed(
            submission=claimed.submission_seq,
            attempt=claimed.attempt,
            worker_id=self._worker_id,
            errors=claimed.errors,
            progress=100,
            message=ran.message,
            result=Raw(succeeded.result),
            encoded=succeeded.encoded,
        )
        if (refused := await self._write(claimed, ran, Kind.COMPLETED, body)) is not None:
            return refused
        self._ended(claimed, "completed")
        return Recorded("completed", Drop())

    async def _failed(self, claimed: Claimed, ran: Ran, failure: Failure) -> Recorded:
        """Record a failure that is retried later, or dead-letter the job if it is permanent or no retry is left."""
        now = await self._time()
        error = job_error(failure, claimed.attempt, now)
        errors = (*claimed.errors, error)
        max_payload = self._log.max_payload
        facts: dict[str, Any] = {
            "submission": claimed.submission_seq,
            "attempt": claimed.attempt,
            "worker_id": self._worker_id,
            "progress": ran.progress,
            "message": ran.message,
        }
        if not failure.retryable or claimed.attempt > claimed.spec.max_retries:
            last = with_errors(DeadLetter(spec=claimed.shown_spec, **facts), errors, max_payload)
            if (refused := await self._write(claimed, ran, Kind.DEAD_LETTER, last)) is not None:
                return refused
            self._ended(claimed, "dead-letter", error=error.message)
            return Recorded("dead-letter", Drop())
        delay = retry_delay(self._settings, claimed.attempt, failure.retry_after)
        began = asyncio.get_running_loop().time()
        body = with_errors(Failed(next_attempt_at=now + timedelta(seconds=delay), **facts), errors, max_payload)
        if (refused := await self._write(claimed, ran, Kind.FAILED, body)) is not None:
            return refused
        self._ended(claimed, "failed", error=error.message, retry_in=f"{delay:g}s")
        if claimed.spec.gate is not None:
            # Its place goes to others until the gate releases the next attempt, which is a submission of its own.
            return Recorded("failed", Drop())
        return Recorded("failed", Wait(delay - (asyncio.get_running_loop().time() - began)))

    async def _time(self) -> datetime:
        """Return the present time by the server's clock, by which a retry is due; by this machine's if NATS is away."""
        try:
            return await self._log.server_time()
        except QueueUnavailable:
            return clock.now()

    async def _handed_back(self, claimed: Claimed, ran: Ran) -> Recorded:
        """Release the job for another worker, at shutdown; the attempt does not count."""
        body = Released(
            submission=claimed.submission_seq,
            attempt=claimed.attempt,
            worker_id=self._worker_id,
            errors=claimed.errors,
            progress=ran.progress,
            message=ran.message,
        )
        if (refused := await self._write(claimed, ran, Kind.RELEASED, body)) is not None:
            return refused
        self._ended(claimed, "released")
        return Recorded("released", Wait(HAND_BACK_DELAY))

    def _superseded(self, claimed: Claimed) -> Recorded:
        # An ack or a nak would take the message from the worker that has the job.
        self._counts.superseded += 1
        message = "attempt %d of job %s was superseded by another worker"
        log.warning(message, claimed.attempt, claimed.job_id, extra=claimed.fields)
        return Recorded("superseded", Leave())

    def _ended(self, claimed: Claimed, outcome: str, **facts: Any) -> None:
        ran = asyncio.get_running_loop().time() - claimed.started_at
        self._counts.count_outcome(claimed.spec.type, outcome, ran)
        log_event(outcome, claimed.fields, attempt=claimed.attempt, duration=shown_seconds(ran), **facts)

    async def _write(self, claimed: Claimed, ran: Ran, kind: Kind, body: AttemptBody) -> Recorded | None:
        """Write the outcome; return None once it is stored, or what is recorded instead of a refused one."""
        write = Write(claimed.job_id, codec.event_subject(claimed.job_id, kind), body, claimed.fence)
        try:
            await self._log.append(write, timeout=None)
        except Superseded as superseded:
            last = superseded.last
            if last is None:
                # Purged or wiped: if the submission is still there, an ack would keep it from being run again, and in
                # a new stream it would be the ack of another job's delivery.
                message = "the outcome (%s) of job %s is not recorded: the stream holds nothing of the job any more"
                log.warning(message, kind, claimed.job_id, extra=claimed.fields)
                self._counts.late += 1
                return Recorded("late", Leave())
            if last.kind not in TERMINAL:
                return self._superseded(claimed)
            self._counts.late += 1
            log.info("the outcome (%s) of job %s came after its end", kind, claimed.job_id, extra=claimed.fields)
            if last.kind is Kind.CANCELLED:
                claimed.lease.cancel(last.seq)
                await self._receipts.ended(claimed, ran.ending)
            return Recorded("late", Drop())
        return None


class Backoff(Protocol):
    """The settings of the exponential backoff between attempts."""

    @property
    def base_retry_delay(self) -> float:
        """Return the seconds after the first attempt."""

    @property
    def max_retry_delay(self) -> float:
        """Return the seconds that a delay is capped at."""

    @property
    def retry_jitter(self) -> float:
        """Return the share of a delay that is random, from 0 to 1."""


def retry_delay(backoff: Backoff, attempt: int, retry_after: float | None = None) -> float:
    """Return the seconds until the next attempt: the base, doubled for each earlier attempt, capped, less the jitter.

    :param attempt: the number of the attempt that failed, 1 for the first.
    :param retry_after: seconds that the outside system asked for; never less than this, even above the cap.
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    delay: float = min(backoff.base_retry_delay * 2**doublings, backoff.max_retry_delay)
    if backoff.retry_jitter:
        delay *= 1 - backoff.retry_jitter * random.random()  # noqa: S311
    return max(delay, retry_after or 0.0)
