"""One delivery and its lease: extended while it is ours, never touched afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log import codec
from gql_jobs.log.codec import Newer, Unreadable
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deliveries import Delivery, PullConsumer
from gql_jobs.log.streams import ensure_consumers
from tests.deadline import until
from tests.stories import JOB, request

LEASE = 0.4
"""Seconds."""


class Pulls:
    """Deliveries under a lease that ends soon."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._came: list[Delivery] = []
        self.consumer = PullConsumer(
            connection, "default", JobPriority.NORMAL, ack_wait=LEASE, deliver=lambda _, d: self._came.append(d)
        )

    async def now(self) -> Delivery | None:
        """What is there at once."""
        await self.consumer.poll(1)
        return self._came.pop() if self._came else None

    async def next(self) -> Delivery:
        """What comes."""
        return await until(self.now, "there is a delivery")

    async def state(self) -> tuple[int, int]:
        """Deliveries not yet acked, and how many have been handed out in all."""
        info: dict[str, Any] = json.loads(
            await self._connection.api(f"CONSUMER.INFO.{codec.JOBS_STREAM}.{self.consumer.name}")
        )
        return info["num_ack_pending"], info["delivered"]["consumer_seq"]

    async def settled(self, handed_out: int) -> None:
        """Everything has been acked, after so many deliveries; the server takes acks a moment after they came."""

        async def nothing_pending() -> bool:
            return (await self.state())[0] == 0

        await until(nothing_pending, "every delivery is acked")
        assert await self.state() == (0, handed_out)


@pytest.fixture
async def pulls(connection: Connection) -> AsyncIterator[Pulls]:
    """The pull consumer of NORMAL jobs with a short lease."""
    await ensure_consumers(connection, ("default",), LEASE)
    pulls = Pulls(connection)
    yield pulls
    await pulls.consumer.close()


def _clock() -> float:
    return asyncio.get_running_loop().time()


async def test_a_delivery_names_its_job_and_carries_its_submission(pulls: Pulls, commands: JobCommands) -> None:
    job = (await commands.create(request())).job
    delivery = await pulls.next()
    assert (delivery.job_id, delivery.seq, delivery.redelivered) == (job.id, job.submission_seq, False)
    assert delivery.submission().spec == job.spec
    await delivery.ack()
    await pulls.settled(1)


async def test_a_nak_brings_it_back_after_its_delay_and_not_at_once(pulls: Pulls, commands: JobCommands) -> None:
    await commands.create(request())
    first = await pulls.next()
    asked = _clock()
    await first.nak(0.25)
    assert await pulls.now() is None
    again = await pulls.next()
    assert again.arrived - asked >= 0.24
    assert (again.seq, again.redelivered) == (first.seq, True)


async def test_a_nak_without_a_delay_has_one_all_the_same(pulls: Pulls, commands: JobCommands) -> None:
    await commands.create(request())
    for _ in range(5):
        delivery = await pulls.next()
        await delivery.nak(-1.0)
    await (await pulls.next()).ack()
    await pulls.settled(6)


async def test_an_extended_lease_keeps_the_job(pulls: Pulls, commands: JobCommands) -> None:
    await commands.create(request())
    delivery = await pulls.next()
    begun, first_deadline = _clock(), delivery.deadline

    async def held_for_three_leases() -> bool:
        assert await delivery.extend()
        assert await pulls.now() is None
        return _clock() > begun + 3 * LEASE

    await until(held_for_three_leases, "three leases have passed")
    assert delivery.leased
    assert delivery.deadline > first_deadline
    await delivery.ack()
    await pulls.settled(1)


async def test_a_lease_that_has_run_out_is_neither_extended_nor_handed_back(
    pulls: Pulls, commands: JobCommands
) -> None:
    await commands.create(request())
    zombie = await pulls.next()
    heir = await pulls.next()
    assert (heir.seq, heir.redelivered) == (zombie.seq, True)
    await until(lambda: not zombie.leased, "the first lease is over")
    deadline = zombie.deadline
    assert not await zombie.extend()
    await zombie.nak(0.0)
    begun = _clock()

    async def looked_for_a_quarter_of_the_lease() -> bool:
        assert await pulls.now() is None, "a nak has made a third delivery"
        return _clock() > begun + LEASE / 4

    await until(looked_for_a_quarter_of_the_lease, "a third delivery would have come")
    assert zombie.deadline == deadline
    await heir.ack()
    await pulls.settled(2)


async def test_a_lost_connection_ends_the_lease(pulls: Pulls, commands: JobCommands) -> None:
    await commands.create(request())
    delivery = await pulls.next()
    await pulls._connection.client.close()  # noqa: SLF001
    await delivery.ack()
    assert not delivery.leased
    assert not await delivery.extend()


async def test_a_consumer_made_anew_delivers_every_kept_submission_again_as_if_for_the_first_time(
    pulls: Pulls, commands: JobCommands, connection: Connection
) -> None:
    """Which the fence at ``started`` turns away, not the delivery's own count."""
    job = (await commands.create(request())).job
    await (await pulls.next()).ack()
    await connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{pulls.consumer.name}")
    await ensure_consumers(connection, ("default",), LEASE)
    again = await pulls.next()
    assert (again.job_id, again.redelivered) == (job.id, False)


@pytest.mark.parametrize(("data", "error"), [(b"garbage", Unreadable), (b"{}", Unreadable), (b'{"v":2,', Unreadable)])
async def test_an_unreadable_submission_is_delivered_and_says_so(
    pulls: Pulls, connection: Connection, data: bytes, error: type[Exception]
) -> None:
    await connection.request(codec.queued_subject(JOB, "default", JobPriority.NORMAL), data)
    delivery = await pulls.next()
    with pytest.raises(error):
        delivery.submission()


async def test_a_submission_of_a_newer_version_is_told_apart(
    pulls: Pulls, connection: Connection, commands: JobCommands
) -> None:
    job = (await commands.create(request())).job
    body = json.loads((await pulls.next())._data) | {"v": 4}  # noqa: SLF001
    await connection.request(codec.queued_subject(job.id, "default", JobPriority.NORMAL), json.dumps(body).encode())
    with pytest.raises(Newer):
        (await pulls.next()).submission()
