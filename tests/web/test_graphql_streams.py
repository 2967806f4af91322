"""How a stream of results is sent, whatever it consists of: at once, kept alive, and ended from either side."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace
from starlette.types import Message

from gql_jobs.graphql.engine.operations import Result
from gql_jobs.web.connections import Connections
from gql_jobs.web.graphql_streams import EVENT_STREAM_FORMAT, MULTIPART_FORMAT, StreamedResponse, StreamFormat
from tests.deadline import until


class _Exchange:
    """A response being sent to a client that reads everything."""

    def __init__(self, stream_format: StreamFormat, *, resumed: bool = False, finished: bool = False) -> None:
        self.connections = Connections()
        self.results: asyncio.Queue[Result | None] = asyncio.Queue()
        self.closed = False
        self.ending = False
        self.status: int | None = None
        self.body = b""
        self._gone = asyncio.Event()
        self.end: Callable[[], None] = lambda: None

        @contextmanager
        def until_ended(end: Callable[[], None]) -> Iterator[None]:
            self.end = end
            yield

        response = StreamedResponse(
            self._taken(),
            stream_format,
            self.connections,
            resumed=resumed,
            finished=finished,
            until_ended=until_ended,
        )
        self.task = asyncio.create_task(response({}, self._receive, self._send))

    def leave(self) -> None:
        """The client goes away."""
        self._gone.set()

    async def _taken(self) -> AsyncGenerator[Result, None]:
        try:
            while (result := await self.results.get()) is not None:
                yield result
        finally:
            self.closed = True

    async def _receive(self) -> Message:
        await self._gone.wait()
        self.ending = True
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


FORMATS = pytest.mark.parametrize("stream_format", [EVENT_STREAM_FORMAT, MULTIPART_FORMAT], ids=["events", "multipart"])


@FORMATS
async def test_the_status_is_sent_before_there_is_a_result(stream_format: StreamFormat) -> None:
    exchange = _Exchange(stream_format)
    await until(lambda: exchange.status == 200 and exchange.body, "the stream has begun")
    exchange.results.put_nowait(None)
    await exchange.task
    assert exchange.closed


@FORMATS
async def test_a_silent_stream_is_kept_alive(stream_format: StreamFormat) -> None:
    exchange = _Exchange(replace(stream_format, heartbeat_interval=0.01))
    await until(lambda: exchange.body.count(stream_format.heartbeat) > 2, "heartbeats were sent")
    exchange.results.put_nowait(Result({}))
    exchange.results.put_nowait(None)
    await exchange.task
    assert exchange.body.endswith(stream_format.result(Result({})) + stream_format.end)


@FORMATS
async def test_a_client_that_goes_away_ends_the_operation(stream_format: StreamFormat) -> None:
    exchange = _Exchange(stream_format)
    await until(lambda: exchange.status, "the stream has begun")
    exchange.leave()
    await exchange.task
    assert exchange.closed


async def test_a_mutation_is_run_to_its_end_though_the_client_has_gone() -> None:
    exchange = _Exchange(EVENT_STREAM_FORMAT, finished=True)
    await until(lambda: exchange.status, "the stream has begun")
    exchange.leave()
    await until(lambda: exchange.ending, "the response is being ended")
    assert not exchange.closed
    exchange.results.put_nowait(Result({}))
    await exchange.task
    assert exchange.results.empty()


async def test_a_stopping_server_tells_an_event_source_to_come_back() -> None:
    exchange = _Exchange(EVENT_STREAM_FORMAT)
    exchange.results.put_nowait(Result({}, cursor="7"))
    await until(lambda: b"id: 7" in exchange.body, "the event was sent")
    await exchange.connections.close_all(5)
    await exchange.task
    assert exchange.closed
    assert exchange.body.rpartition(b'data: {"data":{}}\n\n')[2].startswith(b"retry: ")
    assert b"complete" not in exchange.body


async def test_a_stopping_server_ends_a_multipart_subscription_with_an_error() -> None:
    exchange = _Exchange(MULTIPART_FORMAT)
    await until(lambda: exchange.status, "the stream has begun")
    await exchange.connections.close_all(5)
    await exchange.task
    assert b'{"payload":null,"errors":[' in exchange.body
    assert b'"SERVER_STOPPING"' in exchange.body
    assert exchange.body.endswith(b"\r\n--graphql--\r\n")


@FORMATS
async def test_nothing_is_sent_once_the_credential_has_ended_but_an_error_and_the_end(
    stream_format: StreamFormat,
) -> None:
    exchange = _Exchange(stream_format)
    exchange.results.put_nowait(Result({"before": 1}, cursor="7"))
    await until(lambda: b"before" in exchange.body, "the event was sent")
    sent = exchange.body
    exchange.end()
    exchange.results.put_nowait(Result({"after": 1}, cursor="8"))
    await exchange.task
    assert exchange.closed
    rest = exchange.body.removeprefix(sent)
    assert b"after" not in rest
    assert b"id:" not in rest
    assert rest.count(b'"code":"UNAUTHENTICATED"') == 1
    assert rest.endswith(stream_format.end)


@pytest.mark.parametrize("results", [[], [Result({}, cursor="7")]], ids=["over", "going on"])
async def test_a_resumed_stream_without_more_results_is_no_content(results: list[Result]) -> None:
    exchange = _Exchange(EVENT_STREAM_FORMAT, resumed=True)
    for result in (*results, None):
        exchange.results.put_nowait(result)
    await exchange.task
    assert exchange.status == (200 if results else 204)
    assert exchange.body.count(b"id: 7\n") == len(results)
    assert bool(exchange.body) == bool(results)
