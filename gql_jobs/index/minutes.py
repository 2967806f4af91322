"""What happened in each queue minute by minute, for the last day: counted by the writer, kept beside the jobs.

The figures follow from messages and the server's times alone, so every process that has applied the same messages has
the same; they outlive the jobs. An index that was begun after jobs had expired does not know what happened before: of
that time it says nothing.
"""

import sqlite3
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple

from gql_jobs.index.tables import minute_at

KEPT_MINUTES = 1440
"""Minutes whose figures are kept: a day."""
BOUNDS = tuple(sorted({round(2 ** (step / 4)) for step in range(4 * 30)}))
"""Upper bounds of the buckets that times are counted in, in milliseconds: above 100 each is
at most a fifth above the one before."""


class What(IntEnum):
    """What a row of ``minutes`` counts; the times are counted by bucket."""

    CREATED = 0
    STARTED = 1
    COMPLETED = 2
    FAILED = 3
    DEAD_LETTERED = 4
    START_DELAY = 5
    RUN = 6


class Minute(NamedTuple):
    """The figures of a queue in the minute that begins ``at``. Times are in milliseconds; None where there was none.

    A time is the upper bound of its bucket.
    """

    at: datetime
    created: int
    started: int
    completed: int
    failed: int
    dead_lettered: int
    start_delay_p50: int | None
    start_delay_p95: int | None
    run_p50: int | None
    run_p95: int | None


def read_minutes(database: sqlite3.Connection, queue: str, first: int, last: int) -> list[Minute]:
    """Return the figures of a queue for each minute from ``first`` to ``last`` of which the index knows all.

    :param first: a number as ``minute_of`` returns it.
    """
    row = database.execute("SELECT value FROM meta WHERE key = 'figures_from'").fetchone()
    first = max(first, int(row[0]) if row is not None else 0)
    found: dict[int, dict[int, dict[int, int]]] = {}
    sql = "SELECT minute, what, bucket, n FROM minutes WHERE queue = ? AND minute BETWEEN ? AND ?"
    sql += " ORDER BY minute, what, bucket"
    for minute, what, bucket, n in database.execute(sql, (queue, first, last)):
        found.setdefault(minute, {}).setdefault(what, {})[bucket] = n
    return [_minute(number, found.get(number, {})) for number in range(first, last + 1)]


def _minute(number: int, counted: dict[int, dict[int, int]]) -> Minute:
    counts = [sum(counted.get(what, {}).values()) for what in list(What)[: What.START_DELAY]]
    times = [_percentile(counted.get(what, {}), part) for what in (What.START_DELAY, What.RUN) for part in (50, 95)]
    return Minute(minute_at(number), *counts, *times)


def _percentile(buckets: dict[int, int], part: int) -> int | None:
    """Return the upper bound of the bucket in which so many of a hundred are reached; None if there are none."""
    left = -(-sum(buckets.values()) * part // 100)
    for bucket, n in buckets.items():
        left -= n
        if left <= 0:
            return BOUNDS[bucket]
    return None
