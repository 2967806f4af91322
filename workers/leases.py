"""Keeping the leases of what is running or held here, as long as the event loop turns."""

import asyncio
import logging
from collections.abc import Callable

from gql_jobs.log.delivery import Delivery
from workers.intake import MAX_HOLD, Intake
from workers.runner import Runner

log = logging.getLogger(__name__)

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
