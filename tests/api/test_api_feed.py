"""jobEvents: every event of every job that matches, filtered by the server, from now on or from a cursor."""

import asyncio
import gc
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from graphql.execution.collect_fields import FieldDetails

from gql_jobs.graphql.engine.operations import Result, ResultCache
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, FEED, RETRY, ahead, asked, create, create_many, ended, kinds, lifecycle
from tests.running import RunningWorker, running_worker
from tests.serving import HOST, Data, ServedApi, hear, say, serving, subscribed

PADDED = "subscription { jobEvents { __typename cursor job { id rawPayload } } }"
LIFE = ["JobQueued", "JobStarted", "JobCompleted"]


async def _take(stream: AsyncIterator[Data], number: int) -> list[Data]:
    """The next events."""
    async with asyncio.timeout(20):
        return [await anext(stream) for _ in range(number)]


async def test_the_first_event_of_all_needs_no_earlier_one(api: ServedApi) -> None:
    async with aclosing(api.events(FEED)) as stream:
        first = asyncio.ensure_future(anext(stream))
        await api.subscribers(1)
        job = await create(api)
        event = await asyncio.wait_for(first, 10)
        assert (event["__typename"], event["job"]["id"]) == ("JobQueued", job["id"])
    await api.subscribers(0)


async def test_a_socket_that_is_not_read_has_one_subscription_make_a_result_at_a_time(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each of them would show is large; nobody else is delayed, and all of it comes when it is read."""
    jobs = [await create(api, {"gate": f"{number}{'x' * 800_000}"}) for number in range(40)]
    made: list[str | None] = []
    usual = ResultCache.keep

    def counted(self: ResultCache, key: str, result: Result) -> Result:
        made.append(key)
        return usual(self, key, result)

    monkeypatch.setattr(ResultCache, "keep", counted)
    document = "subscription ($id: ID!) { jobProgress(id: $id) { job { id rawPayload } } }"
    async with api.raw_socket(max_queue=1, max_size=None) as unread, api.socket() as other:
        for number, job in enumerate(jobs):
            payload = {"query": document, "variables": {"id": job["id"]}}
            await say(unread, id=str(number), type="subscribe", payload=payload)
        await api.subscribers(40)
        # Another socket is answered meanwhile, also about the same jobs.
        async with aclosing(subscribed(other, document, id=jobs[-1]["id"])) as events:
            assert (await anext(events))["job"]["id"] == jobs[-1]["id"]
        assert len(made) < 30
        told = [await hear(unread) for _ in jobs]
    assert [message["payload"]["data"]["jobProgress"]["job"]["id"] for message in told] == [job["id"] for job in jobs]
    await api.subscribers(0)
    assert api.runtime.bus.held.bytes == 0


async def test_answers_of_queries_that_wait_on_a_socket_count_for_their_client(
    settings: Settings,
) -> None:
    async with serving(settings.model_copy(update={"max_body_bytes": 1 << 20})) as api:
        job = await create(api, {"gate": "x" * 900_000})
        async with api.raw_socket(max_queue=1, max_size=None) as unread:
            query = {"query": f'{{ job(id: "{job["id"]}") {{ rawPayload }} }}'}
            for number in range(30):
                await say(unread, id=str(number), type="subscribe", payload=query)
            ends: dict[str, Data] = {}
            while len(ends) < 30:
                message = await hear(unread)
                ends.setdefault(message["id"], message)
        refused = [
            message["payload"][0]["extensions"]["code"] for message in ends.values() if message["type"] == "error"
        ]
        assert 0 < len(refused) < 30
        assert set(refused) == {"RATE_LIMITED"}


async def test_the_server_filters_by_the_state_as_of_each_event(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    filters = [
        {"tags": ["mine"]},
        {"status": ["COMPLETED", "DEAD_LETTER"]},
        {"type": ["probe_thread"], "priority": ["HIGH"]},
        {"status": ["CANCELLED"]},
    ]
    async with api.socket_streams(FEED, [{"filter": meant} for meant in filters]) as (mine, ends, threads, cancelled):
        await api.subscribers(4)
        one = await create(api, tags=["mine", "other"])
        two = await create(api, {"permanent": True}, tags=["other"])
        three = await create(api, {}, "probeThread", priority="HIGH")
        later = await create(api, {}, "probeThread", priority="LOW", runAt=ahead(days=1))
        for job, status in (one, "COMPLETED"), (two, "DEAD_LETTER"), (three, "COMPLETED"):
            await ended(api, job["id"], status)
        await api.ask(CANCEL, id=later["id"])
        assert kinds(await _take(mine, 3)) == ["Queued", "Started", "Completed"]
        assert {e["job"]["id"]: e["job"]["status"] for e in await _take(ends, 3)} == {
            one["id"]: "COMPLETED",
            two["id"]: "DEAD_LETTER",
            three["id"]: "COMPLETED",
        }
        by_thread = await _take(threads, 3)
        assert {event["job"]["id"] for event in by_thread} == {three["id"]}
        assert kinds(by_thread) == ["Queued", "Started", "Completed"]
        assert [event["job"]["id"] for event in await _take(cancelled, 1)] == [later["id"]]


async def test_after_replays_what_came_since(settings: Settings) -> None:
    async with serving(settings) as before:
        first = await create(before)
        async with aclosing(before.events(FEED, after="0")) as stream:
            (seen,) = await _take(stream, 1)
        assert seen["job"]["id"] == first["id"]
        second = await create(before, tags=["mine"])
    async with serving(settings) as after:
        third = await create(after, tags=["mine"])
        async with aclosing(after.events(FEED, after=seen["cursor"], filter={"tags": "mine"})) as stream:
            assert [event["job"]["id"] for event in await _take(stream, 2)] == [second["id"], third["id"]]
            await after.ask(CANCEL, id=first["id"])
            await after.ask(CANCEL, id=third["id"])
            assert kinds(await _take(stream, 1)) == ["Cancelled"]


async def test_a_retry_by_hand_shows_as_queued(api: ServedApi) -> None:
    async with api.socket_streams(FEED, [{}]) as (stream,):
        await api.subscribers(1)
        job = await create(api)
        await api.ask(CANCEL, id=job["id"])
        await api.ask(RETRY, id=job["id"])
        assert kinds(await _take(stream, 3)) == ["Queued", "Cancelled", "Queued"]


def _collected_fields() -> int:
    gc.collect()
    return sum(isinstance(thing, FieldDetails) for thing in gc.get_objects())


async def test_a_delivered_event_leaves_nothing_behind(api: ServedApi) -> None:
    async with api.socket_streams(FEED, [{}]) as (stream,):
        await api.subscribers(1)
        # The same document as below: its plan is kept with it.
        await create_many(api, [asked()])
        await _take(stream, 1)
        kept = _collected_fields()
        await create_many(api, [asked() for _ in range(20)])
        await _take(stream, 20)
        assert _collected_fields() <= kept


@pytest.mark.parametrize("field", ["jobEvents(", 'jobProgress(id: "{id}", '])
async def test_a_cursor_without_text_is_refused(api: ServedApi, field: str) -> None:
    job = await create(api)
    field = field.replace("{id}", job["id"]) + 'after: "")'
    async with api.raw_socket() as opened:
        refusal = await api.refused_on(opened, "1", f"subscription {{ {field} {{ cursor }} }}")
    assert (refusal["extensions"]["code"], refusal["extensions"]["argument"]) == ("INVALID_ARGUMENT", "after")


async def test_a_slow_reader_loses_no_lifecycle_event_and_delays_nobody(settings: Settings) -> None:
    number = 300
    async with serving(settings, send_buffer=4096) as api:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect((HOST, api.port))
        narrow.setblocking(False)
        async with api.raw_socket(sock=narrow, max_queue=1, max_size=None) as slow:
            await say(slow, id="slow", type="subscribe", payload={"query": PADDED})
            async with api.socket_streams(FEED, [{}]) as (quick,):
                await api.subscribers(2)
                ids = await create_many(api, [asked({"saves": "x" * 5000}) for _ in range(number)])
                async with running_worker(settings.model_copy(update={"num_workers": 20})):
                    prompt: list[Data] = []
                    while len(prompt) < 3 * number:
                        prompt += lifecycle(await _take(quick, 1))
            # Only now does the slow one begin to read.
            told: dict[str, list[str]] = {job_id: [] for job_id in ids}
            while sum(map(len, told.values())) < 3 * number:
                event = (await hear(slow))["payload"]["data"]["jobEvents"]
                if event["__typename"] != "JobProgress":
                    told[event["job"]["id"]].append(event["__typename"])
        await api.subscribers(0)
    assert Counter(event["job"]["id"] for event in prompt) == Counter(ids * 3)
    assert all(events == LIFE for events in told.values()), json.dumps(told)


async def test_queues_and_workers_are_told_when_their_figures_change(api: ServedApi, settings: Settings) -> None:
    queues = "subscription { queuesChanged(maxPerSecond: 10) { name counts { status count } workers } }"
    workers = "subscription { workersChanged(maxPerSecond: 10) { id running } }"
    async with aclosing(api.events(queues)) as counted, aclosing(api.events(workers)) as seen, asyncio.timeout(20):
        none: Any = await anext(seen)
        assert none == []
        assert (await _default_queue(counted))["workers"] == 0
        await create(api)
        assert {"status": "QUEUED", "count": 1} in (await _default_queue(counted))["counts"]
        async with running_worker(settings):
            one: Any = await anext(seen)
            assert [worker["running"] in {0, 1} for worker in one] == [True]
            while {"status": "COMPLETED", "count": 1} not in (await _default_queue(counted))["counts"]:
                pass


async def _default_queue(counted: AsyncIterator[Any]) -> Data:
    """The next figures of the queue ``default``."""
    (queue,) = [queue for queue in await anext(counted) if queue["name"] == "default"]
    found: Data = queue
    return found


@pytest.mark.parametrize("field", ["queuesChanged { name }", "workersChanged { id }"])
async def test_figures_are_not_told_at_any_rate(api: ServedApi, field: str) -> None:
    name, _, below = field.partition(" ")
    async with api.raw_socket() as opened:
        refusal = await api.refused_on(opened, "1", f"subscription {{ {name}(maxPerSecond: 100) {below} }}")
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "maxPerSecond"}
