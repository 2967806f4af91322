"""Whatever a handler does to the process it runs in, its job ends in a clear outcome, and the next one runs."""

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace

from gql_jobs import JobContext
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker.sandbox.processes import environment_for_handlers
from tests.child_processes import all_ended
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.running import RunningWorker, running_worker, worker_process
from tests.stories import accepted
from tests.workers import misuse
from tests.workers.stories import create, ended, handled_by
from tests.workers.test_cpu_processes import handler_processes, result

pytestmark = [
    pytest.mark.usefixtures("worker"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def run_in_processes(runtime: Runtime, patch: pytest.MonkeyPatch, name: str) -> None:
    """Have the processes of CPU-bound handlers run the function of ``misuse`` with this name."""
    job_type = runtime.registry.get("probe_cpu")
    assert job_type is not None
    changed = replace(job_type, handler=f"tests.workers.misuse:{name}")
    patch.setitem(runtime.registry._types, "probe_cpu", changed)  # noqa: SLF001


async def _ran(runtime: Runtime, patch: pytest.MonkeyPatch, name: str, **asked: Any) -> Job:
    """The job of that function, and then the next one is completed."""
    with patch.context() as patched:
        run_in_processes(runtime, patched, name)
        job = await ended(runtime, await create(runtime, "probe_cpu", max_retries=0, **asked))
    after = await ended(runtime, await create(runtime, "probe_cpu", max_retries=0))
    assert (after.status, after.attempt) == (JobStatus.COMPLETED, 1)
    return job


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("exit_at_once", "ProcessDied", "ended with exit code 5"),
        ("abort", "ProcessDied", "was killed by signal 6"),
        ("close_all_descriptors", "ProcessDied", "closed its connection to the worker"),
        ("exit_with_text", "SystemExit", "reference"),
        ("exit_in_a_coroutine", "SystemExit", "reference"),
        ("interrupt", "KeyboardInterrupt", "reference"),
        ("exit_generator", "GeneratorExit", "reference"),
        ("cancel", "CancelledError", "reference"),
        ("cancel_in_a_coroutine", "CancelledError", "reference"),
        ("generator", "InvalidResult", "a generator"),
        ("async_generator", "InvalidResult", "a generator"),
        ("wait_where_it_cannot", "PermanentError", "await context.checkpoint"),
    ],
)
async def test_a_cpu_bound_handler_that_ends_oddly_is_a_failure_in_words_and_the_next_job_runs(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, name: str, error: str, said: str
) -> None:
    job = await _ran(runtime, monkeypatch, name)
    assert job.error is not None
    assert (job.status, job.error.type) == (JobStatus.DEAD_LETTER, error)
    assert said in job.error.message


@pytest.mark.parametrize("name", ["close_low_descriptors", "close_output", "leave_the_folder", "lower_the_limits"])
async def test_a_cpu_bound_handler_that_damages_its_process_ends_and_the_next_job_finds_none_of_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert (await _ran(runtime, monkeypatch, name)).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("fork_and_exit", 3),
        ("fork_and_return", 0),
        ("fork_and_raise", 1),
        ("fork_and_report", 1),
        ("fork_and_exit_in_a_coroutine", 3),
        ("fork_and_await", 1),
    ],
)
async def test_a_copy_that_a_cpu_bound_handler_forks_ends_by_itself_and_counts_for_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    job = await _ran(runtime, monkeypatch, name)
    assert (job.status, result(job)["saved"]) == (JobStatus.COMPLETED, code), job.errors
    assert job.progress_message is None


@pytest.mark.parametrize("type_name", ["probe", "probe_thread"])
@pytest.mark.parametrize(
    ("handler", "code"),
    [(misuse.fork_and_exit, 3), (misuse.fork_and_return, 0), (misuse.fork_and_raise, 1), (misuse.fork_and_await, 1)],
)
async def test_a_copy_of_the_worker_that_a_handler_forks_ends_by_itself_and_counts_for_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, handler: Callable[..., Any], code: int, type_name: str
) -> None:
    async def in_a_coroutine(context: JobContext, payload: Any) -> Any:
        return handler(context, payload)

    with monkeypatch.context() as patched:
        handled_by(patched, in_a_coroutine if type_name == "probe" else handler)
        job = await ended(runtime, await create(runtime, type_name, max_retries=0))
    assert (job.status, result(job)["saved"]) == (JobStatus.COMPLETED, code), job.errors
    for kind in ("probe", "probe_thread", "probe_cpu"):
        assert (await ended(runtime, await create(runtime, kind))).status is JobStatus.COMPLETED


