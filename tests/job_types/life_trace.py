"""What handlers of ``life_jobs`` share: a trace in the file ``LIFE_TRACE``, misdeeds as ``LIFE_MISDEEDS`` says."""

import asyncio
import os
from pathlib import Path
from typing import Protocol


class Pool:
    """A pool of connections, which is good on the event loop that it was opened on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def is_usable(self) -> bool:
        """Return whether this runs on that event loop."""
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is self._loop


class LifeState(Protocol):
    """What handlers find in the state of their process."""

    pool: Pool
    model: str


def trace(text: str) -> None:
    """Note what happens, with the process in which it does."""
    if path := os.environ.get("LIFE_TRACE"):
        with Path(path).open("a") as file:
            file.write(f"{text} {os.getpid()}\n")


def misdeed(name: str) -> str:
    """Return how the function of that name shall misbehave."""
    wanted = dict(pair.split("=") for pair in os.environ.get("LIFE_MISDEEDS", "").split(",") if pair)
    return wanted.get(name, "")
