"""What this process has been given: deliveries that wait for a slot, and leases on the submissions it works on.

``Intake`` chooses which delivery starts next. It never pulls for more than can start soon: a delivery that is held here
is one that an idle worker elsewhere cannot have. ``Leases`` knows what is worked on: a redelivery of it needs no start,
it only renews the lease. ``keep_leases`` extends both kinds as long as the event loop turns.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log import codec
from gql_jobs.log.deliveries import Delivery, PullConsumer
from gql_jobs.log.job_log import JobLog
from gql_jobs_worker.execution import Stop
from gql_jobs_worker.telemetry import Counts

log = logging.getLogger(__name__)

LOW_SHARE = 16
"""One of so many starts is a LOW job's, if there is one: busy higher priorities must not starve it."""
MAX_HOLD = 2.0
"""Seconds that a delivery is held while no slot is free, before others are given the chance."""
MAX_AHEAD = 256
"""Deliveries pulled at once at most, while jobs are short."""
AHEAD_SECONDS = 0.1
"""How much work is pulled ahead."""
LEASE_CHECKS = 6
"""How often, in a lease, the leases are looked at; they are extended three times."""
_RETRY_PAUSE = 0.5
_BY_RANK = (JobPriority.CRITICAL, JobPriority.HIGH, JobPriority.NORMAL, JobPriority.LOW)


class Lease:
    """The right of this process to work on one submission, from its claim to its ack.

    Everything that may change while a handler runs, changed only by the methods below: the ``delivery`` that the lease
    is held under, and whether the handler has to stop. All else about an attempt is frozen.
    """

    def __init__(self, delivery: Delivery, submission: Submission, worker_id: str) -> None:
        self.job_id = delivery.job_id
        self.submission = submission
        self.submission_seq = delivery.seq
        self.delivery = delivery
        """The newest of the submission: the deadline of an earlier one passed while NATS was away."""
        self.started_seq = 0
        """Sequence of the attempt's ``started`` event; 0 until it is stored."""
        self.cancelled_seq = 0
        """Sequence of the event that cancelled the job; 0 if none has."""
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        """Done once the handler has to stop, with the first reason."""
        self.fields: dict[str, Any] = {"job_id": delivery.job_id, "type": submission.spec.type, "worker": worker_id}
        """Of the log lines about it (see ``gql_jobs.logs.job_fields``), with ``attempt`` from its start on."""
        self._was_renewed = False

    def start(self, attempt: int, started_seq: int) -> None:
        """Note that the attempt has been recorded as started; every write of it is fenced by that event."""
        self.started_seq = started_seq
        self.fields = {**self.fields, "attempt": attempt}

    def renew(self, delivery: Delivery) -> None:
        """Go on under a redelivery.

        Whether the job is still ours has to be asked from now on: another worker may have had it in between.
        """
        self.delivery = delivery
        self._was_renewed = True

    async def confirm(self, job_log: JobLog) -> bool:
        """Return whether nothing has happened to the job since the attempt began, as the leader has it.

        If something has, the handler is stopped.

        :raises QueueUnavailable: if the leader does not answer.
        """
        last = await job_log.last(codec.event_subjects(self.job_id))
        if (last.seq if last is not None else 0) == self.started_seq:
            return True
        if last is not None and last.kind is Kind.CANCELLED:
            self.cancel(last.seq)
        else:
            self.stop(Stop.SUPERSEDED)
        return False

    async def extend(self, job_log: JobLog) -> None:
        """Extend the delivery's deadline, if the job is still ours; nothing is raised while NATS is away."""
        if self._was_renewed and self.started_seq:
            try:
                if not await self.confirm(job_log):
                    return
            except QueueUnavailable:
                return
        await self.delivery.extend()

    def cancel(self, seq: int) -> None:
        """Have the handler stopped because the event of that sequence has cancelled the job."""
        self.cancelled_seq = seq
        self.stop(Stop.CANCELLED)

    def stop(self, why: Stop) -> None:
        """Have the handler stopped; the first reason counts."""
        if not self.stopped.done():
            self.stopped.set_result(why)


