"""The whole: a video goes in, and text and subtitles come out, whatever happens to workers on the way."""

from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from gql_jobs.client import JobFailed
from gql_jobs.testing import JobsEnv
from transcribe import handlers
from transcribe.jobs import Recognition, Subtitles, Transcription

MEETING = Path(__file__).parent.parent / "media" / "meeting.mp4"
VIDEO = "00000000-0000-4000-8000-000000000000.mp4"


@pytest.fixture
def jobs_env_settings() -> dict[str, Any]:
    """Processes of CPU-bound handlers get few variables of the environment: this one says where the parts are."""
    return {"process_environment": ("GQL_JOBS_URL",)}


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads, with one video."""
    copyfile(MEETING, tmp_path / VIDEO)
    monkeypatch.setattr(handlers, "UPLOADS", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("uploads")
def test_a_video_becomes_text_and_subtitles(jobs_env: JobsEnv) -> None:
    job = jobs_env.client.create(Transcription(video=VIDEO))
    assert job.result(timeout=60).text.splitlines()[1].startswith("please bring the report")
    jobs_env.drain()
    assert len(jobs_env.created(Recognition, transcription=job.id)) == 3
    subtitles = jobs_env.assert_created(Subtitles)
    assert [file.name for file in subtitles.artifacts()] == ["subtitles.srt", "subtitles.vtt"]


@pytest.mark.usefixtures("uploads")
def test_a_file_that_is_gone_is_no_reason_to_try_again(jobs_env: JobsEnv) -> None:
    job = jobs_env.client.create(Transcription(video=VIDEO.replace("0000", "1111")))
    with pytest.raises(JobFailed, match="No such file"):
        job.result(timeout=60)
    assert len(job.state().errors) == 1
