"""Subscriptions over WebSockets that outlive their connections: whatever breaks, they go on with ``after``."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from benchmarks.chaos.ledger import Ledger, Observation, Seen

JOB = "subscription ($id: ID!, $after: String) { jobProgress(id: $id, after: $after) { __typename cursor job { id } } }"
ALL = """subscription ($filter: JobFilter, $after: String) {
  jobEvents(filter: $filter, after: $after) { __typename cursor job { id } }
}"""
_PROTOCOL = "graphql-transport-ws"
_PAUSE = 0.3
_SILENT = 20.0
"""Seconds without a message after which a connection counts as dead; the server pings more often."""


class Refusal(Exception):
    """The operation was answered with an error."""


class Subscriber:
    """Keeps one observation going over the API processes."""

    def __init__(self, urls: list[str], observation: Observation, *, slow: float = 0.0) -> None:
        """:param slow: seconds that it now and then takes to read the next event."""
        self._urls = itertools.cycle([url.replace("http://", "ws://") for url in urls])
        self._observation = observation
        self._slow = slow
        self._chance = random.Random(len(urls))  # noqa: S311

    async def run(self) -> None:
        """Until the server completes it, or until cancelled."""
        known: dict[str, str] = {}
        while not self._observation.completed:
            try:
                await self._read(next(self._urls), known)
            except Refusal as refusal:
                self._observation.refusals[str(refusal)] += 1
            except (OSError, TimeoutError, WebSocketException, InvalidHandshake) as error:
                self._observation.refusals[type(error).__name__] += 1
            if not self._observation.completed:
                self._observation.resumes += 1
                await asyncio.sleep(_PAUSE)

    async def _read(self, url: str, known: dict[str, str]) -> None:
        watched = self._observation
        async with aclosing(self._events(url)) as events:
            async for event in events:
                kind, job_id = event["__typename"], event["job"]["id"]
                seq, _, nth = event["cursor"].partition(".")
                # Equal strings are kept once: there are millions of events.
                names = known.setdefault(kind, kind), known.setdefault(job_id, job_id)
                watched.seen.append(Seen(int(seq), int(nth or 0), *names))
                if self._slow and self._chance.random() < 0.001:  # noqa: PLR2004
                    await asyncio.sleep(self._slow)
        watched.completed = True

    def _operation(self) -> dict[str, Any]:
        watched = self._observation
        variables: dict[str, Any] = {"after": watched.cursor}
        if watched.job_id is not None:
            return {"query": JOB, "variables": {"id": watched.job_id, **variables}}
        tags = {"tags": [watched.tag]} if watched.tag else {}
        return {"query": ALL, "variables": {"filter": tags, **variables}}

    async def _events(self, url: str) -> AsyncGenerator[dict[str, Any], None]:
        options: dict[str, Any] = {"proxy": None, "compression": None, "open_timeout": 5, "ping_interval": None}
        async with connect(url, subprotocols=[_PROTOCOL], close_timeout=1, **options) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "connection_init"}))
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": self._operation()}))
            while True:
                message = await _next(socket)
                match message["type"]:
                    case "next":
                        if message["payload"].get("errors"):
                            raise Refusal(_code(message["payload"]["errors"]))
                        (event,) = message["payload"]["data"].values()
                        yield event
                    case "error":
                        raise Refusal(_code(message["payload"]))
                    case "complete":
                        return
                    case "ping":
                        await socket.send(json.dumps({"type": "pong"}))


async def _next(socket: Any) -> dict[str, Any]:
    """The next message. A silent connection is asked whether it lives: after a fault it may be half open."""
    while True:
        try:
            async with asyncio.timeout(_SILENT):
                message: dict[str, Any] = json.loads(await socket.recv())
                return message
        except TimeoutError:
            async with asyncio.timeout(_SILENT):
                await (await socket.ping())


def _code(errors: list[dict[str, Any]]) -> str:
    return str((errors[0].get("extensions") or {}).get("code", "?"))


class Subscriptions:
    """All subscriptions of a run."""

    def __init__(self, urls: list[str], ledger: Ledger) -> None:
        self._urls = urls
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, *, job_id: str | None = None, tag: str | None = None, slow: float = 0.0) -> Observation:
        """Begin to watch a job, the jobs with a tag, or all."""
        observation = Observation(job_id=job_id, tag=tag)
        self._ledger.observations.append(observation)
        urls = self._from(len(self._ledger.observations))
        task = asyncio.create_task(Subscriber(urls, observation, slow=slow).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return observation

    async def visit(self, seconds: float, *, tag: str | None = None) -> None:
        """Watch the jobs with a tag, or all, for a while."""
        observation = Observation(tag=tag)
        self._ledger.observations.append(observation)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await Subscriber(self._from(len(self._ledger.observations)), observation).run()

    @property
    def open_now(self) -> int:
        """How many have not ended."""
        return len(self._tasks)

    def _from(self, number: int) -> list[str]:
        """The API processes, beginning with another one each time."""
        start = number % len(self._urls)
        return self._urls[start:] + self._urls[:start]

    async def close(self) -> None:
        """End them all."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
