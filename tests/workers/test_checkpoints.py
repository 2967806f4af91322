"""What a handler saves is there for the next attempt, whoever makes it."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gql_jobs import JobContext
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker, worker_process
from tests.stories import PROBE, accepted
from tests.workers.stories import create, ended, handled_by

LIMIT = 256 * 1024
_ENDLESS: list[Any] = []
_ENDLESS.append(_ENDLESS)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The shortest lease there is."""
    return settings.model_copy(update={"ack_wait": 1.0})


def _saved(job: Job) -> Any:
    assert job.result is not None, job.errors
    return msgspec.json.decode(bytes(job.result)).get("saved")


@pytest.mark.usefixtures("worker")
async def test_the_next_attempt_finds_what_the_last_one_saved(runtime: Runtime) -> None:
    job = await ended(runtime, await create(runtime, saves={"page": 7}, fail_attempts=1))
    assert (job.attempt, _saved(job)) == (2, {"page": 7})


@pytest.mark.usefixtures("worker")
async def test_a_first_attempt_finds_nothing(runtime: Runtime) -> None:
    assert _saved(await ended(runtime, await create(runtime))) is None


@pytest.mark.usefixtures("worker")
async def test_the_newest_checkpoint_counts(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        if context.attempt == 1:
            for page in range(5):
                await context.checkpoint({"page": page})
            raise ValueError
        return {"attempt": context.attempt, "saved": context.saved}

    handled_by(monkeypatch, handler)
    assert _saved(await ended(runtime, await create(runtime))) == {"page": 4}


async def test_it_outlives_a_kill_9_of_the_worker(
    runtime: Runtime, settings: Settings, job_log: JobLog, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(settings) as process:
        job_id = await create(runtime, saves=[1, 2, 3], gate=gate)
        await until(lambda: job_log.last(codec.checkpoint_subject(job_id)), "the checkpoint is stored", within=20)
        process.kill()
        await process.wait()
    gate.touch()
    await workers.enter_async_context(running_worker(settings))
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt, _saved(job)) == (JobStatus.COMPLETED, 2, [1, 2, 3])


@pytest.mark.usefixtures("worker")
async def test_a_retry_by_hand_resumes_where_the_job_had_ended(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    mended = asyncio.Event()

    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        if not mended.is_set():
            await context.checkpoint({"half": "done"})
            raise ValueError
        return {"attempt": context.attempt, "saved": context.saved}

    handled_by(monkeypatch, handler)
    job_id = await create(runtime, max_retries=0)
    await ended(runtime, job_id)
    mended.set()
    await runtime.feed.read_back(await runtime.commands.retry(job_id))
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt, _saved(job)) == (JobStatus.COMPLETED, 1, {"half": "done"})


@pytest.mark.usefixtures("worker")
async def test_a_retry_with_another_payload_begins_anew_and_its_own_retries_resume(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    async def handler(context: JobContext, payload: Any) -> dict[str, Any]:
        seen.append((payload.steps, context.saved))
        await context.checkpoint({"of": payload.steps})
        if len(seen) < 4:
            raise ValueError
        return {"attempt": context.attempt, "saved": context.saved}

    handled_by(monkeypatch, handler)
    job_id = await create(runtime, max_retries=0, steps=1)
    await ended(runtime, job_id)
    other = JobChanges.of(payload=accepted(ProbePayload(steps=2)), job_type=PROBE)
    for payload in (other, None, None):
        retried = await runtime.commands.retry(job_id, payload=payload)
        await runtime.feed.read_back(retried)
        await ended(runtime, job_id)
    assert seen == [(1, None), (2, None), (2, {"of": 2}), (2, {"of": 2})]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        ("x" * (LIMIT - 2), True),
        ("x" * (LIMIT - 1), False),
        ("ü" * (LIMIT // 2), False),
        (object(), False),
        ({"a": {1, 2}}, True),
        ("\ud800", False),
        (_ENDLESS, False),
        (None, True),
        ({"deep": [1, {"er": None}]}, True),
    ],
    ids=["at the limit", "above it", "bytes count", "object", "set", "surrogate", "endless", "null", "nested"],
)
async def test_what_may_be_saved(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, data: Any, *, accepted: bool
) -> None:
    outcomes: list[Any] = []

    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        try:
            await context.checkpoint(data)
        except ValueError as error:
            outcomes.append(error)
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED
    assert (outcomes == []) is accepted, outcomes


@pytest.mark.usefixtures("worker")
async def test_a_refused_checkpoint_leaves_the_last_one(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        if context.attempt == 1:
            await context.checkpoint("small")
            await context.checkpoint("x" * LIMIT)
        return {"attempt": context.attempt, "saved": context.saved}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert (job.errors[0].type, _saved(job)) == ("RefusedValue", "small")
    assert f"the limit is {LIMIT}" in job.errors[0].message


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    "stored",
    [b"no JSON", b"[1, NaN]", b"\xff", b"[" * 100_000, b"1" * 5000],
    ids=["text", "NaN", "no UTF-8", "deep", "digits"],
)
async def test_a_checkpoint_that_this_version_cannot_read_is_logged_and_the_attempt_begins_from_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stored: bytes
) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        if context.attempt == 1:
            await runtime.connection.request(codec.checkpoint_subject(context.job_id), stored)
            raise ValueError
        return {"attempt": context.attempt, "saved": context.saved}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert (job.status, job.attempt, _saved(job)) == (JobStatus.COMPLETED, 2, None)
    assert "the checkpoint of an earlier attempt cannot be read" in caplog.text