RETURNED = ["wrapped", "wrapped_twice", "curried", "callee", "wrapped_callee", "future", "nested", "awaitable"]


@pytest.mark.parametrize("name", RETURNED)
@pytest.mark.parametrize("type_name", ["probe", "probe_cpu"])
async def test_what_a_call_returns_decides_whether_it_is_awaited(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, name: str, type_name: str
) -> None:
    if type_name == "probe":
        handled_by(monkeypatch, getattr(misuse, name))
    else:
        run_in_processes(runtime, monkeypatch, name)
    job = await ended(runtime, await create(runtime, type_name, max_retries=0))
    assert job.status is JobStatus.COMPLETED, job.errors


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (misuse.exit_in_a_task, JobStatus.DEAD_LETTER),
        (misuse.interrupt_in_a_task_that_nobody_awaits, JobStatus.COMPLETED),
    ],
)
async def test_no_task_that_a_handler_starts_ends_the_worker(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, handler: Callable[..., Any], status: JobStatus
) -> None:
    with monkeypatch.context() as patched:
        handled_by(patched, handler)
        job = await ended(runtime, await create(runtime, max_retries=0))
    assert job.status is status
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED


@pytest.mark.parametrize("type_name", ["logging", "logging_cpu"])
async def test_whatever_is_logged_while_a_handler_runs_says_of_which_job_by_whatever_logger(
    runtime: Runtime, settings: Settings, worker: RunningWorker, type_name: str
) -> None:
    await worker.stop()
    job_type = JobType(
        type_name,
        ProbePayload,
        ProbeResult,
        handler="registered:elsewhere",
        queue="cpu" if type_name == "logging_cpu" else "threads",
    )
    asked = JobRequest.of(job_type, accepted(ProbePayload()), max_retries=0)
    async with worker_process(settings, "--import", "tests.workers.misuse_jobs", stderr=PIPE) as process:
        job_id = (await runtime.commands.create(asked)).job.id
        await ended(runtime, job_id, within=30)
        process.terminate()
        _, written = await process.communicate()
    lines = written.decode().splitlines()
    tag = f"[job {job_id} attempt 1 type {type_name}] "
    begun = next(number for number, line in enumerate(lines) if "Job started" in line)
    done = next(number for number, line in enumerate(lines) if "Job completed" in line)
    assert [line for line in lines[begun : done + 1] if tag not in line and type_name == "logging_cpu"] == []
    assert any("a.library" in line and tag in line and line.endswith("another line") for line in lines)
    assert not [line for line in lines if line.startswith("00:00:00.000")]
    assert any(line.startswith("| ") and "RuntimeError: in a thread" in line for line in lines)


@pytest.mark.parametrize("handler", [misuse.generator, misuse.async_generator])
async def test_a_generator_is_no_result(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, handler: Callable[..., Any]
) -> None:
    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert job.error is not None
    assert (job.status, job.error.type) == (JobStatus.DEAD_LETTER, "InvalidResult")
    assert "a generator" in job.error.message


async def test_waiting_in_a_coroutine_is_refused_with_what_to_await_and_the_worker_goes_on(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        handled_by(patched, misuse.wait_where_it_cannot)
        job = await ended(runtime, await create(runtime, max_retries=0))
    assert job.error is not None
    assert "await context.checkpoint" in job.error.message
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED


async def test_a_handler_in_a_thread_may_await_its_context_on_an_event_loop_of_its_own(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps(context: JobContext) -> None:
        await context.checkpoint({"page": 1})
        await context.save_artifact("a.txt", b"abc")

    def handler(context: JobContext, _: Any) -> dict[str, Any]:
        asyncio.run(steps(context))
        return {"attempt": 1, "saved": context.saved}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, "probe_thread", max_retries=0))
    assert (job.status, result(job)["saved"]) == (JobStatus.COMPLETED, {"page": 1}), job.errors
    assert [artifact.name for artifact in runtime.index.artifacts(job.id)] == ["a.txt"]