class Leases:
    """What this process works on: at most one attempt of a submission at a time."""

    def __init__(self, worker_id: str, counts: Counts) -> None:
        self.worker_id = worker_id
        self._counts = counts
        self._leases: dict[tuple[str, int], Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._leases.values()))

    def get(self, job_id: str, submission_seq: int) -> Lease | None:
        """Return the lease on a submission, or None if it is not worked on here."""
        return self._leases.get((job_id, submission_seq))

    def begin(self, delivery: Delivery, submission: Submission) -> Lease | None:
        """Return a new lease, or None if the submission is worked on already and goes on under this delivery."""
        if self.renews(delivery):
            return None
        lease = Lease(delivery, submission, self.worker_id)
        self._leases[delivery.job_id, delivery.seq] = lease
        return lease

    def end(self, lease: Lease) -> None:
        """Forget a lease: its submission has been dealt with."""
        del self._leases[lease.job_id, lease.submission_seq]

    def renews(self, delivery: Delivery) -> bool:
        """Return whether the delivery is of a submission that is worked on, which then goes on under it.

        Its lease had run out while NATS was away or the event loop stood still: to take the job over from itself would
        spend an attempt, and run the handler twice at once.
        """
        lease = self._leases.get((delivery.job_id, delivery.seq))
        if lease is None:
            return False
        if lease.delivery is not delivery:
            self.renew(lease, delivery)
        return True

    def renew(self, lease: Lease, delivery: Delivery) -> None:
        """Go on with what is worked on under a later delivery."""
        log.info("job %s is delivered again while it runs here", lease.job_id, extra=lease.fields)
        self._counts.renewed += 1
        lease.renew(delivery)

    def warn_of_stall(self, stood: float, ack_wait: float) -> None:
        """Count and log that the event loop stood still for so many seconds that leases were in danger."""
        self._counts.stalls += 1
        types = ", ".join(sorted({lease.submission.spec.type for lease in self})) or "none"
        log.warning(
            "the event loop stood still for %.1f s, of leases of %g s, so that other workers may have been given what "
            "runs here. Coroutines must not compute or block: is it one of the running types (%s)? A plain function "
            "runs in a thread, cpu_bound=True in a process.",
            stood,
            ack_wait,
            types,
            extra={"worker": self.worker_id},
        )


