"""Reads that are over before a thread would have begun: on the event loop, with a clock that ends all others.

A page of 50 jobs takes SQLite a fraction of a millisecond. In a thread it costs more than that to hand it over, and at
every row SQLite gives the interpreter's lock back and has to win it from the event loop again: 40 % of the samples of a
process that answers pages were in its two threads.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from gql_jobs.views.index import Index
from gql_jobs.views.opened import Opened, current

T = TypeVar("T")

LONGEST = 0.002
"""Seconds of CPU after which a read is given up here. By the clock, one that met a busy thread would be given up too,
go to a thread itself and keep the next one waiting: the loop would never get its reads back."""
BLOCKED = 0.05
"""Seconds on the clock after which it is given up, too: a cold file on a slow disk takes no CPU."""
PAUSE = 0.1
"""Seconds for which nothing is read here after that: giving up again and again would hold the loop."""
_STEPS = 1000
"""Instructions of SQLite, some ten microseconds, between two looks at the clock."""


class TooLong(Exception):
    """The read has to be done in a thread."""


class ShortReads:
    """One connection for the event loop."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._opened: Opened | None = None
        self._not_before = 0.0

    def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` returns, which must not do more than a page's work after the last row has come.

        :raises TooLong: if it takes SQLite too long, or another read did a moment ago.
        """
        began, used = time.monotonic(), time.thread_time()
        if began < self._not_before:
            raise TooLong

        def is_long() -> bool:
            return time.thread_time() > used + LONGEST or time.monotonic() > began + BLOCKED

        self._opened = current(self._opened, self._index, self._index.generation)
        self._opened.database.set_progress_handler(is_long, _STEPS)
        try:
            return read(self._opened.database)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            self._not_before = time.monotonic() + PAUSE
            raise TooLong from None

    def close(self) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened.database.close()
