"""docs/steering.md, Schedules: its recipe runs as it stands there, with what it says that comes of it."""

import asyncio
import re
import shlex
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.child_processes import running_process
from tests.running import ROOT
from tests.running_dev import running_dev

SECTION = (ROOT / "docs" / "steering.md").read_text().partition("\n## Schedules\n")[2].partition("\n## ")[0]
MODULES = dict(re.findall(r"```python\n# my_app/(\w+)\.py\n(.*?)```", SECTION, re.DOTALL))
COMMANDS = re.findall(r"^\$ gql-jobs (.*)$", SECTION, re.MULTILINE)
MOMENTS = re.findall(r"```text\n(.*?)```", SECTION, re.DOTALL)[0]


@pytest.mark.timeout(180)
async def test_a_nightly_job_is_previewed_over_the_change_of_clocks(tmp_path: Path) -> None:
    assert MODULES.keys() == {"jobs", "handlers"}
    begin, show, forward, back, run, pause, resume = map(shlex.split, COMMANDS)
    (tmp_path / "my_app").mkdir()
    for name, code in MODULES.items():
        (tmp_path / "my_app" / f"{name}.py").write_text(code)
    given = {"GQL_JOBS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    async with running_dev(tmp_path, *begin[1:]) as dev:
        await dev.ready()

        async def said(words: list[str]) -> str:
            """What a command that succeeds has written."""
            command = (sys.executable, "-m", "gql_jobs", *words)
            async with running_process(*command, cwd=tmp_path, env=given, stdout=PIPE, stderr=PIPE) as process:
                out, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0, err.decode()
            return out.decode()

        assert "nightly_report" in await said(show)
        assert await said(forward) + await said(back) == MOMENTS
        assert "nightly_report" in await said(run)
        assert "paused" in await said(pause)
        assert "paused" not in await said(resume)
