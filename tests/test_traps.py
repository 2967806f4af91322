"""Traps of the broker that no other test watches, and the list of those that are watched."""

import json
import re
from contextlib import AsyncExitStack

import pytest
from nats.aio.msg import Msg

from gql_jobs.jetstream.connection import Connection, open_publisher
from gql_jobs.jetstream.errors import FenceRefused
from gql_jobs.jobs.viewer import ANYBODY
from gql_jobs.log import codec
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.running import ROOT
from tests.stories import request


def test_every_test_that_the_list_names_exists() -> None:
    named: list[tuple[str, str]] = []
    for line in (ROOT / "docs/broker_traps.md").read_text().splitlines():
        file = ""
        for word in re.findall(r"`([\w/.]+)`", line.rsplit(" | ", 1)[-1]):
            if word.endswith(".py"):
                file = word
            elif word.startswith("test_"):
                named.append((file, word))
    assert len(named) > 25
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), (file, test)


@pytest.mark.parametrize("number", [10071, 10164])
async def test_both_numbers_of_a_refused_fence_are_known(connection: Connection, number: int) -> None:
    error = {"error": {"code": 400, "err_code": number, "description": "wrong last sequence: 7"}, "seq": 0}

    async def refuse(message: Msg) -> None:
        """As a stream does; one of a single node never answers the second."""
        await connection.publish(message.reply, json.dumps(error).encode())

    stream = await connection.subscribe("traps.fenced", refuse)
    async with open_publisher(connection) as publisher:
        with pytest.raises(FenceRefused):
            await publisher.publish("traps.fenced", b"", {}, timeout=5)
    await connection.unsubscribe(stream)


async def test_subscriptions_cost_no_consumer(runtime: Runtime) -> None:
    async def consumers() -> int:
        names = json.loads(await runtime.connection.api(f"CONSUMER.NAMES.{codec.JOBS_STREAM}"))["consumers"]
        return len(names)

    await until(lambda: runtime.feed.caught_up, "the feed has its own")
    before = await consumers()
    async with AsyncExitStack() as stack:
        for _ in range(50):
            job = (await runtime.commands.create(request())).job
            events = await runtime.watch.job(job.id, ANYBODY)
            stack.push_async_callback(events.aclose)
            assert (await anext(events)).job.id == job.id
        assert await consumers() == before
