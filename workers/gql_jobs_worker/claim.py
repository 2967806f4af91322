"""The claim of a delivery: from what was delivered to an attempt that is recorded as started by this worker.

``jobs.claim`` decides what is to be done; a fenced ``started`` event records it (``Claims``). A job that another worker
has started is taken over only if that worker does not answer (``Takeovers``). Its answer can only prevent a takeover:
which worker has the job is decided by the fence.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from msgspec import Struct

from gql_jobs import clock
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import Unavailable
from gql_jobs.jobs.claim import (
    MISSED,
    Decision,
    Drop,
    Exhausted,
    Leave,
    Start,
    Wait,
    decide,
    first_start,
    startable_since,
    too_late,
)
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Cancelled, DeadLetter, Kind, Message, Started, Submission
from gql_jobs.jobs.model import JobError, Spec
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage, Newer, Unreadable, fitting, with_errors
from gql_jobs.log.deliveries import Delivery
from gql_jobs.log.job_log import Fence, JobLog, Superseded, Write, job_events, queue_errors
from gql_jobs.logs import HiddenTexts, job_fields
from gql_jobs_worker.abilities import Abilities
from gql_jobs_worker.execution import HandlerExecution, Readable, Unable
from gql_jobs_worker.intake import HAND_BACK_DELAY, Lease, Leases
from gql_jobs_worker.telemetry import Counts, log_event

log = logging.getLogger(__name__)

NEWER_DELAY = 60.0
"""Seconds until a submission of a newer version is delivered again: a worker of that version may take it."""
LAST_EVENT_PAUSE = 0.5
"""Seconds between two tries to read a job's last event."""
ANSWER_TIMEOUT = 1.0
"""Seconds that a worker has to answer; a stopped or blocked one loses the job, as it has lost the lease."""
RETURN_GRACE = 5.0
"""Seconds after a reconnection during which other workers may not be back yet."""
RETURN_PAUSE = 1.0
"""Seconds until a job is delivered again during ``RETURN_GRACE``."""
_YES, _NO = b"+", b"-"


class Claimed(Struct, frozen=True):
    """An attempt that this worker has recorded as started.

    ``shown_spec``: without secrets; ``payload``: as its model, or why no worker could read it; ``attempt``: its number,
    1 for the first; ``errors``: of the attempts before it; ``progress`` (in percent) and ``message``: what they
    reported last; ``started_at``: seconds of the event loop's clock; ``may_have_saved``: whether there may be a
    checkpoint to go on from; ``fields``: of the log lines about the attempt.
    """

    lease: Lease
    job_id: str
    spec: Spec
    shown_spec: Spec
    payload: Readable | Unable
    submission_seq: int
    attempt: int
    started_seq: int
    started_at: float
    errors: tuple[JobError, ...]
    progress: int
    message: str | None
    may_have_saved: bool
    fields: dict[str, Any]

    @property
    def hidden(self) -> HiddenTexts:
        """Return the texts of the payload's secrets, which may stand in no log and in no message."""
        return self.payload.hidden if isinstance(self.payload, Readable) else HiddenTexts(())

    @property
    def fence(self) -> Fence:
        """Return the condition of its writes: nothing has happened to the job since this attempt began."""
        return job_events(self.job_id, self.started_seq)


