"""docs/steering.md, Deleting a job: its recipe runs as it stands there, and leaves no byte of whom it forgets."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.child_processes import running_process
from tests.deadline import until
from tests.running import ROOT
from tests.running_dev import running_dev

SECTION = (ROOT / "docs" / "steering.md").read_text().partition("\n## Deleting a job\n")[2].partition("\n## ")[0]
MODULES = dict(re.findall(r"```python\n# my_app/(\w+)\.py\n(.*?)```", SECTION, re.DOTALL))
COMMANDS = re.findall(r"^\$ gql-jobs (\w+)(.*)$", SECTION, re.MULTILINE)
SAID = "4 jobs are deleted, 0 are left\nanother one has Dear Charles Babbage, your order is on its way.\n"


def _files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.timeout(180)
async def test_a_persons_data_is_deleted_and_that_of_another_one_from_a_terminal(tmp_path: Path) -> None:
    assert MODULES.keys() == {"jobs", "handlers", "forget"}
    assert [name for name, _ in COMMANDS] == ["dev", "cancel", "delete"]
    (tmp_path / "my_app").mkdir()
    for name, code in MODULES.items():
        (tmp_path / "my_app" / f"{name}.py").write_text(code)
    data = tmp_path / "data"
    given = {"GQL_JOBS_DATA_DIR": str(data), "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    begin, *steps = ((name, *options.split()) for name, options in COMMANDS)
    async with running_dev(tmp_path, *begin[1:]) as dev:
        await dev.ready()
        options = {"cwd": tmp_path, "env": given, "stdout": PIPE, "stderr": PIPE}
        assert await _ran((sys.executable, "-W", "error", "-m", "my_app.forget"), options) == SAID
        assert _files_with("Charles Babbage", data), "so the search finds what there is"
        await until(lambda: not _files_with("Ada Lovelace", data), "no byte of her is left", within=20)
        for step in steps:
            await _ran((sys.executable, "-m", "gql_jobs", *step), options)
        await until(lambda: not _files_with("Charles Babbage", data), "no byte of him is left", within=20)


async def _ran(command: tuple[str, ...], options: dict[str, object]) -> str:
    """What a command that succeeds has written."""
    async with running_process(*command, **options) as process:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()
