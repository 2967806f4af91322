"""Pulling deliveries: what is there, what comes, and what waits for its retry."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log import codec, deliveries
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deliveries import Delivery, PullConsumer
from tests.by_hand import frozen
from tests.deadline import until
from tests.stories import request


class Basket:
    """A pull consumer and what it has brought."""

    def __init__(self, connection: Connection, priority: JobPriority = JobPriority.NORMAL) -> None:
        self.brought: list[Delivery] = []
        self._connection = connection
        self.consumer = PullConsumer(connection, "default", priority, ack_wait=30.0, deliver=self._take)

    @property
    def ids(self) -> list[str]:
        return [delivery.job_id for delivery in self.brought]

    async def offers(self, number: int) -> None:
        """Wait until the server's consumer has so many jobs to give: it learns of a message after it was stored."""

        async def pending() -> bool:
            return await self.said_by_the_server("num_pending") == number

        await until(pending, f"there are {number} jobs to give")

    async def said_by_the_server(self, number: str) -> int:
        """One of the numbers that the server tells of the consumer."""
        info = json.loads(await self._connection.api(f"CONSUMER.INFO.{codec.JOBS_STREAM}.{self.consumer.name}"))
        return int(info[number])

    def _take(self, consumer: PullConsumer, delivery: Delivery) -> None:
        assert consumer is self.consumer
        self.brought.append(delivery)


@pytest.fixture
async def basket(connection: Connection) -> AsyncIterator[Basket]:
    """The pull consumer of NORMAL jobs; its pull is closed in the end."""
    basket = Basket(connection)
    yield basket
    await basket.consumer.close()


async def test_a_poll_brings_what_is_there_in_order(basket: Basket, commands: JobCommands) -> None:
    created = await commands.create_many([request() for _ in range(5)])
    await basket.offers(5)
    assert await basket.consumer.poll(3)
    assert basket.ids == [outcome.job.id for outcome in created[:3]]
    assert await basket.consumer.poll(10)
    assert basket.ids == [outcome.job.id for outcome in created]
    assert basket.consumer.wanted == 0
    assert not await basket.consumer.poll(10)
    assert (basket.consumer.wanted, basket.consumer.waiting) == (0, False)


async def test_a_lane_brings_only_its_own_queue_and_priority(
    basket: Basket, connection: Connection, commands: JobCommands
) -> None:
    jobs = {p: (await commands.create(request(priority=p))).job.id for p in JobPriority}
    await basket.offers(1)
    assert await basket.consumer.poll(10)
    assert basket.ids == [jobs[JobPriority.NORMAL]]
    critical = Basket(connection, JobPriority.CRITICAL)
    assert await critical.consumer.poll(10)
    assert critical.ids == [jobs[JobPriority.CRITICAL]]
    await critical.consumer.close()


async def test_an_open_pull_brings_what_comes(basket: Basket, commands: JobCommands) -> None:
    assert not await basket.consumer.poll(1)
    await basket.consumer.wait(2)
    assert basket.consumer.waiting
    first = (await commands.create(request())).job.id
    await until(lambda: basket.ids == [first], "the job is delivered")
    assert (basket.consumer.wanted, basket.consumer.waiting) == (1, True)
    second = (await commands.create(request())).job.id
    await until(lambda: basket.ids == [first, second], "the job is delivered")
    assert (basket.consumer.wanted, basket.consumer.waiting) == (0, False)


async def test_a_pull_that_has_had_no_job_for_its_time_ends(basket: Basket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "PULL_EXPIRES", 0.1)
    monkeypatch.setattr(deliveries, "PULL_HEARTBEAT", 0.04)
    await basket.consumer.wait(1)
    await until(lambda: basket.consumer.wanted == 0, "the server ends the pull")
    assert not basket.consumer.waiting


async def test_an_open_pull_without_a_sign_of_life_is_silent(
    basket: Basket, nats: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "PULL_HEARTBEAT", 0.1)
    await basket.consumer.wait(1)
    assert not basket.consumer.silent
    with frozen(nats):
        await until(lambda: basket.consumer.silent, "the silence is noticed")


async def test_a_poll_without_an_answer_fails_and_its_pull_is_given_up(
    basket: Basket, nats: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "POLL_TIMEOUT", 0.1)
    with frozen(nats):
        polled = asyncio.create_task(basket.consumer.poll(1))
        await asyncio.wait([polled], timeout=0.5)
    with pytest.raises(QueueUnavailable, match="queue-default-normal does not answer"):
        await polled
    assert basket.consumer.wanted == 0


async def test_the_end_of_a_consumer_ends_its_pull(basket: Basket, connection: Connection) -> None:
    await basket.consumer.wait(1)
    await until(lambda: basket.said_by_the_server("num_waiting"), "the server has the pull")
    await connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{basket.consumer.name}")
    await until(lambda: basket.consumer.wanted == 0, "the pull is over")


async def test_a_closed_lane_asks_for_nothing(basket: Basket, commands: JobCommands) -> None:
    await basket.consumer.wait(1)
    await basket.consumer.close()
    assert (basket.consumer.wanted, basket.consumer.waiting) == (0, False)
    job = (await commands.create(request())).job
    await basket.offers(1)
    assert await basket.consumer.poll(1)
    assert basket.ids == [job.id]


async def test_a_thousand_deliveries_that_wait_for_their_retry_do_not_stop_fresh_jobs(
    basket: Basket, commands: JobCommands
) -> None:
    await commands.create_many([request() for _ in range(1000)])
    while len(basket.brought) < 1000:
        assert await basket.consumer.poll(500)
    for delivery in basket.brought:
        await delivery.nak(3600.0)
    basket.brought.clear()
    fresh = await commands.create_many([request() for _ in range(20)])
    await basket.offers(20)
    assert await basket.consumer.poll(500)
    assert basket.ids == [outcome.job.id for outcome in fresh]
    assert not any(delivery.redelivered for delivery in basket.brought)
