"""docs/testing.md as a project of its own: its application, its tests and its configuration, run by pytest."""

import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.child_processes import running_process
from tests.running import ROOT

DOCUMENT = (ROOT / "docs" / "testing.md").read_text()
FILES = dict(re.findall(r"```python\n# ((?:my_app|tests)/\w+\.py)\n(.*?)```", DOCUMENT, re.DOTALL))
CONFIGURATION = "\n".join(re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL))


async def _pytest(project: Path, *arguments: str) -> tuple[int | None, str]:
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    async with running_process(*command, cwd=project, stdout=PIPE, stderr=STDOUT) as process:
        said, _ = await process.communicate()
        return process.returncode, said.decode()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files that the document shows."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    more = "pythonpath = ['.']\nfilterwarnings = ['error']\nasyncio_default_fixture_loop_scope = 'function'\n"
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION + more)
    return tmp_path


@pytest.mark.timeout(180)
async def test_every_test_that_is_shown_passes(project: Path) -> None:
    code, said = await _pytest(project, "-p", "gql_jobs_pytest")
    shown = sum(text.count("def test_") for text in FILES.values())
    assert code == 0, said
    assert f"{shown} passed" in said


async def test_an_assertion_that_fails_says_what_was_created(project: Path) -> None:
    (project / "tests" / "test_fails.py").write_text(
        "from my_app.jobs import SmsPayload\n"
        "def test_it(jobs_env):\n"
        "    jobs_env.client.create(SmsPayload(to='+44', text='Hi'))\n"
        "    jobs_env.assert_created(SmsPayload, to='+49')\n"
    )
    code, said = await _pytest(project, "-p", "gql_jobs_pytest", "tests/test_fails.py")
    assert code == 1
    assert "No job was created with SmsPayload(to='+49'). Created were, 1 in all:" in said
    assert "SmsPayload(to='+44', text='Hi')  <- another to" in said


async def test_the_plugin_costs_tests_without_jobs_nothing(project: Path) -> None:
    (project / "tests" / "test_other.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'gql_jobs', 'gql_jobs_worker', 'pydantic', 'nats', 'fastapi'}\n"
    )
    code, said = await _pytest(project, "-p", "gql_jobs_pytest", "tests/test_other.py")
    assert code == 0, said
