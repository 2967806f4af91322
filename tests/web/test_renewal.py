"""An open socket goes on under another token, without a gap or a repetition, and sees what that one may see."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gql_jobs.jobs.viewer import ViewLimits
from gql_jobs.settings import Settings
from gql_jobs.web import socket_session
from tests.deadline import until
from tests.guarded import EVERY, GuardedApi, TokenTime, guarded
from tests.serving import Data, hear, say

FEED = "subscription { jobEvents { job { id } } }"
TYPENAME = "{ __typename }"
RENEW = "mutation ($token: String!) { renewAccess(token: $token) { viewer { subject expiresAt } } }"


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[GuardedApi]:
    async with guarded(settings) as opened:
        yield opened


class Gate:
    """Lets no call of an asynchronous method return before it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self._call = getattr(owner, name)
        self._open = asyncio.Event()
        self.waiting = 0
        """Calls that have done their work and may not return yet."""
        monkeypatch.setattr(owner, name, self)

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        result = await self._call(*arguments, **options)
        self.waiting += 1
        await self._open.wait()
        self.waiting -= 1
        return result

    async def has(self, number: int) -> None:
        """Wait until so many calls wait."""
        await until(lambda: self.waiting == number, f"{number} calls wait")

    def open(self) -> None:
        """Let all of them return, and those that come."""
        self._open.set()


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


async def test_a_renewed_socket_goes_on_without_a_gap_or_a_repetition(
    token_time: TokenTime, shop: GuardedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_session, "EXPIRY_GRACE", 60.0)
    issued = await shop.token()
    async with shop.initialised(issued.token) as opened:
        await _subscribe(opened, "feed", FEED)
        await shop.api.subscribers(1)
        created = [await shop.create()]
        heard = await hear(opened)
        assert (heard["id"], heard["payload"]["data"]["jobEvents"]["job"]["id"]) == ("feed", created[0])
        await token_time.end(issued)
        assert _codes(await _answer(opened, "probe", TYPENAME)) == ["UNAUTHENTICATED"]
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


async def test_a_query_that_runs_while_the_socket_is_renewed_shows_what_the_next_token_may_see(
    shop: GuardedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = await shop.create(), await shop.create()
    reader = shop.api.runtime.reader
    async with shop.initialised((await shop.token()).token) as opened:
        pages, counts = Gate(monkeypatch, reader, "page"), Gate(monkeypatch, reader, "queue_counts")
        await _subscribe(opened, "page", "{ jobs { totalCount nodes { id } } }")
        await _subscribe(opened, "counts", "{ queues { counts { count } } }")
        await asyncio.gather(pages.has(1), counts.has(1))
        limited = await shop.token(limits=ViewLimits(ids=frozenset({job})))
        assert _codes(await _answer(opened, "renew", RENEW, token=limited.token)) == []
        pages.open()
        counts.open()
        heard: dict[str, Data] = {}
        while len(heard) < 2:
            message = await hear(opened)
            if message["type"] == "next":
                heard[message["id"]] = message["payload"]
        assert heard["page"] == {"data": {"jobs": {"totalCount": 1, "nodes": [{"id": job}]}}}
        assert sum(one["count"] for queue in heard["counts"]["data"]["queues"] for one in queue["counts"]) == 1


@pytest.mark.parametrize("is_shown", [True, False])
async def test_an_event_whose_result_is_made_while_the_socket_is_renewed_is_shown_only_if_the_next_token_may_see_it(
    shop: GuardedApi, monkeypatch: pytest.MonkeyPatch, is_shown: bool
) -> None:
    job, other = await shop.create(), await shop.create()
    commands, gate = shop.api.runtime.commands, Gate(monkeypatch, shop.api.runtime.reader, "artifacts")
    async with shop.initialised((await shop.token()).token) as opened:
        await _subscribe(opened, "feed", "subscription { jobEvents { job { id status artifacts { name } } } }")
        await shop.api.subscribers(1)
        await commands.cancel(job if is_shown else other)
        await gate.has(1)
        limited = await shop.token(limits=ViewLimits(ids=frozenset({job})))
        assert _codes(await _answer(opened, "renew", RENEW, token=limited.token)) == []
        await (commands.retry(job) if is_shown else commands.cancel(job))
        gate.open()
        for status in ("CANCELLED", "QUEUED") if is_shown else ("CANCELLED",):
            shown = (await hear(opened))["payload"]["data"]["jobEvents"]["job"]
            assert shown == {"id": job, "status": status, "artifacts": []}


async def test_a_socket_that_ends_while_a_mutation_awaits_a_renewal_leaves_nothing_behind(
    token_time: TokenTime, shop: GuardedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_session, "EXPIRY_GRACE", 60.0)
    job = await shop.create()
    before = len(asyncio.all_tasks())
    issued = await shop.token(scopes=EVERY)
    async with shop.initialised(issued.token) as opened:
        gate = Gate(monkeypatch, shop.api.runtime.commands, "cancel")
        await _subscribe(opened, "cancel", "mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }", id=job)
        await gate.has(1)
        await token_time.end(issued)
        assert _codes(await _answer(opened, "probe", TYPENAME)) == ["UNAUTHENTICATED"]
        gate.open()
    await until(lambda: shop.api.app.state.metrics._sockets.open == 0, "the socket has ended", within=5)  # noqa: SLF001
    await until(lambda: len(asyncio.all_tasks()) <= before, "no task is left")


async def test_a_token_that_is_revoked_while_another_renewal_runs_does_not_renew(
    shop: GuardedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = await shop.create(), await shop.create()
    first, second = await shop.token(limits=ViewLimits(ids=frozenset({other}))), await shop.token()
    async with shop.initialised((await shop.token()).token) as opened:
        await _subscribe(opened, "watch", "subscription ($id: ID!) { jobProgress(id: $id) { cursor } }", id=job)
        assert (await hear(opened))["id"] == "watch"
        gate = Gate(monkeypatch, shop.api.runtime.commands, "find")
        await _subscribe(opened, "first", RENEW, token=first.token)
        await gate.has(1)
        await _subscribe(opened, "second", RENEW, token=second.token)
        await say(opened, type="ping")
        assert (await hear(opened))["type"] == "pong"
        await shop.revoke(second)
        gate.open()
        messages = [await hear(opened) for _ in range(5)]
        answers = {message["id"]: _codes(message) for message in messages if message["type"] != "complete"}
        assert answers == {"watch": ["NOT_FOUND"], "first": [], "second": ["UNAUTHENTICATED"]}
        assert _codes(await _answer(opened, "probe", TYPENAME)) == []
