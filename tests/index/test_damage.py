"""A damaged index file: found at rest it is built anew at once, found in use it ends the process and is gone."""

import asyncio
import os
import re
import sqlite3
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import aclosing, closing, suppress
from pathlib import Path

import httpx
import pytest

from gql_jobs.index.index import DamagedIndex, Index, open_index
from gql_jobs.index.reader import Reader, open_reader
from gql_jobs.index.tables import FORMAT
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Completed, Started
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.api.operations import CANCEL, CREATE, FIND, HISTORY, PAGE, WATCH, asked, create_many, page
from tests.deadline import until
from tests.library import CREATED
from tests.rows import PAGE_SIZE, overwrite, rows
from tests.running import JOB_TYPES
from tests.serving import Api, Data, api_process, free_port
from tests.stories import JOB, OTHER, queued, request, said

STORY = [
    queued(1, tags=("a",)),
    said(2, Started),
    said(3, Completed),
    *(queued(seq, job_id=OTHER[:-3] + f"{seq:03}", tags=("b",)) for seq in range(4, 200)),
]
LAST = STORY[-1].seq


def spoil(path: Path, *names: str) -> None:
    """Noise in place of the first pages of these tables or indexes."""
    with closing(sqlite3.connect(path)) as database:
        sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        pages = [database.execute(sql, (name,)).fetchone()[0] for name in names]
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE_SIZE)
            file.write(os.urandom(PAGE_SIZE))


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // PAGE_SIZE * PAGE_SIZE)


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
    path.with_name(path.name + "-wal").write_bytes(os.urandom(5 * PAGE_SIZE))
    path.with_name(path.name + "-shm").write_bytes(os.urandom(PAGE_SIZE))
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
            if index.position == LAST:
                with pytest.raises(QueueUnavailable, match="being built anew"):
                    await reader.page(JobFilter(), JobOrder(), first=500, after=None, offset=0)
                await _is_gone(index, reader)
    with open_index(path, CREATED, LAST, 86_400) as index:
        async with open_reader(index) as reader:
            await reader.page(JobFilter(), JobOrder(), first=500, after=None, offset=0)
            assert (index.position, index.job(JOB)) == (0, None)
            index.apply(STORY, LAST)
            assert await reader.count(JobFilter(tags=frozenset({"b"}))) == 196
    assert rows(path) == rows(tmp_path / "whole")


async def _is_gone(index: Index, reader: Reader) -> None:
    """The file is deleted, the process is told to end, and nobody is answered any more."""
    assert not index.path.is_file()
    async with asyncio.timeout(1):
        with pytest.raises(DamagedIndex, match=r"the index .* is damaged \(.*built anew when"):
            await index.until_unusable()
    assert index.job(OTHER) is None
    for use in (index.events, index.artifacts, index.first_seq):
        with pytest.raises(QueueUnavailable, match="being built anew"):
            use(JOB)
    with pytest.raises(DamagedIndex):
        index.apply([queued(LAST + 1, job_id=OTHER)], LAST + 1)
    for read in (reader.count(JobFilter()), reader.ids(JobFilter(), 10)):
        with pytest.raises(QueueUnavailable, match="being built anew"):
            await read


@pytest.mark.parametrize(
    "use",
    [
        lambda index: index.events(JOB),
        lambda index: index.latest_event(JOB),
        lambda index: index.artifacts(JOB),
        lambda index: index.first_seq(JOB),
    ],
)
async def test_damage_met_by_the_index_itself_deletes_it_and_whoever_asked_come_again(
    path: Path, use: Callable[[Index], object]
) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
    spoil(path, "events_job", "artifacts")
    with open_index(path, CREATED, LAST, 86_400) as index:
        async with open_reader(index) as reader:
            with pytest.raises(QueueUnavailable, match="being built anew"):
                use(index)
            await _is_gone(index, reader)
    with open_index(path, CREATED, LAST, 86_400) as index:
        assert (index.position, index.rebuilt) == (0, 1)
        use(index)
        index.apply(STORY, LAST)
        assert index.job(JOB) is not None


async def test_damage_met_by_looking_for_a_job_answers_that_the_index_does_not_know_it(path: Path) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
    spoil(path, "jobs_id")
    with open_index(path, CREATED, LAST, 86_400) as index:
        async with open_reader(index) as reader:
            assert index.job(JOB) is None
            await _is_gone(index, reader)


