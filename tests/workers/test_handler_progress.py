"""What a handler says of its progress, and what of it is stored."""

import asyncio
from typing import Any

import pytest

from gql_jobs import JobContext
from gql_jobs.jetstream.errors import FenceRefused
from gql_jobs.jobs.messages import Kind, Progress
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log import codec
from gql_jobs.log.codec import encode_body
from gql_jobs.log.job_log import JobLog, job_events
from gql_jobs.log.streams import stream_info
from gql_jobs.web.runtime import Runtime
from tests.workers.stories import create, ended, handled_by, history

pytestmark = pytest.mark.usefixtures("worker")


async def test_a_thousand_reports_are_stored_as_a_few(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        for number in range(1000):
            context.progress(number / 10, f"report {number}")
            await asyncio.sleep(0)
        return {"attempt": 1}

    handled_by(monkeypatch, handler)
    await ended(runtime, await create(runtime))
    stored = (await stream_info(runtime.connection)).state.last_seq - len(("queued", "started", "completed"))
    assert 1 <= stored <= 10


async def test_at_most_ten_a_second_are_stored(runtime: Runtime) -> None:
    job = await ended(runtime, await create(runtime, steps=100, seconds=0.5))
    stored = (await stream_info(runtime.connection)).state.last_seq - 3
    assert job.duration is not None
    assert 2 <= stored <= job.duration.total_seconds() * 10 + 1


async def test_only_the_newest_is_kept(runtime: Runtime) -> None:
    job_id = await create(runtime, steps=4, seconds=0.5)
    await ended(runtime, job_id)
    kinds = [message.kind for message in await history(runtime.connection, job_id)]
    assert kinds == [Kind.QUEUED, Kind.STARTED, Kind.PROGRESS, Kind.COMPLETED]


async def test_what_was_said_last_travels_with_the_end(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        for percent in (10, 20, 95):
            context.progress(percent, f"at {percent}")
        return {"attempt": 1}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert (job.progress, job.progress_message) == (100, "at 95")


async def test_a_failed_attempt_keeps_how_far_it_got(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> None:
        context.progress(42, "half way")
        raise ValueError

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, max_retries=0))
    assert (job.status, job.progress, job.progress_message) == (JobStatus.DEAD_LETTER, 42, "half way")


async def test_nothing_is_stored_after_the_terminal_event(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[JobContext] = []

    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        contexts.append(context)
        for percent in range(100):
            context.progress(percent)
        return {"attempt": 1}

    handled_by(monkeypatch, handler)
    jobs = [await create(runtime) for _ in range(20)]
    for job_id in jobs:
        await ended(runtime, job_id)
    for context in contexts:
        context.progress(99, "too late")
    await ended(runtime, await create(runtime))
    for job_id in jobs:
        assert [m.kind for m in await history(runtime.connection, job_id)][-1] is Kind.COMPLETED


async def test_progress_is_fenced_by_the_attempt(runtime: Runtime, job_log: JobLog) -> None:
    job_id = await create(runtime, fail_attempts=1, steps=2)
    await ended(runtime, job_id)
    messages = await history(runtime.connection, job_id)
    first_start = next(message for message in messages if message.kind is Kind.STARTED)
    body = Progress(submission=messages[0].seq, attempt=1, worker_id="zombie", progress=1)
    with pytest.raises(FenceRefused):
        await job_log.rollup(codec.progress_subject(job_id), encode_body(body), job_events(job_id, first_start.seq))
    assert [m.seq for m in await history(runtime.connection, job_id)] == [m.seq for m in messages]


@pytest.mark.parametrize(("said", "stored"), [(-3, 0), (0.4, 0), (66.6, 67), (100, 100), (250, 100)])
async def test_a_percentage_is_between_0_and_100(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, said: float, stored: int
) -> None:
    async def handler(context: JobContext, _: Any) -> None:
        context.progress(said)
        raise ValueError

    handled_by(monkeypatch, handler)
    assert (await ended(runtime, await create(runtime, max_retries=0))).progress == stored