class Claims:
    """Claims deliveries for one worker."""

    def __init__(
        self,
        job_log: JobLog,
        worker_id: str,
        *,
        execution: HandlerExecution,
        abilities: Abilities,
        takeovers: "Takeovers",
        is_paused: Callable[[str], bool],
        counts: Counts,
    ) -> None:
        """Claim for a worker.

        :param is_paused: returns whether nothing of a queue may start now.
        """
        self._log = job_log
        self._execution = execution
        self._worker_id = worker_id
        self._abilities = abilities
        self._takeovers = takeovers
        self._is_paused = is_paused
        self._counts = counts

    def read(self, delivery: Delivery) -> Submission | Wait | Drop:
        """Return the submission that was delivered, or what becomes of a delivery that this worker cannot read.

        A submission of a newer version waits for a worker of that version. What no version can read is dropped: the
        message stays in the stream.
        """
        try:
            return delivery.submission()
        except Newer as error:
            message = "submission %d of job %s is left to newer workers: %s"
            log.warning(message, delivery.seq, delivery.job_id, error, extra=self._fields(delivery))
            self._counts.newer += 1
            return Wait(NEWER_DELAY)
        except Unreadable as error:
            message = "submission %d on %s is set aside: %s"
            log.error(message, delivery.seq, delivery.subject, error, extra=self._fields(delivery))  # noqa: TRY400
            self._counts.unreadable += 1
            return Drop()

    async def claim(self, lease: Lease) -> Claimed | Wait | Drop | Leave:
        """Return the attempt, recorded as started, or what becomes of the delivery where there is none to run.

        :raises QueueUnavailable: if the stream cannot be read within the lease.
        """
        spec = lease.submission.spec
        able = self._abilities.known.get(spec.type)
        if able is None:
            able = await self._abilities.can_import(spec.type)
        # Before the start: a job that cannot be read here costs no attempt.
        payload = self._execution.read(lease.job_id, spec) if able else None
        if payload is None or isinstance(payload, Unable):
            return await self._pass_on(lease, payload)
        decision: Decision = first_start(lease.submission)
        if lease.delivery.redelivered:
            decision = await self._decide(lease, await self._last_event(lease))
        while isinstance(decision, Start | Exhausted):
            decision = await self._takeovers.ask_worker(decision, lease)
            if not isinstance(decision, Start):
                break
            if self._is_paused(spec.queue):
                return Wait(HAND_BACK_DELAY)
            try:
                if (late := await self._late_reason(lease, decision)) is not None:
                    return await self._cancel(lease, decision, late)
                return await self._start(lease, decision, payload)
            except Superseded as superseded:
                decision = await self._decide(lease, superseded.last)
        return await self._settle(lease, decision)

    async def _late_reason(self, lease: Lease, start: Start) -> str | None:
        """Return why a job is not started any more, if it was queued too late or is started too late; else None."""
        spec = lease.submission.spec
        # A retry by hand has no such limits, and behind any other event it has started already.
        if start.attempt > 1 or start.event_seq != lease.submission.event_seq:
            return None
        if spec.fire_before is not None and lease.delivery.stored_at > spec.fire_before:
            return MISSED
        if (latest := spec.start_before) is None:
            return None
        now = clock.now()
        with suppress(QueueUnavailable):
            now = await self._log.server_time()
        return too_late(latest) if latest <= now else None

    async def _cancel(self, lease: Lease, start: Start, reason: str) -> Drop:
        """Cancel a job instead of starting it, under the fence of its start.

        :raises Superseded: if something has happened to the job meanwhile.
        """
        body = Cancelled(submission=lease.submission_seq, reason=reason)
        subject = codec.event_subject(lease.job_id, Kind.CANCELLED)
        await self._log.append(
            Write(lease.job_id, subject, body, job_events(lease.job_id, start.event_seq)), timeout=None
        )
        log_event("cancelled", lease.fields, reason=reason)
        return Drop()

    async def _pass_on(self, lease: Lease, unable: Unable | None) -> Claimed | Wait | Drop | Leave:
        """Leave a job to workers that can run it, or start its last attempt if nobody could read it for too long.

        :param unable: None if only a library is missing here.
        """
        delivery, spec = lease.delivery, lease.submission.spec
        self._counts.unable += 1
        delay = self._abilities.leave(spec, unable, delivery.delivered)
        waited = (clock.now() - delivery.stored_at).total_seconds()
        gives_up = unable is not None and self._abilities.may_give_up(waited)
        if not gives_up and not self._abilities.looks_into(delivery.delivered):
            return Wait(delay)
        # What has happened decides first: a job that has ended is dropped by any worker.
        last = await self._last_event(lease)
        decision = await self._decide(lease, last)
        if isinstance(decision, Start | Exhausted):
            decision = await self._takeovers.ask_worker(decision, lease)
        if not isinstance(decision, Start):
            return await self._settle(lease, decision)
        if unable is None or not gives_up or not await self._is_given_up(lease, last):
            return Wait(delay)
        try:
            return await self._start(lease, decision, unable)
        except Superseded:
            return Wait(delay)

    async def _settle(self, lease: Lease, decision: Exhausted | Wait | Drop | Leave) -> Wait | Drop | Leave:
        if isinstance(decision, Exhausted):
            return await self._dead_letter(lease, decision)
        if isinstance(decision, Leave):
            self._counts.passed_on += lease.delivery.redelivered
            log.info("job %s is run by another worker", lease.job_id, extra=lease.fields)
        return decision

    async def _is_given_up(self, lease: Lease, last: JobMessage | None) -> bool:
        """Return whether nobody could read a job for too long, by the server's clock: its next start is its last."""
        if not self._abilities.nobody_can(lease.submission.spec):
            return False
        try:
            now = await self._log.server_time()
        except QueueUnavailable:
            return False
        since = startable_since(lease.delivery.stored_at, last.read() if last is not None else None)
        return self._abilities.may_give_up((now - since).total_seconds())

    async def _last_event(self, lease: Lease) -> JobMessage | None:
        """Return the job's last event; try again while the lease lasts: NATS may be restarting."""
        while True:
            try:
                return await self._log.last(codec.event_subjects(lease.job_id))
            except QueueUnavailable:
                if not lease.delivery.leased:
                    raise
            await asyncio.sleep(LAST_EVENT_PAUSE)

    async def _decide(self, lease: Lease, stored: JobMessage | None) -> Decision:
        last: Message | None
        try:
            last = stored.read() if stored is not None else None
        except Unreadable:
            # Another version's event: that version's workers know what it means.
            return Wait(NEWER_DELAY)
        delivery, now = lease.delivery, clock.now()
        if last is not None and last.kind is Kind.FAILED:
            with suppress(QueueUnavailable):
                now = await self._log.server_time()
        return decide(lease.submission, delivery.seq, last, redelivered=delivery.redelivered, now=now)

    async def _start(self, lease: Lease, start: Start, payload: Readable | Unable) -> Claimed:
        """Record the start under its fence.

        :raises Superseded: if something has happened to the job meanwhile.
        """
        body = Started(
            submission=lease.submission_seq,
            attempt=start.attempt,
            worker_id=self._worker_id,
            errors=fitting(start.errors),
            progress=start.progress,
            message=start.message,
            supersedes=start.supersedes,
        )
        subject = codec.event_subject(lease.job_id, Kind.STARTED)
        fence = job_events(lease.job_id, start.event_seq)
        seq = await self._log.append(Write(lease.job_id, subject, body, fence), timeout=None)
        spec = lease.submission.spec
        lease.start(start.attempt, seq)
        log_event("started", lease.fields, type=spec.type, attempt=start.attempt, supersedes=start.supersedes)
        self._counts.outcomes[spec.type, "started"] += 1
        return Claimed(
            lease=lease,
            job_id=lease.job_id,
            spec=spec,
            shown_spec=self._execution.without_secrets(spec),
            payload=payload,
            submission_seq=lease.submission_seq,
            attempt=start.attempt,
            started_seq=seq,
            started_at=asyncio.get_running_loop().time(),
            errors=start.errors,
            progress=start.progress,
            message=start.message,
            may_have_saved=start.attempt > 1 or lease.submission.event_seq > 0 or lease.delivery.redelivered,
            fields=lease.fields,
        )

    async def _dead_letter(self, lease: Lease, exhausted: Exhausted) -> Drop | Leave:
        """Dead-letter a job whose last attempt lost its worker: a payload that kills workers must not do so forever."""
        body = DeadLetter(
            submission=lease.submission_seq,
            attempt=exhausted.attempt,
            worker_id=self._worker_id,
            progress=exhausted.progress,
            message=exhausted.message,
            spec=self._execution.without_secrets(lease.submission.spec),
        )
        body = with_errors(body, exhausted.errors, self._log.max_payload)
        subject = codec.event_subject(lease.job_id, Kind.DEAD_LETTER)
        fence = job_events(lease.job_id, exhausted.event_seq)
        try:
            await self._log.append(Write(lease.job_id, subject, body, fence), timeout=None)
        except Superseded:
            log.info("job %s was taken by another worker", lease.job_id, extra=lease.fields)
            return Leave()
        fields = {**lease.fields, "attempt": exhausted.attempt}
        log_event("dead-letter", fields, attempt=exhausted.attempt, error=exhausted.errors[-1].message)
        return Drop()

    def _fields(self, delivery: Delivery) -> dict[str, Any]:
        return job_fields(job_id=delivery.job_id, worker=self._worker_id)


