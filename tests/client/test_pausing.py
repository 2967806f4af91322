"""Queues are paused, resumed and limited by clients, over HTTP and beside the broker, with one outcome."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gql_jobs.client import AsyncClient, Client, InvalidArgument, Limits
from tests.deadline import until
from tests.serving import HOST, ServedApi


async def test_a_queue_is_paused_by_either_way_for_a_reason_and_for_so_long(
    api: ServedApi, by_either: AsyncClient
) -> None:
    pause = await by_either.pause_queue("default", reason="the bank is closed", until=timedelta(hours=1))
    assert pause.reason == "the bank is closed"
    assert pause.until is not None
    assert timedelta(minutes=59) < pause.until - datetime.now(UTC) < timedelta(minutes=61)
    assert await until(lambda: api.runtime.pauses.of("default"), "the API knows") == pause
    again = await by_either.pause_queue("default")
    assert (again.at, again.reason, again.until) == (pause.at, None, None)
    await by_either.resume_queue("default")
    await by_either.resume_queue("default")
    await until(lambda: not api.runtime.pauses.now(), "the API knows that too")


async def test_a_queue_is_limited_by_either_way(api: ServedApi, by_either: AsyncClient) -> None:
    limits = await by_either.set_queue_limits("default", concurrency=5, concurrency_per_key=1, per_second=0.5)
    assert limits == Limits.of(concurrency=5, concurrency_per_key=1, per_second=0.5)
    await until(lambda: api.runtime.steering.limits_of_queue("default") == limits, "the API knows")
    assert (await by_either.set_queue_limits("default")).is_none
    await until(lambda: api.runtime.steering.limits_of_queue("default").is_none, "the API knows that too")
    with pytest.raises(InvalidArgument, match="must be a whole number from 1") as refused:
        await by_either.set_queue_limits("default", concurrency_per_key=0)
    assert refused.value.field == "concurrency_per_key"
    with pytest.raises(InvalidArgument, match="There is no queue"):
        await by_either.set_queue_limits("nobody", concurrency=1)


async def test_a_queue_that_is_not_known_is_refused_alike(by_either: AsyncClient) -> None:
    for asked in (by_either.pause_queue("nobody"), by_either.resume_queue("nobody"), by_either.pause_queue("a.b")):
        with pytest.raises(
            InvalidArgument, match=r"There is no queue '.*'; known are: cpu, default, .*threads"
        ) as refused:
            await asked
        assert refused.value.field == "name"
    with pytest.raises(InvalidArgument) as refused:
        await by_either.pause_queue("default", until=datetime(2020, 1, 1, tzinfo=UTC))
    assert refused.value.field == "until"


async def test_the_client_that_waits_has_the_same(api: ServedApi) -> None:
    def steps() -> str | None:
        with Client(f"http://{HOST}:{api.port}") as waiting:
            paused = waiting.pause_queue("default", reason="the bank is closed")
            waiting.resume_queue("default")
            assert waiting.set_queue_limits("default", per_second=1).per_second == 1
            return paused.reason

    assert await asyncio.to_thread(steps) == "the bank is closed"
