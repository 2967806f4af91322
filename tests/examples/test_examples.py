"""Every client under examples/, as written, against ``gql-jobs dev``: nothing is missed or seen twice over a cut."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import pytest

from tests.deadline import until
from tests.running import ROOT
from tests.running_dev import Dev

EXAMPLES = ROOT / "examples"
HELPERS = {"line", "operations", "record", "resume"}
CLIENTS = [path for path in sorted((EXAMPLES / "javascript").glob("*.mjs")) if path.stem not in HELPERS]
CLIENTS += sorted((EXAMPLES / "python").glob("*.py"))
EVENT_SOURCE = EXAMPLES / "javascript" / "event_source.mjs"

pytestmark = pytest.mark.timeout(120)


async def _started(client: Path, dev: Dev) -> Process:
    program = "node" if client.suffix == ".mjs" else sys.executable
    return await asyncio.create_subprocess_exec(program, client, dev.urls()["API"], stdout=PIPE, stderr=STDOUT)


async def _end(process: Process, already: str = "") -> str:
    """What an example has said when it ends well."""
    try:
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = already + out.decode()
    assert process.returncode == 0, said
    return said


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("client", CLIENTS, ids=[client.stem for client in CLIENTS])
async def test_a_client_sees_a_job_whole_though_its_connection_is_cut(dev: Dev, client: Path) -> None:
    said = await _end(await _started(client, dev))
    assert re.findall(r"^\d+ (?!JobProgress)(\w+)", said, re.MULTILINE) == [
        "JobQueued",
        *("JobStarted", "JobFailed") * 2,
        *("JobStarted", "JobCompleted"),
    ]
    # Seen before it, and behind it.
    assert re.search(r"^\d.*\n-- the (line|connection) is cut\n(.*\n)*-- .*\n\d", said, re.MULTILINE), said


@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_source_sees_a_job_whole_though_the_api_is_killed(dev: Dev) -> None:
    process = await _started(EVENT_SOURCE, dev)
    assert process.stdout is not None
    said = ""
    while "JobFailed" not in said:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line, said
        said += line.decode()
    api = dev.child("gql_jobs api")
    assert api is not None
    api.kill()
    said = await _end(process, said)
    assert said.endswith("complete: no gap, no repetition\n")
    await until(lambda: dev.child("gql_jobs api"), "the API is back")


def test_every_example_is_explained() -> None:
    explained = (EXAMPLES / "README.md").read_text()
    assert {client.name for client in CLIENTS} <= set(re.findall(r"\w+\.(?:mjs|py)", explained))
    assert len(CLIENTS) == 7
