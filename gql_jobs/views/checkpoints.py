"""Moving what was committed from SQLite's log into the index file: in a thread, because it waits for the disk.

SQLite does it at the commit that makes the log long enough: 36 to 50 ms in which the process answered nobody, once in
300 messages. Here most of it is moved while others are written, and the rest, which must be all there is for the log to
begin anew, while the feed waits and nothing else does.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path

from gql_jobs.background import in_background
from gql_jobs.views.index import Index

log = logging.getLogger(__name__)

EVERY = 0.25
"""Seconds between two looks at how much was written."""
ENOUGH = 200
"""Messages whose pages are worth moving: some 2 500 where each is a transaction of its own, 10 MiB."""


@asynccontextmanager
async def keep_log_short(index: Index, applying: asyncio.Lock) -> AsyncIterator[None]:
    """Keep the log of an index short until the block ends.

    :param applying: held by whoever writes messages into the index, for as long as that takes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as thread:
        async with in_background(_keep_short(index, applying, thread)):
            yield


async def _keep_short(index: Index, applying: asyncio.Lock, thread: ThreadPoolExecutor) -> None:
    loop, moved = asyncio.get_running_loop(), index.position
    while True:
        await asyncio.sleep(EVERY)
        # An index that was begun anew is behind what was moved of the old one.
        if 0 <= index.position - moved < ENOUGH:
            continue
        moved = index.position
        await loop.run_in_executor(thread, _checkpoint, index.path)
        async with applying:
            await loop.run_in_executor(thread, _checkpoint, index.path)


def _checkpoint(path: Path) -> None:
    """Move what there is, without waiting for anybody."""
    try:
        # Never made anew: the file may have been replaced, or be gone.
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        # Whoever writes meets it as well and deals with it; until then SQLite moves the log by itself.
        log.debug("the log of the index %s was not moved: %s", path, error)
