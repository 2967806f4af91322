"""A queue is paused: nothing of it starts on any worker, what runs may finish, and all of it goes on at the resume."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import clock
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.jobs.pause import FAR, Pause
from gql_jobs.live import queue_pauses
from gql_jobs.log import codec
from gql_jobs.log.deliveries import PullConsumer
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.paused_consumers import pause_consumers
from gql_jobs.log.steering import SteeringLog, as_value
from gql_jobs.log.streams import ensure_consumers
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import RestartingServer
from tests.deadline import until
from tests.running import JOB_TYPES, running_worker
from tests.workers.stories import all_ended, create, create_many, ended, kinds, lane_info, lane_is, reached, running


async def _pause(runtime: Runtime, queue: str = "default", reason: str | None = None, **ahead: float) -> None:
    """Pause a queue, for so long if ``ahead`` is given."""
    await runtime.pauses.pause(queue, reason, clock.now() + timedelta(**ahead) if ahead else None, "ada")


async def _consumer(connection: Connection, priority: JobPriority, queue: str = "default") -> tuple[bool, str | None]:
    """Whether the server has a consumer paused, and until when."""
    call = f"CONSUMER.INFO.{codec.JOBS_STREAM}.{codec.consumer_name(queue, priority)}"
    info: dict[str, Any] = json.loads(await connection.api(call))
    return info.get("paused", False), info["config"].get("pause_until")


async def _is_paused_at_the_server(connection: Connection, queue: str = "default") -> bool:
    """Whether the consumers of all priorities are paused, or none is."""
    states = {(await _consumer(connection, priority, queue))[0] for priority in JobPriority}
    return states == {True}


async def _is_resumed_at_the_server(connection: Connection, queue: str = "default") -> bool:
    states = {(await _consumer(connection, priority, queue))[0] for priority in JobPriority}
    return states == {False}


async def _write_the_message_alone(log: SteeringLog, queue: str = "default", **facts: Any) -> None:
    """What a process has done that was killed before it paused the consumers."""
    pause = Pause(at=clock.now(), **facts)
    await log.change(codec.PAUSES, queue, lambda _: as_value(pause))


async def _all_are_queued(runtime: Runtime, job_ids: list[str]) -> None:
    """Nothing has happened to the jobs, as the stream has it."""
    for job_id in job_ids:
        assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]


async def test_during_load_nothing_starts_what_runs_finishes_and_the_resume_runs_the_rest(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    for _ in range(2):
        await workers.enter_async_context(running_worker(settings.model_copy(update={"num_workers": 2})))
    busy = await create_many(runtime, 4, gate=gate)
    await running(runtime, *busy)
    waiting = await create_many(runtime, 40)
    await until(lambda: lane_info(runtime.connection), "the server answers")
    await _pause(runtime)
    gate.touch()
    assert {job.status for job in await all_ended(runtime, busy)} == {JobStatus.COMPLETED}
    other = await create(runtime, "probe_thread")
    later = await create(runtime, priority=JobPriority.CRITICAL)
    assert (await ended(runtime, other)).status is JobStatus.COMPLETED
    await _all_are_queued(runtime, [*waiting, later])
    await runtime.pauses.resume("default", "ada")
    done = await all_ended(runtime, [*waiting, later])
    assert {(job.status, job.attempt) for job in done} == {(JobStatus.COMPLETED, 1)}


async def test_what_a_worker_holds_and_has_not_started_is_handed_back_unspent(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    # Short jobs first, after which a worker pulls several at once.
    short = await create_many(runtime, 100)
    gate = tmp_path / "gate"
    busy = await create(runtime, gate=gate)
    held = await create_many(runtime, 5)
    await workers.enter_async_context(running_worker(settings.model_copy(update={"num_workers": 1})))
    await all_ended(runtime, short)
    await running(runtime, busy)
    await lane_is(runtime.connection, "more is delivered than runs", lambda lane: lane.num_ack_pending > 1)
    await _pause(runtime)
    gate.touch()
    await ended(runtime, busy)
    await lane_is(runtime.connection, "no pull is open", lambda lane: not lane.num_waiting)
    await _all_are_queued(runtime, held)
    await runtime.pauses.resume("default", None)
    assert {job.attempt for job in await all_ended(runtime, held)} == {1}


async def test_a_retry_that_is_due_during_the_pause_waits_for_the_resume(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack
) -> None:
    await workers.enter_async_context(running_worker(settings.model_copy(update={"base_retry_delay": 1.0})))
    job_id = await create(runtime, fail_attempts=1)
    failed = await reached(runtime, job_id, JobStatus.RETRYING)
    await _pause(runtime)
    due = failed.next_attempt_at
    assert due is not None
    await until(lambda: clock.now() > due + timedelta(seconds=0.5), "the backoff is over")
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.STARTED, Kind.FAILED]
    await runtime.pauses.resume("default", None)
    assert (await ended(runtime, job_id)).attempt == 2


async def test_a_pause_ends_by_itself_whether_or_not_an_api_process_runs(settings: Settings) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await _pause(runtime, seconds=1.5)
        job_id = await create(runtime)
        pause = runtime.pauses.of("default")
        assert pause is not None
    async with connect(settings, "test") as connection, running_worker(settings):
        await until(lambda: _has_started(connection, job_id), "the job is started though no API process runs")
        async with open_runtime(settings, JOB_TYPES) as runtime:
            job = await ended(runtime, job_id)
            assert job.started_at is not None
            assert pause.until is not None
            assert job.started_at >= pause.until
            await until(lambda: not runtime.feed.steering.values(codec.PAUSES, Pause), "the pause is removed")


async def _has_started(connection: Connection, job_id: str) -> bool:
    return Kind.STARTED in await kinds(connection, job_id)


async def test_a_worker_that_starts_while_a_queue_is_paused_starts_nothing_of_it(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack
) -> None:
    job_id = await create(runtime)
    await _pause(runtime)
    await workers.enter_async_context(running_worker(settings))
    assert (await ended(runtime, await create(runtime, "probe_thread"))).status is JobStatus.COMPLETED
    await _all_are_queued(runtime, [job_id])
    await runtime.pauses.resume("default", None)
    assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED


async def test_workers_obey_the_message_alone_and_the_api_pauses_the_consumers_that_its_writer_left(
    settings: Settings, job_log: JobLog
) -> None:
    async with running_worker(settings) as worker:
        await asyncio.wait_for(worker.started.wait(), 10)
        await _write_the_message_alone(SteeringLog(job_log), reason="the bank is closed")
        assert await _is_resumed_at_the_server(job_log.connection)
        await lane_is(job_log.connection, "no worker asks", lambda lane: lane.num_waiting == 0)
        async with open_runtime(settings, JOB_TYPES) as runtime:
            await until(lambda: _is_paused_at_the_server(job_log.connection), "the API pauses the consumers")
            job_id = await create(runtime)
            assert (await ended(runtime, await create(runtime, "probe_thread"))).status is JobStatus.COMPLETED
            await _all_are_queued(runtime, [job_id])


async def test_a_delivery_that_slips_in_is_handed_back_and_the_pulls_are_made_anew(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the worker knew of the pause a moment before the server's consumers were paused."""
    closed: list[str] = []
    close = PullConsumer.close

    async def closing(self: PullConsumer) -> None:
        if self.queue != "default" or runtime.pauses.of("default") is None:
            await close(self)
        else:
            closed.append(self.name)

    monkeypatch.setattr(PullConsumer, "close", closing)
    await (await workers.enter_async_context(running_worker(settings))).started.wait()
    await lane_is(runtime.connection, "a pull waits", lambda lane: lane.num_waiting == 1)
    await _write_the_message_alone(SteeringLog(runtime.pauses._log))  # noqa: SLF001
    await until(lambda: len(closed) == len(JobPriority), "the worker would have closed its pulls")
    await pause_consumers(runtime.connection, "default", None)
    job_id = await create(runtime)
    await lane_is(runtime.connection, "it was given", lambda lane: lane.delivered.consumer_seq > 0)
    await until(lambda: _is_paused_at_the_server(runtime.connection), "it is paused again", within=20)
    await _all_are_queued(runtime, [job_id])
    monkeypatch.undo()
    await runtime.pauses.resume("default", None)
    assert (await ended(runtime, job_id)).attempt == 1


