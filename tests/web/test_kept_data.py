"""What a client may have the process keep, for as long as a socket or a stream lasts."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from graphql import get_introspection_query
from websockets import Subprotocol
from websockets.asyncio.client import connect

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.operations import Result, ResultCache
from gql_jobs.graphql.schema import build_schema
from gql_jobs.settings import Settings
from gql_jobs.web import graphql_http, graphql_ws
from gql_jobs.web.connections import ByteBudget, HeldBytes
from gql_jobs.web.graphql_request import operation_request
from gql_jobs.web.turns import QueryTurns, ResultTurns, StreamTurn
from tests.api.operations import asked, create_many
from tests.deadline import until
from tests.serving import HOST, ServedApi, api_process, free_port, hear, say, serving
from tests.shipped import shipped_types

WATCH = "subscription ($after: String) { jobEvents(after: $after) { cursor } }"
MEGABYTE = 1 << 20


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    async with serving(settings) as served:
        yield served


async def _closed(port: int, *messages: dict[str, Any]) -> tuple[int | None, str | None]:
    url = f"ws://{HOST}:{port}/graphql"
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as opened:
        for message in messages:
            await say(opened, **message)
        await opened.wait_closed()
        return opened.close_code, opened.close_reason


async def test_the_payload_of_connection_init_has_a_limit_in_bytes(api: ServedApi) -> None:
    for text in "x" * (1 << 14), "ä" * (1 << 13):
        code, reason = await _closed(api.port, {"type": "connection_init", "payload": {"token": text}})
        assert code == 4400
        assert "it may have 16384" in (reason or "")
    async with api.raw_socket() as opened:
        await say(opened, id="1", type="subscribe", payload={"query": "{ __typename }"})
        assert (await hear(opened))["type"] == "next"


@pytest.mark.parametrize("kind", ["ping", "connection_init", "subscribe"])
async def test_nothing_long_is_read_of_a_socket_that_has_not_said_who_asks(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def read(_text: str) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(graphql_ws, "decode_json", read)
    code, reason = await _closed(api.port, {"type": kind, "payload": {"pad": "x" * (1 << 16)}})
    assert (code, reason) == (1009, "Before connection_ack a message may have 65536 bytes")


async def test_the_id_of_an_operation_has_a_limit_in_bytes(api: ServedApi) -> None:
    subscribe = {"type": "subscribe", "payload": {"query": "{ __typename }"}}
    for message in (
        {**subscribe, "id": "x" * 257},
        {**subscribe, "id": "ä" * 129},
        {"type": "complete", "id": "x" * 257},
    ):
        code, reason = await _closed(api.port, {"type": "connection_init"}, message)
        assert code == 4400
        assert "`id` may have 256 bytes" in (reason or "")
    async with api.raw_socket() as opened:
        await say(opened, **{**subscribe, "id": "x" * 256})
        assert (await hear(opened))["id"] == "x" * 256


async def test_the_variables_of_a_subscription_have_a_limit_in_bytes(api: ServedApi) -> None:
    large = {"query": WATCH, "variables": {"after": "x" * (1 << 16)}}
    async with api.raw_socket() as opened:
        await say(opened, id="1", type="subscribe", payload=large)
        answer = await hear(opened)
        assert (answer["type"], answer["id"]) == ("error", "1")
        (error,) = answer["payload"]
        assert error["extensions"]["code"] == "PAYLOAD_TOO_LARGE"
        assert error["extensions"]["limitBytes"] == 1 << 16
        # The id is free again, and the socket goes on.
        await say(opened, id="1", type="subscribe", payload={"query": "{ __typename }"})
        assert (await hear(opened))["type"] == "next"
    for accept in "text/event-stream", "multipart/mixed;subscriptionSpec=1.0":
        refused = await api.http.post("/graphql", json=large, headers={"Accept": accept})
        assert refused.status_code == 413
        assert refused.json()["errors"][0]["extensions"]["limitBytes"] == 1 << 16
    assert (await api.ask("query ($name: String!) { __type(name: $name) { name } }", name="x" * (1 << 17))) == {
        "__type": None
    }


async def test_the_document_of_a_subscription_has_a_limit(api: ServedApi) -> None:
    document = f"subscription {{ jobEvents {{ {'cursor ' * 2400} }} }}"
    async with api.raw_socket() as opened:
        refusal = await api.refused_on(opened, "1", document)
        assert refusal["extensions"]["code"] == "PAYLOAD_TOO_LARGE"


def test_variables_that_an_operation_does_not_declare_are_not_kept() -> None:
    operations = build_schema(shipped_types(), Settings()).operations
    services: Any = SimpleNamespace()
    sent = {"query": WATCH, "variables": {"after": None, "other": "x" * 1000}}
    operation = operations.operation(operation_request(sent), Context(services))
    assert not isinstance(operation.read, Exception)
    assert operation.read.variables == {"after": None}


def test_one_client_has_a_budget_of_bytes_and_all_clients_have_one() -> None:
    budget = ByteBudget(100, 60)
    first, second, other = HeldBytes(budget, "a"), HeldBytes(budget, "a"), HeldBytes(budget, "b")
    assert first.resize(50)
    assert not second.resize(11)
    assert other.resize(50)
    assert not other.resize(51)
    first.release()
    assert second.resize(50)
    assert not other.resize(51)
    second.release()
    assert other.resize(60)


def test_a_document_is_counted_once_for_all_subscriptions_of_a_client() -> None:
    budget = ByteBudget(100_000, 3000)
    held = [HeldBytes(budget, "a") for _ in range(4)]
    assert all(one.keep("0123456789", 10) for one in held[:3])
    assert not held[3].keep("987654321", 10)
    held[3].release()
    for one in held[:3]:
        one.release()
    assert held[3].keep("987654321", 10)


async def test_sockets_of_one_client_together_keep_no_more_than_its_budget(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"max_body_bytes": 80_000})) as api:
        opened = []
        url = f"ws://{HOST}:{api.port}/graphql"
        init = {"type": "connection_init", "payload": {"token": "x" * 16_000}}
        for _ in range(19):
            opened.append(await connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None))
            await say(opened[-1], **init)
            assert (await hear(opened[-1]))["type"] == "connection_ack"
        code, reason = await _closed(api.port, init)
        assert code == 1013
        assert "try again later" in (reason or "")
        # A request with a body does not fit either, one without goes on.
        body = {"query": "{ __typename }", "variables": {"pad": "x" * 70_000}}
        refused = await api.http.post("/graphql", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
        assert (await api.http.get("/graphql", params={"query": "{ __typename }"})).status_code == 200
        for one in opened:
            await one.close()
        async with api.raw_socket():
            pass


async def test_idle_sockets_keep_nothing_of_what_they_sent(settings: Settings) -> None:
    async with api_process(settings, free_port()) as (api, process):
        memory = psutil.Process(process.pid).memory_info
        pad = "x" * (7 * MEGABYTE)
        before = memory().rss
        opened = []
        url = f"ws://{HOST}:{api.port}/graphql"
        for number in range(12):
            one = await connect(
                url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None, compression=None, max_size=None
            )
            opened.append(one)
            await say(one, type="connection_init")
            await hear(one)
            if number % 2:
                await say(one, id="1", type="subscribe", payload={"query": WATCH, "variables": {"pad": pad}})
                await say(one, id="2", type="subscribe", payload={"query": "{ __typename }"})
                assert {(await hear(one))["id"] for _ in range(2)} == {"2"}
            elif number % 4:
                await say(one, id="1", type="subscribe", payload={"query": WATCH, "operationName": pad})
                assert (await hear(one))["type"] == "error"
            else:
                await say(one, id="1", type="subscribe", payload={"query": "{ __typename }", "variables": {"pad": pad}})
                assert (await hear(one))["type"] == "next"
                await say(one, type="pong", payload={"pad": pad})
        await until(lambda: memory().rss - before < 40 * MEGABYTE, "what was sent is given back")
        for one in opened:
            await one.close()


async def test_streams_keep_nothing_of_the_body_that_asked_for_them(settings: Settings) -> None:
    async with api_process(settings, free_port()) as (api, process), AsyncExitStack() as opened:
        memory = psutil.Process(process.pid).memory_info
        pad = "x" * (7 * MEGABYTE)
        before = memory().rss
        bodies = [
            {"query": WATCH, "variables": {"pad": pad}},
            {"query": WATCH, "extensions": {"pad": pad}},
            {"query": WATCH, "pad": pad},
        ]
        for number in range(12):
            accept = ("text/event-stream", "multipart/mixed;subscriptionSpec=1.0")[number % 2]
            asked = api.http.stream("POST", "/graphql", json=bodies[number % 3], headers={"Accept": accept})
            assert (await opened.enter_async_context(asked)).status_code == 200
        await until(lambda: memory().rss - before < 40 * MEGABYTE, "what was sent is given back")


async def test_answers_that_are_not_read_count_for_their_client(settings: Settings) -> None:
    query = {"query": get_introspection_query()}
    body = json.dumps(query).encode()
    head = b"POST /graphql HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with serving(settings.model_copy(update={"max_body_bytes": MEGABYTE}), send_buffer=4096) as api:
        budget: ByteBudget = api.app.state.budget
        answer = await api.http.post("/graphql", json=query)
        size = len(answer.content)
        assert (answer.status_code, size > 130_000) == (200, True)
        # There is room for two answers, however long the schema is, and not for a third.
        room = 5 * size // 2
        assert budget.hold(HOST, 4 * MEGABYTE - room)
        with ExitStack() as unread:
            for number in range(1, 3):
                one = unread.enter_context(socket.socket())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.connect((HOST, api.port))
                one.sendall(head % (HOST.encode(), len(body)) + body)
                await until(partial(_has_no_room, budget, room - number * size + 1), "the answer is kept")
            for accept in "application/json", "text/event-stream":
                refused = await api.http.post("/graphql", json=query, headers={"Accept": accept})
                assert "RATE_LIMITED" in refused.text
            assert (await api.http.post("/graphql", json={"query": "{ __typename }"})).status_code == 200
        await until(lambda: not _has_no_room(budget, room), "nothing is kept of those who have gone")
        assert (await api.http.post("/graphql", json=query)).status_code == 200


def _has_no_room(budget: ByteBudget, size: int) -> bool:
    if fits := budget.hold(HOST, size):
        budget.release(HOST, size)
    return not fits


async def test_so_many_queries_of_one_client_are_made_at_a_time_and_the_others_in_order() -> None:
    turns = QueryTurns()
    begun: list[str] = []
    ends: list[asyncio.Event] = [asyncio.Event() for _ in range(8)]

    async def ask(client: str, number: int) -> None:
        async with turns.taken(client):
            begun.append(f"{client}{number}")
            await ends[number].wait()

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask("a", number)) for number in range(8)]
        other = group.create_task(ask("b", 0))
        await until(lambda: "b0" in begun, "another client's query begins")
        assert begun == [*(f"a{number}" for number in range(4)), "b0"]
        asked[4].cancel()
        ends[3].set()
        await until(lambda: len(begun) == 6, "the next one begins")
        assert begun[-1] == "a5"
        for end in ends:
            end.set()
        await asyncio.wait([*asked, other])
    assert begun[-2:] == ["a6", "a7"]
    assert vars(turns) == vars(QueryTurns())


async def test_long_queries_of_one_client_leave_turns_to_others() -> None:
    turns = QueryTurns()
    order: list[str] = []

    async def ask(client: str) -> None:
        async with turns.taken(client):
            began = time.thread_time()
            while time.thread_time() - began < 0.02:
                pass
            order.append(client)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(client)) for client in ("a", "a", "a", "a", "b")]
        await asyncio.sleep(0)
        assert order == ["a", "b"]
        asked[2].cancel()
    assert order == ["a", "b", "a", "a"]


async def test_of_many_results_of_one_client_few_are_made_in_a_turn_and_others_go_between() -> None:
    turns = ResultTurns()
    made: list[str] = []

    async def watch(client: str, results: int, seconds: float) -> None:
        turn = StreamTurn(turns, client)
        for _ in range(results):
            await turn.begin()
            made.append(client)
            until_then = time.perf_counter() + seconds
            while time.perf_counter() < until_then:
                pass
            turn.end()
            await asyncio.sleep(0)

    greedy = [asyncio.create_task(watch("greedy", 3, 0.004)) for _ in range(30)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    before = len(made)
    await watch("other", 5, 0)
    assert made.count("other") == 5
    assert len(made) - before < 40, "each turn of the other one came after few of the greedy one's"
    await asyncio.gather(*greedy)
    assert made.count("greedy") == 90
    await asyncio.sleep(0)
    assert vars(turns) | {"_turned_at": 0} == vars(ResultTurns())


async def test_results_that_take_no_time_are_made_at_once() -> None:
    turns = ResultTurns()
    assert [turns.next("client") for _ in range(100)] == [None] * 100


async def test_who_waits_for_a_result_and_goes_is_no_turn_of_anybody_s() -> None:
    turns = ResultTurns()
    await asyncio.sleep(0)
    turns.next("client")
    time.sleep(0.02)  # noqa: ASYNC251 -- that long the first one's result takes
    waiting = [turns.next("client") for _ in range(3)]
    assert None not in waiting
    gone, *others = [turn for turn in waiting if turn is not None]
    gone.cancel()
    await asyncio.wait_for(asyncio.gather(*others), 5)


async def test_results_that_a_client_leaves_unread_on_streams_count_for_it_as_well(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    turns: list[ResultTurns] = []
    usual = ResultCache.keep

    def counted(self: ResultCache, key: str, result: Result) -> Result:
        made.append(key)
        return usual(self, key, result)

    def noted(most_unsent: int) -> ResultTurns:
        turns.append(ResultTurns(most_unsent))
        return turns[-1]

    monkeypatch.setattr(ResultCache, "keep", counted)
    monkeypatch.setattr(graphql_http, "ResultTurns", noted)
    whole = 8 * 900_000
    async with serving(settings.model_copy(update={"max_body_bytes": MEGABYTE}), send_buffer=1 << 16) as api:
        for _ in range(8):
            await create_many(api, [asked({"gate": "x" * 900_000})])
        with ExitStack() as stack:
            streams = [stack.enter_context(_unread_stream(api.port, number + 8)) for number in range(10)]
            await until(lambda: len(api.runtime.windows) == 10, "all are there")
            await until(lambda: turns[0]._full, "no further one is made")  # noqa: SLF001
            assert await api.ask("{ __typename }")
            assert len(made) < 5
            async with asyncio.timeout(30):
                assert min(await asyncio.gather(*[_read_of(stream, whole) for stream in streams])) > whole
            assert len(made) == 10


@contextmanager
def _unread_stream(port: int, first: int) -> Iterator[socket.socket]:
    """An event stream of a list with its payloads, of which nothing is read and little fits anywhere."""
    query = f"subscription {{ jobsChanged(first: {first}) {{ ... on JobsSnapshot {{ nodes {{ rawPayload }} }} }} }}"
    body = json.dumps({"query": query})
    head = f"POST /graphql HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n"
    with socket.socket() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.connect((HOST, port))
        stream.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        stream.setblocking(False)
        yield stream


async def _read_of(stream: socket.socket, size: int) -> int:
    """Read more bytes than that."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEGABYTE)
    read = 0
    while read <= size:
        read += len(await asyncio.get_running_loop().sock_recv(stream, MEGABYTE))
    return read
