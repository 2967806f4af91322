"""Whether the store can be reached: asked once for all, told when it changes, and not asked for nobody."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from gql_jobs.live import store_reach
from gql_jobs.live.store_reach import ReachState, ReachWatch, StoreReach, no_store
from gql_jobs.processes.event_loop import in_background
from tests.deadline import until


class _Store:
    """A store that a test takes away, and how often it was asked."""

    def __init__(self) -> None:
        self.answers = True
        self.hangs = False
        self.error: Exception | None = None
        self.held: asyncio.Event | None = None
        self.asked = 0
        self.asked_at_once = 0
        self._asking = 0

    async def ask(self) -> bool:
        self.asked += 1
        self._asking += 1
        self.asked_at_once = max(self.asked_at_once, self._asking)
        try:
            await asyncio.sleep(0)
            if self.held is not None:
                await self.held.wait()
            if self.hangs:
                await asyncio.get_running_loop().create_future()
            if self.error is not None:
                raise self.error
            return self.answers
        finally:
            self._asking -= 1


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times in which a test is over soon."""
    monkeypatch.setattr(store_reach, "ANSWER_WITHIN", 0.05)
    monkeypatch.setattr(store_reach, "_PAUSE", 0.02)


@pytest.fixture
def store() -> _Store:
    return _Store()


@asynccontextmanager
async def _followed(store: _Store) -> AsyncIterator[StoreReach]:
    """The reach of the store, once that was found to be there."""
    reach = StoreReach(store.ask)
    async with in_background(reach.run()):
        await until(lambda: reach.state.reachable, "it is found")
        yield reach


async def _next(watch: ReachWatch) -> ReachState:
    return await asyncio.wait_for(anext(watch), 10)


async def test_whoever_watches_is_told_what_is_so_and_then_each_change_with_its_time(store: _Store) -> None:
    async with _followed(store) as reach:
        watch = reach.watch()
        first = await _next(watch)
        assert first == reach.state
        before = datetime.now(UTC)
        store.answers = False
        away = await _next(watch)
        store.answers = True
        back = await _next(watch)
        assert [state.reachable for state in (first, away, back)] == [True, False, True]
        assert first.since < before < away.since < back.since < datetime.now(UTC)
        await watch.aclose()


async def test_a_store_that_hangs_is_away_after_a_while(store: _Store) -> None:
    async with _followed(store) as reach:
        watch = reach.watch()
        assert (await _next(watch)).reachable
        store.hangs = True
        assert not (await _next(watch)).reachable
        store.hangs = False
        assert (await _next(watch)).reachable
        await watch.aclose()


async def test_one_question_is_under_way_however_many_watch_and_ask(store: _Store) -> None:
    async with _followed(store) as reach:
        watches = [reach.watch() for _ in range(200)]
        store.asked = 0
        store.hangs = True
        found = await asyncio.gather(*map(_next, watches), *(reach.now() for _ in range(200)))
        assert {state.reachable for state in found[200:]} == {False}
        told = await asyncio.gather(
            *(_next(watch) for watch, state in zip(watches, found, strict=False) if state.reachable)
        )
        assert {state.reachable for state in told} == {False}
        assert store.asked_at_once == 1
        assert store.asked < 10
        for watch in watches:
            await watch.aclose()


async def test_for_nobody_nothing_is_asked_while_the_store_is_there(store: _Store) -> None:
    other = _Store()

    async def is_left_alone() -> bool:
        asked, others = store.asked, other.asked
        await until(lambda: other.asked > others + 5, "it would have been asked several times")
        return store.asked == asked

    async with _followed(store) as reach, _followed(other) as watched:
        watch = watched.watch()
        await until(is_left_alone, "nothing is asked at first")
        asked = store.asked
        brief = reach.watch()
        await until(lambda: store.asked > asked + 2, "it is asked for one")
        await brief.aclose()
        await until(is_left_alone, "nothing is asked any more")
        await watch.aclose()


async def test_a_store_that_is_away_is_looked_for_though_nobody_watches(store: _Store) -> None:
    async with _followed(store) as reach:
        store.answers = False
        reach.look_soon()
        await until(lambda: not reach.state.reachable, "its loss is noticed")
        before = datetime.now(UTC)
        store.answers = True
        await until(lambda: reach.state.reachable, "it is found again")
        assert reach.state.since > before


async def test_whoever_asks_is_told_what_is_so_now_and_not_what_was_found_last(
    store: _Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _followed(store) as reach:
        monkeypatch.setattr(store_reach, "_PAUSE", 0.0)
        since = reach.state.since
        assert await reach.now() == ReachState(True, since)
        store.answers = False
        assert not (await reach.now()).reachable


async def test_whoever_asks_while_a_question_is_under_way_waits_for_its_answer_and_gives_up_alone(
    store: _Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_reach, "ANSWER_WITHIN", 20.0)
    monkeypatch.setattr(store_reach, "_PAUSE", 20.0)
    reach = StoreReach(store.ask)
    store.held = asyncio.Event()
    impatient = asyncio.create_task(reach.now())
    await until(lambda: store.asked == 1, "it is asked")
    patient = asyncio.create_task(reach.now())
    impatient.cancel()
    await asyncio.wait([impatient])
    assert not patient.done()
    store.held.set()
    assert (await patient).reachable
    assert await reach.now() == reach.state
    assert store.asked == 1, "the answer holds for a while"


async def test_what_goes_wrong_with_a_question_is_logged_and_the_store_counts_as_away(
    store: _Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with _followed(store) as reach:
        watch = reach.watch()
        assert (await _next(watch)).reachable
        with caplog.at_level(logging.ERROR):
            store.error = RuntimeError("odd")
            assert not (await _next(watch)).reachable
        assert "odd" in caplog.text
        store.error = None
        assert (await _next(watch)).reachable
        await watch.aclose()


async def test_a_watch_that_is_closed_while_it_waits_ends(store: _Store) -> None:
    async with _followed(store) as reach:
        watch = reach.watch()
        await _next(watch)
        waiting = asyncio.create_task(anext(watch, None))
        await asyncio.sleep(0)
        await watch.aclose()
        assert await waiting is None
        assert not reach.watchers


async def test_where_there_is_no_store_it_is_away() -> None:
    assert not (await no_store().now()).reachable
