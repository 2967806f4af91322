"""An open socket goes on under another token, without a gap or a repetition, and sees what that one may see."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gql_jobs.jobs.viewer import ViewLimits
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.guarded import EVERY, GuardedApi, guarded
from tests.serving import Data, hear, say

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


async def test_a_renewed_socket_goes_on_without_a_gap_or_a_repetition(shop: GuardedApi) -> None:
    async with shop.initialised((await shop.token(seconds=2)).token) as opened:
        await _subscribe(opened, "feed", FEED)
        await shop.api.subscribers(1)
        created = [await shop.create()]

        async def has_ended() -> bool:
            await _subscribe(opened, "probe", TYPENAME)
            message = await hear(opened)
            while message["id"] == "feed":
                message = await hear(opened)
            if message["type"] == "next" and "errors" not in message["payload"]:
                assert (await hear(opened))["type"] == "complete"
                return False
            if message["type"] == "next":
                assert (await hear(opened))["type"] == "complete"
            return True

        await until(has_ended, "the token has ended", within=5)
        created.append(await shop.create())
        message = await _answer(opened, "renew", RENEW, token=(await shop.token()).token)
        assert message["payload"]["data"]["renewAccess"]["viewer"]["subject"] == "key:operator"
        heard = await hear(opened)
        assert (heard["id"], heard["payload"]["data"]["jobEvents"]["job"]["id"]) == ("feed", created[1])
        created.append(await shop.create())
        heard = await hear(opened)
        assert (heard["id"], heard["payload"]["data"]["jobEvents"]["job"]["id"]) == ("feed", created[2])


async def test_a_revoked_socket_goes_on_once_it_is_renewed(shop: GuardedApi) -> None:
    issued = await shop.token()
    async with shop.initialised(issued.token) as opened:
        await shop.revoke(issued)

        async def has_ended() -> bool:
            return "UNAUTHENTICATED" in _codes(await _answer(opened, "1", TYPENAME))

        await until(has_ended, "the token was revoked", within=1)
        assert _codes(await _answer(opened, "2", RENEW, token=issued.token)) == ["UNAUTHENTICATED"]
        assert _codes(await _answer(opened, "3", RENEW, token=(await shop.token()).token)) == []
        assert (await _answer(opened, "4", TYPENAME))["payload"] == {"data": {"__typename": "Query"}}


async def test_a_socket_goes_on_under_a_token_of_the_same_subject_and_tenant_only(shop: GuardedApi) -> None:
    other = await shop.new_key("other")
    tenant = await shop.new_key("operator", tenant="acme")
    async with shop.initialised((await shop.token()).token) as opened:
        await _subscribe(opened, "feed", FEED)
        await shop.api.subscribers(1)
        for number, key in enumerate((other, tenant)):
            strange = (await shop.token(key=key)).token
            assert _codes(await _answer(opened, str(number), RENEW, token=strange)) == ["FORBIDDEN"]
        job = await shop.create()
        assert (await hear(opened))["payload"]["data"]["jobEvents"]["job"]["id"] == job


async def test_a_subscription_that_the_next_token_may_not_go_on_with_is_ended(shop: GuardedApi) -> None:
    async with shop.initialised((await shop.token(scopes=EVERY)).token) as opened:
        await _subscribe(opened, "feed", FEED)
        await shop.api.subscribers(1)
        none = await shop.token(scopes=frozenset())
        await _subscribe(opened, "renew", RENEW, token=none.token)
        messages = [await hear(opened) for _ in range(3)]
        (error,) = (message for message in messages if message["id"] == "feed")
        assert (error["type"], _codes(error)) == ("error", ["FORBIDDEN"])
        await shop.api.subscribers(0)


async def test_the_next_token_s_limits_hold_from_the_next_event_on(shop: GuardedApi) -> None:
    async with shop.initialised((await shop.token()).token) as opened:
        await _subscribe(opened, "feed", FEED)
        await shop.api.subscribers(1)
        only = await shop.create()
        assert (await hear(opened))["payload"]["data"]["jobEvents"]["job"]["id"] == only
        limited = await shop.token(limits=ViewLimits(ids=frozenset({only})))
        assert _codes(await _answer(opened, "renew", RENEW, token=limited.token)) == []
        await shop.create()
        await shop.api.runtime.commands.cancel(only)
        assert (await hear(opened))["payload"]["data"]["jobEvents"]["job"]["id"] == only


async def test_a_token_is_taken_as_a_variable_only_and_over_a_socket_only(shop: GuardedApi) -> None:
    issued = await shop.token()
    literal = f'mutation {{ renewAccess(token: "{issued.token}") {{ viewer {{ subject }} }} }}'
    async with shop.initialised(issued.token) as opened:
        assert _codes(await _answer(opened, "1", literal)) == ["BAD_REQUEST"]
    answer = await shop.post(RENEW, issued.token, variables={"token": issued.token})
    assert [error["extensions"]["code"] for error in answer.json()["errors"]] == ["BAD_REQUEST"]
    assert issued.token not in answer.text