async def test_consumers_that_are_not_as_the_pauses_say_are_repaired(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_pauses, "REPAIR_INTERVAL", 0.1)
    monkeypatch.setattr(queue_pauses, "IDLE_INTERVAL", 0.1)
    await _pause(runtime)
    await pause_consumers(runtime.connection, "default", None)
    await until(lambda: _is_paused_at_the_server(runtime.connection), "it is paused again")
    await pause_consumers(runtime.connection, "threads", FAR)
    await until(lambda: _is_resumed_at_the_server(runtime.connection, "threads"), "it was paused by nobody")
    await _pause(runtime, hours=1)
    for priority in JobPriority:
        _, told = await _consumer(runtime.connection, priority)
        pause = runtime.pauses.of("default")
        assert told is not None
        assert pause is not None
        assert datetime.fromisoformat(told) == pause.until


async def test_consumers_of_a_paused_queue_are_born_paused_and_an_update_resumes_none(
    runtime: Runtime, settings: Settings
) -> None:
    await _pause(runtime)
    for priority in JobPriority:
        await runtime.connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{codec.consumer_name('default', priority)}")
    await ensure_consumers(runtime.connection, ("default",), settings.ack_wait)
    assert await _is_paused_at_the_server(runtime.connection)
    await ensure_consumers(runtime.connection, ("default",), settings.ack_wait + 5)
    assert await _is_paused_at_the_server(runtime.connection)


