"""Which of the job types that come with gql-jobs there are: all, none, or those that the setting names."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from gql_jobs.jobs.installed_types import bundled_types, missing_modules
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.running import PYTHON_PATH
from tests.running_dev import running_dev

BUNDLED = ["email", "image_processing", "report_generation"]
OWN_EMAIL = """
from gql_jobs import JobContext, Model, Payload, job_type

class Receipt(Model):
    letter: str

class Letter(Payload[Receipt]):
    reader: str

async def write(context: JobContext, payload: Letter) -> Receipt:
    return Receipt(letter=f"Dear {payload.reader}")

job_type("email", payload=Letter, handler="own_jobs:write")
"""
WITHOUT_AIOSMTPLIB = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == "aiosmtplib":
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, NotInstalled())
"""
REGISTERED = "import sys; from gql_jobs.jobs.registry import load_job_types; from gql_jobs.settings import Settings; "
REGISTERED += "print(*(one.name for one in load_job_types((), Settings().types)))"


def _run(folder: Path, *command: str, types: str | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH, **({} if types is None else {"GQL_JOBS_TYPES": types})}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("types", "registered"),
    [
        (None, BUNDLED),
        ("all", BUNDLED),
        ("none", []),
        ("email", ["email"]),
        ("report_generation, email", ["email", "report_generation"]),
    ],
)
def test_those_are_registered_that_the_setting_names(tmp_path: Path, types: str | None, registered: list[str]) -> None:
    ran = _run(tmp_path, "-c", REGISTERED, types=types)
    assert (ran.stdout.split(), ran.stderr) == (registered, "")


@pytest.mark.parametrize("command", ["api", "worker", "schema", "doctor", "dev"])
def test_a_name_that_no_bundled_type_has_is_refused_by_each_command(tmp_path: Path, command: str) -> None:
    ran = _run(tmp_path, "-m", "gql_jobs", command, types="email,emial")
    assert ran.returncode == 2, ran.stderr
    assert (
        "GQL_JOBS_TYPES names 'emial', which does not come with gql-jobs; there are email, image_processing,"
        in ran.stderr
    )
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("types", ["none,email", "all,none", ","])
def test_a_setting_that_says_two_things_is_refused(tmp_path: Path, types: str) -> None:
    ran = _run(tmp_path, "-m", "gql_jobs", "schema", types=types)
    assert ran.returncode == 2
    assert "it is all, none, or the names of bundled job types, separated by commas" in ran.stderr


@pytest.mark.parametrize("command", ["api", "worker", "schema"])
def test_without_any_type_there_is_nothing_to_start(tmp_path: Path, command: str) -> None:
    ran = _run(tmp_path, "-m", "gql_jobs", command, types="none")
    assert ran.returncode == 2
    assert "There is no job type: none is imported (--import), and GQL_JOBS_TYPES leaves out the others." in ran.stderr


def test_one_s_own_may_have_the_name_of_one_that_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "own_jobs.py").write_text(OWN_EMAIL)
    printed = _run(tmp_path, "-m", "gql_jobs", "schema", "--import", "own_jobs", types="none")
    assert "email: EmailPayloadInput" in printed.stdout or "email: LetterInput" in printed.stdout, printed.stderr
    assert "reader: String!" in printed.stdout
    refused = _run(tmp_path, "-m", "gql_jobs", "schema", "--import", "own_jobs", types="all")
    assert "The job type 'email' is registered twice, with the handlers gql_jobs_worker" in refused.stderr
    assert "GQL_JOBS_TYPES leaves out the one that comes with gql-jobs." in refused.stderr


def test_the_setting_is_all_until_it_is_given() -> None:
    assert Settings().types == ("all",)
    assert bundled_types() == BUNDLED
    assert missing_modules("email") == []


@pytest.mark.timeout(120)
async def test_one_s_own_email_is_created_by_the_api_and_run_by_the_worker(tmp_path: Path) -> None:
    (tmp_path / "own_jobs.py").write_text(OWN_EMAIL)
    async with running_dev(tmp_path, "--import", "own_jobs", GQL_JOBS_TYPES="none") as dev:
        api = (await dev.ready())["API"]
        creation = 'mutation { createJob(input: {payload: {email: {reader: "Ada"}}}) { job { id } } }'
        job_id = (await _ask(api, creation))["createJob"]["job"]["id"]

        async def result() -> Any:
            return (await _ask(api, f'{{ job(id: "{job_id}") {{ rawResult }} }}'))["job"]["rawResult"]

        assert await until(result, "the letter is written", within=30) == {"letter": "Dear Ada"}
        types = await _ask(api, "{ jobTypes { name } }")
        assert types == {"jobTypes": [{"name": "email"}]}


@pytest.mark.timeout(120)
async def test_dev_does_not_offer_what_cannot_run_there(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/sitecustomize.py").write_text(WITHOUT_AIOSMTPLIB)
    (tmp_path / "own_jobs.py").write_text(OWN_EMAIL.replace('"email"', '"letter"'))
    found = os.pathsep.join((str(tmp_path / "lib"), PYTHON_PATH))
    async with running_dev(tmp_path, "--import", "own_jobs", PYTHONPATH=found) as dev:
        api = (await dev.ready())["API"]
        types = {one["name"] for one in (await _ask(api, "{ jobTypes { name } }"))["jobTypes"]}
        assert types == {"image_processing", "report_generation", "letter"}
        advice = (
            "The job type email is not offered here: aiosmtplib is not installed: run pip install 'gql-jobs[email]'."
        )
        assert advice in dev.err


async def _ask(api: str, query: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = json.loads((await client.post(api, json={"query": query}, timeout=30)).content)
    assert "errors" not in answer, answer
    data: dict[str, Any] = answer["data"]
    return data
