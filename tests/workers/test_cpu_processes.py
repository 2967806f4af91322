"""CPU-bound handlers run in processes of their own, with the same context and the same guarantees."""

import asyncio
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from gql_jobs import Model
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.settings import Settings
from gql_jobs.testing import arun_handler
from gql_jobs.web.runtime import Runtime
from tests.child_processes import all_ended, has_ended, tree
from tests.deadline import until
from tests.job_types import probe_handlers
from tests.job_types.probe_jobs import ProbePayload
from tests.running import RunningWorker, running_worker, worker_process
from tests.workers.stories import all_ended as all_jobs_ended
from tests.workers.stories import assert_one_end, create, dead_letter, ended, reached, running

pytestmark = pytest.mark.usefixtures("worker")


def handler_processes() -> list[psutil.Process]:
    """The processes of CPU-bound handlers that this process has started."""
    return [p for p in psutil.Process().children(recursive=True) if "sandbox.guard" in " ".join(p.cmdline())]


def result(job: Job) -> dict[str, object]:
    """The job's result."""
    assert job.result is not None
    decoded: dict[str, object] = json.loads(bytes(job.result))
    return decoded


async def test_the_handler_runs_in_another_process_that_is_kept_warm(runtime: Runtime) -> None:
    first = await ended(runtime, await create(runtime, "probe_cpu"))
    second = await ended(runtime, await create(runtime, "probe_cpu"))
    assert result(first)["text"] == result(second)["text"]
    assert int(str(result(first)["text"])) in {child.pid for child in psutil.Process().children(recursive=True)}


async def test_progress_and_checkpoints_come_through(runtime: Runtime) -> None:
    job_id = await create(runtime, "probe_cpu", saves={"part": 3}, fail_attempts=1, seconds=0.2)
    job = await ended(runtime, job_id)
    assert job.status is JobStatus.COMPLETED
    assert result(job)["saved"] == {"part": 3}
    newest = [event for event in runtime.index.events(job_id) if event.kind is Kind.PROGRESS][-1]
    assert (newest.job.progress, newest.job.progress_message) == (50, "computing")


async def test_a_saved_file_comes_through(runtime: Runtime) -> None:
    job = await ended(runtime, await create(runtime, "probe_cpu", artifact="out/zeros.bin", artifact_bytes=300_000))
    (artifact,) = runtime.index.artifacts(job.id)
    assert (artifact.name, artifact.size_bytes) == ("out/zeros.bin", 300_000)


async def test_a_permanent_error_is_permanent_from_there_too(runtime: Runtime) -> None:
    job = await ended(runtime, await create(runtime, "probe_cpu", permanent=True))
    assert job.error is not None
    assert (job.status, job.attempt, job.error.type) == (JobStatus.DEAD_LETTER, 1, "PermanentError")


async def test_a_process_that_is_killed_is_a_transient_failure_that_says_so(runtime: Runtime) -> None:
    job_id = await create(runtime, "probe_cpu", crash=True, max_retries=1)
    job = await ended(runtime, job_id)
    assert (job.status, len(job.errors)) == (JobStatus.DEAD_LETTER, 2)
    assert all(error.type == "ProcessDied" and error.retryable for error in job.errors)
    assert "killed by signal 9" in job.errors[0].message
    assert (await dead_letter(runtime.connection, job_id))["spec"]["payload"]["crash"] is True
    assert (await ended(runtime, await create(runtime, "probe_cpu"))).status is JobStatus.COMPLETED


async def test_a_timeout_kills_the_process_and_the_slot_is_good_again(runtime: Runtime, tmp_path: Path) -> None:
    started = time.monotonic()
    trace = tmp_path / "trace"
    job_id = await create(runtime, "probe_cpu", seconds=60, timeout=3.0, max_retries=0, trace=trace)
    await until(trace.exists, "the handler runs")
    processes = handler_processes()
    assert processes
    job = await ended(runtime, job_id)
    assert job.error is not None
    assert job.error.type == "Timeout"
    await all_ended(processes, within=2)
    assert time.monotonic() - started < 30
    assert (await ended(runtime, await create(runtime, "probe_cpu"))).status is JobStatus.COMPLETED


