"""docs/steering.md, Pause: its recipe runs as it stands there, with the processes that it says."""

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

SECTION = (ROOT / "docs" / "steering.md").read_text().partition("\n## Pause\n")[2].partition("\n## ")[0]
MODULES = dict(re.findall(r"```python\n# my_app/(\w+)\.py\n(.*?)```", SECTION, re.DOTALL))
COMMANDS = re.findall(r"^\$ gql-jobs (\w+)(.*)$", SECTION, re.MULTILINE)
SAID = r"7800 lines: the other queue goes on\nqueued and so are True\nsent \{1\}\n"


@pytest.mark.timeout(180)
async def test_a_queue_is_paused_during_load_and_resumed_with_three_workers(tmp_path: Path) -> None:
    assert MODULES.keys() == {"jobs", "handlers", "moving"}
    assert [name for name, _ in COMMANDS] == ["dev", "worker", "pause", "queues", "resume"]
    (tmp_path / "my_app").mkdir()
    for name, code in MODULES.items():
        (tmp_path / "my_app" / f"{name}.py").write_text(code)
    given = {"GQL_JOBS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    begin, more = (options.split() for _, options in COMMANDS[:2])
    async with running_dev(tmp_path, *begin) as dev:
        await dev.ready()
        command = (sys.executable, "-m", "gql_jobs")
        options = {"cwd": tmp_path, "env": given, "stdout": PIPE, "stderr": PIPE}
        async with running_process(*command, "worker", *more, **options):
            await until(lambda: _workers(command, options), "there are three workers", within=60)
            program = (sys.executable, "-W", "error", "-m", "my_app.moving")
            async with running_process(*program, **options) as process:
                out, err = await asyncio.wait_for(process.communicate(), 90)
            assert (process.returncode, err.decode()) == (0, "")
            assert re.fullmatch(SAID, out.decode()), out.decode()
            paused = await _ran((*command, "pause", "mail", "--reason", "the mail server is being moved"), options)
            assert "mail is paused since" in paused
            assert "the mail server is being moved" in await _ran((*command, "queues"), options)
            assert "paused" not in await _ran((*command, "resume", "mail"), options)


async def _workers(command: tuple[str, ...], options: dict[str, object]) -> bool:
    return len((await _ran((*command, "workers"), options)).splitlines()) == 3


async def _ran(command: tuple[str, ...], options: dict[str, object]) -> str:
    """What a command that succeeds has written, in both of its streams."""
    async with running_process(*command, **options) as process:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode() + err.decode()
