"""Clients that send more than is answered: each costs little, and another client is served meanwhile."""

import asyncio
import json
import resource
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect

from gql_jobs.settings import Settings
from gql_jobs.web.connections import Rate
from gql_jobs.web.http_protocol import MOST_QUEUED
from tests.child_processes import running_process
from tests.deadline import until
from tests.serving import HOST, PROTOCOL, Api, ServedApi, api_process, free_port, hear, say, serving, without_nats

MEGABYTE = 1 << 20
GET = b"GET /graphql?query={__typename} HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
QUERY = b'{"query":"{__typename}"}'
MASK = b"\0\0\0\0"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ServedApi]:
    async with serving(without_nats(tmp_path), opened=False) as served:
        yield served


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()


async def _is_served(api: Api) -> None:
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{api.port}", timeout=10, trust_env=False) as other:
        answer = await other.get("/graphql", params={"query": "{ __typename }"})
        assert answer.json() == {"data": {"__typename": "Query"}}


async def _handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")


def _frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    head = opcode | (0x80 if fin else 0)
    if len(data) < 126:
        return struct.pack("!BB", head, 0x80 | len(data)) + MASK + data
    return struct.pack("!BBQ", head, 0xFF, len(data)) + MASK + data


async def _close_code(reader: asyncio.StreamReader) -> int:
    """The code of the close frame, which comes after short frames only."""
    while True:
        head = await reader.readexactly(2)
        data = await reader.readexactly(head[1])
        if head[0] & 15 == 8:
            return int.from_bytes(data[:2], "big")


# Requests that are sent ahead.


async def test_requests_that_are_sent_ahead_are_all_answered_in_order(api: ServedApi) -> None:
    async with _connected(api.port) as (reader, writer):
        numbers = range(10 * MOST_QUEUED)
        for number in numbers:
            body = json.dumps({"query": f"{{ a{number}: __typename }}"}).encode()
            writer.write(POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        for number in numbers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert await reader.readexactly(length) == b'{"data":{"a%d":"Query"}}' % number


async def test_bodies_that_look_like_many_requests_are_read(api: ServedApi) -> None:
    body = b'{"query":"{__typename}"}' + b"\r\n\r\n" * 100_000
    async with _connected(api.port) as (reader, writer):
        writer.write(POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) + GET)
        for _ in range(2):
            assert (await reader.readuntil(b'"Query"}}')).startswith(b"HTTP/1.1 200")


async def test_requests_that_are_sent_ahead_and_never_read_take_no_memory(tmp_path: Path) -> None:
    async with api_process(without_nats(tmp_path), free_port(), ready=False) as (api, process):
        await until(lambda: _answers(api), "it answers", within=30)
        memory = psutil.Process(process.pid).memory_info
        before = memory().rss

        async def flood() -> None:
            async with _connected(api.port) as (_, writer):
                for _ in range(600):
                    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4000)
                    await writer.drain()

        floods = [asyncio.create_task(flood()) for _ in range(4)]
        done, _ = await asyncio.wait(floods, timeout=2)
        assert not done
        await _is_served(api)
        assert memory().rss - before < 64 * MEGABYTE
        for task in floods:
            task.cancel()
        await asyncio.wait(floods)


async def _answers(api: Api) -> bool:
    with suppress(httpx.TransportError):
        return (await api.http.get("/healthz")).status_code == 200
    return False


# Frames that carry nothing.


@pytest.mark.parametrize(
    "frames",
    [_frame(9), _frame(10), _frame(9, b"x" * 125), _frame(0, fin=False), _frame(0, b"x" * 100, fin=False)],
    ids=["pings", "pongs", "long pings", "fragments", "short fragments"],
)
async def test_frames_that_carry_nothing_close_the_socket_with_1008_above_a_rate(api: ServedApi, frames: bytes) -> None:
    async with _connected(api.port) as (reader, writer):
        await _handshake(reader, writer)
        writer.write(_frame(1, b"", fin=False) if frames[0] & 15 == 0 else b"")
        writer.write(frames * 50_000)
        assert await _close_code(reader) == 1008
        await _is_served(api)


