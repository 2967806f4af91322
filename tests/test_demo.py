"""What the demo says where it cannot show anything. That it shows everything is what `make demo` checks."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import httpx
import pytest

from gql_jobs.demo import program
from gql_jobs.demo.promises import Broken
from gql_jobs.settings import Settings
from tests.child_processes import running_process
from tests.serving import serving

# Some tests here start everything, which a busy machine keeps waiting.
pytestmark = pytest.mark.timeout(180)


async def test_it_says_that_there_is_no_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WORKERS_WITHIN", 0.3)
    async with serving(settings) as api:
        arguments = program.parser().parse_args(["--only", "email", "--url", f"http://127.0.0.1:{api.port}"])
        with pytest.raises(Broken, match="No worker serves the queue default: start one with `gql-jobs worker`"):
            await program.run_demo(arguments, settings)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--count", "-1"), "argument --count: it must be 1 or more"),
        (("--url", "127.0.0.1:8000"), "is no address such as http://127.0.0.1:8000"),
    ],
)
def test_it_refuses_what_makes_no_sense(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.parser().parse_args(arguments)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/graphql"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/graphql"),
        ("https://jobs.example/graphql/", "https://jobs.example/graphql"),
        ("https://example.com/jobs/graphql", "https://example.com/jobs/graphql"),
    ],
)
def test_the_path_of_the_endpoint_may_be_left_out(given: str, endpoint: str) -> None:
    assert program.parser().parse_args(["--url", given]).url == endpoint


async def test_it_says_what_is_not_installed() -> None:
    without = "import runpy, sys; sys.modules['gql'] = None; runpy.run_module('gql_jobs.demo', run_name='__main__')"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", without, stderr=PIPE)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (2, b"demo: gql is not installed: run pip install 'gql-jobs[all]'.\n")


async def test_it_shows_each_table_once_and_says_when_its_server_is_gone(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "gql_jobs.demo", "--only", "email")
    async with running_process(*command, cwd=tmp_path, stdout=PIPE, stderr=STDOUT) as process:
        out, _ = await asyncio.wait_for(process.communicate(), 100)
    shown = out.decode()
    assert process.returncode == 0, shown
    for title in "Completed", "Failed, then recovered", "Dead letters":
        assert len(re.findall(rf"^{title} *$", shown, re.MULTILINE)) == 1, title
    # The log of its server is in the same terminal: nothing of it comes afterwards.
    assert "gql_jobs.dev.mailbox: kept mail" in shown
    assert "has stopped" in shown
    assert shown.endswith("The server is stopped, and its files are removed; --keep keeps both.\n")


async def test_it_keeps_its_server_until_it_is_interrupted_where_that_is_asked_for(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "gql_jobs.demo", "--only", "report", "--keep")
    async with running_process(*command, cwd=tmp_path, stdout=PIPE) as process:
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(100):
            while not lines or not lines[-1].startswith("The server goes on until Ctrl-C"):
                lines.append((await process.stdout.readline()).decode())
                assert lines[-1], lines
        links = [line.split()[-1] for line in lines if "/artifacts/" in line]
        async with httpx.AsyncClient(trust_env=False) as client:
            assert [(await client.get(link)).status_code for link in links] == [200, 200, 200]
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_it_says_which_setting_is_none(tmp_path: Path) -> None:
    environment = {**os.environ, "GQL_JOBS_NUM_WORKER": "9"}
    command = (sys.executable, "-m", "gql_jobs.demo", "--only", "email")
    async with running_process(*command, cwd=tmp_path, stdout=PIPE, stderr=PIPE, env=environment) as process:
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (
        1,
        "demo: GQL_JOBS_NUM_WORKER is no setting; did you mean GQL_JOBS_NUM_WORKERS?\n",
    )
