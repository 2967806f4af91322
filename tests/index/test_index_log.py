"""The write-ahead log of the index is moved into its file while messages are written."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from msgspec import Raw

from gql_jobs.index.index import Index, open_index
from gql_jobs.index.tables import move_wal
from gql_jobs.live import feed as feed_module
from gql_jobs.live.feed import keep_wal_short
from tests.deadline import until
from tests.library import CREATED
from tests.rows import rows
from tests.stories import queued

BATCH = 50


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "WAL_INTERVAL", 0.001)
    monkeypatch.setattr(feed_module, "WAL_MESSAGES", BATCH)


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[Index]:
    with open_index(tmp_path / "index.sqlite", CREATED, 1_000_000, 86_400.0) as opened:
        yield opened


def _job(number: int) -> str:
    return f"018f3c6e-7d3a-7c52-9d0a-{number:012x}"


async def _fill(index: Index, applying: asyncio.Lock, until_true: Callable[[], bool]) -> int:
    """Write jobs until that is true; how many."""
    while not until_true():
        first = index.position + 1
        messages = [queued(seq, job_id=_job(seq)) for seq in range(first, first + BATCH)]
        async with applying:
            index.apply(messages, messages[-1].seq)
        await asyncio.sleep(0)
    return index.position


def _of_file_alone(path: Path, aside: Path) -> int:
    """How many jobs the file has, as it would be without its log; none if it is being written just now."""
    shutil.copy(path, aside)
    with closing(sqlite3.connect(aside)) as database, suppress(sqlite3.DatabaseError):
        return int(database.execute("SELECT count(*) FROM jobs").fetchone()[0])
    return 0


async def test_what_is_committed_comes_into_the_file_while_others_write(index: Index, tmp_path: Path) -> None:
    applying = asyncio.Lock()
    async with keep_wal_short(index, applying):
        written = await _fill(index, applying, lambda: index.position >= 20 * BATCH)
        await until(lambda: _of_file_alone(index.path, tmp_path / "aside") == written, "all of it is in the file")


async def test_the_log_begins_anew_so_that_it_does_not_grow(index: Index) -> None:
    applying, log = asyncio.Lock(), index.path.with_name("index.sqlite-wal")

    def begun_anew() -> bool:
        """Other salts are in its head than at first."""
        return log.read_bytes()[16:24] != first

    await _fill(index, applying, lambda: index.position > 0)
    first = log.read_bytes()[16:24]
    async with keep_wal_short(index, applying):
        await _fill(index, applying, begun_anew)


async def test_a_few_large_jobs_are_moved_as_well(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "WAL_MESSAGES", 1_000_000)
    applying = asyncio.Lock()
    async with keep_wal_short(index, applying):
        # Its count begins with the first turn of its own.
        await asyncio.sleep(0)
        large = Raw(b'"%b"' % (b"x" * (1 << 20)))
        for seq in range(1, 1 + feed_module.WAL_BYTES // len(large) + 1):
            async with applying:
                index.apply([queued(seq, job_id=_job(seq), payload=large)], seq)
        await until(lambda: _of_file_alone(index.path, tmp_path / "aside") >= 1, "they are in the file")


async def test_of_an_index_that_is_found_damaged_meanwhile_nothing_comes_back_and_the_next_is_kept_short_as_well(
    tmp_path: Path,
) -> None:
    path, applying = tmp_path / "index.sqlite", asyncio.Lock()
    with open_index(path, CREATED, 1_000_000, 86_400.0) as damaged:
        async with keep_wal_short(damaged, applying):
            await _fill(damaged, applying, lambda: damaged.position >= 5 * BATCH)
            damage = sqlite3.DatabaseError("file is not a database")
            damage.sqlite_errorcode = sqlite3.SQLITE_NOTADB
            damaged.read_error(damage)
            await asyncio.sleep(0.05)
    assert not path.exists()
    with open_index(path, CREATED, 1_000_000, 86_400.0) as index:
        assert index.position == 0
        async with keep_wal_short(index, applying):
            written = await _fill(index, applying, lambda: index.position >= 2 * BATCH)
            await until(lambda: _of_file_alone(index.path, tmp_path / "aside") == written, "all of it is in the file")
    assert len(rows(path)["jobs"]) == written


def test_a_file_that_is_gone_is_neither_made_anew_nor_a_failure(tmp_path: Path) -> None:
    move_wal(tmp_path / "index.sqlite")
    assert list(tmp_path.iterdir()) == []
