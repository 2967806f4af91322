"""A worker that lacks what a type's handler needs leaves its jobs to others."""

import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.running import running_worker, worker_process
from tests.workers.stories import create, done_with, ended, kinds, lane_is, reached


def _without(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, type_name: str) -> None:
    """The worker of this process cannot import the handler of that type."""
    job_type = runtime.registry.get(type_name)
    assert job_type is not None
    lacking = replace(job_type, handler="not_installed_here:run")
    monkeypatch.setitem(runtime.registry._types, type_name, lacking)  # noqa: SLF001


@pytest.mark.parametrize("type_name", ["probe", "probe_thread", "probe_cpu"])
async def test_it_hands_the_job_on_until_an_able_worker_comes(
    runtime: Runtime,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    type_name: str,
) -> None:
    caplog.set_level(logging.WARNING, "workers")
    _without(monkeypatch, runtime, type_name)
    job_type = runtime.registry.get(type_name)
    assert job_type is not None
    async with running_worker(settings):
        job_id = await create(runtime, type_name, max_retries=0)
        await lane_is(
            runtime.connection,
            "it has been offered again",
            lambda lane: lane.delivered.consumer_seq >= 3,
            queue=job_type.queue,
        )
        await reached(runtime, job_id, JobStatus.QUEUED)
        assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]
        (worker,) = runtime.presence.workers()
        assert "email" in worker.job_types
        await until(lambda: type_name not in runtime.presence.workers()[0].job_types, "it says what it cannot run")
        (unable,) = runtime.presence.workers()[0].unable
        assert unable.reason == "not_installed_here is not installed."
        async with worker_process(settings):
            job = await ended(runtime, job_id, within=30)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
    said = [record.getMessage() for record in caplog.records if type_name in record.getMessage()]
    assert said == [f"jobs of type {type_name} are left to other workers: not_installed_here is not installed."]


@pytest.mark.parametrize("type_name", ["probe", "probe_cpu"])
async def test_what_it_says_of_itself_has_no_secret_and_fits_into_a_heartbeat(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, type_name: str
) -> None:
    text = "cannot reach postgresql://ada:hunter2@db " + "x" * (2 << 20)
    (tmp_path / "lacking_something.py").write_text(f"raise ImportError({text!r})")
    monkeypatch.syspath_prepend(tmp_path)
    job_type = runtime.registry.get(type_name)
    assert job_type is not None
    lacking = replace(job_type, handler="lacking_something:run")
    monkeypatch.setitem(runtime.registry._types, type_name, lacking)  # noqa: SLF001
    async with running_worker(settings):
        await create(runtime, type_name)
        await until(lambda: [w for w in runtime.presence.workers() if w.unable], "it says what it cannot run")
        (unable,) = runtime.presence.workers()[0].unable
    assert unable.reason.startswith("cannot reach postgresql://***@db xxx")
    assert len(unable.reason) <= 500


async def test_it_still_drops_what_was_cancelled(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, runtime, "probe")
    job_id = await create(runtime)
    await runtime.commands.cancel(job_id)
    async with running_worker(settings):
        await done_with(runtime.connection)
