"""Which delivery starts next: lanes polled when a slot is free, deliveries held under lease, chosen by priority.

It never pulls for more than can start soon: a delivery held here is one that an idle worker elsewhere cannot have.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log.deliveries import Delivery, PullConsumer
from gql_jobs_worker.runner import Runner

log = logging.getLogger(__name__)

LOW_SHARE = 16
"""One of so many starts is a LOW job's, if there is one: busy higher lanes must not starve it."""
MAX_HOLD = 2.0
"""Seconds that a delivery is held while no slot is free, before others are given the chance."""
MAX_AHEAD = 256
"""Deliveries pulled at once at most, while jobs are short."""
AHEAD_SECONDS = 0.1
"""How much work is pulled ahead."""
_RETRY_PAUSE = 0.5
_BY_RANK = (JobPriority.CRITICAL, JobPriority.HIGH, JobPriority.NORMAL, JobPriority.LOW)


class Intake:
    """The deliveries of the queues, in the order in which they should start."""

    def __init__(
        self,
        connection: Connection,
        queues: Iterable[str],
        ack_wait: float,
        slots: int,
        adopt: Callable[[Delivery], bool],
    ) -> None:
        """:param adopt: told of each delivery as it comes; True says that it needs no start."""
        self._lanes = [
            PullConsumer(connection, queue, priority, ack_wait=ack_wait, deliver=self._arrive)
            for queue in queues
            for priority in _BY_RANK
        ]
        self._held: dict[JobPriority, deque[tuple[PullConsumer, Delivery]]] = {p: deque() for p in _BY_RANK}
        self._arrived = asyncio.Event()
        self._connection = connection
        self._slots = slots
        self._adopt = adopt
        self._starts = 0
        self._job_seconds = 1.0
        connection.on_reconnect.append(self._reconnected)

    @property
    def held(self) -> list[Delivery]:
        """Deliveries that wait for a slot here."""
        return [delivery for waiting in self._held.values() for _, delivery in waiting]

    def ran(self, seconds: float) -> None:
        """Told how long each job took, to pull ahead as far as that is short."""
        self._job_seconds += (seconds - self._job_seconds) / 16

    async def next(self) -> Delivery:
        """The delivery to start now, for a slot that is free; waits for one."""
        while True:
            await self._poll()
            delivery = self._pick()
            if delivery is not None:
                return delivery
            await self._wait_for_jobs()

    async def hand_back(self, *, older_than: float = 0.0) -> None:
        """Give held deliveries to other workers; they have not been started, so it costs nothing."""
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
        if not self._adopt(delivery):
            self._held[lane.priority].append((lane, delivery))
        self._arrived.set()

    def _reconnected(self) -> None:
        """The server forgot the open pulls with the connection."""
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
        # For every start: of a lane that is alone with its priority, the first one says it.
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


# Keeping the leases of what is running or held here, as long as the event loop turns.

CHECKS = 6
"""How often, in a lease, the leases are looked at; they are extended three times."""


async def keep_leases(runner: Runner, intake: Intake, ack_wait: float, busy: Callable[[], bool]) -> None:
    """Extend what is running or held, and give back what no slot has taken for a while. Never ends by itself.

    :param busy: whether no slot is free.
    """
    clock = asyncio.get_running_loop().time

    def due(delivery: Delivery) -> bool:
        return delivery.leased and delivery.deadline - clock() < ack_wait * 2 / 3

    pause = min(ack_wait / CHECKS, 1.0)
    while True:
        asleep = clock()
        await asyncio.sleep(pause)
        if (stood := clock() - asleep - pause) > ack_wait / 3:
            _say_stalled(runner, stood, ack_wait)
        if busy():
            await intake.hand_back(older_than=MAX_HOLD)
        await asyncio.gather(
            *(runner.extend(attempt) for attempt in runner.running.values() if due(attempt.delivery)),
            *(delivery.extend() for delivery in intake.held if due(delivery)),
        )


def _say_stalled(runner: Runner, stood: float, ack_wait: float) -> None:
    runner.counts.stalls += 1
    types = ", ".join(sorted({attempt.spec.type for attempt in runner.running.values()})) or "none"
    log.warning(
        "the event loop stood still for %.1f s, of leases of %g s, so that other workers may have been given what runs "
        "here. Coroutines must not compute or block: is it one of the running types (%s)? A plain function runs in a "
        "thread, cpu_bound=True in a process.",
        stood,
        ack_wait,
        types,
    )
