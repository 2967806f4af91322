"""A worker's folder of temporary files."""

import tempfile
from pathlib import Path

import pytest

from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker.sandbox.processes import SCRATCH_PREFIX, scratch_folder
from tests.running import worker_process
from tests.workers.stories import create, running


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process and its children keep temporary files."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def _folders(temporary: Path) -> list[Path]:
    return list(temporary.glob(f"{SCRATCH_PREFIX}*"))


def test_it_is_gone_afterwards() -> None:
    with scratch_folder() as folder:
        (folder / "left.bin").write_bytes(b"x")
    assert not folder.exists()


def test_what_a_dead_process_has_left_goes_and_what_a_living_one_has_stays(temporary: Path) -> None:
    dead, foreign = temporary / f"{SCRATCH_PREFIX}dead", temporary / "gql-jobs-other"
    for folder in (dead, foreign):
        (folder / "deep").mkdir(parents=True)
    with scratch_folder() as living, scratch_folder():
        assert living.exists()
        assert not dead.exists()
        assert foreign.exists()


def test_a_link_in_its_place_leads_nowhere(temporary: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (temporary / f"{SCRATCH_PREFIX}link").symlink_to(kept)
    with scratch_folder():
        assert (kept / "file").exists()


async def test_a_killed_worker_s_folder_goes_with_the_start_of_the_next(
    runtime: Runtime, settings: Settings, temporary: Path
) -> None:
    async with worker_process(settings) as process:
        job_id = await create(runtime, "probe_cpu", seconds=60)
        await running(runtime, job_id, within=20)
        (left,) = _folders(temporary)
        with scratch_folder():
            assert left.exists()
        process.kill()
        await process.wait()
    assert left.exists()
    with scratch_folder():
        assert not left.exists()
