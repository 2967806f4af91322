"""graphql-transport-ws, sentence by sentence of its PROTOCOL.md, against the server as it runs."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.api.operations import CANCEL, CREATE, asked, create
from tests.deadline import until
from tests.scraped import reader, scrape
from tests.serving import HOST, PROTOCOL, Data, ServedApi, hear, say

pytestmark = pytest.mark.asyncio(loop_scope="module")

FEED = "subscription { jobEvents { __typename job { id } } }"
WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { __typename } }"
QUERY = "{ __typename }"


@asynccontextmanager
async def _socket(wire: ServedApi, *protocols: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket on which nothing has been said yet."""
    url = f"ws://{HOST}:{wire.port}/graphql"
    names: Any = list(protocols) or None
    async with connect(url, subprotocols=names, compression=None, proxy=None) as opened:
        yield opened


async def _closed(opened: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the server closes the socket, having sent nothing more."""
    with pytest.raises(ConnectionClosed) as closed:
        raise AssertionError(await asyncio.wait_for(opened.recv(), 10))
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def _nothing_follows(opened: ClientConnection) -> None:
    """The server has answered everything: messages of one socket come in order."""
    await say(opened, type="ping", payload={"last": True})
    assert await hear(opened) == {"type": "pong", "payload": {"last": True}}


async def _subscribe(opened: ClientConnection, number: str, query: str, **variables: Any) -> None:
    await say(opened, id=number, type="subscribe", payload={"query": query, "variables": variables})


@pytest.mark.parametrize("offered", [(PROTOCOL,), ("graphql-ws", PROTOCOL), ("other", PROTOCOL)])
async def test_the_sub_protocol_is_graphql_transport_ws(wire: ServedApi, offered: tuple[str, ...]) -> None:
    async with _socket(wire, *offered) as opened:
        assert opened.subprotocol == PROTOCOL


@pytest.mark.parametrize("offered", [(), ("graphql-ws",), ("graphql-transport-ws-2",)])
async def test_a_socket_without_that_sub_protocol_is_closed(wire: ServedApi, offered: tuple[str, ...]) -> None:
    async with _socket(wire, *offered) as opened:
        code, reason = await _closed(opened)
    assert code == 4406
    assert PROTOCOL in reason


@pytest.mark.parametrize("payload", [{}, {"payload": None}, {"payload": {}}, {"payload": {"token": [1]}}])
async def test_connection_ack_is_the_response_to_connection_init(wire: ServedApi, payload: Data) -> None:
    async with _socket(wire, PROTOCOL) as opened:
        await say(opened, type="connection_init", **payload)
        assert await hear(opened) == {"type": "connection_ack"}
        await _nothing_follows(opened)


async def test_a_second_connection_init_closes_the_socket(wire: ServedApi) -> None:
    async with _socket(wire, PROTOCOL) as opened:
        await say(opened, type="connection_init")
        await say(opened, type="connection_init")
        assert await hear(opened) == {"type": "connection_ack"}
        assert await _closed(opened) == (4429, "Too many initialisation requests")


@pytest.mark.parametrize("payload", [{}, {"payload": None}, {"payload": {"sent": 1}}])
async def test_a_pong_is_sent_in_response_to_a_ping_at_any_time(wire: ServedApi, payload: Data) -> None:
    expected = {"type": "pong", **{key: value for key, value in payload.items() if value is not None}}
    async with _socket(wire, PROTOCOL) as opened:
        await say(opened, type="ping", **payload)
        assert await hear(opened) == expected
        await say(opened, type="connection_init")
        assert await hear(opened) == {"type": "connection_ack"}
        await say(opened, type="ping", **payload)
        assert await hear(opened) == expected


async def test_a_pong_may_be_sent_unsolicited(wire: ServedApi) -> None:
    async with _socket(wire, PROTOCOL) as opened:
        await say(opened, type="pong")
        await say(opened, type="pong", payload={"heartbeat": 1})
        await _nothing_follows(opened)


async def test_executing_is_allowed_only_after_the_acknowledgement(wire: ServedApi) -> None:
    async with _socket(wire, PROTOCOL) as opened:
        await _subscribe(opened, "1", QUERY)
        assert await _closed(opened) == (4401, "Unauthorized")


@pytest.mark.parametrize("first", [FEED, QUERY], ids=["subscription", "query"])
async def test_an_id_with_an_active_subscriber_closes_the_socket(wire: ServedApi, first: str) -> None:
    number = "ü" * 100
    async with wire.raw_socket() as opened:
        await _subscribe(opened, number, FEED)
        await _subscribe(opened, number, first)
        code, reason = await _closed(opened)
    assert code == 4409
    assert reason.startswith("Subscriber for ü")
    assert len(reason.encode()) <= 123
    await wire.subscribers(0)


async def test_an_id_is_free_again_once_its_operation_is_complete(wire: ServedApi) -> None:
    async with wire.raw_socket() as opened:
        for query, kinds in (QUERY, ["next", "complete"]), ("{", ["error"]), (QUERY, ["next", "complete"]):
            await _subscribe(opened, "1", query)
            assert [(await hear(opened))["type"] for _ in kinds] == kinds
        for _ in range(2):
            await _subscribe(opened, "1", FEED)
            await say(opened, id="1", type="complete")
        await _nothing_follows(opened)


async def test_a_single_result_operation_has_one_next_and_then_complete(wire: ServedApi) -> None:
    async with wire.raw_socket() as opened:
        await _subscribe(opened, "1", QUERY)
        assert await hear(opened) == {"id": "1", "type": "next", "payload": {"data": {"__typename": "Query"}}}
        assert await hear(opened) == {"id": "1", "type": "complete"}
        await _nothing_follows(opened)


async def test_after_all_results_of_a_subscription_comes_complete(wire: ServedApi) -> None:
    job = await create(wire)
    async with wire.raw_socket() as opened:
        await _subscribe(opened, "1", WATCH, id=job["id"])
        assert (await hear(opened))["payload"]["data"]["jobProgress"]["__typename"] == "JobQueued"
        await wire.ask(CANCEL, id=job["id"])
        assert (await hear(opened))["payload"]["data"]["jobProgress"]["__typename"] == "JobCancelled"
        assert await hear(opened) == {"id": "1", "type": "complete"}
        await _nothing_follows(opened)


@pytest.mark.parametrize("part", ["operationName", "variables", "extensions"])
async def test_a_part_of_subscribe_may_be_null(wire: ServedApi, part: str) -> None:
    async with wire.raw_socket() as opened:
        await say(opened, id="1", type="subscribe", payload={"query": QUERY, part: None})
        assert (await hear(opened))["type"] == "next"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": ""}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query A { __typename }", "operationName": "B"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query A { __typename } query B { __typename }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "fragment F on Query { __typename }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query ($id: ID!) { job(id: $id) { id } }"}, "INVALID_ARGUMENT"),
        ({"query": WATCH, "variables": {"id": None}}, "INVALID_ARGUMENT"),
        ({"query": WATCH, "variables": {"id": "none"}}, "NOT_FOUND"),
        ({"query": "subscription { jobEvents { cursor } jobProgress { cursor } }"}, "GRAPHQL_VALIDATION_FAILED"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_an_error_terminates_its_operation_and_no_further_message_follows(
    wire: ServedApi, payload: Data, code: str
) -> None:
    async with wire.raw_socket() as opened:
        await _subscribe(opened, "other", FEED)
        await say(opened, id="1", type="subscribe", payload=payload)
        message = await hear(opened)
        assert (message["type"], message["id"]) == ("error", "1")
        assert code in [error["extensions"]["code"] for error in message["payload"]]
        await _nothing_follows(opened)
        await wire.subscribers(1)
    await wire.subscribers(0)


async def test_no_further_events_are_sent_after_the_client_has_sent_complete(wire: ServedApi) -> None:
    async with wire.raw_socket() as opened, wire.raw_socket() as other:
        for socket in opened, other:
            await _subscribe(socket, "1", FEED)
        await wire.subscribers(2)
        await say(opened, id="1", type="complete")
        await wire.subscribers(1)
        await create(wire)
        assert (await hear(other))["type"] == "next"
        await _nothing_follows(opened)


async def test_a_result_is_not_sent_through_if_complete_came_before_it_resolved(wire: ServedApi) -> None:
    """And the mutation is not left half done."""
    async with wire.raw_socket() as opened, wire.socket_streams(FEED, [{}]) as (events,):
        await wire.subscribers(1)
        await _subscribe(opened, "1", CREATE, input=asked())
        await say(opened, id="1", type="complete")
        assert (await anext(events))["__typename"] == "JobQueued"
        await _nothing_follows(opened)


async def test_messages_with_unknown_ids_are_ignored(wire: ServedApi) -> None:
    async with wire.raw_socket() as opened:
        await say(opened, id="never", type="complete")
        await _subscribe(opened, "1", QUERY)
        assert [(await hear(opened))["type"] for _ in range(2)] == ["next", "complete"]
        await say(opened, id="1", type="complete")
        await _nothing_follows(opened)


INVALID: list[str | bytes] = [
    "no JSON",
    "",
    "5",
    "null",
    "[]",
    '"connection_init"',
    "{}",
    '{"type": null}',
    '{"type": 1}',
    '{"type": ["ping"]}',
    '{"type": "connection_ack"}',
    '{"type": "next", "id": "1"}',
    '{"type": "' + "ü" * 200 + '"}',
    "[" * 100_000,
    '{"type": "ping", "payload": ' + "[" * 100_000,
    b'{"type": "ping"}',
    '{"type": "ping", "payload": []}',
    '{"type": "ping", "payload": "x"}',
    '{"type": "pong", "payload": 1}',
    '{"type": "complete"}',
    '{"type": "complete", "id": ""}',
    '{"type": "complete", "id": 1}',
    '{"type": "subscribe", "payload": {"query": "{ __typename }"}}',
    '{"type": "subscribe", "id": "", "payload": {"query": "{ __typename }"}}',
    '{"type": "subscribe", "id": 1, "payload": {"query": "{ __typename }"}}',
    '{"type": "subscribe", "id": null, "payload": {"query": "{ __typename }"}}',
    '{"type": "subscribe", "id": "1"}',
    '{"type": "subscribe", "id": "1", "payload": null}',
    '{"type": "subscribe", "id": "1", "payload": "{ __typename }"}',
    '{"type": "subscribe", "id": "1", "payload": {}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": null}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": 5}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": {"kind": "Document"}}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }", "variables": []}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }", "variables": "{}"}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }", "operationName": 1}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }", "extensions": []}}',
]


@pytest.mark.parametrize("message", INVALID, ids=lambda message: str(message)[:90])
async def test_a_message_that_is_not_specified_closes_the_socket_immediately(
    wire: ServedApi, message: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with wire.raw_socket() as opened:
        await opened.send(message)
        code, reason = await _closed(opened)
    assert code == 4400
    assert reason.startswith("Invalid message: ")
    assert len(reason.encode()) <= 123
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("payload", ["[]", '"token"', "1", "true"])
async def test_connection_init_with_another_payload_than_an_object_closes_the_socket(
    wire: ServedApi, payload: str
) -> None:
    async with _socket(wire, PROTOCOL) as opened:
        await opened.send(f'{{"type": "connection_init", "payload": {payload}}}')
        assert (await _closed(opened))[0] == 4400


@pytest.mark.parametrize("query", [FEED, QUERY, CREATE], ids=["subscription", "query", "mutation"])
async def test_a_socket_that_is_lost_amid_its_operations_is_no_news(
    wire: ServedApi, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with wire.raw_socket() as opened:
        for number in range(20):
            await _subscribe(opened, str(number), query, **({"input": asked()} if query == CREATE else {}))
        opened.transport.abort()

    async def is_over() -> bool:
        return reader(await scrape(wire.http))("gql_jobs_sockets") == 0

    await until(is_over, "the socket and its operations have ended")
    await wire.subscribers(0)
    await until(lambda: not any("_Connection._run" in str(task) for task in asyncio.all_tasks()), "no operation runs")
    # asyncio itself warns of writes that come before it has noticed; a traceback would be an error's.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []


async def test_a_socket_has_a_limit_of_operations_and_lives_on(wire: ServedApi) -> None:
    async with wire.raw_socket() as opened:
        for number in range(100):
            await _subscribe(opened, str(number), FEED)
        await _subscribe(opened, "one more", FEED)
        message = await hear(opened)
        assert (message["type"], message["id"]) == ("error", "one more")
        assert [error["extensions"]["code"] for error in message["payload"]] == ["RATE_LIMITED"]
        await say(opened, id="0", type="complete")
        await _subscribe(opened, "one more", QUERY)
        assert (await hear(opened))["type"] == "next"
    await wire.subscribers(0)
