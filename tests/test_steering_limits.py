"""docs/steering.md, Limits: its recipe runs as it stands there, with the processes that it says."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.child_processes import running_process
from tests.running import ROOT
from tests.running_dev import running_dev

SECTION = (ROOT / "docs" / "steering.md").read_text().partition("\n## Limits\n")[2].partition("\n## ")[0]
MODULES = dict(re.findall(r"```python\n# my_app/(\w+)\.py\n(.*?)```", SECTION, re.DOTALL))
COMMANDS = re.findall(r"^\$ gql-jobs (\w+)(.*)$", SECTION, re.MULTILINE)
SAID = (
    "limited to 2 per key, 10/s\n"
    "at most 2 at once, and no faster than 10/s: True\n"
    "limited to 1 per key\n"
    "at most 1 at once\n"
)


@pytest.mark.timeout(180)
async def test_an_outside_api_is_kept_at_a_rate_and_at_so_many_per_customer_changed_while_it_runs(
    tmp_path: Path,
) -> None:
    assert MODULES.keys() == {"jobs", "handlers", "geocoding"}
    (name, options), *limits = COMMANDS
    assert (name, [said for said, _ in limits]) == ("dev", ["limits", "limits"])
    (tmp_path / "my_app").mkdir()
    for module, code in MODULES.items():
        (tmp_path / "my_app" / f"{module}.py").write_text(code)
    environment = {"GQL_JOBS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    async with running_dev(tmp_path, *options.split()) as dev:
        await dev.ready()
        assert await _ran(("-m", "my_app.geocoding"), tmp_path, environment) == SAID
        shown = [
            await _ran(("-m", "gql_jobs", command, *arguments.split()), tmp_path, environment)
            for command, arguments in limits
        ]
        assert shown == ["2 per key, 10/s\n", "no limits\n"]


async def _ran(arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> str:
    """What a program that succeeds has written."""
    program = (sys.executable, "-W", "error", *arguments)
    async with running_process(*program, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE) as process:
        out, err = await asyncio.wait_for(process.communicate(), 90)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()
