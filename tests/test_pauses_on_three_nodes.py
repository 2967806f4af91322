"""On three nodes with three copies: a paused queue stays so on every worker, also when the leader is killed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TypeVar

import pytest

from benchmarks.chaos.servers import Node
from gql_jobs import clock
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.errors import ApiError, Unavailable
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job, JobPriority, JobStatus
from gql_jobs.jobs.pause import Pause
from gql_jobs.log import codec
from gql_jobs.log.paused_consumers import NO_CONSUMER
from gql_jobs.log.streams import ensure_consumers
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.deadline import until
from tests.running import JOB_TYPES, running_worker
from tests.test_cluster import _kill_the_leader, cluster, settings
from tests.workers.stories import all_ended, create, create_many, ended, kinds, running
from tests.workers.test_pauses import _consumer, _has_started, _is_paused_at_the_server, _is_resumed_at_the_server

__all__ = ["cluster", "settings"]
T = TypeVar("T")
pytestmark = pytest.mark.timeout(180)


async def _answered(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """The first true answer, asked for again while the cluster has no leader."""

    async def once() -> T | None:
        try:
            return await ask()
        except (QueueUnavailable, Unavailable):
            return None

    return await until(once, what, within=60)


async def _opened(stack: AsyncExitStack, settings: Settings) -> Runtime:
    """An API process."""
    return await _answered(lambda: stack.enter_async_context(open_runtime(settings, JOB_TYPES)), "a process is open")


async def _working(stack: AsyncExitStack, settings: Settings) -> None:
    """A worker that has started, which may take a few tries while the servers agree on their leaders."""

    async def started() -> bool:
        async with AsyncExitStack() as own:
            worker = await own.enter_async_context(running_worker(settings))
            waiting = asyncio.ensure_future(worker.started.wait())
            own.callback(waiting.cancel)
            assert worker.task is not None
            await asyncio.wait({waiting, worker.task}, return_when=asyncio.FIRST_COMPLETED)
            if worker.task.done():
                await worker.task
            stack.push_async_exit(own.pop_all())
        return True

    await _answered(started, "a worker has started")


async def _created(runtime: Runtime, type_name: str = "probe") -> str:
    """The id of a job."""
    return await _answered(lambda: create(runtime, type_name), "a job is created")


async def _none_has_started(runtime: Runtime, job_ids: list[str]) -> None:
    for job_id in job_ids:
        happened = await _answered(lambda one=job_id: kinds(runtime.connection, one), "it can be read")  # type: ignore[misc]
        assert happened == [Kind.QUEUED]


async def _others_run(runtime: Runtime) -> None:
    """Workers run what is in another queue, as they have room."""
    others = [await _created(runtime, "probe_thread") for _ in range(6)]
    assert {job.status for job in await all_ended(runtime, others, within=60)} == {JobStatus.COMPLETED}


async def test_a_pause_takes_effect_on_every_worker_and_outlives_the_leader(
    cluster: list[Node], settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gate = tmp_path_factory.mktemp("gate") / "gate"
    async with AsyncExitStack() as stack:
        runtime = await _opened(stack, settings)
        for _ in range(3):
            await _working(stack, settings.model_copy(update={"num_workers": 2}))
        busy = await create_many(runtime, 6, gate=gate)
        await running(runtime, *busy, within=30)
        waiting = await create_many(runtime, 30)
        await runtime.pauses.pause("default", "the bank is closed", None, "ada")
        gate.touch()
        assert {job.status for job in await all_ended(runtime, busy, within=60)} == {JobStatus.COMPLETED}
        await _others_run(runtime)
        await _none_has_started(runtime, waiting)

        await _kill_the_leader(cluster, settings)
        waiting.append(await _created(runtime))
        await _others_run(runtime)
        await _answered(lambda: _is_paused_at_the_server(runtime.connection), "the consumers are paused")
        await _none_has_started(runtime, waiting)
        pause = runtime.pauses.of("default")
        assert pause is not None
        assert (pause.by, pause.reason) == ("ada", "the bank is closed")

        await runtime.pauses.resume("default", "ada")
        done = await all_ended(runtime, waiting, within=60)
        # A node that dies may take the ack of a delivery with it, and none of these was delivered before.
        assert {(job.status, job.attempt) for job in done} == {(JobStatus.COMPLETED, 1)}


async def test_a_pause_ends_by_itself_though_its_leader_is_killed_and_no_api_process_runs(
    cluster: list[Node], settings: Settings
) -> None:
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as api:
            runtime = await _opened(api, settings)
            end = clock.now() + timedelta(seconds=12)
            await runtime.pauses.pause("default", None, end, None)
            job_id = await _created(runtime)
        await _working(stack, settings)
        await _kill_the_leader(cluster, settings)
        connection = await stack.enter_async_context(connect(settings, "test"))
        await _answered(lambda: _has_started(connection, job_id), "the job is started")
        runtime = await _opened(stack, settings)
        job: Job = await ended(runtime, job_id, within=30)
        assert job.status is JobStatus.COMPLETED
        assert job.started_at is not None
        assert job.started_at >= end
        await until(lambda: not runtime.feed.steering.values(codec.PAUSES, Pause), "the pause is removed", within=30)
        await _answered(lambda: _is_resumed_at_the_server(runtime.connection), "the consumers are resumed")


async def test_a_consumer_that_is_made_anew_while_its_queue_is_paused_is_born_paused_whoever_leads(
    cluster: list[Node], settings: Settings
) -> None:
    async with AsyncExitStack() as stack:
        runtime = await _opened(stack, settings)
        await runtime.pauses.pause("default", None, None, None)
        job_id = await _created(runtime)
        await _kill_the_leader(cluster, settings)
        await _created(runtime)
        # As an operator may do it, while no process repairs what it finds.
        runtime.pauses.repair = _nothing  # type: ignore[method-assign]
        for priority in JobPriority:
            await _answered(lambda one=priority: _deleted(runtime.connection, one), "a consumer is deleted")  # type: ignore[misc]
        await _answered(lambda: _made(runtime.connection, settings), "the consumers are made anew")
        assert await _answered(lambda: _states(runtime.connection), "the consumers are there") == {True}
        await _working(stack, settings)
        await _others_run(runtime)
        await _none_has_started(runtime, [job_id])
        await runtime.pauses.resume("default", None)
        assert (await ended(runtime, job_id, within=30)).status is JobStatus.COMPLETED


async def _deleted(connection: Connection, priority: JobPriority) -> bool:
    name = codec.consumer_name("default", priority)
    try:
        await connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{name}")
    except ApiError as error:
        if error.err_code != NO_CONSUMER:
            raise
    return True


async def _made(connection: Connection, settings: Settings) -> bool:
    await ensure_consumers(connection, ("default",), settings.ack_wait)
    return True


async def _states(connection: Connection) -> set[bool]:
    """Whether the consumers of the queue are paused."""
    return {(await _consumer(connection, priority))[0] for priority in JobPriority}


async def _nothing() -> dict[str, Pause]:
    await asyncio.Event().wait()
    return {}
