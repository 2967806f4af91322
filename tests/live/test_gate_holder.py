"""The process that holds the gate, on a real server: what is held back goes when it may, whoever dies or is late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Completed, DeadLetter, Failed, Kind, Started
from gql_jobs.jobs.model import DependencyPolicy, Gate, Job, JobStatus, new_job_id
from gql_jobs.live import gate as live_gate
from gql_jobs.log import codec
from gql_jobs.log.commands import creation
from gql_jobs.log.gate_lease import GateLease, GateLost
from gql_jobs.log.job_log import JobLog, folded
from gql_jobs.log.steering import SteeringLog, as_value
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import say, stored
from tests.deadline import until
from tests.running import JOB_TYPES
from tests.stories import error, spec

S = JobStatus


class System:
    """A process of the API, and the log for what others do."""

    def __init__(self, runtime: Runtime, job_log: JobLog) -> None:
        self.runtime = runtime
        self.log = job_log

    async def create(self, **asked: Any) -> Job:
        """A job that is held back, unless it is asked for otherwise."""
        made = spec(**{"gate": Gate(), "created_at": clock.now(), **asked})
        write = creation(new_job_id(), made)
        await self.runtime.feed.wait_for(await self.log.append(write), 5)
        job = self.runtime.index.job(write.job_id)
        assert job is not None
        return job

    async def limit(self, limits: Limits | None) -> None:
        await SteeringLog(self.log).change(
            codec.QUEUE_LIMITS, "default", lambda _: as_value(limits) if limits else None
        )

    def status(self, job: Job) -> JobStatus | None:
        known = self.runtime.index.job(job.id)
        return known.status if known is not None else None

    async def has(self, job: Job, status: JobStatus) -> Job:
        await until(lambda: self.status(job) is status, f"{job.id} is {status}")
        known = self.runtime.index.job(job.id)
        assert known is not None
        return known

    async def run(self, job: Job, end: Any = Completed) -> None:
        await self.has(job, S.QUEUED)
        await say(self.log, job, Started)
        await say(self.log, job, end)


@pytest.fixture
def system(runtime: Runtime, job_log: JobLog) -> System:
    """One process of the API."""
    return System(runtime, job_log)


@asynccontextmanager
async def another(settings: Settings) -> AsyncIterator[Runtime]:
    """A second process of the API on the same stream."""
    async with open_runtime(settings, JOB_TYPES) as opened:
        yield opened


async def _leases(job_log: JobLog) -> list[int]:
    """The sequences of the leases, without the renewal of them."""
    found = await stored(job_log.connection, codec.steering_subjects(codec.GATE_LEASES))
    return [m.seq for m in found if "renewal" not in m.subject]


async def test_jobs_are_released_as_places_come_free(system: System) -> None:
    await system.limit(Limits(concurrency=1))
    await until(lambda: system.runtime.steering.all(codec.QUEUE_LIMITS), "the limit is known")
    first, second, third = [await system.create() for _ in range(3)]
    await system.run(first)
    await system.has(second, S.QUEUED)
    assert system.status(third) is S.WAITING
    await system.run(second)
    await system.run(third)
    history = await system.log.history(first.id)
    kinds = [m.kind for m in history]
    assert kinds == [Kind.SCHEDULED, Kind.QUEUED, Kind.STARTED, Kind.COMPLETED]
    assert b'"v":3' in history[1].data


async def test_its_process_follows_the_stream_closely_for_as_long_as_jobs_wait_for_a_place(system: System) -> None:
    feed = system.runtime.feed
    await system.limit(Limits(concurrency=1))
    await until(lambda: system.runtime.steering.all(codec.QUEUE_LIMITS), "the limit is known")
    first = await system.create()
    await system.has(first, S.QUEUED)
    assert not feed.is_followed()
    second = await system.create()
    await until(feed.is_followed, "a job waits for a place")
    await system.run(first)
    await system.has(second, S.QUEUED)
    await until(lambda: not feed.is_followed(), "none waits for a place any more")


async def test_nobody_renews_a_lease_while_nothing_is_held_back(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _leases(system.log) == []
    monkeypatch.setattr(live_gate, "RENEWED_EVERY", 0.05)
    monkeypatch.setattr(live_gate, "IDLE_AFTER", 0.05)
    job = await system.create()
    await system.run(job)
    await until(lambda: not system.runtime.gate.counters.holds, "the gate is given up")
    assert system.runtime.gate.lease.free_in() == 0
    known = await _leases(system.log)
    again = await system.create()
    await system.run(again)
    assert set(await _leases(system.log)).isdisjoint(known)


async def test_a_retry_gives_its_place_up_and_goes_on_where_the_failure_was(system: System) -> None:
    await system.limit(Limits(concurrency=1))
    await until(lambda: system.runtime.steering.all(codec.QUEUE_LIMITS), "the limit is known")
    first, second = [await system.create() for _ in range(2)]
    await system.has(first, S.QUEUED)
    await say(system.log, first, Started)
    # Not so soon that it might be due before the gate hears of the failure: then it would go before the other one.
    soon = clock.now() + timedelta(seconds=2)
    await say(system.log, first, Failed, errors=(error(1),), next_attempt_at=soon, progress=40, message="half")
    await system.run(second)
    again = await system.has(first, S.QUEUED)
    assert (again.attempt, again.errors, again.progress, again.progress_message) == (1, (error(1),), 40, "half")
    await say(system.log, first, Started, 2, errors=(error(1),))
    await say(system.log, first, Completed, 2)
    done = await system.has(first, S.COMPLETED)
    assert done.attempt == 2


async def test_a_job_runs_after_others_and_not_if_one_of_them_fails(system: System) -> None:
    imports = [await system.create(gate=None) for _ in range(2)]
    ids = tuple(job.id for job in imports)
    report = await system.create(after=ids)
    anyway = await system.create(after=ids, after_policy=DependencyPolicy.RUN)
    await system.run(imports[0])
    assert system.status(report) is S.WAITING
    await system.run(imports[1], DeadLetter)
    await system.has(anyway, S.QUEUED)
    cancelled = await system.has(report, S.CANCELLED)
    assert cancelled.cancel_reason == f"The job {ids[1]}, after which it was to run, has ended as DEAD_LETTER."
    assert cancelled.actor is None


@pytest.mark.parametrize("gate", [None, Gate()])
async def test_a_job_that_has_not_started_in_time_is_cancelled_by_the_system(system: System, gate: Gate | None) -> None:
    job = await system.create(gate=gate, start_before=clock.now() + timedelta(milliseconds=300))
    assert system.status(job) in {S.WAITING, S.QUEUED}
    cancelled = await system.has(job, S.CANCELLED)
    assert cancelled.cancel_reason is not None
    assert "not started by" in cancelled.cancel_reason


async def test_a_job_waits_until_its_time_by_the_gate_alone(system: System) -> None:
    due = clock.now() + timedelta(milliseconds=400)
    job = await system.create(gate=Gate(run_at=due))
    queued = await system.has(job, S.QUEUED)
    assert queued.updated_at >= due
    assert [event.kind for event in system.runtime.index.events(job.id)] == [Kind.WAITING, Kind.QUEUED]


async def test_another_process_takes_the_gate_at_once_when_its_holder_ends(settings: Settings, job_log: JobLog) -> None:
    async with AsyncExitStack() as holding, AsyncExitStack() as following:
        first = await holding.enter_async_context(another(settings))
        system = System(first, job_log)
        await system.limit(Limits(concurrency=1))
        await until(lambda: first.steering.all(codec.QUEUE_LIMITS), "the limit is known")
        jobs = [await system.create() for _ in range(3)]
        await system.run(jobs[0])
        second = await following.enter_async_context(another(settings))
        await until(lambda: second.feed.caught_up, "the second process follows")
        assert (first.gate.counters.holds, second.gate.counters.holds) == (True, False)
        await holding.aclose()
        await System(second, job_log).run(jobs[1])
        await until(lambda: second.gate.counters.holds, "the second process holds the gate", within=15)


async def test_a_holder_that_was_replaced_releases_nothing_and_hears_of_it(system: System, job_log: JobLog) -> None:
    held = system.runtime.gate
    job = await system.create(gate=Gate(run_at=clock.now() + timedelta(hours=1)))
    await until(lambda: held.counters.holds, "the gate is held")
    fence = held.lease.fence_of(job.id)
    usurper = GateLease(SteeringLog(job_log))
    for message in await SteeringLog(job_log).all(codec.GATE_LEASES):
        usurper.observe(message)
    last = await usurper.acquire()
    assert fence.seq < last
    await until(lambda: not held.lease.held, "it has heard of it")
    with pytest.raises(GateLost):
        held.lease.fence_of(job.id)
    due = await system.create()
    await usurper.renew()
    assert system.status(due) is S.WAITING
    await usurper.renew(ends=True)
    await system.has(due, S.QUEUED)


async def test_of_two_that_take_the_gate_at_the_same_time_one_has_it(job_log: JobLog) -> None:
    for _ in range(10):
        leases = [GateLease(SteeringLog(job_log)) for _ in range(2)]
        for message in await SteeringLog(job_log).all(codec.GATE_LEASES):
            for lease in leases:
                lease.observe(message)
        outcomes = await asyncio.gather(*(lease.acquire() for lease in leases), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["GateLost", "int"]


async def test_a_lease_is_old_when_it_was_not_renewed_for_ten_seconds_of_whoever_observes_it(job_log: JobLog) -> None:
    holder, observer = (GateLease(SteeringLog(job_log)) for _ in range(2))
    assert observer.free_in() == 0
    await holder.acquire()
    for message in await SteeringLog(job_log).all(codec.GATE_LEASES):
        observer.observe(message)
    assert 9 < observer.free_in() <= 10
    await holder.renew(ends=True)
    for message in await SteeringLog(job_log).all(codec.GATE_LEASES):
        observer.observe(message)
    assert observer.free_in() == 0


async def test_a_gate_was_attended_until_its_last_renewal_and_not_because_somebody_has_taken_it(
    job_log: JobLog,
) -> None:
    async def attended() -> list[datetime | None]:
        for message in await SteeringLog(job_log).all(codec.GATE_LEASES):
            for lease in (holder, observer):
                lease.observe(message)
        return [holder.attended_until, observer.attended_until]

    holder, observer = (GateLease(SteeringLog(job_log)) for _ in range(2))
    await holder.acquire()
    assert await attended() == [None, None]
    await holder.renew()
    ((renewal,),) = {(until,) for until in await attended()}
    assert renewal is not None
    await observer.acquire()
    assert await attended() == [renewal, renewal]


async def test_what_nobody_can_run_any_more_is_taken_back_and_released_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_gate, "RECALLED_EVERY", 0.05)
    monkeypatch.setattr(live_gate, "LOOKED_EVERY", 0.05)
    latest = clock.now() + timedelta(hours=1)
    job = await system.create(gate=Gate(release_before=latest))
    await system.has(job, S.QUEUED)
    await say(system.log, job, Started)
    await say(system.log, job, Failed, errors=(error(1),), next_attempt_at=clock.now())
    await until(lambda: (known := system.runtime.index.job(job.id)) and known.errors, "the failure is known")
    await system.has(job, S.QUEUED)
    holder = system.runtime.gate
    able = holder.state._world.is_able  # noqa: SLF001
    holder.state._world.is_able = lambda _, __: False  # noqa: SLF001
    waits = await system.has(job, S.WAITING)
    assert waits.changed == ()
    # It was released in time, so that it is never too late for it after that.
    assert waits.spec.gate == Gate()
    holder.state._world.is_able = able  # noqa: SLF001
    holder.state.look_again()
    again = await system.has(job, S.QUEUED)
    # Its attempts count on, although it waited without a failure of its own.
    assert (again.attempt, again.errors) == (1, (error(1),))
    await say(system.log, job, Started, 2, errors=(error(1),))
    await say(system.log, job, Completed, 2)
    await system.has(job, S.COMPLETED)
    history = await system.log.history(job.id)
    assert [m.kind for m in history if m.kind is Kind.QUEUED] == [Kind.QUEUED] * 3


async def test_a_rate_bounds_what_is_released_within_a_second(system: System) -> None:
    await system.limit(Limits(per_second=4))
    await until(lambda: system.runtime.steering.all(codec.QUEUE_LIMITS), "the limit is known")
    jobs = [await system.create() for _ in range(10)]
    for job in jobs:
        await system.run(job)
    released = [m.at for m in await stored(system.log.connection, codec.ALL_SUBMISSIONS)]
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in zip(released, released[4:], strict=False))


async def test_a_thousand_jobs_with_keys_of_their_own_are_drained(system: System) -> None:
    await system.limit(Limits(concurrency_per_key=1))
    await until(lambda: system.runtime.steering.all(codec.QUEUE_LIMITS), "the limit is known")
    base = spec(gate=Gate())
    writes = [
        creation(new_job_id(), replace(base, concurrency_key=str(number), created_at=clock.now()))
        for number in range(1000)
    ]
    outcomes = await system.log.append_in_order(writes)
    assert all(isinstance(outcome, int) for outcome in outcomes)
    await until(lambda: system.runtime.gate.counters.released == 1000, "all are released", within=30)
    jobs = [folded(await system.log.history(write.job_id)) for write in writes[:3]]
    assert all(job is not None and job.status is S.QUEUED for job in jobs)