async def test_a_handler_that_takes_more_memory_than_it_may_fails_with_a_sentence_and_the_next_job_runs(
    runtime: Runtime, settings: Settings, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.stop()
    async with running_worker(settings.model_copy(update={"process_memory_limit": 1 << 30})):
        job = await _ran(runtime, monkeypatch, "take_memory")
    assert job.error is not None
    assert (job.error.type, job.error.retryable) == ("MemoryError", True)
    assert "GQL_JOBS_PROCESS_MEMORY_LIMIT allows 1073741824 bytes" in job.error.message


async def test_an_idle_process_that_is_killed_costs_the_next_job_neither_an_attempt_nor_time(
    runtime: Runtime,
) -> None:
    await ended(runtime, await create(runtime, "probe_cpu"))
    for which in (0, -1, 0):
        # One that was replaced is made anew with the next job.
        while not (processes := handler_processes()):
            await ended(runtime, await create(runtime, "probe_cpu"))
        processes[which].kill()
        job = await ended(runtime, await create(runtime, "probe_cpu", max_retries=0), within=10)
        assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
        await all_ended(processes)


async def test_processes_that_end_before_the_handler_begins_are_tried_a_few_times(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ends_on_import.py").write_text("import os; os._exit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    job_type = runtime.registry.get("probe_cpu")
    assert job_type is not None
    broken = replace(job_type, handler="ends_on_import:run")
    with monkeypatch.context() as patched:
        patched.setitem(runtime.registry._types, "probe_cpu", broken)  # noqa: SLF001
        job = await ended(runtime, await create(runtime, "probe_cpu", max_retries=0))
    assert job.error is not None
    said = "The process of the handler ended with exit code 7, before the handler began."
    assert (job.error.type, job.error.message) == ("ProcessDied", said)
    assert (await ended(runtime, await create(runtime, "probe_cpu"))).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    "name",
    [
        "change_the_umask",
        "change_the_environment",
        "leave_for_a_folder_that_goes",
        "ignore_and_block_signals",
        "leave_timers_that_raise",
        "lower_other_limits",
        "be_nicer",
        "change_the_interpreter",
        "open_all_descriptors",
    ],
)
async def test_whatever_a_cpu_bound_handler_changes_of_its_process_the_next_job_finds_none_of_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def found(name: str) -> Any:
        with monkeypatch.context() as patched:
            run_in_processes(runtime, patched, name)
            job = await ended(runtime, await create(runtime, "probe_cpu", max_retries=0))
        assert job.error is None
        return result(job)["saved"]

    before = await found("show_the_process")
    for _ in range(2):
        await found(name)
    after = await found("show_the_process")
    mark = "_GQL_JOBS_HANDLERS"
    assert {**after, "environment": {**after["environment"], mark: ""}} == {
        **before,
        "environment": {**before["environment"], mark: ""},
    }


async def test_a_process_in_which_many_threads_are_left_is_replaced(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_processes(runtime, monkeypatch, "leave_threads")
    await ended(runtime, await create(runtime, "probe_cpu"))
    processes = handler_processes()
    await all_ended(processes)


@pytest.mark.parametrize("steps", [0, 1])
async def test_what_a_cpu_bound_handler_writes_to_its_connection_is_a_failure_in_words_and_the_next_job_runs(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    job = await _ran(runtime, monkeypatch, "write_to_all_sockets", steps=steps)
    assert job.error is not None
    assert (job.status, job.attempt, job.error.type) == (JobStatus.DEAD_LETTER, 1, "ProcessDied")
    assert "wrote to the connection" in job.error.message


async def test_when_the_guard_of_a_cpu_bound_handler_is_killed_nothing_that_it_guarded_survives(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    run_in_processes(runtime, monkeypatch, "kill_the_guard")
    job_id = await create(runtime, "probe_cpu", max_retries=0, trace=trace, gate=gate)
    await until(trace.exists, "the program is started", within=30)
    programs = _programs(trace)
    assert programs
    gate.touch()
    job = await ended(runtime, job_id)
    assert job.error is not None
    assert job.error.type == "ProcessDied"
    await all_ended([*programs, *handler_processes()])


@pytest.mark.parametrize(
    ("name", "last"), [("report_and_die", (59, "step 59")), ("report_and_return", (100, "step 499"))]
)
async def test_what_a_cpu_bound_handler_reports_last_is_never_lost(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, name: str, last: tuple[int, str]
) -> None:
    run_in_processes(runtime, monkeypatch, name)
    ids = [await create(runtime, "probe_cpu", max_retries=0) for _ in range(10)]
    jobs = [await ended(runtime, job_id, within=40) for job_id in ids]
    assert {(job.progress, job.progress_message) for job in jobs} == {last}


def _programs(trace: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if str(trace) in _command(process)]


def _three_programs(trace: Path) -> list[psutil.Process] | None:
    found = _programs(trace)
    return found if len(found) == 3 else None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("how", ["cancelled", "timed out", "worker killed", "worker stopped"])
async def test_what_a_cpu_bound_handler_has_started_ends_with_it_in_whatever_session_it_is(
    runtime: Runtime, settings: Settings, worker: RunningWorker, tmp_path: Path, how: str
) -> None:
    await worker.stop()
    trace = tmp_path / "trace"
    handler = "tests.workers.misuse:start_programs"
    job_type = JobType("programs", ProbePayload, ProbeResult, handler=handler, queue="cpu", cpu_bound=True)
    gate = tmp_path / "gate"
    payload = ProbePayload(trace=str(trace), gate=str(gate))
    asked = JobRequest.of(job_type, accepted(payload), timeout=5.0 if how == "timed out" else 60.0, max_retries=0)
    async with worker_process(settings, "--import", "tests.workers.misuse_jobs") as process:
        job_id = (await runtime.commands.create(asked)).job.id
        await until(trace.exists, "the programs are started", within=30)
        programs = await until(lambda: _three_programs(trace), "all three run, the orphan too")
        if how == "cancelled":
            await runtime.commands.cancel(job_id)
        elif how == "worker killed":
            process.kill()
        elif how == "worker stopped":
            gate.touch()
            await ended(runtime, job_id)
            process.terminate()
        await all_ended(programs)


def test_the_environment_of_handlers_is_what_they_need_and_what_the_settings_name() -> None:
    environment = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "PYTHONPATH": "x",
        "GQL_JOBS_NATS_URL": "nats://a:b@c",
        "GQL_JOBS_NATS_PASSWORD": "x",
        "GQL_JOBS_SMTP_PASSWORD": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SHOP_DATABASE_URL": "x",
        "GQL_JOBS_IMAGE_WATERMARK": "x",
    }
    needed = {"PATH", "LC_ALL", "PYTHONPATH", "GQL_JOBS_IMAGE_WATERMARK"}
    assert set(environment_for_handlers(environment, ())) == needed
    assert set(environment_for_handlers(environment, ("SHOP_*", "AWS_SECRET_ACCESS_KEY"))) == {
        *needed,
        "SHOP_DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
    }


async def test_the_secrets_of_a_worker_are_not_in_the_environment_of_its_handlers(
    runtime: Runtime, settings: Settings, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.stop()
    monkeypatch.setenv("GQL_JOBS_SMTP_PASSWORD", "hunter2")
    monkeypatch.setenv("GQL_JOBS_NATS_URL", settings.nats_url or "")
    monkeypatch.setenv("SHOP_DATABASE_URL", "for the handler")
    async with running_worker(settings.model_copy(update={"process_environment": ("SHOP_*",)})):
        run_in_processes(runtime, monkeypatch, "show_environment")
        shown = result(await ended(runtime, await create(runtime, "probe_cpu")))["saved"]
    assert isinstance(shown, dict)
    assert shown["SHOP_DATABASE_URL"] == "for the handler"
    assert shown["PATH"] == os.environ["PATH"]
    assert not {"GQL_JOBS_SMTP_PASSWORD", "GQL_JOBS_NATS_URL"} & set(shown)
