"""What a type checker knows of a job's result, and what the options of a creation take."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT

SNIPPET = """
from datetime import timedelta
from gql_jobs import Model, Payload
from gql_jobs.client import AsyncClient, Client

class SmsResult(Model):
    number: int

class SmsPayload(Payload[SmsResult]):
    to: str

class Ping(Payload[None]):
    to: str

class Untyped(Model):
    to: str

client, awaited = Client(), AsyncClient()
reveal_type(client.create(SmsPayload(to="+44"), key="k", priority="high").result(timeout=30))  # SmsResult
reveal_type(client.create(SmsPayload(to="+44")))  # JobHandle[SmsResult]
reveal_type(client.create(Ping(to="")).result())  # None
reveal_type(client.create(Untyped(to="")).result())  # Any
reveal_type(client.job("id", SmsResult).result())  # SmsResult
reveal_type(client.job("id").result())  # Any
reveal_type(client.create_many([SmsPayload(to=""), (Ping(to=""), {"key": "k"})]))  # list[JobHandle[Any]]
reveal_type(next(iter(client.jobs(status="dead_letter"))))  # JobSnapshot
reveal_type(next(iter(client.create(SmsPayload(to="")).events())).cursor)  # str

async def main() -> None:
    reveal_type(await (await awaited.create(SmsPayload(to="+44"))).result(timedelta(seconds=3)))  # SmsResult
    reveal_type(await awaited.create(Ping(to="")))  # AsyncJobHandle[None]
    reveal_type(await awaited.create(Untyped(to="")))  # AsyncJobHandle[Any]
    reveal_type(await awaited.job("id", SmsResult).result())  # SmsResult
    async for event in awaited.job("id").events():
        reveal_type(event)  # JobEvent
"""
WRONG = """
from gql_jobs import Model
from gql_jobs.client import Client

class Untyped(Model):
    to: str

client = Client()
client.create(Untyped(to=""), priority="urgent")  # error
client.create(Untyped(to=""), keys="k")  # error
client.create({"to": ""})  # error
"""


def _checked(text: str, folder: Path) -> str:
    (folder / "snippet.py").write_text(text)
    program = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "snippet.py"]
    # The folder of what mypy has found of this library before is that of every other run.
    found = subprocess.run(
        [*program, "--cache-dir", str(ROOT / ".mypy_cache")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"MYPYPATH": f"{ROOT}:{ROOT / 'workers'}", "PATH": "/usr/bin"},
    )
    return found.stdout + found.stderr


@pytest.mark.timeout(300)
def test_a_type_checker_infers_the_result_from_the_payload_in_both_clients(tmp_path: Path) -> None:
    said = _checked(SNIPPET, tmp_path)
    revealed = re.findall(r'snippet\.py:(\d+): note: Revealed type is "(.+)"', said)
    found = {int(line): re.sub(r"(\w+\.)+", "", kind) for line, kind in revealed}
    expected = {
        number: line.rpartition("# ")[2]
        for number, line in enumerate(SNIPPET.splitlines(), 1)
        if line.lstrip().startswith("reveal_type")
    }
    assert found == expected, said
    assert "error:" not in said


@pytest.mark.timeout(300)
def test_a_type_checker_refuses_options_that_there_are_not(tmp_path: Path) -> None:
    said = _checked(WRONG, tmp_path)
    wrong = {number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# error")}
    assert {int(line) for line in re.findall(r"snippet\.py:(\d+): error", said)} == wrong, said