class Intake:
    """The deliveries of the queues, in the order in which they should start."""

    def __init__(
        self, connection: Connection, queues: Iterable[str], ack_wait: float, slots: int, leases: Leases
    ) -> None:
        """:param leases: what is worked on already: its redeliveries are not offered here."""
        self._lanes = [
            PullConsumer(connection, queue, priority, ack_wait=ack_wait, deliver=self._arrive)
            for queue in queues
            for priority in _BY_RANK
        ]
        self._held: dict[JobPriority, deque[tuple[PullConsumer, Delivery]]] = {p: deque() for p in _BY_RANK}
        self._arrived = asyncio.Event()
        self._connection = connection
        self._slots = slots
        self._leases = leases
        self._starts = 0
        self._job_seconds = 1.0
        connection.on_reconnect.append(self._reconnected)

    @property
    def held(self) -> list[Delivery]:
        """Return the deliveries that wait for a slot here."""
        return [delivery for waiting in self._held.values() for _, delivery in waiting]

    def note_duration(self, seconds: float) -> None:
        """Learn how long a job took: as far as jobs are short, more of them are pulled ahead."""
        self._job_seconds += (seconds - self._job_seconds) / 16

    async def next(self) -> Delivery:
        """Return the delivery to start now, for a slot that is free; waits for one."""
        while True:
            await self._poll()
            delivery = self._pick()
            if delivery is not None:
                return delivery
            await self._wait_for_jobs()

    async def hand_back(self, *, older_than: float = 0.0) -> None:
        """Give deliveries that have been held for so many seconds to other workers, at no cost: none has started."""
        now = asyncio.get_running_loop().time()
        for waiting in self._held.values():
            old = [held for held in waiting if now - held[1].arrived >= older_than]
            for held in old:
                waiting.remove(held)
            for _, delivery in old:
                await delivery.nak(0.05)

    async def stop(self) -> None:
        """Pull nothing more, and hand back what is held or still on its way."""
        self._connection.on_reconnect.remove(self._reconnected)
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        await self.hand_back()

    def _arrive(self, lane: PullConsumer, delivery: Delivery) -> None:
        if not self._leases.renews(delivery):
            self._held[lane.priority].append((lane, delivery))
        self._arrived.set()

    def _reconnected(self) -> None:
        # The server forgot the open pulls with the connection.
        for lane in self._lanes:
            lane.wanted, lane.waiting = 0, False
        self._arrived.set()

    async def _poll(self) -> None:
        """Ask the lanes that have nothing here and are not known to be empty, all at once."""
        ask = [lane for lane in self._lanes if lane.wanted == 0 and not self._holds(lane)]
        if not ask:
            return
        batch = max(1, min(MAX_AHEAD, round(AHEAD_SECONDS * self._slots / max(self._job_seconds, 1e-5))))
        polls = await asyncio.gather(*(lane.poll(batch) for lane in ask), return_exceptions=True)
        for lane, answer in zip(ask, polls, strict=True):
            if answer is False:
                # Known to be empty from now on, without asking again: the pull brings what comes.
                await self._open(lane)

    def _holds(self, lane: PullConsumer) -> bool:
        # Asked before every start: where only one queue has deliveries of the priority, the first one is the answer.
        return any(brought is lane for brought, _ in self._held[lane.priority])

    async def _open(self, lane: PullConsumer) -> None:
        try:
            await lane.wait(1)
        except QueueUnavailable:
            log.debug("the lane %s is not open: NATS is away", lane.name)

    def _pick(self) -> Delivery | None:
        order = _BY_RANK
        if self._starts % LOW_SHARE == LOW_SHARE - 1:
            order = (JobPriority.LOW, *_BY_RANK[:3])
        for priority in order:
            waiting = self._held[priority]
            while waiting:
                _, delivery = waiting.popleft()
                if delivery.leased:
                    self._starts += 1
                    return delivery
        return None

    async def _wait_for_jobs(self) -> None:
        self._arrived.clear()
        if any(self._held.values()):
            return
        for lane in self._lanes:
            if lane.silent:
                log.info("the pull on %s is silent and is made anew", lane.name)
                await lane.close()
        try:
            async with asyncio.timeout(_RETRY_PAUSE if any(lane.wanted == 0 for lane in self._lanes) else 1.0):
                await self._arrived.wait()
        except TimeoutError:
            return


async def keep_leases(
    job_log: JobLog, leases: Leases, intake: Intake, ack_wait: float, *, busy: Callable[[], bool]
) -> None:
    """Extend what is worked on or held, and give back what no slot has taken for a while. Never ends by itself.

    :param ack_wait: seconds of a lease.
    :param busy: whether no slot is free.
    """
    clock = asyncio.get_running_loop().time

    def due(delivery: Delivery) -> bool:
        return delivery.leased and delivery.deadline - clock() < ack_wait * 2 / 3

    pause = min(ack_wait / LEASE_CHECKS, 1.0)
    while True:
        asleep = clock()
        await asyncio.sleep(pause)
        if (stood := clock() - asleep - pause) > ack_wait / 3:
            leases.warn_of_stall(stood, ack_wait)
        if busy():
            await intake.hand_back(older_than=MAX_HOLD)
        await asyncio.gather(
            *(lease.extend(job_log) for lease in leases if due(lease.delivery)),
            *(delivery.extend() for delivery in intake.held if due(delivery)),
        )
