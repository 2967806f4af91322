"""docs/client.md and README.md: their programs run as they stand there, with ``gql-jobs dev`` started as they say."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.child_processes import running_process
from tests.running import ROOT
from tests.running_dev import running_dev

GUIDE = (ROOT / "docs" / "client.md").read_text()
MODULES = dict(re.findall(r"```python\n# my_app/(\w+)\.py\n(.*?)```", GUIDE, re.DOTALL))
(MODULES["mail"],) = re.findall(
    r"```python\n(from gql_jobs\.client import Client\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
)
HANDLERS = """
from gql_jobs import PermanentError

async def send_sms(context, payload):
    if payload.to == "nobody":
        raise PermanentError("Nobody has no telephone.")
    context.progress(50, f"Texting {payload.to}")
    return {"parts": 1 + len(payload.text) // 160}
"""
SAID = {
    "first": r"1\n",
    "options": r"[0-9a-f-]{36} scheduled\n",
    "more_options": r"1\n",
    "errors": r"PermanentError \['Nobody has no telephone\.'\]\n",
    "events": r"(50 % Texting \+44 20 7946 0000\n)?done within True\n",
    "many": r"50\n50\n",
    "awaiting": r"\[1, 1, 1\]\n",
    "beside": r"1\n",
    "mail": r"<[^<>@]+@[^<>@]+>\n",
}
"""What each program writes."""


@pytest.mark.timeout(180)
async def test_every_program_that_is_shown_does_what_it_says(tmp_path: Path) -> None:
    assert MODULES.keys() == {"jobs", *SAID}
    (tmp_path / "my_app").mkdir()
    for name, code in {**MODULES, "handlers": HANDLERS}.items():
        (tmp_path / "my_app" / f"{name}.py").write_text(code)
    async with running_dev(tmp_path, "--import", "my_app.jobs") as dev:
        await dev.ready()
        nats = (tmp_path / "data" / "nats" / "url").read_text().strip()
        given = {
            "MY_APP_NATS": nats,
            "GQL_JOBS_DATA_DIR": str(tmp_path / "data"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}",
        }
        for name, said in SAID.items():
            program = (sys.executable, "-W", "error", "-m", f"my_app.{name}")
            async with running_process(*program, cwd=tmp_path, env=given, stdout=PIPE, stderr=PIPE) as process:
                out, err = await asyncio.wait_for(process.communicate(), 60)
            assert (process.returncode, err.decode()) == (0, ""), name
            assert re.fullmatch(said, out.decode()), (name, out.decode())
