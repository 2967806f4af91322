"""A damaged index file, at rest or while it is in use: built anew at once, by reads as well as by writes."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gql_jobs.graphql.mutations import indexed
from gql_jobs.index.index import Index, open_index
from gql_jobs.index.reader import open_reader
from gql_jobs.index.tables import FORMAT
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Completed, Started
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.deadline import until
from tests.library import CREATED
from tests.rows import rows
from tests.running import JOB_TYPES
from tests.stories import JOB, OTHER, queued, request, said

PAGE = 4096
STORY = [
    queued(1, tags=("a",)),
    said(2, Started),
    said(3, Completed),
    *(queued(seq, job_id=OTHER[:-3] + f"{seq:03}", tags=("b",)) for seq in range(4, 200)),
]
LAST = STORY[-1].seq


def overwrite(path: Path, first_page: int = 1) -> None:
    """Noise in place of every page from that one on, also of what has not been moved from the log into the file."""
    for place, start in ((path, first_page * PAGE), (path.with_name(path.name + "-wal"), 32)):
        if place.exists():
            with place.open("r+b") as file:
                file.seek(start)
                file.write(os.urandom(max(place.stat().st_size - start, 0)))


def spoil(path: Path, *names: str) -> None:
    """Noise in place of the first pages of these tables or indexes."""
    with closing(sqlite3.connect(path)) as database:
        sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        pages = [database.execute(sql, (name,)).fetchone()[0] for name in names]
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(os.urandom(PAGE))


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.unlink()
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        database.execute("CREATE TABLE jobs (id TEXT, pay INTEGER)")
        database.execute("INSERT INTO meta VALUES ('format', ?), ('stream_created', ?)", (FORMAT, CREATED))
    database.close()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "somebody's").write_text("file")


def _log_of_another(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(os.urandom(5 * PAGE))
    path.with_name(path.name + "-shm").write_bytes(os.urandom(PAGE))
    overwrite(path, 0)


def _rotten_blobs(path: Path) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE jobs SET spec = x'00', state = x'ff'")
    database.close()


DAMAGES = [_truncate, overwrite, _empty, _foreign, _folder, _log_of_another, _rotten_blobs]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.mark.parametrize("damage", DAMAGES)
async def test_whatever_was_done_to_the_file_the_first_reads_find_it_and_it_is_built_anew(
    path: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for place in (path, tmp_path / "whole"):
        with open_index(place, CREATED, LAST, 86_400) as index:
            index.apply(STORY, LAST)
    damage(path)
    with open_index(path, CREATED, LAST, 86_400) as index:
        async with open_reader(index) as reader:
            with suppress(QueueUnavailable):
                await reader.page(JobFilter(), JobOrder(), first=500, after=None, offset=0)
            assert (index.position, index.rebuilt, index.job(JOB)) == (0, 1, None)
            index.apply(STORY, LAST)
            assert await reader.count(JobFilter(tags=("b",))) == 196
    assert rows(path) == rows(tmp_path / "whole")


@pytest.mark.parametrize(
    "use",
    [
        lambda index: index.events(JOB),
        lambda index: index.latest_event(JOB),
        lambda index: index.artifacts(JOB),
        lambda index: index.first_seq(JOB),
    ],
)
def test_damage_met_by_the_index_itself_has_it_built_anew_and_whoever_asked_come_again(
    path: Path, use: Callable[[Index], object]
) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
    spoil(path, "events_job", "artifacts")
    renewed: list[int] = []
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.on_renewal = lambda: renewed.append(index.position)
        with pytest.raises(QueueUnavailable, match="being built anew"):
            use(index)
        assert renewed == [0]
        use(index)
        index.apply(STORY, LAST)
        assert index.job(JOB) is not None


def test_damage_met_by_a_write_has_the_index_built_anew_without_an_error(path: Path) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
    spoil(path, "jobs_created")
    with open_index(path, CREATED, LAST, 86_400) as index:
        assert index.apply([queued(LAST + 1, job_id=OTHER)], LAST + 1) == []
        assert (index.position, index.job(JOB), index.rebuilt) == (0, None, 1)


async def test_an_error_that_is_not_the_file_s_fault_leaves_it_alone(path: Path) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
        async with open_reader(index) as reader:
            with pytest.raises(UnicodeEncodeError):
                await reader.count(JobFilter(tags=("\ud800",)))
        assert (index.generation, index.position) == (0, LAST)


async def test_a_process_that_starts_on_a_damaged_file_is_ready_with_every_job(settings: Settings) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        created = await runtime.commands.create_many([request() for _ in range(50)])
        assert await runtime.feed.wait_for(created[-1].job.last_seq, 5)
        path = runtime.index.path
    overwrite(path, 3)
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await _complete(runtime, 50)
        assert runtime.feed.counters.rebuilt == 1


async def _complete(runtime: Runtime, jobs: int) -> None:
    async def counted() -> bool:
        with suppress(QueueUnavailable):
            page = await runtime.reader.page(JobFilter(), JobOrder(), first=500, after=None, offset=0)
            return len(page.jobs) == jobs == await runtime.reader.count(JobFilter())
        return False

    await until(counted, "every job is in the index")
    await until(lambda: runtime.feed.caught_up, "the feed has caught up")


async def test_damage_in_use_is_mended_without_a_restart_and_subscribers_miss_nothing(runtime: Runtime) -> None:
    created = await runtime.commands.create_many([request() for _ in range(50)])
    job = await indexed(runtime, created[-1].job)
    watching = runtime.watch.job(job.id)
    first = await anext(watching)
    overwrite(runtime.index.path)
    with pytest.raises(QueueUnavailable, match="being built anew"):
        await runtime.reader.page(JobFilter(), JobOrder(), first=500, after=None, offset=0)
    rest = asyncio.create_task(_rest(watching))
    await runtime.commands.cancel(job.id)
    await runtime.commands.create(request())
    await _complete(runtime, 51)
    assert runtime.feed.counters.rebuilt == 2
    assert [first, *(await rest)] == runtime.index.events(job.id)


async def _rest(watching: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in watching]