async def test_a_large_message_in_small_fragments_is_read(api: ServedApi) -> None:
    async with api.raw_socket() as opened:
        text = json.dumps(
            {"id": "1", "type": "subscribe", "payload": {"query": "{ __typename }", "pad": "x" * 900_000}}
        )
        await opened.send([text[at : at + 1000] for at in range(0, len(text), 1000)])
        assert (await hear(opened))["payload"] == {"data": {"__typename": "Query"}}


async def test_many_messages_at_once_are_all_answered(api: ServedApi) -> None:
    async with api.raw_socket() as opened:
        await asyncio.gather(*(say(opened, type="ping") for _ in range(2000)))
        for _ in range(2000):
            assert await hear(opened) == {"type": "pong"}


def test_a_rate_allows_a_burst_and_so_many_a_second() -> None:
    rate = Rate(10, 2)
    assert rate.spend(10, 0.0)
    assert rate.spend(2, 1.0)
    assert not rate.spend(1, 1.0)
    assert rate.spend(9, 100.0)


# Connections and bodies.


async def test_bodies_that_are_half_sent_take_no_more_than_a_clients_budget(settings: Settings) -> None:
    async with api_process(settings, free_port()) as (api, process), AsyncExitStack() as stack:
        memory = psutil.Process(process.pid).memory_info
        before = memory().rss
        readers = []
        for _ in range(40):
            reader, writer = await stack.enter_async_context(_connected(api.port))
            writer.write(POST + b"Content-Length: 8000000\r\n\r\n" + b"x" * 7_000_000)
            readers.append(reader)
        answers = [asyncio.create_task(reader.readline()) for reader in readers]
        await until(lambda: sum(answer.done() for answer in answers) >= 35, "most are refused")
        assert {answer.result() for answer in answers if answer.done()} == {b"HTTP/1.1 429 Too Many Requests\r\n"}
        assert memory().rss - before < 100 * MEGABYTE
        await _is_served(api)
        created = "mutation { createJob(input: {payload: {probe: {}}}) { job { id } } }"
        assert (await api.ask(created))["createJob"]
        for answer in answers:
            answer.cancel()
        await asyncio.wait(answers)


async def test_messages_that_are_half_sent_take_no_more_than_a_clients_budget(settings: Settings) -> None:
    async with api_process(settings, free_port()) as (api, process), AsyncExitStack() as stack:
        memory = psutil.Process(process.pid).memory_info
        before = memory().rss
        codes = []
        for _ in range(20):
            reader, writer = await stack.enter_async_context(_connected(api.port))
            await _handshake(reader, writer)
            writer.write(_frame(1, b"x" * 8_000_000)[:7_000_000])
            codes.append(asyncio.create_task(_close_code(reader)))
        await until(lambda: sum(code.done() for code in codes) >= 15, "most are closed")
        assert {code.result() for code in codes if code.done()} == {1013}
        assert memory().rss - before < 100 * MEGABYTE
        await _is_served(api)
        for code in codes:
            code.cancel()
        await asyncio.wait(codes)