async def test_pausing_again_changes_the_reason_and_the_end_and_the_same_again_changes_nothing(
    runtime: Runtime,
) -> None:
    await runtime.pauses.pause("default", "the bank is closed", None, "ada")
    first = runtime.pauses.of("default")
    assert first is not None
    seq = runtime.feed.steering.all(codec.PAUSES)["default"].seq
    await runtime.pauses.pause("default", "the bank is closed", None, "bob")
    assert runtime.feed.steering.all(codec.PAUSES)["default"].seq == seq
    tomorrow = clock.now() + timedelta(days=1)
    await runtime.pauses.pause("default", None, tomorrow, "bob")
    assert runtime.pauses.of("default") == Pause(at=first.at, by="bob", reason=None, until=tomorrow)
    await runtime.pauses.resume("default", "ada")
    await runtime.pauses.resume("default", "ada")
    assert runtime.pauses.now() == {}
    await until(lambda: _is_resumed_at_the_server(runtime.connection), "the consumers are resumed")


@pytest.fixture
async def restarting(tmp_path: Path) -> AsyncIterator[RestartingServer]:
    """A server that can be taken away and come back."""
    server = RestartingServer(tmp_path / "restarting")
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_a_pause_outlives_a_restart_of_nats(
    restarting: RestartingServer, settings: Settings, workers: AsyncExitStack
) -> None:
    settings = settings.model_copy(update={"nats_url": restarting.url})
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await (await workers.enter_async_context(running_worker(settings))).started.wait()
        await _pause(runtime)
        job_id = await create(runtime)
        await restarting.stop()
        await until(lambda: not runtime.connection.connected, "NATS is away")
        await restarting.start()
        await until(lambda: runtime.connection.connected, "NATS is back")
        other = await until(lambda: _created(runtime), "a job can be created")
        assert (await ended(runtime, other)).status is JobStatus.COMPLETED
        await _all_are_queued(runtime, [job_id])
        assert await _is_paused_at_the_server(runtime.connection)
        await runtime.pauses.resume("default", None)
        assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED
        await workers.aclose()


async def _created(runtime: Runtime) -> str | None:
    try:
        return await create(runtime, "probe_thread")
    except Exception:  # noqa: BLE001 - NATS may take its time
        return None
