"""Who may speak over a WebSocket, for how long, and what a socket hears once its token has ended."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gql_jobs.access import store
from gql_jobs.settings import Settings
from gql_jobs.web import socket_session
from tests.deadline import until
from tests.guarded import EVERY, GuardedApi, TokenTime, forgeries, guarded
from tests.serving import HOST, PROTOCOL, Data, hear, say

FEED = "subscription { jobEvents { job { id } } }"
TYPENAME = "{ __typename }"
RENEW = "mutation ($token: String!) { renewAccess(token: $token) { viewer { subject expiresAt } } }"


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[GuardedApi]:
    async with guarded(settings) as opened:
        yield opened


async def _closed(opened: ClientConnection) -> tuple[int, str]:
    async def all_of_it() -> None:
        while True:
            await opened.recv()

    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(all_of_it(), 10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def _subscribe(opened: ClientConnection, number: str, query: str, **variables: Any) -> None:
    await say(opened, id=number, type="subscribe", payload={"query": query, "variables": variables})


async def _answer(opened: ClientConnection, number: str, query: str, **variables: Any) -> Data:
    """The one message that answers a query or a mutation, without its ``complete``."""
    await _subscribe(opened, number, query, **variables)
    message = await hear(opened)
    assert message["id"] == number, message
    if message["type"] == "next":
        assert (await hear(opened))["type"] == "complete"
    return message


def _codes(message: Data) -> list[str]:
    errors = message["payload"] if message["type"] == "error" else message["payload"].get("errors", [])
    return [error["extensions"]["code"] for error in errors]


async def test_a_socket_without_a_valid_token_is_closed_with_4403(shop: GuardedApi) -> None:
    issued = await shop.token()
    wrong: list[dict[str, Any]] = [{}, {"authorization": None}, {"authorization": 1}, {"authorization": {"a": "b"}}]
    forged = [token for how, token in forgeries(issued.token).items() if how != "very long"]
    wrong += [{"authorization": f"Bearer {token}"} for token in forged]
    wrong += [{"token": issued.token}, {"headers": {"authorization": issued.token}}]
    for parameters in wrong:
        async with shop.socket(**parameters) as opened:
            assert await _closed(opened) == (4403, "Forbidden"), parameters
    for right in issued.token, f"Bearer {issued.token}", f"bearer {shop.key}":
        async with shop.socket(authorization=right) as opened:
            assert await hear(opened) == {"type": "connection_ack"}
    async with shop.socket(Authorization=issued.token) as opened:
        assert await hear(opened) == {"type": "connection_ack"}


async def test_an_operation_before_the_acknowledgement_closes_with_4401(shop: GuardedApi) -> None:
    url = f"ws://{HOST}:{shop.api.port}/graphql"
    async with connect(url, subprotocols=[PROTOCOL], proxy=None) as opened:  # type: ignore[list-item]
        await _subscribe(opened, "1", TYPENAME)
        assert await _closed(opened) == (4401, "Unauthorized")


async def test_a_revocation_ends_what_runs_within_a_second_and_leaves_the_socket_open(shop: GuardedApi) -> None:
    issued = await shop.token(scopes=EVERY)
    async with shop.initialised(issued.token) as opened:
        for number in "1", "2":
            await _subscribe(opened, number, FEED)
        await shop.api.subscribers(2)
        job = await shop.create()
        assert {(await hear(opened))["payload"]["data"]["jobEvents"]["job"]["id"] for _ in range(2)} == {job}
        await shop.revoke(issued)
        told = [await hear(opened, within=1) for _ in range(2)]
        assert sorted((message["id"], message["type"]) for message in told) == [("1", "error"), ("2", "error")]
        assert [_codes(message) for message in told] == [["UNAUTHENTICATED"]] * 2
        await shop.api.subscribers(0)
        await shop.create()
        for query in TYPENAME, FEED, 'mutation { cancelJob(id: "x") { job { id } } }':
            assert set(_codes(await _answer(opened, query, query))) == {"UNAUTHENTICATED"}
        await say(opened, type="ping")
        assert (await hear(opened))["type"] == "pong"


async def test_after_its_end_a_token_brings_nothing_more_and_the_socket_is_closed_after_a_grace(
    token_time: TokenTime, shop: GuardedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_session, "EXPIRY_GRACE", 4.0)
    issued = await shop.token()
    async with shop.initialised(issued.token) as opened:
        await _subscribe(opened, "1", FEED)
        await shop.api.subscribers(1)
        first = await shop.create()
        assert (await hear(opened))["payload"]["data"]["jobEvents"]["job"]["id"] == first
        await token_time.end(issued)
        assert _codes(await _answer(opened, "2", TYPENAME)) == ["UNAUTHENTICATED"]
        await shop.create()
        assert await _closed(opened) == (4403, "Forbidden")
    await shop.api.subscribers(0)


async def test_while_it_cannot_be_known_whether_a_token_was_revoked_nothing_begins_on_an_open_socket(
    shop: GuardedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = await shop.token()
    async with shop.initialised(issued.token) as opened:
        await _subscribe(opened, "feed", FEED)
        await shop.api.subscribers(1)
        with monkeypatch.context() as patched:
            patched.setattr(store, "STALE_AFTER", -1.0)
            for query in TYPENAME, FEED, RENEW:
                answer = await _answer(opened, query, query, token=issued.token)
                assert (answer["type"], _codes(answer)) == ("error", ["QUEUE_UNAVAILABLE"])
            async with shop.socket(authorization=issued.token) as other:
                assert (await _closed(other))[0] == 1013
        assert (await _answer(opened, "1", TYPENAME))["payload"] == {"data": {"__typename": "Query"}}
        job = await shop.create()
        assert (await hear(opened))["payload"]["data"]["jobEvents"]["job"]["id"] == job


async def test_a_thousand_sockets_with_wrong_tokens_leave_nothing_behind(shop: GuardedApi) -> None:
    issued = await shop.token()
    async with shop.initialised(issued.token) as innocent:
        before = len(asyncio.all_tasks())

        async def attack(number: int) -> int:
            async with shop.socket(authorization=f"gjv_{number}") as opened:
                return (await _closed(opened))[0]

        codes: list[int] = []
        for first in range(0, 1000, 50):
            codes += await asyncio.gather(*(attack(number) for number in range(first, first + 50)))
        assert codes.count(4403) == 100
        assert codes.count(1013) == 900
        assert (await _answer(innocent, "1", TYPENAME))["payload"] == {"data": {"__typename": "Query"}}
        await until(lambda: len(asyncio.all_tasks()) <= before, "no task is left")
