"""Files that handlers keep with their jobs."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gql_jobs.jetstream.errors import FenceRefused
from gql_jobs.jobs.handler import JobContext
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.job_log import JobLog, job_events
from gql_jobs.log.retention import expire
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.running import RunningWorker
from tests.workers.stories import create, ended, handled_by

pytestmark = pytest.mark.usefixtures("worker")
FAR = datetime(2100, 1, 1, tzinfo=UTC)


async def stored(runtime: Runtime, name: str, job_id: str) -> bytes:
    """What the store holds under a name."""
    artifact = runtime.index.artifact(job_id, name)
    assert artifact is not None
    target = io.BytesIO()
    await runtime.artifacts.read(artifact, target)
    return target.getvalue()


async def objects(runtime: Runtime) -> int:
    """Messages of the object store: chunks and names."""
    bucket = await runtime.connection.object_store("artifacts", 1)
    return (await bucket.status()).stream_info.state.messages


async def test_bytes_files_and_streams_are_kept_as_they_are(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = bytes(range(256)) * 2000
    (tmp_path / "file.bin").write_bytes(large)

    async def handler(context: JobContext, _: ProbePayload) -> ProbeResult:
        await context.save_artifact("bytes.txt", b"hello")
        await context.save_artifact("file.bin", tmp_path / "file.bin")
        await context.save_artifact("/deep/down/stream.csv", io.BytesIO(large))
        await context.save_artifact("empty", b"")
        return ProbeResult(attempt=context.attempt)

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    kept = {a.name: (a.content_type, a.size_bytes) for a in runtime.index.artifacts(job.id)}
    assert kept == {
        "bytes.txt": ("text/plain", 5),
        "deep/down/stream.csv": ("text/csv", len(large)),
        "empty": ("application/octet-stream", 0),
        "file.bin": ("application/octet-stream", len(large)),
    }
    assert await stored(runtime, "file.bin", job.id) == large
    assert await stored(runtime, "deep/down/stream.csv", job.id) == large
    assert await stored(runtime, "empty", job.id) == b""


async def test_saving_twice_in_a_retried_attempt_leaves_one(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, payload: ProbePayload) -> ProbeResult:
        await context.save_artifact("report.txt", b"draft" * 100_000)
        await context.save_artifact("report.txt", b"attempt %d" % context.attempt)
        if context.attempt <= payload.fail_attempts:
            raise RuntimeError("again")
        return ProbeResult(attempt=context.attempt)

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, fail_attempts=1))
    assert [a.name for a in runtime.index.artifacts(job.id)] == ["report.txt"]
    assert await stored(runtime, "report.txt", job.id) == b"attempt 2"
    assert await objects(runtime) == 2


async def test_a_superseded_attempt_cannot_replace_a_file(
    runtime: Runtime, settings: Settings, job_log: JobLog
) -> None:
    job = await ended(runtime, await create(runtime, artifact="a.txt", artifact_bytes=3))
    store = ArtifactStore(job_log, settings)
    with pytest.raises(FenceRefused):
        await store.save(job.id, "a.txt", io.BytesIO(b"zombie"), "text/plain", job_events(job.id, 1))
    assert await stored(runtime, "a.txt", job.id) == bytes(3)
    assert await objects(runtime) == 2


async def test_a_file_that_is_not_complete_is_not_visible(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 200_000:
                raise OSError("The disk is gone.")
            return super().read(size)

    async def handler(context: JobContext, _: ProbePayload) -> ProbeResult:
        await context.save_artifact("a.bin", Breaks(bytes(1_000_000)))
        return ProbeResult(attempt=context.attempt)

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, max_retries=0))
    assert job.error is not None
    assert job.error.type == "OSError"
    assert runtime.index.artifacts(job.id) == []
    assert await objects(runtime) == 0


async def test_a_content_type_that_cannot_be_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: ProbePayload) -> ProbeResult:
        await context.save_artifact("report.txt", b"", "text/plain\r\nX-Evil: 1")
        return ProbeResult(attempt=context.attempt)

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, max_retries=0))
    assert not runtime.index.artifacts(job.id)
    assert "A content type is a media type" in job.errors[-1].message


@pytest.mark.parametrize("name", ["../up", "a//b", "a\\b", "", "nul\x00", "x" * 300, "a/./b"])
async def test_a_name_that_cannot_be_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def handler(context: JobContext, _: ProbePayload) -> ProbeResult:
        await context.save_artifact(name, b"")
        return ProbeResult(attempt=context.attempt)

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, max_retries=0))
    assert job.error is not None
    assert job.error.type == "RefusedValue"


async def test_files_go_with_their_job(
    runtime: Runtime, settings: Settings, job_log: JobLog, worker: RunningWorker
) -> None:
    job = await ended(runtime, await create(runtime, artifact="a.txt", artifact_bytes=3))
    await worker.stop()
    store = ArtifactStore(job_log, settings)
    assert await expire(job_log, store, job.id, FAR)
    await until(lambda: runtime.index.job(job.id) is None, "the job has expired")
    assert runtime.index.artifacts(job.id) == []
    assert await objects(runtime) == 0
