"""How late the event loop is: everything that this process answers is late by as much."""

import asyncio
from collections import deque

INTERVAL = 0.1
"""Seconds between two samples."""
WINDOW = 15.0
"""Seconds over which the worst sample is remembered: as long as Prometheus usually waits between two scrapes."""


class LoopLag:
    """The worst delay of the last ``WINDOW`` seconds."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque([0.0], maxlen=round(WINDOW / INTERVAL))

    @property
    def worst(self) -> float:
        """In seconds."""
        return max(self._samples)

    async def run(self) -> None:
        """Take samples; never ends by itself."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            await asyncio.sleep(INTERVAL)
            self._samples.append(max(clock() - began - INTERVAL, 0.0))
