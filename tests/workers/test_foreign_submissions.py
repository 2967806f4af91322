"""Submissions that this version did not write: none of them stops the worker."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gql_jobs.jobs.messages import Started, Submission
from gql_jobs.jobs.model import JobStatus, new_job_id
from gql_jobs.log import codec
from gql_jobs.log.codec import encode_body
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import claim as claiming
from tests.deadline import until
from tests.workers.stories import create, done_with, ended, lane_info, lane_is, request

pytestmark = pytest.mark.usefixtures("worker")


def _submission(runtime: Runtime, **payload: Any) -> bytes:
    return encode_body(Submission(spec=request(runtime, **payload).spec(datetime.now(UTC), runtime.settings)))


async def _store(runtime: Runtime, subject: str, data: bytes) -> None:
    answer = await runtime.connection.request(subject, data)
    assert "error" not in msgspec.json.decode(answer.data)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"garbage", b"\xff\xfe", b"[]", b"{}", b'{"v":1}', b'{"v":1,"spec":{"type":"probe"}}', b"[" * 100_000],
    ids=["nothing", "text", "no UTF-8", "list", "empty", "no spec", "half a spec", "deep"],
)
async def test_an_unreadable_one_is_set_aside_and_the_worker_goes_on(runtime: Runtime, garbage: bytes) -> None:
    await _store(runtime, f"jobs.{new_job_id()}.queued.default.normal", garbage)
    job = await ended(runtime, await create(runtime))
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
    await done_with(runtime.connection)
    assert runtime.index.unreadable == 1


@pytest.mark.parametrize("job_id", ["none", "550E8400-E29B-41D4-A716-446655440000", "550e8400"])
async def test_one_whose_id_is_no_uuid_is_never_run(runtime: Runtime, tmp_path: Path, job_id: str) -> None:
    await _store(runtime, f"jobs.{job_id}.queued.default.normal", _submission(runtime, trace=tmp_path / "trace"))
    await ended(runtime, await create(runtime))
    await done_with(runtime.connection)
    assert not (tmp_path / "trace").exists()


async def test_fields_from_a_later_release_are_ignored(runtime: Runtime) -> None:
    job_id = new_job_id()
    submission = msgspec.json.decode(_submission(runtime))
    submission["spec"]["colour"] = "green"
    submission["mood"] = {"good": True}
    await _store(runtime, f"jobs.{job_id}.queued.default.normal", msgspec.json.encode(submission))
    assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED


async def test_one_of_a_newer_version_is_left_for_a_newer_worker(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(claiming, "NEWER_DELAY", 0.3)
    submission = {**msgspec.json.decode(_submission(runtime, trace=tmp_path / "trace")), "v": 4}
    await _store(runtime, f"jobs.{new_job_id()}.queued.default.normal", msgspec.json.encode(submission))
    await lane_is(runtime.connection, "it is offered again", lambda info: info.delivered.consumer_seq >= 3)
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED

    async def only_it_is_pending() -> bool:
        return (await lane_info(runtime.connection)).num_ack_pending == 1

    await until(only_it_is_pending, "the other delivery's ack has come through")
    assert not (tmp_path / "trace").exists()


async def test_one_of_a_newer_version_is_not_offered_in_a_hot_loop(runtime: Runtime) -> None:
    submission = {**msgspec.json.decode(_submission(runtime)), "v": 4}
    await _store(runtime, f"jobs.{new_job_id()}.queued.default.normal", msgspec.json.encode(submission))
    for _ in range(5):
        await ended(runtime, await create(runtime))
    assert (await lane_info(runtime.connection)).delivered.consumer_seq == 6


async def test_a_job_whose_last_event_is_of_a_newer_version_is_left_to_newer_workers(
    runtime: Runtime, tmp_path: Path
) -> None:
    job_id = new_job_id()
    event = encode_body(Started(v=4, submission=1, attempt=1, worker_id="newer"))
    await _store(runtime, f"jobs.{job_id}.event.started", event)
    data = _submission(runtime, trace=tmp_path / "trace")
    await _store(runtime, codec.queued_subject(job_id, "default", request(runtime).priority), data)
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED

    async def only_it_is_pending() -> bool:
        return (await lane_info(runtime.connection)).num_ack_pending == 1

    await until(only_it_is_pending, "the other delivery's ack has come through")
    assert not (tmp_path / "trace").exists()
