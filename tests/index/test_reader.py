"""Reads that take long."""

import asyncio
import sqlite3
import threading

import pytest

from gql_jobs.index import reader
from gql_jobs.jobs.requests import JobFilter
from tests.library import Library

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
LONG = ENDLESS.replace("FROM n)", "FROM n LIMIT 1000000)")


async def test_a_read_that_nobody_waits_for_any_more_is_stopped(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(reader, "count_jobs", lambda database, job_filter: _counted(database, ENDLESS, job_filter))
        for _ in range(reader.READ_THREADS + 1):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(library.reader.count(JobFilter()), 0.05)
    async with asyncio.timeout(10):
        assert await library.reader.count(JobFilter()) == 0


async def test_only_what_is_over_soon_is_read_on_the_event_loop(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOP_READ_PAUSE", 60.0)
    loop, threads, query = threading.current_thread(), list[threading.Thread](), "SELECT 7"

    def count(database: sqlite3.Connection, job_filter: JobFilter) -> int:
        threads.append(threading.current_thread())
        return _counted(database, query, job_filter)

    monkeypatch.setattr(reader, "count_jobs", count)
    assert await library.reader.count(JobFilter()) == 7
    assert threads == [loop]
    query = LONG
    assert await library.reader.count(JobFilter()) == 1_000_000
    assert [thread is loop for thread in threads] == [True, True, False]
    # Not even tried for a while, so that giving up cannot take all of the loop.
    query = "SELECT 7"
    assert await library.reader.count(JobFilter()) == 7
    assert [thread is loop for thread in threads] == [True, True, False, False]


def _counted(database: sqlite3.Connection, query: str, _: JobFilter) -> int:
    number: int = database.execute(query).fetchone()[0]
    return number
