"""Figures that are watched: read once for all, told when they differ, and not read for nobody."""

import asyncio
from typing import Any

import pytest

from gql_jobs.live.polled import FiguresWatch, PolledFigures, PolledFiguresByKind
from tests.deadline import until


class _Source:
    """Figures that a test sets, and how often they were read."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {"all": [0]}
        self.position = 0
        self.reads = 0
        self.error: Exception | None = None
        self.visibility = "all"
        self.kinds = PolledFiguresByKind()

    def set(self, *values: Any, whose: str = "all") -> None:
        """Have something happen."""
        self.values[whose] = list(values)
        self.position += 1

    def of_now(self) -> PolledFigures:
        """The figures for the watcher of now."""
        whose = self.visibility

        async def read() -> list[Any]:
            self.reads += 1
            if self.error is not None:
                raise self.error
            return list(self.values[whose])

        return self.kinds.of("figures", whose, read, lambda: self.position)

    def watch(self, pause: float = 0.01) -> FiguresWatch:
        """Somebody who watches."""
        return FiguresWatch(self.of_now, pause)


@pytest.fixture
def source() -> _Source:
    return _Source()


async def _next(watch: FiguresWatch) -> list[Any]:
    return list(await asyncio.wait_for(anext(watch), 10))


async def _closed(*watches: FiguresWatch) -> None:
    for watch in watches:
        await watch.aclose()
    await until(lambda: len(asyncio.all_tasks()) == 1, "nothing is read any more")


async def test_whoever_watches_is_told_the_present_figures_and_then_each_that_differ(source: _Source) -> None:
    watch = source.watch()
    assert await _next(watch) == [0]
    waiting = asyncio.create_task(_next(watch))
    source.set(0)
    reads = source.reads
    await until(lambda: source.reads > reads, "they are read again")
    assert not waiting.done()
    source.set(1)
    assert await waiting == [1]
    await _closed(watch)


async def test_figures_are_read_once_for_all_who_may_see_the_same_and_have_one_name(source: _Source) -> None:
    watches = [source.watch() for _ in range(50)]
    found = [await asyncio.wait_for(anext(watch), 10) for watch in watches]
    assert len({id(figures) for figures in found}) == 1
    assert {figures.key for figures in found} == {found[0].key}
    assert source.reads < 10
    await _closed(*watches)


async def test_a_slow_watcher_is_told_no_more_often_than_it_wants_and_then_the_newest(source: _Source) -> None:
    fast, slow = source.watch(), source.watch(pause=0.3)
    clock = asyncio.get_running_loop().time
    assert await _next(slow) == [0]
    began = clock()
    waiting = asyncio.create_task(_next(slow))
    assert await _next(fast) == [0]
    for number in (1, 2):
        source.set(number)
        assert await _next(fast) == [number]
    assert await waiting == [2]
    assert clock() - began >= 0.29
    await _closed(fast, slow)


async def test_a_watcher_who_may_see_something_else_by_now_is_told_that(source: _Source) -> None:
    source.set("mine", whose="red")
    watch = source.watch()
    assert await _next(watch) == [0]
    waiting = asyncio.create_task(_next(watch))
    await asyncio.sleep(0)
    source.visibility = "red"
    watch.wake()
    assert await waiting == ["mine"]
    await _closed(watch)


async def test_what_reading_raises_ends_those_who_watch_and_nobody_who_comes_later(source: _Source) -> None:
    watch = source.watch()
    assert await _next(watch) == [0]
    waiting = asyncio.create_task(_next(watch))
    source.error = RuntimeError("it cannot be read")
    source.set(1)
    with pytest.raises(RuntimeError, match="cannot be read"):
        await waiting
    source.error = None
    later = source.watch()
    assert await _next(later) == [1]
    await _closed(watch, later)


async def test_figures_that_nobody_watches_are_not_read(source: _Source) -> None:
    watch = source.watch()
    await _next(watch)
    await _closed(watch)
    reads = source.reads
    source.set(5)
    for _ in range(20):
        await asyncio.sleep(0)
    assert source.reads == reads
