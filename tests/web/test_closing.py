"""The connections of a stopping process end one after another, and all of them in time."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from gql_jobs.web.connections import Connections


class _Connection:
    def __init__(self, connections: Connections, ended: Callable[[], None]) -> None:
        self._told = ExitStack()
        self._ended = ended
        self._told.enter_context(connections.registered(self.leave))

    def leave(self, _reason: str) -> None:
        self._ended()
        self._told.close()


async def test_nobody_is_waited_for_where_nobody_is_connected() -> None:
    await asyncio.wait_for(Connections().close_all(60), 5)


async def test_a_connection_is_told_at_once_and_waited_for() -> None:
    connections, ended = Connections(), asyncio.Event()
    _Connection(connections, ended.set)
    await asyncio.wait_for(connections.close_all(60), 5)
    assert ended.is_set()


async def test_connections_that_do_not_end_are_waited_for_no_longer_than_there_is_time() -> None:
    connections = Connections()
    with connections.registered(lambda _: None):
        await asyncio.wait_for(connections.close_all(0.01), 5)


async def test_a_connection_that_opens_too_late_is_told_when_it_opens() -> None:
    connections = Connections()
    await connections.close_all(1)
    told: list[bool] = []
    with connections.registered(lambda _: told.append(True)):
        assert told


async def test_ten_thousand_connections_are_spread_over_the_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    connections, delays, number = Connections(), list[float](), 10_000
    opened = [_Connection(connections, lambda: None) for _ in range(number)]
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(delay: float, callback: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        if delay <= 3 and callback == connections._close:  # noqa: SLF001
            delays.append(delay)
            delay = 0
        return call_later(delay, callback, *arguments)

    monkeypatch.setattr(loop, "call_later", noted)
    await connections.close_all(3)
    assert len(delays) == len(opened)
    busiest = max(sum(start <= delay < start + 0.3 for delay in delays) for start in (n * 0.3 for n in range(10)))
    assert busiest < number / 5