class TakeoverQuestion(msgspec.Struct, frozen=True):
    """The question whether the attempt that ``started_seq`` began still runs; a worker that says yes gets the delivery.

    ``submission``: the sequence of the submission; ``reply``: the subject on which the delivery is acked; ``lease``:
    seconds left until the delivery's deadline.
    """

    job_id: str
    submission: int
    started_seq: int
    reply: str
    lease: float


_decode = msgspec.json.Decoder(TakeoverQuestion).decode


class Takeovers:
    """Asks other workers whether they still run a job before it is taken over, and answers when they ask.

    A lease also runs out when NATS was away, and then the job is delivered to any worker, although its own still runs.
    """

    def __init__(self, job_log: JobLog, worker_id: str, leases: Leases) -> None:
        self._log = job_log
        self._connection: Connection = job_log.connection
        self._worker_id = worker_id
        self._leases = leases
        self._returned_at = -RETURN_GRACE

    async def ask_worker(self, decision: Start | Exhausted, lease: Lease) -> Start | Exhausted | Wait | Leave:
        """Return what is to be done once the worker that the job would be taken over from has been asked.

        The decision itself if that worker says no or does not answer within ``ANSWER_TIMEOUT`` s, or if the decision
        takes the job from no other worker; ``Leave`` if it says yes; ``Wait`` while workers may still be reconnecting.
        """
        owner, delivery = decision.lost_worker, lease.delivery
        if owner is None or owner == self._worker_id:
            return decision
        clock = asyncio.get_running_loop().time
        left = delivery.deadline - clock()
        question = TakeoverQuestion(lease.job_id, delivery.seq, decision.event_seq, delivery.reply, left)
        subject = codec.handover_subject(owner)
        try:
            answer = await self._connection.request(subject, msgspec.json.encode(question), ANSWER_TIMEOUT)
        except Unavailable:
            away = clock() - self._returned_at < RETURN_GRACE
            return Wait(RETURN_PAUSE) if away else decision
        return Leave() if answer.data == _YES else decision

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer the questions of other workers until the block ends."""

        async def answer(message: Any) -> None:
            goes_on = await self._answer(message.data)
            try:
                await self._connection.publish(message.reply, _YES if goes_on else _NO)
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
            return await self._goes_on(_decode(data))
        except (msgspec.MsgspecError, QueueUnavailable) as error:
            log.info("an offer was not taken: %s", error)
            return False

    async def _goes_on(self, asked: TakeoverQuestion) -> bool:
        lease = self._leases.get(asked.job_id, asked.submission)
        if lease is None or lease.started_seq != asked.started_seq or not await lease.confirm(self._log):
            return False
        self._leases.renew(lease, lease.delivery.passed_on(asked.reply, asked.lease))
        return await lease.delivery.extend()

    def _returned(self) -> None:
        self._returned_at = asyncio.get_running_loop().time()
