"""The release before jobs were steered, as the history of this repository has it, to be run beside this one."""

import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.running import ROOT

COMMIT = "1edbd9b4626756b0238312cf4cdcc8d3fa6fa33f"
"""The last one before limits, keys, pauses, schedules, edits and deletions."""
EARLIER_API = ("earlier", "gql_jobs")
EARLIER_WORKER = ("earlier", "gql_jobs_worker")
_LAUNCHER = """
import runpy
import sys

if sys.argv[1] == "gql_jobs_worker":
    from gql_jobs_worker import claim

    # So long it leaves a job to newer workers before it looks at it again: a minute otherwise.
    claim.NEWER_DELAY = 0.3
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of it, in which ``EARLIER_API`` and ``EARLIER_WORKER`` are run; skips where there is no history."""
    root = tmp_path_factory.mktemp("earlier")
    git = shutil.which("git") or "git"
    command = (git, "archive", COMMIT, "gql_jobs", "workers", "tests/job_types")
    try:
        packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the release before steering is not in the history of this checkout")
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(root, filter="data")
    (root / "earlier.py").write_text(_LAUNCHER)
    return root
