"""Waiting in tests: ask again until the answer is there or the deadline is over. Never sleeps and hopes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def until(condition: Callable[[], Awaitable[T | None]], what: str, *, within: float = ...) -> T: ...
@overload
async def until(condition: Callable[[], T | None], what: str, *, within: float = ...) -> T: ...
async def until(condition: Callable[[], Any], what: str, *, within: float = 10.0) -> Any:
    """The first true answer of ``condition``, asked every 20 ms.

    :raises AssertionError: with ``what`` if there is none ``within`` seconds.
    """
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.02)
