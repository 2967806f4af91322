"""The event loop of a process that serves: background tasks, the loop's lag, memory given back, open files."""

import asyncio
import ctypes
import gc
import logging
import resource
import sys
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

log = logging.getLogger(__name__)

_SAMPLE_INTERVAL = 0.1
"""Seconds between two samples of the loop's lag."""
_WINDOW = 15.0
"""Seconds over which the worst sample is kept: the usual interval between two scrapes by Prometheus."""
_FILES_WANTED = 65_536
_FEW_FILES = 256
"""Open files, connections among them, below which a busy process soon has none left."""
_YOUNGEST_THRESHOLD = 10_000
"""New objects after which the youngest generation is collected; Python's default is reached by one or two requests."""
_M_MMAP_THRESHOLD = -3
"""The option of ``mallopt``: bytes from which a block has pages of its own, which go back to the system with it."""
_LARGE_BLOCK = 1 << 18
_SWITCH_INTERVAL = 0.001
"""Seconds after which a thread that computes is asked to give up the interpreter."""


@asynccontextmanager
async def in_background(endless: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine until the block ends, then cancel it and wait until it has ended.

    What the block raises is raised as it is.

    :param endless: a coroutine that does not end by itself.

    :raises ExceptionGroup: if the coroutine fails; the block is cancelled.
    """
    own: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(endless)
            try:
                yield
            except BaseException as error:
                own = error
                raise
            finally:
                task.cancel()
    except BaseExceptionGroup as failures:
        if failures.exceptions != (own,):
            raise
    if own is not None:
        try:
            raise own
        finally:
            own = None  # its traceback holds this frame


class LoopLag:
    """Measures how late the event loop runs what is due; every answer of this process is late by as much."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque([0.0], maxlen=round(_WINDOW / _SAMPLE_INTERVAL))

    @property
    def worst(self) -> float:
        """The worst delay of the last 15 seconds, in seconds."""
        return max(self._samples)

    async def run(self) -> None:
        """Take samples; never ends by itself."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            await asyncio.sleep(_SAMPLE_INTERVAL)
            self._samples.append(max(clock() - began - _SAMPLE_INTERVAL, 0.0))


def tune_memory() -> None:
    """Set up the memory of a process that has started and now serves; call it once.

    Objects made at start-up (modules, models, the schema) live as long as the process: they are frozen, so that no
    collection walks them again. What requests and jobs leave behind, mostly cycles of GraphQL's executor, is collected
    less often, because a collection costs more than it frees.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNGEST_THRESHOLD, *gc.get_threshold()[1:])
    # Large blocks are bodies of requests and payloads of jobs. The C library would begin to keep their memory once one
    # of them was freed, in gaps between small blocks that live longer. Other C libraries have no such function.
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def let_the_loop_go_first() -> None:
    """Have threads give up the interpreter after a millisecond where the event loop waits for it; call it once.

    The loop gives it up at every system call and every read of SQLite, and would wait five milliseconds each time to
    get it back from a thread that computes (docs/decisions.md).
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)


def raise_file_limit() -> None:
    """Let this process open as many files and connections as it may, and warn where that is few; call it once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if 0 <= soft < _FEW_FILES:
        log.warning("only %d files and connections may be open at a time here: raise the limit (ulimit -n)", soft)
