"""Functions that run once when a worker starts and when it ends, and what they make for its handlers."""

import asyncio
import importlib
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.registry import registry
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.worker_hooks import WorkerHooks, WorkerState, worker_hooks
from gql_jobs.settings import Settings
from gql_jobs.testing import run_handler
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import process_life
from gql_jobs_worker.failures import HookFailed
from gql_jobs_worker.process_life import ProcessLife
from tests.deadline import until
from tests.job_types import life_jobs
from tests.running import worker_process
from tests.workers.stories import all_ended, create, ended, kinds, lane_is, reached, running

USABLE = {"model": "large", "poolIsUsable": True}
BEGINNING = ["open_pool", "load_model"]
END = ["unload_model", "close_pool"]


class Life:
    """A worker that serves the queue ``life``, and what it has traced."""

    def __init__(self, process: Process, trace: Path) -> None:
        self.process = process
        self._trace = trace

    def traced(self) -> list[tuple[str, int]]:
        """What happened so far, and in which processes."""
        lines = self._trace.read_text().splitlines() if self._trace.exists() else []
        return [(text, int(pid)) for text, _, pid in (line.rpartition(" ") for line in lines)]

    def happened(self) -> list[str]:
        """What happened so far."""
        return [text for text, _ in self.traced()]

    async def end(self, within: float = 10.0) -> tuple[int, str]:
        """Stop it, if it has not ended; return its exit code and what it said."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.ended(within)

    async def ended(self, within: float = 10.0) -> tuple[int, str]:
        """Its exit code and what it said, once it has ended."""
        _, said = await asyncio.wait_for(self.process.communicate(), within)
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()


@asynccontextmanager
async def living(
    settings: Settings, folder: Path, misdeeds: str = "", environment: dict[str, str] | None = None
) -> AsyncIterator[Life]:
    """A worker process whose functions misbehave as ``misdeeds`` says: ``open_pool=raises``."""
    trace = folder / "trace"
    variables = {
        "LIFE_TRACE": str(trace),
        "LIFE_MISDEEDS": misdeeds,
        "GQL_JOBS_PROCESS_ENVIRONMENT": "LIFE_*",
        **(environment or {}),
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        arguments = ("--import", life_jobs.__name__, "--queues", "life")
        async with worker_process(settings, *arguments, stderr=PIPE) as process:
            yield Life(process, trace)


def result(job: Job) -> dict[str, Any]:
    assert job.result is not None, job.errors
    decoded: dict[str, Any] = json.loads(bytes(job.result))
    return decoded


async def test_a_worker_starts_once_and_ends_once_in_reverse_order(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    async with living(settings, tmp_path) as life:
        job_ids = [await create(runtime, name) for name in ("life", "life", "life_thread", "life_thread")]
        for job in await all_ended(runtime, job_ids, within=30):
            assert result(job) == {**USABLE, "pid": life.process.pid}
        assert (await life.end())[0] == 0
        assert [text for text in life.happened() if not text.startswith("handler")] == BEGINNING + END
        assert {pid for _, pid in life.traced()} == {life.process.pid}


async def test_the_end_comes_after_the_last_handler_has_ended(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    async with living(settings.model_copy(update={"shutdown_grace": 30}), tmp_path) as life:
        job_id = await create(runtime, "life", gate=tmp_path / "gate")
        await running(runtime, job_id, within=30)
        life.process.terminate()
        await lane_is(runtime.connection, "no pull is open", lambda info: info.num_waiting == 0, queue="life")
        (tmp_path / "gate").touch()
        assert (await life.ended())[0] == 0
        assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED
        assert life.happened() == [*BEGINNING, "handler", "handler ends", *END]


async def test_the_end_comes_after_jobs_were_handed_back(runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
    async with living(settings.model_copy(update={"shutdown_grace": 0.1}), tmp_path) as life:
        job_id = await create(runtime, "life", gate=tmp_path / "gate")
        await until(lambda: "handler" in life.happened(), "the handler runs", within=30)
        assert (await life.end())[0] == 0
        assert life.happened() == [*BEGINNING, "handler", "handler ends", *END]
    job = await reached(runtime, job_id, JobStatus.QUEUED)
    assert (job.attempt, job.errors) == (0, ())


@pytest.mark.parametrize(
    ("misdeeds", "says"),
    [
        ("open_pool=raises", "failed: OSError was raised; the worker's log says more, under the reference "),
        ("load_model=raises", "failed: the model is being replaced"),
        ("open_pool=hangs", "took longer than 0.4 s (GQL_JOBS_STARTUP_TIMEOUT)."),
        ("load_model=hangs", "took longer than 0.4 s (GQL_JOBS_STARTUP_TIMEOUT)."),
    ],
)
async def test_a_worker_that_cannot_start_takes_no_job_and_ends_with_a_sentence(
    runtime: Runtime, settings: Settings, tmp_path: Path, misdeeds: str, says: str
) -> None:
    job_id = await create(runtime, "life")
    async with living(settings, tmp_path, misdeeds, {"GQL_JOBS_STARTUP_TIMEOUT": "0.4"}) as life:
        code, said = await life.ended(30)
        assert code == 1, said
        name = misdeeds.partition("=")[0]
        told = f"gql-jobs worker: tests.job_types.life_handlers:{name} (@worker_startup) {says}"
        assert [line for line in said.splitlines() if line.startswith(told)], said
        assert not set(life.happened()) & {"handler", *END}
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]


@pytest.mark.parametrize("misdeeds", ["open_pool=hangs", "load_model=hangs"])
async def test_a_worker_that_is_stopped_while_it_starts_ends_at_once(
    runtime: Runtime, settings: Settings, tmp_path: Path, misdeeds: str
) -> None:
    job_id = await create(runtime, "life")
    async with living(settings, tmp_path, misdeeds) as life:
        await until(lambda: misdeeds.partition("=")[0] in life.happened(), "it starts", within=30)
        assert (await life.end(5))[0] == 0
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]


async def test_what_the_end_raises_is_logged_and_the_rest_of_it_done(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    async with living(settings, tmp_path, "unload_model=raises") as life:
        await ended(runtime, await create(runtime, "life"), within=30)
        code, said = await life.end()
        assert code == 0
        assert "tests.job_types.life_handlers:unload_model (@worker_shutdown) failed" in said
        assert "RuntimeError: no longer there" in said
        assert life.happened()[-2:] == END


async def test_each_process_of_cpu_bound_handlers_starts_and_ends_once(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    """The second job finds what was made for the first; the third is another process's, because each takes two.

    What was made may be larger than what a process may have grown to.
    """
    limits = {"GQL_JOBS_PROCESS_MAX_JOBS": "2", "GQL_JOBS_PROCESS_MAX_BYTES": str(150 << 20)}
    async with living(settings.model_copy(update={"num_workers": 1}), tmp_path, environment=limits) as life:
        jobs = [await ended(runtime, await create(runtime, "life_cpu"), within=30) for _ in range(3)]
        made = list(map(result, jobs))
        assert all(one["poolIsUsable"] and one["model"] == "in a process" for one in made)
        first, second, third = (one["pid"] for one in made)
        assert first == second != third
        assert (await life.end())[0] == 0
        of_processes = [pair for pair in life.traced() if pair[1] != life.process.pid]
        assert of_processes == [
            ("load_large_model", first),
            ("computing", first),
            ("computing", first),
            ("save_statistics", first),
            ("load_large_model", third),
            ("computing", third),
            ("save_statistics", third),
        ]


async def test_the_start_of_a_process_is_no_time_of_the_attempt(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    async with living(settings, tmp_path, "load_large_model=is slow"):
        job = await ended(runtime, await create(runtime, "life_cpu", timeout=1.5), within=30)
        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1), job.errors


@pytest.mark.parametrize(
    ("misdeed", "error"),
    [
        ("raises", ("StartupFailed", "failed: OSError was raised; the worker's log says more")),
        ("hangs", ("Timeout", "took longer than 0.5 s (GQL_JOBS_STARTUP_TIMEOUT).")),
    ],
)
async def test_an_attempt_whose_process_cannot_start_fails_and_is_tried_in_another_one(
    runtime: Runtime, settings: Settings, tmp_path: Path, misdeed: str, error: tuple[str, str]
) -> None:
    limit = {"GQL_JOBS_STARTUP_TIMEOUT": "0.5"} if misdeed == "hangs" else {}
    async with living(settings, tmp_path, f"load_large_model={misdeed}", limit) as life:
        job = await ended(runtime, await create(runtime, "life_cpu", max_retries=1), within=30)
        assert job.status is JobStatus.DEAD_LETTER
        assert [(one.type, one.retryable) for one in job.errors] == [(error[0], True)] * 2
        told = f"tests.job_types.life_cpu_handlers:load_large_model (@worker_startup) {error[1]}"
        assert all(one.message.startswith(told) and "/secrets/" not in one.message for one in job.errors), job.errors
        processes = [pid for text, pid in life.traced() if text == "load_large_model"]
        assert len(set(processes)) == len(processes) == 2
        assert "save_statistics" not in life.happened()


async def test_a_process_that_dies_ends_without_its_functions(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    async with living(settings, tmp_path) as life:
        job = await ended(runtime, await create(runtime, "life_cpu", crash=True, max_retries=0), within=30)
        assert job.status is JobStatus.DEAD_LETTER
        assert (await life.end())[0] == 0
        assert "save_statistics" not in life.happened()


async def test_nothing_is_run_at_the_end_of_a_worker_that_is_killed(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    async with living(settings, tmp_path) as life:
        await ended(runtime, await create(runtime, "life_cpu"), within=30)
        life.process.send_signal(signal.SIGKILL)
        assert (await life.ended())[0] == -signal.SIGKILL
        assert not set(life.happened()) & {"save_statistics", *END}


@pytest.mark.parametrize("misdeeds", ["", "come_late=raises"])
async def test_a_module_that_is_imported_later_starts_before_its_first_handler(
    runtime: Runtime, settings: Settings, tmp_path: Path, misdeeds: str
) -> None:
    job_type = registry.get("life_late")
    assert job_type is not None
    in_this_queue = msgspec.structs.replace(job_type, queue="life")
    async with living(settings, tmp_path, misdeeds) as life:
        asked = [JobRequest.of(in_this_queue, accept(job_type.payload, {}), max_retries=0) for _ in range(2)]
        created = await runtime.commands.create_many(asked)
        jobs = await all_ended(runtime, [one.job.id for one in created], within=30)
        happened = life.happened()
        if misdeeds:
            assert {error.type for job in jobs for error in job.errors} == {"StartupFailed"}
            assert "come_late (@worker_startup) failed: OSError was raised" in jobs[0].errors[0].message
        else:
            assert happened == [*BEGINNING, "come_late"]
            assert all(result(job)["model"] == "late" for job in jobs)
        assert (await life.end())[0] == 0


# Without a worker.


def test_a_function_that_could_not_be_called_is_refused_where_it_is_marked() -> None:
    hooks = WorkerHooks()

    async def generator(_: WorkerState) -> AsyncIterator[None]:
        yield

    def no_state() -> None:
        pass

    with pytest.raises(ValueError, match=r"generator is marked to run .* has a yield: write one function with"):
        hooks.add(hooks.startup, generator)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="no_state is called with the worker's state alone: too many positional"):
        hooks.add(hooks.startup, no_state)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="'text' is marked to run"):
        hooks.add(hooks.startup, "text")  # type: ignore[type-var]
    assert hooks.startup == []


def test_a_module_that_is_imported_again_replaces_its_functions() -> None:
    hooks, said = WorkerHooks(), list[str]()

    def mark(text: str) -> None:
        def open_pool(_: WorkerState) -> None:
            said.append(text)

        hooks.add(hooks.startup, open_pool)

    mark("old")
    mark("new")
    asyncio.run(ProcessLife(1, hooks).start())
    assert said == ["new"]


def test_a_state_says_what_nobody_has_set_and_shows_no_values() -> None:
    state = WorkerState()
    state.pool = "postgres://shop:hunter2@db"
    assert repr(state) == "WorkerState(pool)"
    assert not hasattr(state, "model")
    with pytest.raises(AttributeError, match=r"context.state has no 'model': no function marked by @worker_startup"):
        _ = state.model


async def test_a_value_that_nobody_would_keep_is_refused() -> None:
    hooks = WorkerHooks()

    async def load(_: WorkerState) -> Any:
        return 1

    hooks.add(hooks.startup, load)
    with pytest.raises(HookFailed, match=r"load .* returned a value of int, which nobody keeps: set it as"):
        await ProcessLife(5, hooks).start()


async def test_a_start_that_failed_is_made_again_and_what_was_done_is_not() -> None:
    hooks, done = WorkerHooks(), list[str]()

    def first(_: WorkerState) -> None:
        done.append("first")

    async def second(_: WorkerState) -> None:
        done.append("second")
        if done.count("second") == 1:
            raise SystemExit(3)

    hooks.add(hooks.startup, first)
    hooks.add(hooks.startup, second)
    life = ProcessLife(5, hooks)
    with pytest.raises(HookFailed, match=r"second .* failed: SystemExit was raised"):
        await life.start()
    assert life.is_behind
    await asyncio.gather(life.start(), life.start())
    assert done == ["first", "second", "second"]
    assert not life.is_behind


async def test_an_end_that_takes_too_long_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process_life, "SHUTDOWN_WITHIN", 0.2)
    hooks, done = WorkerHooks(), list[int]()

    def last(_: WorkerState) -> None:
        done.append(os.getpid())

    async def hangs(_: WorkerState) -> None:
        await asyncio.Event().wait()

    hooks.add(hooks.shutdown, last)
    hooks.add(hooks.shutdown, hangs)
    await ProcessLife(5, hooks).stop()
    assert done == []
    (said,) = caplog.messages
    assert said.startswith("the worker ends without ")
    assert said.index("hangs") < said.index("last")


# In a test of a handler alone, without a worker.


def test_a_handler_alone_is_given_what_the_functions_make_or_what_the_test_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFE_TRACE", str(tmp_path / "trace"))
    handlers = importlib.import_module("tests.job_types.life_handlers")
    for name, hooks in vars(worker_hooks).items():
        # Without those of other tests' modules.
        monkeypatch.setattr(worker_hooks, name, [hook for hook in hooks if hook.name.startswith(handlers.__name__)])

    made = run_handler(handlers.use_state, life_jobs.LifePayload(), registry=registry)
    assert made.result == life_jobs.LifeResult(pid=os.getpid(), model="large", pool_is_usable=True)
    happened = [line.split()[0] for line in (tmp_path / "trace").read_text().splitlines()]
    assert [text for text in happened if not text.startswith("handler")] == BEGINNING + END

    given = run_handler(handlers.use_state_in_thread, life_jobs.LifePayload(), state=GivenState(), type="life_thread")
    assert given.result.model == "given"


class GivenState:
    """What a test gives a handler."""

    model = "given"

    @property
    def pool(self) -> "GivenState":
        return self

    async def is_usable(self) -> bool:
        return False
