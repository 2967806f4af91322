"""Which workers are there, as an API process sees it."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gql_jobs.log import codec
from gql_jobs.log import heartbeats as presence
from gql_jobs.log.heartbeats import WorkerSeen
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.deadline import until
from tests.running import RunningWorker, running_worker, worker_process
from tests.workers.stories import all_ended, create, create_many, ended, running


async def _seen(runtime: Runtime, number: int, *, within: float) -> list[WorkerSeen]:
    await until(lambda: len(runtime.presence.workers()) == number, f"{number} workers are seen", within=within)
    return runtime.presence.workers()


async def test_a_worker_is_listed_within_a_second_of_its_start(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack
) -> None:
    assert runtime.presence.workers() == []
    worker = await workers.enter_async_context(running_worker(settings, ("default",)))
    await worker.started.wait()
    (seen,) = await _seen(runtime, 1, within=1)
    assert (seen.queues, seen.concurrency, seen.running) == (("default",), settings.num_workers, 0)
    assert seen.started_at <= seen.last_seen_at


async def test_it_says_how_many_jobs_it_runs(runtime: Runtime, worker: RunningWorker, tmp_path: Path) -> None:
    await worker.started.wait()
    await _seen(runtime, 1, within=1)
    gate = tmp_path / "gate"
    job_ids = await create_many(runtime, 2, gate=gate)
    await running(runtime, *job_ids)
    await until(lambda: runtime.presence.workers()[0].running == 2, "two run", within=1)
    gate.touch()
    await all_ended(runtime, job_ids)
    await until(lambda: runtime.presence.workers()[0].running == 0, "none runs", within=1)


async def test_a_stopped_worker_disappears_at_once(runtime: Runtime, worker: RunningWorker) -> None:
    await worker.started.wait()
    await _seen(runtime, 1, within=1)
    await worker.stop()
    await _seen(runtime, 0, within=0.5)


async def test_a_killed_worker_disappears_when_it_has_been_silent(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * presence.HEARTBEAT_EVERY < presence.GONE_AFTER < 15
    async with worker_process(settings) as process:
        await ended(runtime, await create(runtime), within=20)
        await _seen(runtime, 1, within=1)
        process.kill()
        await process.wait()
        assert len(runtime.presence.workers()) == 1
        monkeypatch.setattr(presence, "GONE_AFTER", 1.0)
        await _seen(runtime, 0, within=1.5)


async def test_a_worker_that_missed_a_heartbeat_is_stale_until_it_is_heard_of_again(
    runtime: Runtime, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert presence.HEARTBEAT_EVERY < presence.MISSED_AFTER < 2 * presence.HEARTBEAT_EVERY < presence.GONE_AFTER
    await worker.started.wait()
    (seen,) = await _seen(runtime, 1, within=1)
    assert not seen.stale
    monkeypatch.setattr(presence, "MISSED_AFTER", 0.3)
    await until(lambda: runtime.presence.workers()[0].stale, "it is stale", within=2)
    await runtime.connection.publish(codec.HEARTBEAT_REQUESTS, b"")
    await until(lambda: not runtime.presence.workers()[0].stale, "it is heard of again", within=2)


async def test_an_api_that_starts_later_is_told_at_once(
    settings: Settings, worker: RunningWorker, tmp_path: Path
) -> None:
    await worker.started.wait()
    async with open_runtime(settings.model_copy(update={"data_dir": tmp_path / "other"}), ()) as runtime:
        await _seen(runtime, 1, within=1)


async def test_several_workers_are_listed_the_oldest_first(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack
) -> None:
    for _ in range(3):
        worker = await workers.enter_async_context(running_worker(settings))
        await worker.started.wait()
    seen = await _seen(runtime, 3, within=1)
    assert [w.started_at for w in seen] == sorted(w.started_at for w in seen)
    assert len({w.id for w in seen}) == 3


async def test_a_heartbeat_that_cannot_be_read_is_passed_over(runtime: Runtime, worker: RunningWorker) -> None:
    await worker.started.wait()
    for garbage in (b"", b"{", b"[]", b'{"id":7}'):
        await runtime.connection.publish(codec.heartbeat_subject("odd"), garbage)
    (seen,) = await _seen(runtime, 1, within=1)
    assert seen.id != "odd"
