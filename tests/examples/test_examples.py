"""Every client under examples/, as written, against ``gql-jobs dev``: nothing is missed or seen twice over a cut."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import psutil
import pytest

from tests.child_processes import running_process
from tests.running import ROOT
from tests.running_dev import Dev, running_dev

EXAMPLES = ROOT / "examples"
HELPERS = {"line", "operations", "record", "resume", "tickets"}
CLIENTS = [path for path in sorted((EXAMPLES / "javascript").glob("*.mjs")) if path.stem not in HELPERS]
CLIENTS += sorted((EXAMPLES / "python").glob("*_client.py"))
EVENT_SOURCE = EXAMPLES / "javascript" / "event_source.mjs"

pytestmark = pytest.mark.timeout(120)


def _running(client: Path, dev: Dev) -> AbstractAsyncContextManager[Process]:
    program = "node" if client.suffix == ".mjs" else sys.executable
    return running_process(program, str(client), dev.urls()["API"], stdout=PIPE, stderr=STDOUT)


async def _end(process: Process, already: str = "") -> str:
    """What an example has said when it ends well."""
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    said = already + out.decode()
    assert process.returncode == 0, said
    assert said.endswith("complete: no gap, no repetition\n")
    return said


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("client", CLIENTS, ids=[client.stem for client in CLIENTS])
async def test_a_client_sees_a_job_whole_though_its_connection_is_cut(dev: Dev, client: Path) -> None:
    async with _running(client, dev) as process:
        said = await _end(process)
    assert re.findall(r"^\d+ (?!JobProgress)(\w+)", said, re.MULTILINE) == [
        "JobQueued",
        *("JobStarted", "JobFailed") * 2,
        *("JobStarted", "JobCompleted"),
    ]
    # Seen before it, and behind it.
    assert re.search(r"^\d.*\n-- the (line|connection) is cut\n(.*\n)*-- .*\n\d", said, re.MULTILINE), said


@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_source_sees_a_job_whole_though_the_api_is_killed(dev: Dev) -> None:
    async with _running(EVENT_SOURCE, dev) as process:
        said = await _until_it_says("-- the line is cut", process)
        _api(dev).kill()
        assert "EventSource reconnects" in await _end(process, said)
    await dev.api_is_back()


@pytest.mark.usefixtures("installed")
async def test_every_client_sees_its_job_whole_though_the_api_is_stopped(tmp_path: Path) -> None:
    # Long delays: when the last client has come back after its cut, no job has ended yet.
    async with running_dev(tmp_path, GQL_JOBS_BASE_RETRY_DELAY="4") as dev, AsyncExitStack() as stack:
        await dev.ready()
        processes = [await stack.enter_async_context(_running(client, dev)) for client in CLIENTS]
        again = re.compile("(JobStarted.*){2}", re.DOTALL)
        said = await asyncio.gather(*(_until_it_says(again, process) for process in processes))
        _api(dev).terminate()
        await asyncio.gather(*map(_end, processes, said))


async def _until_it_says(pattern: str | re.Pattern[str], process: Process) -> str:
    """What an example has said until then."""
    assert process.stdout is not None
    said = ""
    while not re.search(pattern, said):
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line, said
        said += line.decode()
    return said


def _api(dev: Dev) -> psutil.Process:
    api = dev.child("gql_jobs api")
    assert api is not None
    return api


def test_every_example_is_explained() -> None:
    explained = (EXAMPLES / "README.md").read_text()
    assert {client.name for client in CLIENTS} <= set(re.findall(r"\w+\.(?:mjs|py)", explained))
    assert len(CLIENTS) == 7
