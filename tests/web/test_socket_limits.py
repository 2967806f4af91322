"""The limits of a socket, on a handler whose limits a test can wait for."""

import asyncio
import json
from typing import Any

from starlette.types import Message

from gql_jobs.graphql.context import Context
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.settings import Settings
from gql_jobs.web.connections import Connections, SocketCounts, budget_for
from gql_jobs.web.graphql_ws import PROTOCOL, SocketLimits, TransportWs
from gql_jobs.web.rate_limits import RateLimits
from gql_jobs.web.request_authentication import RequestAuthentication
from gql_jobs.web.turns import ResultTurns
from tests.shipped import shipped_schema


def _not_open() -> Any:
    raise QueueUnavailable("Nothing here needs a job.")


async def _opened() -> None:
    """Nothing here is waited for."""


class _Socket:
    """The server's side of a socket, whose client is the test."""

    def __init__(self, limits: SocketLimits) -> None:
        transport = TransportWs(
            shipped_schema().operations,
            lambda _address, session: Context(_not_open, session),
            limits,
            Connections(),
            SocketCounts(),
            budget=budget_for(1 << 20),
            result_turns=ResultTurns(),
            opened_soon=_opened,
            authentication=RequestAuthentication(Settings(), None, RateLimits(Settings())),  # type: ignore[arg-type]
        )
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "subprotocols": [PROTOCOL]}
        self.task = asyncio.create_task(transport(scope, self._said.get, self._heard.put))

    def say(self, **message: Any) -> None:
        self._said.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def close(self) -> None:
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def hear(self) -> Message:
        message = await asyncio.wait_for(self._heard.get(), 10)
        return json.loads(message["text"]) if "text" in message else message


async def test_a_socket_without_connection_init_is_closed_after_the_allowed_waiting_time() -> None:
    socket = _Socket(SocketLimits(init_timeout=0.05))
    socket.say(type="ping")
    assert (await socket.hear())["type"] == "websocket.accept"
    assert (await socket.hear())["type"] == "pong"
    closed = {"type": "websocket.close", "code": 4408, "reason": "Connection initialisation timeout"}
    assert await socket.hear() == closed
    await socket.task


async def test_a_socket_with_connection_init_may_be_silent() -> None:
    socket = _Socket(SocketLimits(init_timeout=0.05))
    socket.say(type="connection_init")
    assert [(await socket.hear())["type"] for _ in range(2)] == ["websocket.accept", "connection_ack"]
    done, _ = await asyncio.wait({socket.task}, timeout=0.15)
    assert not done
    socket.close()
    await socket.task
