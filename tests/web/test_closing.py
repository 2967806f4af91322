"""The connections of a stopping process end one after another, and all of them in time."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from gql_jobs.web.connections import Closing


class _Connection:
    def __init__(self, closing: Closing, ended: Callable[[], None]) -> None:
        self._told = ExitStack()
        self._ended = ended
        self._told.enter_context(closing.told(self.leave))

    def leave(self, _reason: str) -> None:
        self._ended()
        self._told.close()


async def test_nobody_is_waited_for_where_nobody_is_connected() -> None:
    await asyncio.wait_for(Closing().finish(60), 5)


async def test_a_connection_is_told_at_once_and_waited_for() -> None:
    closing, ended = Closing(), asyncio.Event()
    _Connection(closing, ended.set)
    await asyncio.wait_for(closing.finish(60), 5)
    assert ended.is_set()


async def test_connections_that_do_not_end_are_waited_for_no_longer_than_there_is_time() -> None:
    closing = Closing()
    with closing.told(lambda _: None):
        await asyncio.wait_for(closing.finish(0.01), 5)


async def test_a_connection_that_opens_too_late_is_told_when_it_opens() -> None:
    closing = Closing()
    await closing.finish(1)
    told: list[bool] = []
    with closing.told(lambda _: told.append(True)):
        assert told


async def test_ten_thousand_connections_are_spread_over_the_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    closing, delays, number = Closing(), list[float](), 10_000
    connections = [_Connection(closing, lambda: None) for _ in range(number)]
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(delay: float, callback: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        if delay <= 3 and callback == closing._tell:  # noqa: SLF001
            delays.append(delay)
            delay = 0
        return call_later(delay, callback, *arguments)

    monkeypatch.setattr(loop, "call_later", noted)
    await closing.finish(3)
    assert len(delays) == len(connections)
    busiest = max(sum(start <= delay < start + 0.3 for delay in delays) for start in (n * 0.3 for n in range(10)))
    assert busiest < number / 5