async def test_a_cancellation_kills_the_process(runtime: Runtime, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    job_id = await create(runtime, "probe_cpu", seconds=60, trace=trace)
    await until(trace.exists, "the handler runs")
    processes = handler_processes()
    assert processes
    await runtime.commands.cancel(job_id)
    await all_ended(processes, within=2)
    await reached(runtime, job_id, JobStatus.CANCELLED)
    await assert_one_end(runtime.connection, job_id)


async def test_leases_are_kept_while_handlers_take_every_core(
    runtime: Runtime, settings: Settings, worker: RunningWorker
) -> None:
    await worker.stop()
    short = settings.model_copy(update={"ack_wait": 1.0})
    async with running_worker(short):
        ids = [await create(runtime, "probe_cpu", seconds=3.0) for _ in range(3)]
        jobs = [await ended(runtime, job_id, within=40) for job_id in ids]
    # A lease that had run out would have brought a second attempt.
    assert [(job.status, job.attempt) for job in jobs] == [(JobStatus.COMPLETED, 1)] * 3


async def test_a_process_is_replaced_after_its_share_of_jobs(
    runtime: Runtime, settings: Settings, worker: RunningWorker
) -> None:
    await worker.stop()
    async with running_worker(settings.model_copy(update={"process_max_jobs": 1})):
        jobs = [await ended(runtime, await create(runtime, "probe_cpu")) for _ in range(2)]
    assert result(jobs[0])["text"] != result(jobs[1])["text"]


async def test_a_process_that_has_grown_too_large_is_replaced(
    runtime: Runtime, settings: Settings, worker: RunningWorker
) -> None:
    await worker.stop()
    async with running_worker(settings.model_copy(update={"process_max_bytes": 1 << 20})):
        jobs = [await ended(runtime, await create(runtime, "probe_cpu")) for _ in range(2)]
    assert result(jobs[0])["text"] != result(jobs[1])["text"]


async def test_a_hand_back_at_shutdown_costs_no_attempt(
    runtime: Runtime, settings: Settings, worker: RunningWorker, tmp_path: Path
) -> None:
    job_id = await create(runtime, "probe_cpu", gate=tmp_path / "gate")
    await running(runtime, job_id)
    worker.hand_back.set()
    await worker.stop()
    (tmp_path / "gate").touch()
    async with running_worker(settings):
        job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)


async def test_no_process_outlives_a_worker_that_is_killed(
    runtime: Runtime, settings: Settings, worker: RunningWorker, tmp_path: Path
) -> None:
    await worker.stop()
    async with worker_process(settings) as process:
        job_id = await create(runtime, "probe_cpu", seconds=60, trace=tmp_path / "trace")
        await until((tmp_path / "trace").exists, "the handler runs")
        processes = tree(process.pid)
        assert len(processes) > 1
        process.kill()
        await all_ended(processes, within=5)
    await runtime.commands.cancel(job_id)


async def test_ending_leaves_nothing_behind(settings: Settings, worker: RunningWorker, runtime: Runtime) -> None:
    await ended(runtime, await create(runtime, "probe_cpu"))
    await worker.stop()
    assert handler_processes() == []
    assert not [task for task in asyncio.all_tasks() if "handler's process" in task.get_name()]
    assert settings.process_max_jobs > 1


async def test_a_worker_whose_folder_is_removed_goes_on(
    runtime: Runtime, settings: Settings, worker: RunningWorker, tmp_path: Path
) -> None:
    await worker.stop()
    folder = tmp_path / "release"
    folder.mkdir()
    async with worker_process(settings, cwd=folder):
        assert (await ended(runtime, await create(runtime, "probe"))).status is JobStatus.COMPLETED
        folder.rmdir()
        jobs = [await ended(runtime, await create(runtime, "probe_cpu")) for _ in range(2)]
    assert [(job.status, job.attempt) for job in jobs] == [(JobStatus.COMPLETED, 1)] * 2


async def test_kills_of_handlers_and_their_guards_lose_no_job_count_no_attempt_wrongly_and_leave_nothing_open(
    runtime: Runtime, settings: Settings, worker: RunningWorker, tmp_path: Path
) -> None:
    await worker.stop()
    trace = tmp_path / "trace"
    async with worker_process(settings) as process:
        await ended(runtime, await create(runtime, "probe_cpu"))
        began_with = psutil.Process(process.pid).num_fds()
        ids = [await create(runtime, "probe_cpu", max_retries=50, seconds=0.1, trace=trace) for _ in range(40)]
        ending = asyncio.create_task(all_jobs_ended(runtime, ids, within=50))
        for victim in range(6):
            await until(partial(_has_lines, trace, 5 * victim + 1), "more jobs start")
            below = [p for p in tree(process.pid)[1:] if "sandbox.guard" in " ".join(_command(p))]
            below[victim % len(below)].kill()
        jobs = await ending
        assert {job.status for job in jobs} == {JobStatus.COMPLETED}
        # A handler may be killed after it was called and before it has written its line.
        assert sum(job.attempt for job in jobs) - trace.read_text().count("\n") in {0, 1}
        await ended(runtime, await create(runtime, "probe_cpu"))
        at_most = began_with + 2 * settings.num_workers
        await until(lambda: psutil.Process(process.pid).num_fds() <= at_most, "no descriptor is left open")
        await until(lambda: not any(map(has_ended, tree(process.pid))), "no zombie is left")


def _has_lines(trace: Path, number: int) -> bool:
    return trace.exists() and trace.read_text().count("\n") >= number


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_a_model_that_its_process_cannot_import_fails_the_attempt_in_a_sentence() -> None:
    class Local(Model):
        text: str

    registry, handler = Registry(), "tests.job_types.probe_handlers:run"
    registry.add(JobType("local_payload", Local, None, handler, cpu_bound=True))
    registry.add(JobType("local_result", ProbePayload, Local, handler, cpu_bound=True))
    given: list[Any] = [Local(text=""), ProbePayload()]
    for payload in given:
        outcome = await arun_handler(probe_handlers.run, payload, registry=registry)
        assert outcome.error is not None
        assert (outcome.status, outcome.error.type) == (JobStatus.RETRYING, "ModelNotFound")
        assert "<locals>.Local: it is imported from there" in outcome.error.message
