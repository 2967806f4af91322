"""The README is part of the interface: what it shows is checked, what it says to type is run."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from graphql import build_schema as parse_schema
from graphql import parse, validate
from pydantic_core import PydanticUndefined

from gql_jobs.settings import Settings
from tests.child_processes import all_ended, tree
from tests.deadline import until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SETTINGS = ROOT / "docs" / "settings.md"
COMMON = (
    *("nats_url", "nats_password", "data_dir", "num_workers", "max_retries"),
    *("process_timeout", "retention", "allowed_hosts", "cors_origins", "smtp_host"),
)
"""The settings that the README shows; all of them stand in docs/settings.md."""
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    ROOT / "clients" / "typescript" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
SCHEMA = parse_schema((ROOT / "schema.graphql").read_text())
EXAMPLES = re.findall(r"```graphql\n(.*?)```", README, re.DOTALL)
MODULES = dict(re.findall(r"```python\n# (my_app/\w+\.py)\n(.*?)```", README, re.DOTALL))
SMS = re.findall(r"```graphql sms\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_operation_shown_is_valid(example: str) -> None:
    assert validate(SCHEMA, parse(example)) == []


def test_every_root_field_has_an_example() -> None:
    shown = "\n".join(EXAMPLES)
    roots = (SCHEMA.query_type, SCHEMA.mutation_type, SCHEMA.subscription_type)
    missing = [name for root in roots if root is not None for name in root.fields if f"{name}" not in shown]
    assert missing == []


def test_the_configuration_table_lists_every_setting() -> None:
    assert _between_marks(SETTINGS.read_text()) == settings_table(Settings.model_fields)


def test_the_readme_shows_the_common_settings_and_where_the_others_are() -> None:
    assert _between_marks(README) == settings_table(COMMON)
    assert "(docs/settings.md)" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_says_where_its_program_is(document: Path) -> None:
    lost = []
    for block in re.findall(r"^```console\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
        if not any("bin/activate" in command for command in commands):
            lost += [command for command in commands if re.match(r"(\w+=\S+ )*(gql-jobs|python|pytest|pip)\b", command)]
    text = document.read_text()
    if "bin/activate" not in text:
        lost += re.findall(r"`(python -m (?:benchmarks|tests)[^`]*)`", text)
    assert lost == []


def _between_marks(text: str) -> str:
    return text.split("<!-- settings -->\n")[1].split("<!-- /settings -->", maxsplit=1)[0]


def test_a_whole_job_type_takes_at_most_25_lines() -> None:
    assert sum(len(code.splitlines()) + 1 for code in MODULES.values()) <= 25


async def test_the_job_type_of_the_readme_works_as_written(tmp_path: Path) -> None:
    for name, code in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    command = (sys.executable, "-m", "gql_jobs", "dev", "--port", "0", "--import", "my_app.jobs")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GQL_JOBS_")}
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environment, stdout=PIPE)
    assert process.stdout is not None
    processes = tree(process.pid)
    try:
        async with asyncio.timeout(40):
            while not (line := await process.stdout.readline()).startswith(b"API"):
                assert line, "dev ended before it was ready"
        processes = tree(process.pid)
        url = line.split()[-1].decode()
        async with httpx.AsyncClient() as client:
            answer = (await client.post(url, json={"query": SMS[0]})).json()
            job = answer["data"]["createJob"]["job"]
            assert job["payload"] == {"to": "+44 20 7946 0000"}
            query = "query ($id: ID!) { job(id: $id) { status ... on SmsJob { result { parts } } } }"

            async def result() -> object:
                answer = await client.post(url, json={"query": query, "variables": {"id": job["id"]}})
                return answer.json()["data"]["job"]["result"]

            assert await until(result, "the text message is sent") == {"parts": 1}
            await _process_picture(client, url)
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
        await all_ended(processes)


async def _process_picture(client: httpx.AsyncClient, url: str) -> None:
    """The picture of the README is one that the server itself has: it takes no network."""
    (picture,) = (example for example in EXAMPLES if "CreateImageJob" in example)
    assert "http://127.0.0.1:8000/" in picture, "where dev is by default"
    asked = picture.replace("http://127.0.0.1:8000", url.removesuffix("/graphql"))
    job_id = (await client.post(url, json={"query": asked})).json()["data"]["createJob"]["job"]["id"]
    query = "query ($id: ID!) { job(id: $id) { status error { message } } }"

    async def ended() -> object:
        job = (await client.post(url, json={"query": query, "variables": {"id": job_id}})).json()["data"]["job"]
        assert job["error"] is None, job
        return job["status"] == "COMPLETED"

    await until(ended, "the picture is processed", within=30)


def settings_table(names: Iterable[str]) -> str:
    """A table of settings; ``python -m tests.test_readme`` writes those of the README and of docs/settings.md anew."""
    rows = ["| variable | default | read by | meaning |", "|---|---|---|---|"]
    for name in names:
        info = Settings.model_fields[name]
        given = ",".join(info.default) if isinstance(info.default, tuple) else info.default
        default = "" if given in (None, "", PydanticUndefined) else f"`{given}`"
        extra = info.json_schema_extra
        assert isinstance(extra, dict), f"{name} does not say who reads it"
        rows.append(f"| `GQL_JOBS_{name.upper()}` | {default} | {extra['read_by']} | {info.description} |")
    return "\n".join(rows) + "\n"


def _renew(document: Path, table: str) -> None:
    before, rest = document.read_text().split("<!-- settings -->\n")
    after = rest.split("<!-- /settings -->")[1]
    document.write_text(f"{before}<!-- settings -->\n{table}<!-- /settings -->{after}")


if __name__ == "__main__":
    _renew(ROOT / "README.md", settings_table(COMMON))
    _renew(SETTINGS, settings_table(Settings.model_fields))
