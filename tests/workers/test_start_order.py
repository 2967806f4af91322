"""Which job starts next, and which is none of this worker's business."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.running import running_worker
from tests.workers.stories import all_ended, create, create_many, ended, history, lane_info, lane_is, running

P = JobPriority


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One slot: starts have an order."""
    return settings.model_copy(update={"num_workers": 1})


def _starts(trace: Path) -> list[str]:
    return [line.split()[0] for line in trace.read_text().splitlines()]


@pytest.mark.usefixtures("worker")
async def test_higher_priorities_start_first_while_the_slot_is_busy(runtime: Runtime, tmp_path: Path) -> None:
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    busy = await create(runtime, gate=gate)
    await running(runtime, busy)
    made = {
        priority: [await create(runtime, priority=priority, trace=trace) for _ in range(3)]
        for priority in (P.LOW, P.NORMAL, P.HIGH, P.CRITICAL)
    }
    gate.touch()
    await all_ended(runtime, [job_id for jobs in made.values() for job_id in jobs])
    assert _starts(trace) == [*made[P.CRITICAL], *made[P.HIGH], *made[P.NORMAL], *made[P.LOW]]


async def test_a_backlog_starts_by_priority(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    low = await create(runtime, priority=P.LOW, trace=trace)
    high = await create(runtime, priority=P.HIGH, trace=trace)
    await workers.enter_async_context(running_worker(settings))
    await all_ended(runtime, [low, high])
    assert _starts(trace) == [high, low]


async def test_low_jobs_get_one_of_sixteen_starts_under_a_flood(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    flood = await create_many(runtime, 100, priority=P.CRITICAL, trace=trace)
    flood += await create_many(runtime, 100, priority=P.HIGH, trace=trace)
    low = await create_many(runtime, 5, priority=P.LOW, trace=trace)
    await workers.enter_async_context(running_worker(settings))
    await all_ended(runtime, [*flood, *low], within=30)
    starts = _starts(trace)
    assert [starts.index(job_id) for job_id in low] == [15, 31, 47, 63, 79]


@pytest.mark.parametrize(
    "flooded",
    [
        (above, below, turns)
        for below, turns in ((P.HIGH, [5, 9, 13]), (P.NORMAL, [7, 11, 23]), (P.LOW, [15, 31, 47]))
        for above in P
        if above.rank > below.rank
    ],
    ids=str,
)
async def test_each_priority_has_its_share_under_a_flood_of_any_above_it(
    runtime: Runtime,
    settings: Settings,
    workers: AsyncExitStack,
    tmp_path: Path,
    flooded: tuple[JobPriority, JobPriority, list[int]],
) -> None:
    above, below, turns = flooded
    trace = tmp_path / "trace"
    flood = await create_many(runtime, 60, priority=above, trace=trace)
    few = await create_many(runtime, 3, priority=below, trace=trace)
    await workers.enter_async_context(running_worker(settings))
    await all_ended(runtime, [*flood, *few], within=30)
    starts = _starts(trace)
    assert [starts.index(job_id) for job_id in few] == turns


async def test_a_share_counts_across_the_queues_of_a_worker(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    flood = await create_many(runtime, 60, priority=P.CRITICAL, trace=trace)
    few = [await create(runtime, "probe_thread", priority=P.HIGH, trace=trace) for _ in range(3)]
    await workers.enter_async_context(running_worker(settings))
    await all_ended(runtime, [*flood, *few], within=30)
    starts = _starts(trace)
    assert [starts.index(job_id) for job_id in few] == [5, 9, 13]


async def test_all_priorities_that_wait_have_their_shares_and_the_top_has_the_rest(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    waiting = {of: await create_many(runtime, 40, priority=of, trace=trace) for of in P}
    await workers.enter_async_context(running_worker(settings))
    await all_ended(runtime, [job_id for jobs in waiting.values() for job_id in jobs], within=30)
    first = _starts(trace)[:64]
    shares = {of: sum(job_id in first for job_id in jobs) for of, jobs in waiting.items()}
    assert shares == {P.CRITICAL: 40, P.HIGH: 12, P.NORMAL: 8, P.LOW: 4}


async def test_only_the_named_queues_are_served(runtime: Runtime, settings: Settings, workers: AsyncExitStack) -> None:
    await workers.enter_async_context(running_worker(settings, ("threads",)))
    left = await create(runtime)
    done = await create(runtime, "probe_thread")
    assert (await ended(runtime, done)).status is JobStatus.COMPLETED
    lane = await lane_info(runtime.connection)
    assert (lane.num_waiting, lane.num_ack_pending, lane.num_pending) == (0, 0, 1)
    job = runtime.index.job(left)
    assert job is not None
    assert job.status is JobStatus.QUEUED


@pytest.mark.usefixtures("worker")
async def test_a_job_waits_at_most_two_seconds_behind_a_busy_worker(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    """What a busy worker holds is given back, so that an idle one can have it."""
    gate = tmp_path / "gate"
    busy = await create(runtime, gate=gate)
    await running(runtime, busy)
    held = await create(runtime, priority=P.HIGH)
    await lane_is(runtime.connection, "the busy worker holds it", lambda i: i.num_ack_pending == 1, priority=P.HIGH)
    await workers.enter_async_context(running_worker(settings))
    job = await ended(runtime, held, within=5)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
    gate.touch()
    await ended(runtime, busy)


@pytest.mark.usefixtures("worker")
async def test_a_scheduled_job_starts_not_before_its_time_and_within_a_second_of_it(runtime: Runtime) -> None:
    run_at = datetime.now(UTC) + timedelta(seconds=1.5)
    job_id = await create(runtime, run_at=run_at)
    job = await ended(runtime, job_id)
    assert job.status is JobStatus.COMPLETED
    started = next(m for m in await history(runtime.connection, job_id) if m.kind is Kind.STARTED)
    assert run_at <= started.at < run_at + timedelta(seconds=1)


@pytest.mark.usefixtures("worker")
async def test_a_cancelled_scheduled_job_never_starts(runtime: Runtime, tmp_path: Path) -> None:
    run_at = datetime.now(UTC) + timedelta(seconds=0.6)
    job_id = await create(runtime, run_at=run_at, trace=tmp_path / "trace")
    await runtime.commands.cancel(job_id)
    later = await create(runtime, run_at=run_at + timedelta(seconds=0.3))
    await ended(runtime, later)
    assert not (tmp_path / "trace").exists()
    assert (await ended(runtime, job_id)).status is JobStatus.CANCELLED
