"""The graphql-transport-ws protocol, as clients rely on it."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from gql_jobs.settings import Settings
from tests.api.operations import UNKNOWN_ID, create, reached
from tests.running import RunningWorker
from tests.serving import Data, ServedApi, hear, say, serving

WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { __typename job { id status } } }"
FEED = "subscription { jobEvents { __typename job { id } } }"


def _subscription(query: str, **variables: str) -> Data:
    return {"query": query, "variables": variables}


async def test_one_socket_carries_several_subscriptions(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    jobs = {str(n): (await create(api, {"steps": 2, "seconds": 0.05}))["id"] for n in range(5)}
    ends: dict[str, str] = {}
    async with api.raw_socket() as opened:
        for number, job_id in jobs.items():
            await say(opened, id=number, type="subscribe", payload=_subscription(WATCH, id=job_id))
        open_ones = set(jobs)
        while open_ones:
            message = await hear(opened)
            if message["type"] == "complete":
                open_ones.remove(message["id"])
                continue
            event = message["payload"]["data"]["jobProgress"]
            assert event["job"]["id"] == jobs[message["id"]]
            ends[message["id"]] = event["__typename"]
        assert ends == dict.fromkeys(jobs, "JobCompleted")
        # Queries may come the same way.
        await say(opened, id="q", type="subscribe", payload=_subscription("{ jobTypes { name } }"))
        assert "probe" in str(await hear(opened))
    await api.subscribers(0)


async def test_an_unknown_id_is_an_error_of_that_subscription_alone(api: ServedApi) -> None:
    job = await create(api)
    async with api.raw_socket() as opened:
        for number, job_id in ("1", UNKNOWN_ID), ("2", "no-uuid"), ("3", "*"):
            await say(opened, id=number, type="subscribe", payload=_subscription(WATCH, id=job_id))
            message = await hear(opened)
            assert (message["type"], message["id"]) == ("error", number)
            assert [error["extensions"]["code"] for error in message["payload"]] == ["NOT_FOUND"]
        await say(opened, id="1", type="subscribe", payload=_subscription(WATCH, id=job["id"]))
        message = await hear(opened)
        assert (message["type"], message["id"]) == ("next", "1")
        await api.subscribers(1)


async def test_complete_ends_the_subscription_on_the_server(api: ServedApi) -> None:
    job = await create(api)
    async with api.raw_socket() as opened:
        await say(opened, id="all", type="subscribe", payload=_subscription(FEED))
        await say(opened, id="one", type="subscribe", payload=_subscription(WATCH, id=job["id"]))
        assert (await hear(opened))["id"] == "one"
        await api.subscribers(2)
        await say(opened, id="all", type="complete")
        await api.subscribers(1)
        await say(opened, id="one", type="complete")
        await api.subscribers(0)
        await say(opened, type="ping")
        assert await hear(opened) == {"type": "pong"}


@pytest.mark.parametrize("politely", [True, False])
async def test_closing_the_socket_ends_its_subscriptions(api: ServedApi, politely: bool) -> None:
    job = await create(api)
    async with api.raw_socket() as opened:
        await say(opened, id="all", type="subscribe", payload=_subscription(FEED))
        await say(opened, id="one", type="subscribe", payload=_subscription(WATCH, id=job["id"]))
        await api.subscribers(2)
        if politely:
            await opened.close()
        else:
            opened.transport.abort()
        await api.subscribers(0)


async def test_a_stopping_server_tells_its_subscribers_to_come_back(settings: Settings) -> None:
    async with AsyncExitStack() as clients:
        async with serving(settings) as api:
            opened = await clients.enter_async_context(api.raw_socket())
            await say(opened, id="all", type="subscribe", payload=_subscription(FEED))
            await api.subscribers(1)
        with pytest.raises(ConnectionClosed) as closed:
            await opened.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_what_breaks_the_protocol_closes_the_socket(api: ServedApi) -> None:
    async with api.raw_socket() as opened:
        await opened.send("no JSON")
        with pytest.raises(ConnectionClosed) as closed:
            await opened.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


async def test_three_hundred_sockets_see_the_end_of_one_job(
    api: ServedApi, worker: RunningWorker, tmp_path: Path
) -> None:
    assert worker.task is not None
    gate = tmp_path / "gate"
    job = await create(api, {"gate": str(gate), "steps": 2})
    await reached(api, job["id"], "PROCESSING")

    async def end() -> list[str]:
        async with api.raw_socket(open_timeout=40) as opened:
            await say(opened, id="1", type="subscribe", payload=_subscription(WATCH, id=job["id"]))
            told: list[str] = []
            async for text in opened:
                message = json.loads(text)
                if message["type"] == "complete":
                    return told
                told.append(message["payload"]["data"]["jobProgress"]["__typename"])
        raise AssertionError("the socket was closed")

    async with asyncio.TaskGroup() as group:
        crowd = [group.create_task(end()) for _ in range(300)]
        await api.subscribers(300, within=40)
        gate.touch()
    assert {(one.result()[0], one.result()[-1]) for one in crowd} == {("JobStarted", "JobCompleted")}
    await api.subscribers(0)