def _allow(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


@pytest.mark.parametrize("files", [64, 256])
async def test_idle_connections_give_way_to_others_where_descriptors_are_few(settings: Settings, files: int) -> None:
    async with (
        api_process(settings, free_port(), preexec_fn=partial(_allow, files)) as (api, process),
        AsyncExitStack() as stack,
    ):
        for number in range(2 * files):
            _, writer = await stack.enter_async_context(_connected(api.port))
            if number % 2:
                writer.write(b"GET /graphql?query={__typename} HTTP/1.1\r\nHo")
            if number % 50 == 49:
                await _is_served(api)
        await _is_served(api)
        async with api.raw_socket() as opened:
            await say(opened, id="1", type="subscribe", payload={"query": "{ __typename }"})
            assert (await hear(opened))["type"] == "next"
        assert psutil.Process(process.pid).num_fds() < files


async def test_sockets_leave_descriptors_for_requests(settings: Settings) -> None:
    few = partial(_allow, 64)
    async with api_process(settings, free_port(), preexec_fn=few) as (api, _), AsyncExitStack() as stack:
        for _ in range(9):
            await stack.enter_async_context(api.raw_socket())
        url = f"ws://{HOST}:{api.port}/graphql"
        async with connect(url, subprotocols=[Subprotocol(PROTOCOL)], proxy=None) as refused:
            await refused.wait_closed()
            assert refused.close_code == 1013
        await _is_served(api)


async def test_a_start_with_too_few_descriptors_is_refused_in_a_sentence(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "gql_jobs", "api", "--port", "0", "--data-dir", str(tmp_path))
    async with running_process(*command, preexec_fn=partial(_allow, 50), stderr=asyncio.subprocess.PIPE) as process:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            said = (await process.stderr.read()).decode()
        assert await process.wait() == 2
    assert "Error: The process may open 50 files, and an API process needs 56 at the least" in said


# Refusals reach a client that is still sending.


async def _answer_to(port: int, head: bytes, size: int) -> bytes:
    """The status line that a client gets which sends its whole body before it reads."""
    async with _connected(port) as (reader, writer):
        writer.write(head)
        for _ in range(size // 100_000):
            writer.write(b"x" * 100_000)
            await writer.drain()
        return await reader.readline()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
async def test_a_client_that_sends_a_whole_body_above_the_limit_reads_the_413(
    api: ServedApi, version: bytes, connection: bytes
) -> None:
    size = 40_000_000
    head = POST.replace(b"HTTP/1.1", b"HTTP/" + version) + b"Connection: %b\r\n" % connection
    for path in b"/graphql", b"/nowhere":
        declared = head.replace(b"/graphql", path) + b"Content-Length: %d\r\n\r\n" % size
        assert await _answer_to(api.port, declared, size) == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    if version == b"1.1":
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
        assert await _answer_to(api.port, chunked, size) == b"HTTP/1.1 413 Request Entity Too Large\r\n"


async def test_other_refusals_reach_a_client_that_is_still_sending(api: ServedApi) -> None:
    size = 4_000_000
    length = b"Content-Length: %d\r\n" % size
    for head, status in (
        (POST.replace(b"application/json", b"text/plain") + length, b"415"),
        (POST.replace(b"POST", b"PUT") + length, b"405"),
        (POST + length + b"Connection: close\r\nContent-Encoding: gzip\r\n", b"415"),
        (POST.replace(b"/graphql", b"/nowhere") + length + b"Connection: close\r\n", b"404"),
        (POST + b"Content-Length: nothing\r\n", b"400"),
    ):
        assert (await _answer_to(api.port, head + b"\r\n", size)).split()[1] == status


async def test_a_connection_goes_on_after_a_refusal_whose_body_was_not_read(api: ServedApi) -> None:
    async with _connected(api.port) as (reader, writer):
        writer.write(POST.replace(b"application/json", b"text/plain") + b"Content-Length: 10\r\n\r\n")
        assert (await reader.readuntil(b"}]}")).split()[1] == b"415"
        writer.write(b"x" * 10 + GET)
        assert (await reader.readuntil(b"}}")).split()[1] == b"200"


async def test_a_client_that_sends_a_whole_message_above_the_limit_reads_1009(api: ServedApi) -> None:
    for size in 8 * MEGABYTE + 1, 40 * MEGABYTE:
        async with _connected(api.port) as (reader, writer):
            await _handshake(reader, writer)
            writer.write(_frame(1, b"x" * size))
            await writer.drain()
            assert await _close_code(reader) == 1009


# Values that take more than their text.

MANY = b'{"query":"{__typename}","variables":{"a":[' + b"[]," * 1_000_000 + b"1]}}"


async def test_a_body_of_very_many_values_is_refused_before_it_is_read(api: ServedApi) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await api.http.post("/graphql", content=MANY, headers=headers)
    assert answer.status_code == 413
    (error,) = answer.json()["errors"]
    assert error["extensions"]["code"] == "PAYLOAD_TOO_LARGE"
    assert error["message"] == "The body has more than 1000000 commas and brackets; send less at a time."
    half = MANY.replace(b"[],", b"", 550_000)
    assert (await api.http.post("/graphql", content=half, headers=headers)).status_code == 200


async def test_a_message_of_very_many_values_closes_the_socket(api: ServedApi) -> None:
    async with api.raw_socket() as opened:
        await opened.send(f'{{"id":"1","type":"subscribe","payload":{MANY.decode()}}}')
        async with asyncio.timeout(20):
            await opened.wait_closed()
        assert opened.close_code == 1009


# Old and odd HTTP.


@pytest.mark.parametrize("accept", ["text/event-stream", "multipart/mixed;subscriptionSpec=1.0"])
async def test_a_client_of_http_1_0_gets_a_stream_without_chunks(settings: Settings, accept: str) -> None:
    async with serving(settings) as api, _connected(api.port) as (reader, writer):
        body = json.dumps({"query": "subscription { jobEvents { cursor } }"}).encode()
        head = (
            POST.replace(b"HTTP/1.1", b"HTTP/1.0") + f"Accept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"transfer-encoding" not in answer.lower()
        begin = await reader.read(6)
        assert begin in {b"retry:", b"\r\n--gr"} or begin[:4] == b"\r\n--"
        await api.subscribers(1)
        writer.close()
        await api.subscribers(0)


async def test_a_client_of_http_1_0_gets_whole_answers(api: ServedApi) -> None:
    for path in b"/graphql?query={__typename}", b"/healthz", b"/metrics", b"/nowhere":
        async with _connected(api.port) as (reader, writer):
            writer.write(b"GET %b HTTP/1.0\r\nHost: localhost\r\n\r\n" % path)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head.lower()
            assert body


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_an_upgrade_to_another_protocol_is_answered_as_the_request_that_it_is(
    api: ServedApi, pieces: int, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    head = POST + upgrade + b"Content-Length: %d\r\n\r\n" % len(QUERY)
    async with _connected(api.port) as (reader, writer):
        for sent in [[head + QUERY + GET], [head, QUERY + GET], [head, QUERY, GET]][pieces - 1]:
            writer.write(sent)
            await writer.drain()
            await _is_served(api)
        for _ in range(2):
            assert (await reader.readuntil(b'"Query"}}')).startswith(b"HTTP/1.1 200")
    async with _connected(api.port) as (reader, writer):
        writer.write(GET[:-2] + upgrade + b"\r\n" + GET)
        for _ in range(2):
            assert (await reader.readuntil(b'"Query"}}')).startswith(b"HTTP/1.1 200")
    async with _connected(api.port) as (reader, writer):
        writer.write(GET[:-2] + upgrade.replace(b"Upgrade,", b"Close, Upgrade,") + b"\r\n")
        assert (await reader.read()).endswith(b'"Query"}}')
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


async def test_an_upgrade_to_a_socket_with_a_body_is_a_request_like_any_other(api: ServedApi) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n"
    async with _connected(api.port) as (reader, writer):
        writer.write(POST + upgrade + b"Content-Length: %d\r\n\r\n" % len(QUERY) + QUERY)
        assert (await reader.readuntil(b'"Query"}}')).startswith(b"HTTP/1.1 200")
    async with _connected(api.port) as (reader, writer):
        writer.write(b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"405"


async def test_a_connection_that_no_request_came_on_does_not_end_a_socket(api: ServedApi) -> None:
    async with api.raw_socket() as opened:
        options: dict[str, Any] = {"id": "1", "type": "subscribe", "payload": {"query": "{ __typename }"}}
        await say(opened, **options)
        assert (await hear(opened))["type"] == "next"
