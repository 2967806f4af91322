"""The command line: what it refuses it refuses in a sentence."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import nats
import pytest
from click.testing import CliRunner

from gql_jobs.cli import cli
from gql_jobs.settings import Settings
from gql_jobs.web.pages import addresses
from tests.by_hand import plain_nats
from tests.child_processes import running_process
from tests.forked import run_command
from tests.serving import free_port

# Every test here starts commands, which a busy machine keeps waiting.
pytestmark = pytest.mark.timeout(180)
_MODULE = """
from gql_jobs import Model, job_type
class P(Model): text: str
class R(Model): text: str
job_type("cli_probe", payload=P, result=R, handler="nowhere:handle")
"""


async def _run(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """``gql-jobs`` in that folder: exit code, stdout, stderr."""
    return await asyncio.to_thread(run_command, *arguments, folder=cwd, environment=environment)


async def _run_anew(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """The same by an interpreter of its own, which finds modules as a user's does."""
    command = (str(Path(sys.executable).parent / "gql-jobs"), *arguments)
    env = {**os.environ, **environment}
    async with running_process(*command, cwd=cwd, stdout=PIPE, stderr=PIPE, env=env) as process:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("command", [[], ["nats"], ["api"], ["worker"], ["dev"], ["schema"]])
def test_every_command_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_the_list_of_commands_cuts_no_sentence() -> None:
    assert "..." not in CliRunner().invoke(cli, ["--help"]).output.split("Commands:")[1]


def test_the_version_is_printed() -> None:
    assert "0.1.0" in CliRunner().invoke(cli, ["--version"]).output


@pytest.mark.parametrize("command", ["worker", "dev"])
async def test_an_unknown_import_is_a_sentence(tmp_path: Path, command: str) -> None:
    code, _, err = await _run(command, "--import", "no_such_module", cwd=tmp_path)
    assert code == 2
    assert err == "Error: Cannot load the job types: No module named 'no_such_module'.\n"


async def test_a_folder_of_the_user_s_that_is_called_workers_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    for name in ("__init__.py", "__main__.py"):
        (tmp_path / "workers" / name).write_text("raise SystemExit('another program')")
    code, _, err = await _run_anew("worker", "--queues", "no.where", cwd=tmp_path)
    assert code == 2
    assert "no.where" in err
    assert "another program" not in err


