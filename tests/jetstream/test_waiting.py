"""Whoever waits for an answer of NATS can be cancelled at any moment."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats.errors import FlushTimeoutError

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from tests.by_hand import frozen

WAITS: list[Callable[[Connection], Awaitable[Any]]] = [
    lambda connection: connection.request("$JS.API.INFO", b""),
    lambda connection: connection.client.jetstream().account_info(),
    lambda connection: connection.client.flush(),
]


@pytest.mark.parametrize("ask", WAITS, ids=["request", "JetStream by nats-py", "flush"])
async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Connection], Awaitable[Any]]
) -> None:
    wait_for = asyncio.wait_for
    cancelled = []

    async def cancelled_with_the_answer(answer: asyncio.Future[Any], timeout: float) -> Any:  # noqa: ASYNC109
        answer.add_done_callback(lambda _: cancelled.append(task.cancel()))
        return await wait_for(answer, timeout)

    async def endless() -> None:
        await ask(connection)
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("nats.aio.client.asyncio.wait_for", cancelled_with_the_answer)
    task = asyncio.create_task(endless())
    done, _ = await asyncio.wait([task], timeout=5)
    assert cancelled == [True]
    assert done
    assert task.cancelled()


async def test_a_wait_that_was_given_up_while_the_server_hung_leaves_the_connection_hearing(
    nats: EmbeddedServer, connection: Connection
) -> None:
    with frozen(nats), pytest.raises(FlushTimeoutError):
        await connection.client.flush(0.1)
    for _ in range(2):
        await connection.client.flush(5)
    assert await connection.request("$JS.API.INFO", b"")
    assert connection.client.stats["reconnects"] == 0
