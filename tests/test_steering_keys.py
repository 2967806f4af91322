"""docs/steering.md, Keys and Dependencies: their recipes run as they stand there, with the processes that they say."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.child_processes import running_process
from tests.running import ROOT
from tests.running_dev import running_dev

GUIDE = (ROOT / "docs" / "steering.md").read_text()
SECTION = GUIDE.partition("\n## Keys\n")[2].partition("\n## Expiry before start\n")[0]
MODULES = dict(re.findall(r"```python\n# my_app/(\w+)\.py\n(.*?)```", SECTION, re.DOTALL))
COMMANDS = re.findall(r"^\$ gql-jobs (\w+)(.*)$", SECTION, re.MULTILINE)
SAID = {
    "saving": "1 job for 20 changes\nindexed is version 20\n",
    "reporting": "the report is waiting\nit has 300 rows; completed completed completed\n"
    "and one whose import was cancelled is cancelled\n",
}


@pytest.mark.timeout(180)
async def test_changes_are_indexed_once_and_a_report_runs_after_its_imports(tmp_path: Path) -> None:
    assert MODULES.keys() == {"jobs", "handlers", *SAID}
    ((name, options),) = COMMANDS
    assert name == "dev"
    (tmp_path / "my_app").mkdir()
    for module, code in MODULES.items():
        (tmp_path / "my_app" / f"{module}.py").write_text(code)
    environment = {"GQL_JOBS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    async with running_dev(tmp_path, *options.split()) as dev:
        await dev.ready()
        for module, said in SAID.items():
            program = (sys.executable, "-W", "error", "-m", f"my_app.{module}")
            async with running_process(*program, cwd=tmp_path, env=environment, stdout=PIPE, stderr=PIPE) as process:
                out, err = await asyncio.wait_for(process.communicate(), 90)
            assert (process.returncode, err.decode()) == (0, "")
            assert out.decode() == said
