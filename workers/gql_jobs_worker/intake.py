"""The deliveries of one worker: those that wait for a slot, and the leases on the submissions that are worked on.

``Leases`` has one lease for each submission that is worked on; a redelivery of it needs no start, it only renews the
lease. ``Intake`` chooses which delivery starts next. It never pulls more than can start soon: a delivery that is held
here is one that an idle worker elsewhere cannot have. Of a queue that is paused it takes none. ``keep_leases`` extends
the deadlines of both.
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

SHARES = {JobPriority.HIGH: (5, 9, 13), JobPriority.NORMAL: (7, 11), JobPriority.LOW: (15,)}
"""Of sixteen starts in a row, those that a priority below the top has before all others, if a job of it waits.

Else the highest priority that waits starts: busy higher ones must not starve the lower ones.
"""
MAX_HOLD = 2.0
"""Seconds that a delivery is held while no slot is free; then it is handed back for other workers."""
MAX_AHEAD = 256
"""Deliveries that one pull asks for at most; so many only while jobs are short."""
AHEAD_SECONDS = 0.1
"""Seconds of work for all slots that one pull asks for."""
LEASE_CHECKS = 6
"""How often the leases are checked in the time of one lease; each is extended when a third of it has passed."""
HAND_BACK_DELAY = 0.05
"""Seconds until what is handed back is delivered again; of a paused queue nothing is delivered before its resume."""
_RETRY_PAUSE = 0.5
"""Seconds until a consumer without an open pull is polled again."""
_BY_RANK = (JobPriority.CRITICAL, JobPriority.HIGH, JobPriority.NORMAL, JobPriority.LOW)
_ORDERS = [sorted(_BY_RANK, key=lambda priority: start not in SHARES.get(priority, ())) for start in range(16)]
"""For each of sixteen starts in a row, which priority is looked at first, second, third and last."""


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
        """Fields of log lines about the job (see ``gql_jobs.logs.job_fields``), with ``attempt`` once it started."""
        self._was_renewed = False

    def start(self, attempt: int, started_seq: int) -> None:
        """Keep the sequence of the ``started`` event that has been stored; it fences every write of the attempt."""
        self.started_seq = started_seq
        self.fields = {**self.fields, "attempt": attempt}

    def renew(self, delivery: Delivery) -> None:
        """Hold the lease under a redelivery from now on.

        Each extension then confirms first that the job is still ours: another worker may have had it in between.
        """
        self.delivery = delivery
        self._was_renewed = True

    async def confirm(self, job_log: JobLog) -> bool:
        """Return whether the attempt's ``started`` event is still the job's last one, as the stream's leader has it.

        If it is not, have the handler stopped: the job was cancelled or is another worker's.

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
        """Extend the delivery's deadline, if the job is still ours; do nothing while NATS is away."""
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
    """The leases of one worker, at most one for each submission; iterating yields a copy of them."""

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
        """Return a new lease, or None if the submission has one already, which is then renewed by this delivery."""
        if self.renews(delivery):
            return None
        lease = Lease(delivery, submission, self.worker_id)
        self._leases[delivery.job_id, delivery.seq] = lease
        return lease

    def end(self, lease: Lease) -> None:
        """Remove a lease whose delivery has been acked, naked or left."""
        del self._leases[lease.job_id, lease.submission_seq]

    def renews(self, delivery: Delivery) -> bool:
        """Return whether the delivery's submission has a lease, and renew that by the delivery if so.

        The lease had run out while NATS was away or the event loop stood still. To take the job over from ourselves
        would spend an attempt, and run the handler twice at once.
        """
        lease = self._leases.get((delivery.job_id, delivery.seq))
        if lease is None:
            return False
        if lease.delivery is not delivery:
            self.renew(lease, delivery)
        return True

    def renew(self, lease: Lease, delivery: Delivery) -> None:
        """Hold a lease under a later delivery from now on; log and count it."""
        log.info("job %s is delivered again while it runs here", lease.job_id, extra=lease.fields)
        self._counts.renewed += 1
        lease.renew(delivery)

    def warn_of_stall(self, stalled: float, ack_wait: float) -> None:
        """Count and log that the event loop stood still for so long that leases may have run out.

        :param stalled: seconds that it stood still.
        :param ack_wait: seconds of a lease.
        """
        self._counts.stalls += 1
        types = ", ".join(sorted({lease.submission.spec.type for lease in self})) or "none"
        log.warning(
            "the event loop stood still for %.1f s, of leases of %g s, so that other workers may have been given what "
            "runs here. Coroutines must not compute or block: is it one of the running types (%s)? A plain function "
            "runs in a thread, cpu_bound=True in a process.",
            stalled,
            ack_wait,
            types,
            extra={"worker": self.worker_id},
        )


