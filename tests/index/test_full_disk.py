"""An index whose disk is full, or whose file is taken away, in use: the trouble of a cache never reaches a client."""

import asyncio
import re
import resource
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from gql_jobs.index.index import DamagedIndex, Index, UnusableIndex, open_index
from gql_jobs.index.reader import open_reader
from gql_jobs.index.tables import is_failure
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import open_runtime
from tests.api.operations import CREATE, CREATE_MANY, HISTORY, PAGE, asked, create_many, page
from tests.deadline import until
from tests.library import CREATED
from tests.running import JOB_TYPES
from tests.serving import Api, Data, api_process, free_port
from tests.stories import JOB, queued, request

LAST = 200
STORY = [queued(seq, job_id=JOB[:-3] + f"{seq:03}") for seq in range(1, LAST + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


def _full(index: Index) -> None:
    """No page more than the file has now."""
    pages = index._database.execute("PRAGMA page_count").fetchone()[0]  # noqa: SLF001
    index._database.execute(f"PRAGMA max_page_count = {pages}")  # noqa: SLF001


async def test_a_full_disk_makes_the_index_unusable_and_leaves_the_file(path: Path) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        index.apply(STORY[:100], 100)
        _full(index)
        async with open_reader(index) as reader:
            with pytest.raises(UnusableIndex, match=r"cannot be read or written .*see that its disk has room"):
                index.apply(STORY[100:], LAST)
            with pytest.raises(UnusableIndex):
                await index.until_unusable()
            with pytest.raises(QueueUnavailable, match=r"cannot be used; try again\."):
                await reader.count(JobFilter())
            assert index.job(STORY[0].job_id) is None
    with open_index(path, CREATED, LAST, 86_400) as index:
        assert (index.rebuilt, index.position) == (0, 100)
        index.apply(STORY[100:], LAST)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_CANTOPEN, True),
        (sqlite3.SQLITE_READONLY, True),
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_INTERRUPT, False),
        (sqlite3.SQLITE_ERROR, False),
        (sqlite3.SQLITE_CONSTRAINT, False),
    ],
)
def test_what_the_disk_is_to_blame_for_is_told_from_interruptions_and_mistakes(code: int, failure: bool) -> None:
    error = sqlite3.OperationalError("…")
    error.sqlite_errorcode = code
    assert is_failure(error) is failure


def test_a_file_that_is_replaced_right_after_the_index_was_opened_is_noticed(path: Path) -> None:
    with open_index(path, CREATED, LAST, 86_400) as index:
        path.unlink()
        path.mkdir()
        index.check_files()
        assert isinstance(index.failure, DamagedIndex)


def _unlink(path: Path) -> None:
    path.unlink()


def _replace(path: Path) -> None:
    path.rename(path.with_name("another"))
    path.write_bytes(b"")


def _unlink_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


@pytest.mark.parametrize("take_away", [_unlink, _replace, _unlink_log])
async def test_a_file_that_is_taken_away_in_use_is_noticed_and_built_anew(
    settings: Settings, take_away: Callable[[Path], None]
) -> None:
    async def used() -> None:
        async with open_runtime(settings, JOB_TYPES) as runtime:
            created = await runtime.commands.create(request())
            assert await runtime.feed.wait_for(created.last_seq, 5)
            take_away(runtime.index.path)
            await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as ended:
            await used()
    assert ended.group_contains(DamagedIndex, match="is damaged .*built anew")
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await until(lambda: runtime.feed.caught_up, "the index is built anew")
        assert (runtime.index.rebuilt, await runtime.reader.count(JobFilter())) == (1, 1)


@asynccontextmanager
async def _served(settings: Settings, port: int) -> AsyncIterator[tuple[Api, Process, list[str]]]:
    """An API process with fifty jobs, and their ids."""
    async with api_process(settings, port, stderr=PIPE) as (api, process):
        ids = await create_many(api, [asked() for _ in range(50)])
        yield api, process, ids


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
async def test_a_full_disk_ends_the_process_and_costs_no_client_a_job_or_an_id(settings: Settings) -> None:
    def fill(process: Process) -> None:
        # No file may grow beyond what the write-ahead log has now.
        size = (settings.data_dir / "index-0.sqlite-wal").stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))

    await _lives_through(settings, fill, r"cannot be read or written")


async def test_an_index_deleted_in_use_ends_the_process_and_costs_no_client_a_job_or_an_id(settings: Settings) -> None:
    def delete(_: Process) -> None:
        for file in settings.data_dir.glob("index-0.sqlite*"):
            file.unlink()

    await _lives_through(settings, delete, r"is damaged")


async def _lives_through(settings: Settings, break_index: Callable[[Process], None], sentence: str) -> None:
    port = free_port()
    async with _served(settings, port) as (api, process, ids):
        break_index(process)
        codes, made = await _until_the_end(api, process, ids[0])
        assert await process.wait() == 1
        assert process.stderr is not None
        log = (await process.stderr.read()).decode()
    assert codes <= {"QUEUE_UNAVAILABLE"}
    assert re.search(rf"CRITICAL .*the API cannot go on: the index \S+ {sentence}", log), log
    assert "Traceback" not in log, log
    async with api_process(settings, port) as (api, _):
        assert (await page(api))["totalCount"] >= len(ids) + len(made)
        for job_id in made:
            assert await _exists(api, job_id)


async def _exists(api: Api, job_id: str) -> bool:
    """Whether the job exists."""
    found = await api.ask("query ($id: ID!) { job(id: $id) { id } }", id=job_id)
    return bool(found["job"]["id"] == job_id)


async def _until_the_end(api: Api, process: Process, known: str) -> tuple[set[str], list[str]]:
    """The codes of all errors until the process has ended, and the ids of all jobs that were answered."""
    codes: set[str] = set()
    made: list[str] = []
    operations: list[tuple[str, Data]] = [
        (CREATE_MANY, {"inputs": [asked() for _ in range(100)]}),
        (CREATE, {"input": asked()}),
        (PAGE, {"first": 100}),
        (HISTORY, {"id": known}),
    ]
    async with asyncio.timeout(30):
        while process.returncode is None:
            for query, variables in operations:
                with suppress(httpx.TransportError):
                    answer = (await api.http.post("/graphql", json={"query": query, "variables": variables})).json()
                    for error in answer.get("errors", []):
                        codes.add(error["extensions"]["code"])
                        if "mutation" in query:
                            # A creation whose fate is unknown names what may exist.
                            assert error["extensions"].keys() & {"jobId", "uncertainIds"} or (
                                "ending" in error["message"] or "nothing was" in error["message"]
                            ), error
                    for field in (answer.get("data") or {}).values():
                        if field and "jobs" in field:
                            made += [job["id"] for job in field["jobs"]]
                        elif field and "job" in field:
                            made.append(field["job"]["id"])
            await asyncio.sleep(0.005)
    return codes, made


async def test_a_start_on_a_full_disk_says_so_and_can_be_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("gql_jobs.index.index.create_index_file", full)
        with pytest.raises(UnusableIndex, match=r"cannot be opened .*see that its disk has room"):
            async with open_runtime(settings, JOB_TYPES):
                pass
    async with open_runtime(settings, JOB_TYPES):
        pass
