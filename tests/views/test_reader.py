"""Reads that take long."""

import asyncio
import sqlite3

import pytest

from gql_jobs.jobs.filter import JobFilter
from gql_jobs.views import reader
from tests.library import Library

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


async def test_a_read_that_nobody_waits_for_any_more_is_stopped(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(database: sqlite3.Connection, _: JobFilter) -> int:
        number: int = database.execute(ENDLESS).fetchone()[0]
        return number

    with monkeypatch.context() as slow:
        slow.setattr(reader, "count", count)
        for _ in range(reader.THREADS + 1):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(library.reader.count(JobFilter()), 0.05)
    async with asyncio.timeout(10):
        assert await library.reader.count(JobFilter()) == 0