async def test_a_bad_setting_is_a_sentence(tmp_path: Path) -> None:
    code, _, err = await _run("worker", cwd=tmp_path, GQL_JOBS_NUM_WORKERS="many")
    assert code == 2
    assert err.startswith("Error: GQL_JOBS_NUM_WORKERS: Input should be a valid integer")
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["api", "worker", "dev", "doctor", "mailbox", "nats"])
async def test_a_setting_that_there_is_not_is_refused_with_the_nearest_name(tmp_path: Path, command: str) -> None:
    code, out, err = await _run(command, cwd=tmp_path, GQL_JOBS_NUM_WORKER="9")
    assert (code, out) == (2, "")
    assert err.endswith("GQL_JOBS_NUM_WORKER is no setting; did you mean GQL_JOBS_NUM_WORKERS?\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("url", ["nats://user:pass#word@", "user:pass/word@127.0.0.1", "nats://user:pass,word@h:1"])
@pytest.mark.parametrize("command", [("api", "--port", "0"), ("worker",), ("doctor",), ("dev", "--port", "0")])
async def test_a_wrong_address_of_nats_is_refused_without_showing_it(
    tmp_path: Path, command: tuple[str, ...], url: str
) -> None:
    code, out, err = await _run(*command, cwd=tmp_path, GQL_JOBS_NATS_URL=url)
    assert code == 2
    assert "GQL_JOBS_NATS_URL: it must be a NATS URL such as" in err
    assert "word" not in (out + err).replace("password", "")


@pytest.mark.parametrize("command", ["dev", "api"])
async def test_a_taken_port_is_a_sentence(tmp_path: Path, command: str) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        code, out, err = await _run(command, "--port", str(port), cwd=tmp_path)
    assert (code, out) == (2, "")
    sentence = f"Error: Cannot listen on 127.0.0.1:{port} (Address already in use); choose another with --port.\n"
    assert err.endswith(sentence)
    assert "Traceback" not in err


async def test_a_host_of_another_machine_is_a_sentence(tmp_path: Path) -> None:
    code, _, err = await _run("api", "--host", "192.0.2.1", cwd=tmp_path, GQL_JOBS_AUTH="none")
    assert code == 2
    assert err.endswith("Error: Cannot listen on 192.0.2.1:8000 (Cannot assign requested address).\n")
    assert "Traceback" not in err


async def test_a_data_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    code, _, err = await _run("api", "--port", "0", "--data-dir", "data/below", cwd=tmp_path)
    assert code == 2
    assert err.endswith("Error: data/below: Not a directory.\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [("api", "--port", "0"), ("worker",)])
async def test_a_server_without_jetstream_is_a_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    async with plain_nats(tmp_path) as url:
        code, _, err = await _run(*command, cwd=tmp_path, GQL_JOBS_NATS_URL=url)
    assert code == 2
    assert "The NATS server has no JetStream: start it with -js" in err
    assert "Traceback" not in err


@asynccontextmanager
async def _api(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[tuple[Process, str]]:
    """``gql-jobs api`` without a NATS server, once it has printed its address."""
    command = (sys.executable, "-m", "gql_jobs", "api", "--port", "0", *arguments)
    env = {**os.environ, "GQL_JOBS_NATS_URL": f"nats://127.0.0.1:{free_port()}", **environment}
    async with running_process(*command, cwd=folder, stdout=PIPE, env=env) as process:
        assert process.stdout is not None
        names = [name for name, _ in addresses("", Settings())]
        said = [(await asyncio.wait_for(process.stdout.readline(), 60)).decode().split() for _ in names]
        assert [name for name, _ in said] == names
        yield process, said[-1][1]


async def test_the_api_says_where_it_is_and_answers_there_at_once(tmp_path: Path) -> None:
    async with _api(tmp_path) as (process, url), httpx.AsyncClient(trust_env=False, timeout=30) as client:
        assert (await client.get(url.replace("/graphql", "/healthz"))).status_code == 200
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
@pytest.mark.parametrize("command", [("api",), ("api", "--processes", "2"), ("dev",)])
async def test_an_api_that_others_can_reach_does_not_start_before_it_was_said_who_may_use_it(
    tmp_path: Path, command: tuple[str, ...], host: str
) -> None:
    code, out, err = await _run(*command, "--port", "0", "--host", host, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: Other machines can reach {host}, and nothing says who may use the API.")
    assert "GQL_JOBS_AUTH=required" in err
    assert "GQL_JOBS_AUTH=none" in err
    assert not (tmp_path / ".gql-jobs").exists()


@pytest.mark.parametrize("auth", ["none", "required"])
async def test_an_api_that_others_can_reach_starts_once_it_was_said_who_may_use_it(tmp_path: Path, auth: str) -> None:
    async with (
        _api(tmp_path, "--host", "0.0.0.0", GQL_JOBS_AUTH=auth) as (_, url),  # noqa: S104
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
    ):
        answer = await client.get(url.replace("/graphql", "/healthz"), headers={"Host": "jobs.example.com"})
        assert answer.status_code == 200


async def test_an_api_on_loopback_answers_under_names_of_this_machine_alone_unless_told(tmp_path: Path) -> None:
    query = {"query": "{ __typename }"}

    async def answered(url: str, name: str) -> int:
        host = f"{name}:{urlsplit(url).port}"
        return (await client.get(url, params=query, headers={"Host": host})).status_code

    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        async with _api(tmp_path) as (_, url):
            names = ("127.0.0.1", "localhost", "[::1]", "evil.example", "localhost.evil.example", "192.0.2.1", "")
            assert [await answered(url, name) for name in names] == [200, 200, 200, 400, 400, 400, 400]
        async with _api(tmp_path, GQL_JOBS_ALLOWED_HOSTS="jobs.example.com") as (_, url):
            told = ("jobs.example.com", "localhost", "evil.example")
            assert [await answered(url, name) for name in told] == [200, 400, 400]


async def test_the_api_stops_from_the_moment_on_at_which_it_says_where_it_is(tmp_path: Path) -> None:
    async with _api(tmp_path) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_nats_alone_runs_until_it_is_interrupted(tmp_path: Path) -> None:
    command = ("nats", "--port", "0", "--monitor-port", "0", "--data-dir", "data")
    async with running_process(sys.executable, "-m", "gql_jobs", *command, cwd=tmp_path, stdout=PIPE) as process:
        assert process.stdout is not None
        name, address = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
        assert name == "NATS"
        url = (tmp_path / "data/nats/url").read_text().strip()
        assert url.rpartition("@")[2] == address.removeprefix("nats://")
        assert {(tmp_path / path).stat().st_mode & 0o777 for path in ("data", "data/nats")} == {0o700}
        assert (tmp_path / "data/nats/url").stat().st_mode & 0o777 == 0o600
        client = await nats.connect(url)
        await client.close()
        code, _, err = await _run(*command, cwd=tmp_path)
        assert code == 2
        assert f"is already used by process {process.pid}" in err
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_the_schema_is_printed_compared_and_knows_modules_of_this_folder(tmp_path: Path) -> None:
    (tmp_path / "my_jobs.py").write_text(_MODULE)
    code, plain, err = await _run("schema", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "type Mutation" in plain
    (tmp_path / "schema.graphql").write_text(plain)
    assert await _run("schema", "--check", cwd=tmp_path) == (0, "", "")
    code, _, err = await _run("schema", "--check", "--import", "my_jobs", cwd=tmp_path)
    assert code == 1
    assert "CliProbe" in err
    assert err.endswith("renew it with: gql-jobs schema --import=my_jobs > schema.graphql\n")
    code, _, err = await _run("schema", "--check", "--file", "missing.graphql", cwd=tmp_path)
    assert code == 1
    assert "There is no file missing.graphql" in err
