"""docs/steering.md, Editing a job: its recipe runs as it stands there, with the processes that it says."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.child_processes import running_process
from tests.running import ROOT
from tests.running_dev import running_dev

SECTION = (ROOT / "docs" / "steering.md").read_text().partition("\n## Editing a job\n")[2].partition("\n## ")[0]
MODULES = dict(re.findall(r"```python\n# my_app/(\w+)\.py\n(.*?)```", SECTION, re.DOTALL))
COMMANDS = re.findall(r"^\$ gql-jobs (\w+)(.*)$", SECTION, re.MULTILINE)
SAID = [
    r"scheduled True \('mended',\)",
    r"high",
    r".*ada\.example\.com is no address.*",
    r"too late to edit it",
    r"Dear Ada",
]


@pytest.mark.timeout(120)
async def test_a_job_is_edited_before_it_starts_and_retried_with_another_payload(tmp_path: Path) -> None:
    assert MODULES.keys() == {"jobs", "handlers", "mending"}
    assert [name for name, _ in COMMANDS] == ["dev", "edit", "retry"]
    (tmp_path / "my_app").mkdir()
    for name, code in MODULES.items():
        (tmp_path / "my_app" / f"{name}.py").write_text(code)
    given = {"GQL_JOBS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    async with running_dev(tmp_path, *COMMANDS[0][1].split()) as dev:
        await dev.ready()
        program = (sys.executable, "-W", "error", "-m", "my_app.mending")
        async with running_process(*program, cwd=tmp_path, env=given, stdout=PIPE, stderr=PIPE) as process:
            out, err = await asyncio.wait_for(process.communicate(), 90)
    assert (process.returncode, err.decode()) == (0, "")
    lines = out.decode().splitlines()
    assert len(lines) == len(SAID), lines
    for line, said in zip(lines, SAID, strict=True):
        assert re.fullmatch(said, line), line
