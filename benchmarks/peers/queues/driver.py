"""What the programs of all queues share: their arguments, the payload, and the clock of the handler.

``PROGRAM fill N`` enqueues N jobs and prints the seconds, by the system's call for many where it has one; ``PROGRAM
one N`` does it one after another, ``PROGRAM fifty N`` so many at once; ``PROGRAM work N`` runs N jobs and prints when
the first began and the last ended; ``PROGRAM stamp N`` prints ``ready`` and how long after its creation each of N jobs
began; ``PROGRAM send N RATE`` creates N jobs, RATE per second. ``PEER_URL`` is the server, ``PEER_SETTINGS`` JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

PAYLOAD = {
    "to": "ada@example.com",
    "subject": "Your report is ready",
    "body": "Hello Ada,\n\nthe report that you asked for is ready. It is kept for a week.\n\nYours,\nthe reports",
}
AT_ONCE = 50
"""Jobs enqueued at once where there is no call for many."""
URL = os.environ.get("PEER_URL", "")
SETTINGS: dict[str, Any] = json.loads(os.environ.get("PEER_SETTINGS", "{}"))
COMMAND, JOBS, *REST = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]


class Clock:
    """Called by the handler, as its only work."""

    def __init__(self) -> None:
        self._first = 0.0
        self._ran = 0
        self._latencies: list[float] = []

    def ran(self, sent: float) -> None:
        """A handler has begun (and so ended)."""
        now = time.monotonic()
        self._ran += 1
        if sent:
            self._latencies.append(now - sent)
        if self._ran == 1:
            self._first = now
        if self._ran == JOBS:
            say(self._latencies if COMMAND == "stamp" else [self._first, now])


def say(value: object) -> None:
    """One line of JSON to whoever measures."""
    print(json.dumps(value), flush=True)


ENQUEUES = frozenset({"fill", "fifty", "one", "send"})
"""The commands that run no job."""


async def enqueue_all(enqueue: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Do what the command says."""
    await {"fill": fill, "fifty": fill, "one": one, "send": send}[COMMAND](enqueue)


async def one(enqueue: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Enqueue one after another, and say how long it took."""
    began = time.monotonic()
    for _ in range(JOBS):
        await enqueue({**PAYLOAD, "sent": 0.0})
    say(time.monotonic() - began)


async def fill(enqueue: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Enqueue, so many at once, and say how long it took."""
    began = time.monotonic()
    for start in range(0, JOBS, AT_ONCE):
        await asyncio.gather(*(enqueue({**PAYLOAD, "sent": 0.0}) for _ in range(min(AT_ONCE, JOBS - start))))
    say(time.monotonic() - began)


async def send(enqueue: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Enqueue at a steady rate, each with the time it was sent."""
    pause, began = 1 / float(REST[0]), time.monotonic()
    for number in range(JOBS):
        await asyncio.sleep(max(0.0, began + number * pause - time.monotonic()))
        await enqueue({**PAYLOAD, "sent": time.monotonic()})
    say("sent")
