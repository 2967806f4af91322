"""``serverStatus`` and ``serverStatusChanged``: told while NATS is there, hangs, is gone, and was never there."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.log import heartbeats
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.api.operations import create
from tests.by_hand import RestartingServer, frozen
from tests.deadline import until
from tests.serving import Data, ServedApi, serving
from tests.stories import request

STATUS = "{ serverStatus { storeReachable since now } }"
CHANGED = "subscription { serverStatusChanged { storeReachable since now } }"


async def _status(api: ServedApi) -> Data:
    found: Data = (await api.ask(STATUS))["serverStatus"]
    return found


async def _is_reachable(api: ServedApi) -> bool:
    return bool((await _status(api))["storeReachable"])


async def _is_away(api: ServedApi) -> bool:
    return not await _is_reachable(api)


async def _heard_workers(api: ServedApi) -> list[Data]:
    found: list[Data] = (await api.ask("{ workers { lastSeenAt stale } }"))["workers"]
    return found


async def _told(states: AsyncIterator[Data], *, reachable: bool, within: float = 20) -> Data:
    """The next state, which has to be so."""
    state = await asyncio.wait_for(anext(states), within)
    assert state["storeReachable"] is reachable
    return state


@asynccontextmanager
async def _store(folder: Path) -> AsyncIterator[RestartingServer]:
    server = RestartingServer(folder / "store")
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_a_server_that_reaches_its_store_says_since_when_and_what_its_clock_says(api: ServedApi) -> None:
    await until(lambda: _is_reachable(api), "the store is found")
    before = datetime.now(UTC)
    first = await _status(api)
    assert _at(first["since"]) < before < _at(first["now"]) < datetime.now(UTC)
    async with aclosing(api.events(CHANGED)) as one, aclosing(api.events(CHANGED)) as other:
        told = await _told(one, reachable=True)
        between = datetime.now(UTC)
        late = await _told(other, reachable=True)
    assert told["since"] == late["since"] == first["since"]
    # What one was told is the answer of then, and so for no other.
    assert _at(told["now"]) < between < _at(late["now"]) < datetime.now(UTC)


async def test_a_store_that_hangs_is_told_within_two_seconds_and_its_return_too(
    api: ServedApi, nats: EmbeddedServer
) -> None:
    await until(lambda: _is_reachable(api), "the store is found")
    async with aclosing(api.events(CHANGED)) as states:
        first = await _told(states, reachable=True)
        with frozen(nats):
            began = time.monotonic()
            away = await _told(states, reachable=False)
            assert time.monotonic() - began < 3, "two seconds, and one for a busy machine"
            assert await _is_away(api)
            assert (await _status(api))["since"] == away["since"]
        back = await _told(states, reachable=True)
    assert _at(first["since"]) < _at(away["since"]) < _at(back["since"])


@pytest.mark.usefixtures("worker")
async def test_a_worker_that_cannot_be_heard_because_the_store_hangs_is_neither_stale_nor_gone(
    api: ServedApi, nats: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "MISSED_AFTER", 6.0)
    monkeypatch.setattr(heartbeats, "GONE_AFTER", 6.0)
    await until(lambda: _heard_workers(api), "the worker is heard of")
    async with aclosing(api.events(CHANGED)) as states:
        await _told(states, reachable=True)
        with frozen(nats):
            await _told(states, reachable=False)
            while True:
                (worker,) = await _heard_workers(api)
                assert not worker["stale"]
                if (datetime.now(UTC) - _at(worker["lastSeenAt"])).total_seconds() > 7:
                    break
                await asyncio.sleep(0.1)
        await _told(states, reachable=True)
        (worker,) = await _heard_workers(api)

    async def is_heard_again() -> bool:
        (found,) = await _heard_workers(api)
        return bool(_at(found["lastSeenAt"]) > _at(worker["lastSeenAt"]))

    await until(is_heard_again, "it is heard of again", within=10)


async def test_one_who_asks_is_told_that_the_store_hangs_though_nobody_watches(
    api: ServedApi, nats: EmbeddedServer
) -> None:
    await until(lambda: _is_reachable(api), "the store is found")
    with frozen(nats):
        await until(lambda: _is_away(api), "it is noticed", within=5)
    await until(lambda: _is_reachable(api), "its return is noticed", within=10)


async def test_a_store_that_was_killed_and_comes_back(tmp_path: Path) -> None:
    async with _store(tmp_path) as server:
        settings = Settings(nats_url=server.url, data_dir=tmp_path / "data")
        async with serving(settings) as api:
            known = await create(api)
            async with api.socket_streams(CHANGED, [{}, {}]) as watched:
                for states in watched:
                    await _told(states, reachable=True)
                await server.stop()
                away = [await _told(states, reachable=False) for states in watched]
                assert away[0]["since"] == away[1]["since"]
                assert await _is_away(api)
                assert (await api.ask("query ($id: ID!) { job(id: $id) { id } }", id=known["id"]))["job"]
                await server.start()
                for states in watched:
                    await _told(states, reachable=True)
            # Nobody watches any more, and still the time of a loss is noticed.
            before = datetime.now(UTC)
            await server.stop()
            await until(lambda: not api.app.state.opener.store_reach.state.reachable, "the loss is noticed")
            noticed = datetime.now(UTC)
            assert before < _at((await _status(api))["since"]) < noticed


async def test_a_server_that_has_never_reached_its_store_says_so_and_tells_when_it_does(tmp_path: Path) -> None:
    async with _store(tmp_path) as server:
        await server.stop()
        settings = Settings(nats_url=server.url, data_dir=tmp_path / "data")
        async with serving(settings, opened=False) as api:
            assert (await api.refusal("{ jobs { totalCount } }"))["extensions"]["code"] == "QUEUE_UNAVAILABLE"
            assert await _is_away(api)
            async with aclosing(api.events(CHANGED)) as states:
                await _told(states, reachable=False)
                await server.start()
                await _told(states, reachable=True)
            assert await _is_reachable(api)


async def test_the_store_is_reachable_while_the_index_is_behind_it(api: ServedApi) -> None:
    await until(lambda: _is_reachable(api), "the store is found")
    async with api.runtime.feed.applying:
        created = await api.runtime.commands.create(request())
        assert api.runtime.feed.position < created.job.last_seq
        assert await _is_reachable(api)
        async with aclosing(api.events(CHANGED)) as states:
            await _told(states, reachable=True)
        assert api.runtime.feed.position < created.job.last_seq


async def test_many_who_watch_have_the_store_asked_once(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = most = asked = 0
    reaches_store = Runtime.reaches_store

    async def counted(runtime: Runtime) -> bool:
        nonlocal asking, most, asked
        asking, asked = asking + 1, asked + 1
        most = max(most, asking)
        try:
            return await reaches_store(runtime)
        finally:
            asking -= 1

    monkeypatch.setattr(Runtime, "reaches_store", counted)
    async with api.socket_streams(CHANGED, [{}] * 50) as watched:
        for states in watched:
            await anext(states)
        assert len(api.app.state.opener.store_reach.watchers) == 50
        seen = asked
        await until(lambda: asked > seen + 2, "it is asked again and again")
    assert most == 1
    await until(lambda: not api.app.state.opener.store_reach.watchers, "nobody watches any more")
