"""An attempt that takes too long, or does not want to end."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import JobContext
from gql_jobs.jobs.errors import AttemptStoppedError
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import execution
from tests.deadline import until
from tests.workers.stories import create, ended, handled_by, history, kinds, running


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One slot, so that a job that runs shows that the slot is good."""
    return settings.model_copy(update={"num_workers": 1})


pytestmark = pytest.mark.usefixtures("worker")


async def test_a_timeout_is_a_transient_failure(runtime: Runtime) -> None:
    job_id = await create(runtime, seconds=30, timeout=0.2, max_retries=1)
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.DEAD_LETTER, 2)
    assert [(e.type, e.message, e.retryable) for e in job.errors] == [
        ("Timeout", "The attempt took longer than 0.2 s.", True)
    ] * 2


async def test_the_timeout_is_each_attempt_s_own(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        await asyncio.sleep(30 if context.attempt < 3 else 0)
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, timeout=0.2))
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 3)


async def test_the_handler_may_clean_up_after_a_timeout(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[str] = []

    async def handler(_: JobContext, __: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append("up")

    handled_by(monkeypatch, handler)
    await ended(runtime, await create(runtime, timeout=0.1, max_retries=0))
    assert cleaned == ["up"]


async def test_what_a_handler_returns_after_its_timeout_is_too_late(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return {"attempt": context.attempt}
        raise AssertionError

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, timeout=0.1, max_retries=0))
    assert (job.status, job.result) == (JobStatus.DEAD_LETTER, None)


async def test_a_handler_that_ignores_its_cancellation_is_abandoned_and_the_slot_is_good_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(execution, "STOP_GRACE", 0.2)
    gate = tmp_path / "gate"
    endless = await create(runtime, gate=gate, deaf=True, timeout=0.1, max_retries=0)
    assert (await ended(runtime, endless)).status is JobStatus.DEAD_LETTER
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED
    gate.touch()
    await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == f"job {endless}"], "the handler ends")
    assert (await kinds(runtime.connection, endless))[-1] is Kind.DEAD_LETTER


async def test_an_abandoned_handler_reports_nothing_any_more(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "STOP_GRACE", 0.1)
    told, done = asyncio.Event(), asyncio.Event()

    async def handler(context: JobContext, _: Any) -> None:
        while not told.is_set():
            try:
                await told.wait()
            except asyncio.CancelledError:
                continue
        context.progress(77, "still here")
        with pytest.raises(AttemptStoppedError):
            await context.checkpoint({"too": "late"})
        done.set()

    handled_by(monkeypatch, handler)
    job_id = await create(runtime, timeout=0.1, max_retries=0)
    await ended(runtime, job_id)
    told.set()
    await until(done.is_set, "the handler has tried")
    assert [m.kind for m in await history(runtime.connection, job_id)][-1] is Kind.DEAD_LETTER


async def test_a_plain_handler_runs_in_a_thread_of_its_own(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def handler(context: JobContext, _: Any) -> dict[str, int]:
        threads.append(threading.get_ident())
        context.progress(30, "from afar")
        time.sleep(0.2)
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    job_id = await create(runtime, "probe_thread")
    ticks = 0
    ending = asyncio.create_task(ended(runtime, job_id))
    while not ending.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert (await ending).status is JobStatus.COMPLETED
    assert threads != [threading.get_ident()]
    assert ticks > 5
    assert [m.body.message for m in await history(runtime.connection, job_id) if m.kind is Kind.PROGRESS] == [
        "from afar"
    ]


async def test_the_progress_of_a_thread_raises_once_it_is_stopped(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []

    def handler(context: JobContext, _: Any) -> None:
        try:
            while True:
                context.progress(50, "in a thread")
                time.sleep(0.01)
        except AttemptStoppedError as error:
            ends.append(str(error))

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, "probe_thread", timeout=0.2, max_retries=0))
    assert job.error is not None
    assert job.error.type == "Timeout"
    await until(lambda: ends, "the thread has ended")
    assert ends == ["The attempt has been stopped."]


async def test_a_cancelled_thread_gives_its_slot_free(runtime: Runtime, tmp_path: Path) -> None:
    job_id = await create(runtime, "probe_thread", gate=tmp_path / "never")
    await running(runtime, job_id)
    await runtime.commands.cancel(job_id)
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED


async def test_a_thread_waits_for_its_checkpoint(runtime: Runtime) -> None:
    job = await ended(runtime, await create(runtime, "probe_thread", saves={"page": 5}, fail_attempts=1))
    assert job.result is not None
    assert b'"saved":{"page":5}' in bytes(job.result)


async def test_threads_that_never_end_do_not_use_up_the_threads(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own pool has a few more threads than processors."""
    let_go = threading.Event()

    def endless(_: JobContext, __: Any) -> None:
        let_go.wait()

    def well(context: JobContext, _: Any) -> dict[str, int]:
        return {"attempt": context.attempt}

    monkeypatch.setattr(execution, "STOP_GRACE", 0.2)
    try:
        handled_by(monkeypatch, endless)
        for _ in range(min(32, (os.cpu_count() or 1) + 4)):
            await ended(runtime, await create(runtime, "probe_thread", timeout=0.1, max_retries=0))
        handled_by(monkeypatch, well)
        job = await ended(runtime, await create(runtime, "probe_thread", timeout=5, max_retries=0))
        assert job.status is JobStatus.COMPLETED
    finally:
        let_go.set()
