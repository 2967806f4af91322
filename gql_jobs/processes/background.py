"""Work that goes on beside a block of code. Whatever it is, it never outlives the block."""

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

# The cyclic garbage collector of a process that has started and now serves.
#
# What start-up has made (modules, models, the schema) lives as long as the process: frozen, it is not walked again and
# again. What a request or a job leaves behind, cycles of GraphQL's executor for the most part, is collected in larger
# portions, because looking costs more than it frees.

YOUNGEST = 10_000
"""New objects after which the youngest generation is looked at; Python's own 700 is one or two requests."""


def settle() -> None:
    """Call once, when everything has been loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST, *gc.get_threshold()[1:])


@asynccontextmanager
async def in_background(endless: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run it until the block ends; if it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(endless)
        try:
            yield
        finally:
            task.cancel()