class Intake:
    """Pulls the deliveries of some queues, and hands them out in the order in which they should start."""

    def __init__(
        self, connection: Connection, queues: Iterable[str], ack_wait: float, slots: int, leases: Leases
    ) -> None:
        """Open no pull yet.

        :param ack_wait: seconds of a lease.
        :param slots: how many jobs may run at a time.
        :param leases: a redelivery of what has a lease renews that, and is never returned by ``next``.
        """
        self._ack_wait = ack_wait
        self._consumers: list[PullConsumer] = []
        self._held: dict[JobPriority, deque[tuple[PullConsumer, Delivery]]] = {p: deque() for p in _BY_RANK}
        self._arrived = asyncio.Event()
        self._connection = connection
        self._slots = slots
        self._leases = leases
        self._starts = 0
        self._job_seconds = 1.0
        self._paused: set[str] = set()
        self._handing_back: set[asyncio.Task[None]] = set()
        connection.on_reconnect.append(self._reconnected)
        for queue in queues:
            self.add_queue(queue)

    def add_queue(self, queue: str) -> None:
        """Pull the deliveries of one more queue, whose consumers exist."""
        self._consumers += [
            PullConsumer(
                self._connection,
                queue,
                priority,
                ack_wait=self._ack_wait,
                deliver=self._on_delivery,
                lost=self.drop_held,
            )
            for priority in _BY_RANK
        ]
        self._arrived.set()

    @property
    def paused(self) -> frozenset[str]:
        """The queues of which nothing may start here now, whether they are served here or not."""
        return frozenset(self._paused)

    def is_paused(self, queue: str) -> bool:
        """Return whether nothing of a queue may start here now."""
        return queue in self._paused

    async def pause(self, queue: str) -> None:
        """Start nothing of a queue from now on: hand back what is held of it, and pull no more.

        Whatever is delivered of it all the same is handed back, too. It may be a queue that is not served here.
        """
        self._paused.add(queue)
        await self._hand_back(lambda held: held[0].queue == queue)
        await self._close(queue)

    async def resume(self, queue: str) -> None:
        """Start what is delivered of a queue again.

        Its pulls are made anew: what the server has done with one that was open during the pause is not relied upon.
        """
        if queue in self._paused:
            self._paused.discard(queue)
            await self._close(queue)
            self._arrived.set()

    async def _close(self, queue: str) -> None:
        await asyncio.gather(*(consumer.close() for consumer in self._consumers if consumer.queue == queue))

    @property
    def held(self) -> list[Delivery]:
        """Return the deliveries that wait for a slot here."""
        return [delivery for waiting in self._held.values() for _, delivery in waiting]

    def note_duration(self, seconds: float) -> None:
        """Take the seconds of one job into the moving average that decides how many are pulled at once."""
        self._job_seconds += (seconds - self._job_seconds) / 16

    async def next(self) -> Delivery:
        """Wait for a delivery that can start now, and return it; called only while a slot is free."""
        while True:
            await self._poll()
            delivery = self._pick()
            if delivery is not None:
                return delivery
            await self._wait_for_jobs()

    async def hand_back(self, *, older_than: float = 0.0) -> None:
        """Nak what has been held for so many seconds, for other workers; no attempt is spent."""
        now = asyncio.get_running_loop().time()
        await self._hand_back(lambda held: now - held[1].arrived >= older_than)

    async def _hand_back(self, which: Callable[[tuple[PullConsumer, Delivery]], bool]) -> None:
        found = [held for waiting in self._held.values() for held in waiting if which(held)]
        # Taken out before the first is answered, so that none of them starts meanwhile.
        for held in found:
            self._held[held[0].priority].remove(held)
        for _, delivery in found:
            await delivery.nak(HAND_BACK_DELAY)

    def drop_held(self, consumer: PullConsumer | None = None) -> None:
        """Forget the deliveries of one consumer, or (None) of all: their acks would be another delivery's by now.

        Whatever there still is of them is delivered again.
        """
        for waiting in self._held.values():
            for held in [held for held in waiting if consumer is None or held[0] is consumer]:
                waiting.remove(held)

    async def stop(self) -> None:
        """Close all pulls, and hand back what is held or still on its way."""
        self._connection.on_reconnect.remove(self._reconnected)
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await self.hand_back()
        await asyncio.gather(*self._handing_back)

    def _on_delivery(self, consumer: PullConsumer, delivery: Delivery) -> None:
        if self._leases.renews(delivery):
            # Of a job that runs here already, which it may also if its queue is paused.
            pass
        elif consumer.queue in self._paused:
            task = asyncio.create_task(delivery.nak(HAND_BACK_DELAY))
            self._handing_back.add(task)
            task.add_done_callback(self._handing_back.discard)
        else:
            self._held[consumer.priority].append((consumer, delivery))
        self._arrived.set()

    def _reconnected(self) -> None:
        # The server forgot the open pulls with the connection.
        for consumer in self._consumers:
            consumer.wanted, consumer.waiting = 0, False
        self._arrived.set()

    async def _poll(self) -> None:
        """Poll, all at once, the consumers that have no open pull and nothing held here, but for paused queues."""
        idle = [consumer for consumer in self._active() if consumer.wanted == 0 and not self._holds(consumer)]
        if not idle:
            return
        batch = max(1, min(MAX_AHEAD, round(AHEAD_SECONDS * self._slots / max(self._job_seconds, 1e-5))))
        polls = await asyncio.gather(*(consumer.poll(batch) for consumer in idle), return_exceptions=True)
        for consumer, answer in zip(idle, polls, strict=True):
            if answer is False and consumer.queue not in self._paused:
                # The queue is empty: an open pull brings what comes, without further polls.
                await self._open(consumer)

    def _active(self) -> list[PullConsumer]:
        # Called before every start, and mostly no queue is paused.
        if not self._paused:
            return self._consumers
        return [consumer for consumer in self._consumers if consumer.queue not in self._paused]

    def _holds(self, consumer: PullConsumer) -> bool:
        # Called before every start: where one queue alone has deliveries of the priority, the first one decides.
        return any(brought is consumer for brought, _ in self._held[consumer.priority])

    async def _open(self, consumer: PullConsumer) -> None:
        try:
            await consumer.wait(1)
        except QueueUnavailable:
            log.debug("the lane %s is not open: NATS is away", consumer.name)

    def _pick(self) -> Delivery | None:
        for priority in _ORDERS[self._starts % len(_ORDERS)]:
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
        for consumer in self._consumers:
            if consumer.silent:
                log.info("the pull on %s is silent and is made anew", consumer.name)
                await consumer.close()
        try:
            async with asyncio.timeout(
                _RETRY_PAUSE if any(consumer.wanted == 0 for consumer in self._active()) else 1.0
            ):
                await self._arrived.wait()
        except TimeoutError:
            return


async def keep_leases(
    job_log: JobLog, leases: Leases, intake: Intake, ack_wait: float, *, busy: Callable[[], bool]
) -> None:
    """Extend leases and held deliveries, and hand back what no slot has taken for ``MAX_HOLD`` s; never return.

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
        if (stalled := clock() - asleep - pause) > ack_wait / 3:
            leases.warn_of_stall(stalled, ack_wait)
        if busy():
            await intake.hand_back(older_than=MAX_HOLD)
        await asyncio.gather(
            *(lease.extend(job_log) for lease in leases if due(lease.delivery)),
            *(delivery.extend() for delivery in intake.held if due(delivery)),
        )
