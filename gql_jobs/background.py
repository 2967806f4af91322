"""Work that goes on beside a block of code. Whatever it is, it never outlives the block."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def in_background(endless: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run it until the block ends; if it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(endless)
        try:
            yield
        finally:
            task.cancel()