async def test_damage_met_by_a_write_deletes_the_index(path: Path) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
    spoil(path, "jobs_created")
    with open_index(path, CREATED, LAST, 86_400) as index:
        async with open_reader(index) as reader:
            with pytest.raises(DamagedIndex, match="is damaged"):
                index.apply([queued(LAST + 1, job_id=OTHER)], LAST + 1)
            await _is_gone(index, reader)
    with open_index(path, CREATED, LAST, 86_400) as index:
        assert (index.position, index.job(JOB), index.rebuilt) == (0, None, 1)


async def test_a_damaged_index_that_cannot_be_deleted_ends_the_process_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr("gql_jobs.index.index.delete_index_file", refuse)
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
    spoil(path, "artifacts")
    with open_index(path, CREATED, LAST, 86_400) as index:
        with pytest.raises(QueueUnavailable, match="being built anew"):
            index.artifacts(JOB)
        with pytest.raises(DamagedIndex):
            await index.until_unusable()
    assert "cannot be deleted: not permitted" in caplog.text


async def test_an_error_that_is_not_the_file_s_fault_leaves_it_alone(path: Path) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY, LAST)
        async with open_reader(index) as reader:
            with pytest.raises(UnicodeEncodeError):
                await reader.count(JobFilter(tags=frozenset({"\ud800"})))
            assert await reader.count(JobFilter()) == 197
        index.raise_if_unusable()
    with open_index(path, CREATED, LAST, 86_400) as index:
        assert (index.rebuilt, index.position) == (0, LAST)


async def test_a_process_that_starts_on_a_damaged_file_is_ready_with_every_job_when_it_is_started_again(
    settings: Settings,
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        created = await runtime.commands.create_many([request() for _ in range(50)])
        assert await runtime.feed.wait_for(created[-1].job.last_seq, 5)
        path = runtime.index.path
    overwrite(path, 3)
    with suppress(ExceptionGroup):
        async with open_runtime(settings, JOB_TYPES) as runtime:
            await _complete(runtime, 50)
    assert not path.exists() or runtime.feed.counters.rebuilt == 1
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await _complete(runtime, 50)


async def _complete(runtime: Runtime, jobs: int) -> None:
    async def counted() -> bool:
        with suppress(QueueUnavailable):
            page = await runtime.reader.page(JobFilter(), JobOrder(), first=500, after=None, offset=0)
            return len(page.jobs) == jobs == await runtime.reader.count(JobFilter())
        return False

    await until(counted, "every job is in the index")
    await until(lambda: runtime.feed.caught_up, "the feed has caught up")


async def test_damage_in_use_ends_the_process_with_a_sentence_and_subscribers_that_resume_miss_nothing(
    settings: Settings,
) -> None:
    port = free_port()
    async with api_process(settings, port, stderr=PIPE) as (api, process):
        ids = await create_many(api, [asked() for _ in range(50)])
        job_id = ids[-1]
        async with aclosing(api.events(WATCH, id=job_id)) as watching:
            seen = [await anext(watching)]
            overwrite(settings.data_dir / "index-0.sqlite")
            codes = await _codes_until_the_end(api, process, job_id)
        assert codes == {"QUEUE_UNAVAILABLE"}
        assert await process.wait() == 1
        assert process.stderr is not None
        log = (await process.stderr.read()).decode()
    (sentence,) = [line for line in log.splitlines() if "CRITICAL" in line]
    assert re.search(r"the API cannot go on: the index \S+ is damaged \(.*\); it is built anew when this", sentence)
    assert "Traceback" not in log
    async with api_process(settings, port) as (api, _):
        await api.ask(CANCEL, id=job_id)
        assert (await page(api))["totalCount"] >= 50
        async with aclosing(api.events(WATCH, id=job_id, after=seen[-1]["cursor"])) as resumed:
            seen += [event async for event in resumed]
        assert seen == (await api.ask(HISTORY, id=job_id))["job"]["events"]


async def _codes_until_the_end(api: Api, process: Process, job_id: str) -> set[str]:
    """The codes of all errors that a client gets until the process has ended."""
    operations: list[tuple[str, Data]] = [
        (PAGE, {"first": 100}),
        (FIND, {"id": job_id}),
        (HISTORY, {"id": job_id}),
        (CREATE, {"input": asked()}),
    ]
    codes: set[str] = set()
    async with asyncio.timeout(20):
        while process.returncode is None:
            for query, variables in operations:
                with suppress(httpx.TransportError):
                    answer = await api.http.post("/graphql", json={"query": query, "variables": variables})
                    codes |= {error["extensions"]["code"] for error in answer.json().get("errors", [])}
            await asyncio.sleep(0.005)
    return codes
