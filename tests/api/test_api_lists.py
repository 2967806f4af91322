"""jobsChanged: a list that is shown, and how it changes, over the real wire."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial

import pytest
from websockets.asyncio.client import ClientConnection

from gql_jobs.graphql.engine.operations import Result, ResultCache
from gql_jobs.live import windows
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, ahead, asked, create, create_many, ended
from tests.deadline import until
from tests.running import RunningWorker
from tests.serving import HOST, Data, ServedApi, hear, say, serving

LIST = """
subscription ($filter: JobFilter, $order: JobOrder, $first: Int, $rate: Float) {
  jobsChanged(filter: $filter, orderBy: $order, first: $first, maxPerSecond: $rate) {
    __typename cursor totalCount more
    ... on JobsSnapshot { nodes { ...of } }
    ... on JobEntered { job { ...of } before }
    ... on JobUpdated { job { ...of } }
    ... on JobLeft { id }
  }
}
fragment of on Job { __typename id status progress tags }
"""
PAGE = """
query ($filter: JobFilter, $order: JobOrder, $first: Int) {
  jobs(filter: $filter, orderBy: $order, first: $first) {
    totalCount nodes { __typename id status progress tags }
  }
}
"""


class Shown:
    """What a client shows that does what the documentation says."""

    def __init__(self) -> None:
        self.jobs: list[Data] = []
        self.total = -1
        self.kinds: list[str] = []
        self.is_whole = False

    def apply(self, change: Data) -> None:
        """Apply one change."""
        self.kinds.append(change["__typename"])
        self.total, self.is_whole = change["totalCount"], not change["more"]
        match change["__typename"]:
            case "JobsSnapshot":
                self.jobs = change["nodes"]
            case "JobLeft":
                self.jobs = [job for job in self.jobs if job["id"] != change["id"]]
            case "JobUpdated":
                self.jobs = [change["job"] if job["id"] == change["job"]["id"] else job for job in self.jobs]
            case "JobEntered":
                rest = [job for job in self.jobs if job["id"] != change["job"]["id"]]
                ids = [job["id"] for job in rest]
                place = len(ids) if change["before"] is None else ids.index(change["before"])
                self.jobs = [*rest[:place], change["job"], *rest[place:]]


async def _follow(stream: AsyncIterator[Data], shown: Shown) -> None:
    async for change in stream:
        shown.apply(change)


async def test_a_list_that_is_watched_becomes_what_a_page_answers_while_jobs_run(
    api: ServedApi, worker: RunningWorker
) -> None:
    assert worker.task is not None
    variables = {"filter": {"tags": ["mine"]}, "first": 5, "rate": 10.0}
    shown = Shown()
    await create(api, tags=["mine"])
    async with aclosing(api.events(LIST, **variables)) as stream:
        following = asyncio.create_task(_follow(stream, shown))
        await until(lambda: shown.is_whole, "the list is there")
        jobs = await create_many(api, [asked({"steps": 3}, tags=["mine"]) for _ in range(8)])
        await create(api, tags=["other"])
        for job_id in jobs:
            await ended(api, job_id)
        later = await create(api, tags=["mine"], runAt=ahead(hours=1))
        await api.ask(CANCEL, id=later["id"])

        async def is_the_page() -> bool:
            page = (await api.ask(PAGE, filter=variables["filter"], first=5))["jobs"]
            return shown.is_whole and (shown.jobs, shown.total) == (page["nodes"], page["totalCount"]) == (
                page["nodes"],
                10,
            )

        await until(is_the_page, "the list is the page")
        following.cancel()
        await asyncio.wait({following})
    assert shown.kinds[0] == "JobsSnapshot"
    assert {"JobEntered", "JobLeft"} & set(shown.kinds)
    await until(lambda: not len(api.runtime.windows), "the window is closed")


async def test_jobs_of_a_list_have_their_types_and_their_payloads_where_they_are_selected(api: ServedApi) -> None:
    await create(api, {"gate": "x" * 5000})
    selected = "... on JobsSnapshot { nodes { __typename rawPayload ... on ProbeJob { payload { gate } } } }"
    async with aclosing(api.events(f"subscription {{ jobsChanged {{ {selected} }} }}")) as stream:
        (job,) = (await anext(stream))["nodes"]
    assert job["__typename"] == "ProbeJob"
    assert job["payload"]["gate"] == job["rawPayload"]["gate"] == "x" * 5000
    selected = "... on JobsSnapshot { nodes { __typename } }"
    async with aclosing(api.events(f"subscription {{ jobsChanged {{ {selected} }} }}")) as stream:
        assert (await anext(stream))["nodes"] == [{"__typename": "ProbeJob"}]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ("first: 0", "first"),
        ("first: 101", "first"),
        ("maxPerSecond: 0.05", "maxPerSecond"),
        ("maxPerSecond: 11", "maxPerSecond"),
        ('filter: { tags: ["%s"] }' % ("x" * 256), "filter.tags.0"),
    ],
)
async def test_what_cannot_be_watched_is_refused_before_anything_comes(
    api: ServedApi, arguments: str, field: str
) -> None:
    async with api.raw_socket() as opened:
        refusal = await api.refused_on(opened, "1", f"subscription {{ jobsChanged({arguments}) {{ cursor }} }}")
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": field}
    assert len(api.runtime.windows) == 0


async def test_a_stream_of_a_list_has_no_ids_to_resume_from_and_begins_anew_with_the_whole_list(
    api: ServedApi,
) -> None:
    await create(api)
    body = {"query": "subscription { jobsChanged { __typename } }"}
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "7"}
    async with api.http.stream("POST", "/graphql", json=body, headers=headers) as stream:
        assert stream.status_code == 200
        lines = []
        async for line in stream.aiter_lines():
            lines.append(line)
            if line.startswith("data:"):
                break
    assert not [line for line in lines if line.startswith("id:")]
    assert "JobsSnapshot" in lines[-1]


async def test_lists_of_all_sockets_of_a_client_count_for_it(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOWS_OF_CLIENT", 2)
    async with api.raw_socket() as one, api.raw_socket() as other:
        for opened, first in (one, 1), (other, 2):
            query = f"subscription {{ jobsChanged(first: {first}) {{ more }} }}"
            await say(opened, id="1", type="subscribe", payload={"query": query})
            assert (await hear(opened))["type"] == "next"
        refusal = await api.refused_on(other, "2", "subscription { jobsChanged(first: 3) { more } }")
        assert refusal["extensions"] == {"code": "RATE_LIMITED", "retryAfter": 5}
    await until(lambda: not len(api.runtime.windows), "the windows are closed")


async def test_a_client_that_leaves_large_results_unread_has_no_further_ones_made_until_it_reads(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    usual = ResultCache.keep

    def counted(self: ResultCache, key: str, result: Result) -> Result:
        made.append(key)
        return usual(self, key, result)

    monkeypatch.setattr(ResultCache, "keep", counted)
    async with serving(settings.model_copy(update={"max_body_bytes": 1 << 20}), send_buffer=1 << 16) as api:
        for _ in range(8):
            await create(api, {"gate": "x" * 900_000})
        async with AsyncExitStack() as stack:
            reads = []
            for number in range(10):
                selected = "... on JobsSnapshot { nodes { rawPayload } }"
                query = f"subscription {{ jobsChanged(first: {number + 8}) {{ {selected} }} }}"
                narrow = stack.enter_context(socket.socket())
                narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                narrow.connect((HOST, api.port))
                opened = await stack.enter_async_context(api.raw_socket(sock=narrow, max_size=None))
                opened.transport.pause_reading()
                await say(opened, id="1", type="subscribe", payload={"query": query})
                reads.append(partial(_heard_at_last, opened, narrow))
            await until(lambda: len(api.runtime.windows) == 10, "all are there")
            await until(lambda: made, "one is made")
            assert await api.ask("{ __typename }")
            assert len(made) < 5
            assert await asyncio.gather(*[read() for read in reads]) == [8] * 10
            assert len(made) == 10


async def _heard_at_last(opened: ClientConnection, narrow: socket.socket) -> int:
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    opened.transport.resume_reading()
    return len((await hear(opened))["payload"]["data"]["jobsChanged"]["nodes"])


async def test_a_list_on_a_socket_is_completed_by_its_client(api: ServedApi) -> None:
    async with api.raw_socket() as opened:
        await say(opened, id="1", type="subscribe", payload={"query": "subscription { jobsChanged { more } }"})
        assert (await hear(opened))["payload"] == {"data": {"jobsChanged": {"more": False}}}
        await say(opened, id="1", type="complete")
        await until(lambda: not len(api.runtime.windows), "the window is closed")
