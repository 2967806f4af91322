"""Server-sent events: graphql-sse in its distinct connections mode, for its clients and for a plain EventSource."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.api.operations import CANCEL, RETRY, asked, create, create_many
from tests.serving import HOST, Data, ServedApi, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

FEED = "subscription ($after: String) { jobEvents(after: $after) { job { id } } }"
WATCH = "subscription ($id: ID!, $after: String) { jobProgress(id: $id, after: $after) { __typename } }"


class _Stream:
    """The events of one response; their lines end in LF."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._text = response.aiter_text()
        self._rest = ""

    async def block(self) -> dict[str, str]:
        """The fields of what comes next, a comment or ``retry`` among them."""
        while "\n\n" not in self._rest:
            self._rest += await anext(self._text)
        assert "\r" not in self._rest
        block, _, self._rest = self._rest.partition("\n\n")
        fields = (line.partition(":") for line in block.split("\n"))
        return {name: value.removeprefix(" ") for name, _, value in fields}

    async def next(self) -> tuple[str | None, Data]:
        """Cursor and result of the next event."""
        block = await self.block()
        assert block["event"] == "next"
        return block.get("id"), json.loads(block["data"])

    async def end(self) -> list[str]:
        """What is left of the response."""
        return [text async for text in self._text]

    async def complete(self) -> None:
        """The stream is complete, and over."""
        assert await self.block() == {"event": "complete", "data": ""}
        assert self._rest == ""
        assert await self.end() == []


@asynccontextmanager
async def _stream(
    http: httpx.AsyncClient, query: str, variables: Data | None = None, *, get: bool = False, after: str | None = None
) -> AsyncIterator[_Stream]:
    request: dict[str, Any] = {"json": {"query": query, "variables": variables or {}}}
    if get:
        request = {"params": {"query": query, "variables": json.dumps(variables or {})}}
    headers = {"Accept": "text/event-stream", **({} if after is None else {"Last-Event-ID": after})}
    async with http.stream("GET" if get else "POST", "/graphql", headers=headers, **request) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        stream = _Stream(response)
        assert 1000 <= int((await stream.block())["retry"]) <= 5000
        yield stream


@pytest.mark.parametrize("get", [True, False], ids=["get", "post"])
async def test_a_subscription_streams_next_events_and_then_complete(wire: ServedApi, get: bool) -> None:
    job = await create(wire)
    async with _stream(wire.http, WATCH, {"id": job["id"]}, get=get) as stream:
        _, first = await stream.next()
        assert first == {"data": {"jobProgress": {"__typename": "JobQueued"}}}
        await wire.ask(CANCEL, id=job["id"])
        _, last = await stream.next()
        assert last == {"data": {"jobProgress": {"__typename": "JobCancelled"}}}
        await stream.complete()
    await wire.subscribers(0)


async def test_the_headers_come_before_the_first_event_and_keep_proxies_from_collecting(wire: ServedApi) -> None:
    async with _stream(wire.http, FEED) as stream:
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert "Accept" in stream.response.headers["vary"]
        assert stream.response.headers["cache-control"] == "no-cache, no-store, no-transform"
        await wire.subscribers(1)
        job = await create(wire)
        assert (await stream.next())[1]["data"]["jobEvents"]["job"]["id"] == job["id"]
    await wire.subscribers(0)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ('subscription { jobProgress(id: "none") { cursor } }', "NOT_FOUND"),
        ('subscription { jobEvents(after: "") { cursor } }', "INVALID_ARGUMENT"),
    ],
)
async def test_what_cannot_be_run_is_reported_by_a_next_event(wire: ServedApi, query: str, code: str) -> None:
    async with _stream(wire.http, query) as stream:
        _, result = await stream.next()
        assert [error["extensions"]["code"] for error in result["errors"]] == [code]
        await stream.complete()


async def test_a_query_is_streamed_where_nothing_else_is_accepted(wire: ServedApi) -> None:
    async with _stream(wire.http, "{ __typename }") as stream:
        assert await stream.next() == (None, {"data": {"__typename": "Query"}})
        await stream.complete()


async def test_an_event_carries_its_cursor_as_id_and_last_event_id_resumes_behind_it(wire: ServedApi) -> None:
    async with _stream(wire.http, FEED) as stream:
        await wire.subscribers(1)
        ids = await create_many(wire, [asked() for _ in range(5)])
        seen = [await stream.next() for _ in range(2)]
    # The URL is what it was: the header is newer than an `after` in it.
    first = seen[0][0]
    assert first is not None
    for variables in {}, {"after": first}:
        async with _stream(wire.http, FEED, variables, get=True, after=seen[1][0]) as again:
            rest = [await again.next() for _ in range(3)]
        assert [result["data"]["jobEvents"]["job"]["id"] for _, result in seen + rest] == ids
    cursors = [cursor for cursor, _ in seen + rest]
    assert len(set(cursors)) == 5
    assert cursors[-1] is not None
    async with _stream(wire.http, FEED, {"after": first}) as by_argument:
        assert [(await by_argument.next())[0] for _ in range(4)] == cursors[1:]


async def test_a_cursor_that_is_none_is_refused_as_an_argument_is(wire: ServedApi) -> None:
    async with _stream(wire.http, FEED, after="yesterday") as stream:
        _, result = await stream.next()
        assert result["errors"][0]["extensions"]["code"] == "INVALID_ARGUMENT"
        await stream.complete()


async def test_an_event_source_that_comes_back_to_a_stream_that_is_over_is_sent_away(wire: ServedApi) -> None:
    job = await create(wire)
    await wire.ask(CANCEL, id=job["id"])
    async with _stream(wire.http, WATCH, {"id": job["id"]}) as stream:
        cursor, _ = await stream.next()
        await stream.complete()
    assert cursor is not None
    params = {"query": WATCH, "variables": json.dumps({"id": job["id"]})}
    headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
    response = await wire.http.get("/graphql", params=params, headers=headers)
    assert (response.status_code, response.content) == (204, b"")
    # A job that goes on is told on.
    await wire.ask(RETRY, id=job["id"])
    async with _stream(wire.http, WATCH, {"id": job["id"]}, get=True, after=cursor) as resumed:
        assert (await resumed.next())[1] == {"data": {"jobProgress": {"__typename": "JobQueued"}}}


async def test_a_client_that_goes_away_ends_its_subscription(wire: ServedApi) -> None:
    async with _stream(wire.http, FEED):
        await wire.subscribers(1)
    await wire.subscribers(0)


async def test_a_stopping_server_interrupts_a_stream_without_completing_it(
    wire: ServedApi, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = wire.runtime.settings.model_copy(update={"data_dir": tmp_path_factory.mktemp("stopping")})
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http, AsyncExitStack() as stack:
        async with serving(settings) as api:
            http.base_url = httpx.URL(f"http://{HOST}:{api.port}")
            stream = await stack.enter_async_context(_stream(http, FEED))
            await api.subscribers(1)
        assert list(await stream.block()) == ["retry"]
        # The response is not finished: there are clients that take its end for the end of the subscription.
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await stream.end()
