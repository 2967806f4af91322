"""What the demo says where it cannot show anything. That it shows everything is what `make demo` checks."""

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest

from gql_jobs.demo import program
from gql_jobs.demo.promises import Broken
from gql_jobs.settings import Settings
from tests.serving import serving


async def test_it_says_that_there_is_no_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WORKERS_WITHIN", 0.3)
    async with serving(settings) as api:
        arguments = program.parser().parse_args(["--only", "email", "--url", f"http://127.0.0.1:{api.port}"])
        with pytest.raises(Broken, match="No worker serves the queue default: start one with `gql-jobs worker`"):
            await program.run_demo(arguments)


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
