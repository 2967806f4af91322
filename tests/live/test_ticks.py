"""Jobs of schedules on a real server: each tick once, whoever makes it and whoever is interrupted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.model import Job, JobStatus, OverlapPolicy
from gql_jobs.jobs.recurrence import Recurrence
from gql_jobs.jobs.registry import registry
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.jobs.schedules import SCHEDULE, SCHEDULE_STATE, Schedule, ScheduleState, SkipReason, job_id_of_tick
from gql_jobs.live.gate import GateHolder
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.schedules import ScheduleCommands, ScheduleDefinition
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES
from tests.stories import accepted

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _ticks_are_made_by_the_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes follow the gate and never hold it: else their own holders make ticks beside ``holding``."""

    async def follow(_: GateHolder) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(GateHolder, "run", follow)


def definition(name: str = "often", **changes: Any) -> ScheduleDefinition:
    probe = registry.get("probe")
    assert probe is not None
    given: dict[str, Any] = {
        "name": name,
        "job_type": probe,
        "payload": accepted(ProbePayload(steps=1)),
        "recurrence": Recurrence(every_seconds=1),
        "overlap": OverlapPolicy.ALLOW,
        **changes,
    }
    return ScheduleDefinition(**given)


@asynccontextmanager
async def holding(runtime: Runtime) -> AsyncIterator[None]:
    """Make ticks in this process, as whoever holds the gate does."""
    async with in_background(runtime.ticks.run()):
        yield


async def jobs_of(runtime: Runtime, name: str = "often") -> list[Job]:
    page = await runtime.reader.page(JobFilter(), JobOrder(descending=False), first=500, after=None, offset=0)
    jobs = [runtime.index.job(one.id) for one in page.jobs]
    return [job for job in jobs if job is not None and job.spec.schedule == name]


def state(runtime: Runtime, name: str = "often") -> ScheduleState | None:
    return runtime.feed.steering.value(SCHEDULE_STATE, name, ScheduleState)


def known(runtime: Runtime, name: str = "often") -> Schedule | None:
    return runtime.feed.steering.value(SCHEDULE, name, Schedule)


async def test_each_second_has_one_job_which_is_due_in_that_second_and_queued_no_sooner(runtime: Runtime) -> None:
    await runtime.schedules.upsert(definition())
    async with holding(runtime):
        found = await until(lambda: gapless(runtime, 3), "the first three ticks are queued", within=60)
    for tick, job in list(found.items())[:3]:
        # A tick that is made late, by whatever time that took, is queued at once.
        assert job.run_at in {tick, None}
        assert job.updated_at >= tick
        assert job.spec.schedule == "often"


async def test_ticks_that_nobody_made_in_time_are_made_late_and_queued_at_once(
    runtime: Runtime, job_log: JobLog
) -> None:
    await runtime.schedules.upsert(definition())
    schedule = await until(lambda: known(runtime), "it is known")
    late = list(islice(schedule.ticks_after(schedule.since), 3))

    async def have_passed() -> bool:
        return await job_log.server_time() > late[-1]

    await until(have_passed, "three ticks have passed")
    assert await jobs_of(runtime) == []
    async with holding(runtime):
        found = await until(lambda: gapless(runtime, 4), "those and the next one are queued", within=60)
    assert [found[tick].run_at for tick in late] == [None, None, None]


async def gapless(runtime: Runtime, queued: int, name: str = "often") -> dict[datetime, Job] | None:
    """Return the jobs by their ticks, once the first ticks are queued and all jobs are those of ticks without a gap."""
    schedule = known(runtime, name)
    if schedule is None:
        return None
    jobs = {job.id: job for job in await jobs_of(runtime, name)}
    ticks = list(islice(schedule.ticks_after(schedule.since), len(jobs)))
    ids = [job_id_of_tick(schedule.incarnation, tick) for tick in ticks]
    if len(ids) < queued or jobs.keys() != set(ids):
        return None
    if any(jobs[job_id].status is not JobStatus.QUEUED for job_id in ids[:queued]):
        return None
    return {tick: jobs[job_id] for tick, job_id in zip(ticks, ids, strict=True)}


async def test_a_nightly_job_is_there_ahead_of_its_time_and_is_the_only_one(runtime: Runtime) -> None:
    await runtime.schedules.upsert(definition("nightly", recurrence=Recurrence(cron="0 3 * * *")))
    async with holding(runtime):
        (job,) = await until(lambda: jobs_of(runtime, "nightly"), "it is made")
    assert job.status is JobStatus.SCHEDULED
    assert job.run_at == Recurrence(cron="0 3 * * *").first_after(job.spec.created_at)
    assert state(runtime, "nightly") is not None


@pytest.mark.parametrize("overlap", [OverlapPolicy.SKIP, OverlapPolicy.CANCEL_OTHER])
async def test_a_tick_that_may_meet_another_waits_for_the_gate(runtime: Runtime, overlap: OverlapPolicy) -> None:
    await runtime.schedules.upsert(definition("n", recurrence=Recurrence(cron="0 3 * * *"), overlap=overlap))
    async with holding(runtime):
        (job,) = await until(lambda: jobs_of(runtime, "n"), "it is made")
    assert job.status is JobStatus.WAITING
    assert job.spec.run_at is None
    assert job.spec.gate is not None
    assert (job.spec.gate.run_at, job.spec.gate.overlap) == (job.run_at, overlap)


async def test_the_same_input_again_writes_nothing(runtime: Runtime) -> None:
    first = await runtime.schedules.upsert(definition())
    again = await runtime.schedules.upsert(definition())
    assert again.seq == first.seq
    other = await runtime.schedules.upsert(definition(tags=("a",)))
    assert other.seq > first.seq
    await runtime.feed.wait_for(other.seq, 5)
    stored = known(runtime)
    assert stored is not None
    assert stored.tags == ("a",)


async def test_a_changed_schedule_cancels_what_is_ahead_and_makes_it_anew(runtime: Runtime) -> None:
    nightly = definition("n", recurrence=Recurrence(cron="0 3 * * *"))
    await runtime.schedules.upsert(nightly)
    async with holding(runtime):
        (before,) = await until(lambda: jobs_of(runtime, "n"), "it is made")
        await runtime.schedules.upsert(definition("n", recurrence=Recurrence(cron="0 3 * * *"), tags=("b",)))
        both = await until(lambda: at_least(runtime, "n", 2), "it is made anew")
        await runtime.schedules.upsert(
            definition("n", recurrence=Recurrence(cron="0 3 * * *"), tags=("b",), paused=True)
        )
        await until(lambda: all_cancelled(runtime, "n"), "nothing is ahead")
    old = next(job for job in both if job.id == before.id)
    new = next(job for job in both if job.id != before.id)
    assert old.status is JobStatus.CANCELLED
    assert old.cancel_reason == "The schedule n was changed."
    assert (new.run_at, new.spec.tags) == (before.run_at, ("b",))
    assert not runtime.ticks.has_work


async def at_least(runtime: Runtime, name: str, number: int) -> list[Job] | None:
    jobs = await jobs_of(runtime, name)
    return jobs if len(jobs) >= number else None


async def all_cancelled(runtime: Runtime, name: str) -> bool:
    return all(job.status is JobStatus.CANCELLED for job in await jobs_of(runtime, name))


async def test_deleting_a_schedule_cancels_what_is_ahead_and_forgets_it(runtime: Runtime) -> None:
    await runtime.schedules.upsert(definition("n", recurrence=Recurrence(cron="0 3 * * *"), overlap=OverlapPolicy.SKIP))
    async with holding(runtime):
        await until(lambda: jobs_of(runtime, "n"), "it is made")
        assert (await runtime.schedules.delete("n"))[0] is True
        await until(lambda: all_cancelled(runtime, "n"), "it is cancelled")
        (job,) = await jobs_of(runtime, "n")
        assert job.cancel_reason == "The schedule n was deleted."
        assert (await runtime.schedules.delete("n"))[0] is False
        await until(lambda: state(runtime, "n") is None and known(runtime, "n") is None, "it is forgotten")
    assert not runtime.ticks.has_work


async def test_what_a_process_leaves_that_ends_in_a_deletion_is_tidied_by_the_holder(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.schedules.upsert(definition("n", recurrence=Recurrence(cron="0 3 * * *")))
    async with holding(runtime):
        await until(lambda: jobs_of(runtime, "n"), "it is made")

    async def interrupted(*_: object) -> None:
        raise QueueUnavailable("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ScheduleCommands, "retire", interrupted)
        with pytest.raises(QueueUnavailable):
            await runtime.schedules.delete("n")
    await until(lambda: known(runtime, "n") is None, "it is deleted")
    assert runtime.ticks.has_work
    async with holding(runtime):
        await until(lambda: all_cancelled(runtime, "n"), "it is cancelled")
        await until(lambda: not runtime.ticks.has_work, "nothing is left to be done")


@pytest.mark.parametrize("first", ["changed", "deleted"])
async def test_a_tick_that_comes_while_its_schedule_is_changed_twice_is_made_once(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    real, has_come = ScheduleCommands.retire, asyncio.Event()

    async def late(self: ScheduleCommands, *args: Any) -> Any:
        await has_come.wait()
        return await real(self, *args)

    def upsert(steps: int) -> Any:
        payload = accepted(ProbePayload(steps=steps))
        return runtime.schedules.upsert(definition("n", payload=payload, recurrence=Recurrence(every_seconds=3)))

    def incarnation() -> str | None:
        schedule = known(runtime, "n")
        return schedule.incarnation if schedule is not None else None

    async def queued() -> list[Job]:
        return [job for job in await jobs_of(runtime, "n") if job.status is JobStatus.QUEUED]

    async with holding(runtime):
        await upsert(1)
        before = await until(queued, "a tick has come")
        incarnations = list[str]()
        monkeypatch.setattr(ScheduleCommands, "retire", late)
        async with asyncio.TaskGroup() as group:
            for change in (runtime.schedules.delete("n") if first == "deleted" else upsert(2), upsert(3)):
                present = incarnation()
                group.create_task(change)
                await until(lambda was=present: incarnation() != was, "it is changed")  # type: ignore[misc]
                incarnations.append(incarnation() or "")
            await until(lambda: _more(queued, len(before)), "the next tick comes meanwhile")
            has_come.set()
        known_ids = {job.id for job in before}
        (came, *_) = [job for job in await queued() if job.id not in known_ids]
        due = len(await queued())
        await until(lambda: _more(queued, due), "it goes on")
    assert came.run_at is not None
    ids = [job_id_of_tick(one, came.run_at) for one in incarnations if one]
    assert [
        job for job in map(runtime.index.job, ids) if job is not None and job.status is not JobStatus.CANCELLED
    ] == []


async def _more(jobs: Callable[[], Any], than: int) -> bool:
    return len(await jobs()) > than


async def test_a_tick_that_was_written_down_but_not_made_is_made_by_the_next_holder(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def killed(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    await runtime.schedules.upsert(definition("n", recurrence=Recurrence(cron="0 3 * * *")))
    with monkeypatch.context() as patch:
        patch.setattr(ScheduleCommands, "make", killed)
        async with holding(runtime):
            await reached.wait()
    assert await jobs_of(runtime, "n") == []
    async with holding(runtime):
        (job,) = await until(lambda: jobs_of(runtime, "n"), "it is made")
    noted = state(runtime, "n")
    assert noted is not None
    assert [noted.job_id(tick) for tick in noted.ahead] == [job.id]


async def test_a_tick_that_an_interrupted_holder_makes_late_meets_the_end_of_its_schedule(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, ...]] = []
    reached = asyncio.Event()

    async def paused(self: ScheduleCommands, *given: Any) -> None:
        made.append((self, *given))
        reached.set()
        await asyncio.Event().wait()

    await runtime.schedules.upsert(definition("n", recurrence=Recurrence(cron="0 3 * * *")))
    original = ScheduleCommands.make
    with monkeypatch.context() as patch:
        patch.setattr(ScheduleCommands, "make", paused)
        async with holding(runtime):
            await reached.wait()
    await runtime.schedules.delete("n")
    await original(*made[0])
    last = await runtime.schedules.upsert(definition("other"))
    await runtime.feed.wait_for(last.seq, 5)
    assert await jobs_of(runtime, "n") == []


@asynccontextmanager
async def two_processes(settings: Settings, tmp_path: Path) -> AsyncIterator[tuple[Runtime, Runtime]]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(open_runtime(settings, JOB_TYPES))
        other_settings = settings.model_copy(update={"data_dir": tmp_path / "other"})
        other = await stack.enter_async_context(open_runtime(other_settings, JOB_TYPES))
        yield one, other


async def test_two_processes_that_both_make_ticks_make_each_once(settings: Settings, tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(8)]
    async with two_processes(settings, tmp_path) as (one, other):
        for name in names:
            await one.schedules.upsert(definition(name))
        async with holding(one), holding(other):
            for name in names:
                await until(lambda name=name: gapless(one, 3, name), f"the ticks of {name} are queued", within=60)  # type: ignore[misc]
        for name in names:
            schedule, noted = known(one, name), state(one, name)
            assert schedule is not None
            assert noted is not None
            assert noted.skips == {}
            ticks = takewhile(lambda tick, last=noted.until: tick <= last, schedule.ticks_after(schedule.since))  # type: ignore[misc]
            assert {job.id for job in await jobs_of(one, name)} <= {noted.job_id(tick) for tick in ticks}


async def test_holders_that_follow_each_other_leave_no_tick_out(runtime: Runtime) -> None:
    await runtime.schedules.upsert(definition(catch_up_seconds=3600))
    for number in range(1, 4):
        async with holding(runtime):
            await until(lambda number=number: gapless(runtime, 3 * number), "no tick is left out", within=60)  # type: ignore[misc]
    noted = state(runtime)
    assert noted is not None
    assert noted.skips == {}


async def test_after_an_outage_ticks_beyond_the_catch_up_are_counted_and_the_others_run_late(
    runtime: Runtime, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hourly = definition(
        "hourly", recurrence=Recurrence(cron="0 * * * *"), catch_up_seconds=7200, overlap=OverlapPolicy.ALLOW
    )
    await runtime.schedules.upsert(hourly)
    async with holding(runtime):
        await until(lambda: jobs_of(runtime, "hourly"), "the first is made")
    later = await job_log.server_time() + timedelta(hours=10)
    monkeypatch.setattr(runtime.ticks, "_log", _Later(later))
    async with holding(runtime):
        await until(lambda: at_least(runtime, "hourly", 4), "the others are made")
    noted = state(runtime, "hourly")
    assert noted is not None
    assert noted.skips[SkipReason.OUTAGE].count == 7
    assert noted.skips[SkipReason.OUTAGE].last_at < later - timedelta(hours=2)


class _Later:
    """A log of which only the time is asked."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    async def server_time(self) -> datetime:
        return self.now


async def test_a_tick_whose_type_nobody_knows_is_counted_as_refused_once_it_is_too_late(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.schedules.upsert(definition("n", catch_up_seconds=0, recurrence=Recurrence(every_seconds=3)))
    get: Callable[[str], Any] = runtime.registry.get
    monkeypatch.setattr(runtime.registry, "get", lambda name: None if name == "probe" else get(name))
    async with holding(runtime):
        noted = await until(lambda: refused(runtime, "n"), "it is counted", within=20)
    assert noted.skips[SkipReason.REFUSED].count >= 1
    assert await jobs_of(runtime, "n") == []


def refused(runtime: Runtime, name: str) -> ScheduleState | None:
    noted = state(runtime, name)
    return noted if noted is not None and SkipReason.REFUSED in noted.skips else None


async def test_a_job_outside_of_the_ticks_runs_at_once(runtime: Runtime) -> None:
    await runtime.schedules.upsert(definition("n", recurrence=Recurrence(cron="0 3 * * *"), tags=("a",)))
    created = await runtime.schedules.run("n")
    assert created.job.status is JobStatus.QUEUED
    assert (created.job.spec.schedule, created.job.spec.tags, created.job.spec.gate) == ("n", ("a",), None)


async def test_nothing_is_asked_of_the_server_while_there_is_nothing_to_do(runtime: Runtime) -> None:
    assert has_work(runtime) is False
    first = await runtime.schedules.upsert(definition("n", paused=True))
    await runtime.feed.wait_for(first.seq, 5)
    assert has_work(runtime) is False
    second = await runtime.schedules.upsert(definition("n"))
    await runtime.feed.wait_for(second.seq, 5)
    assert has_work(runtime)


def has_work(runtime: Runtime) -> bool:
    return runtime.ticks.has_work


async def test_a_schedule_that_came_before_an_index_is_known_to_it(settings: Settings, tmp_path: Path) -> None:
    async with open_runtime(settings, JOB_TYPES) as one:
        stored = await one.schedules.upsert(definition("n"))
        await one.feed.wait_for(stored.seq, 5)
    for folder in (settings.data_dir, tmp_path / "new"):
        with contextlib.suppress(OSError):
            folder.mkdir()
        async with open_runtime(settings.model_copy(update={"data_dir": folder}), JOB_TYPES) as other:
            await other.feed.wait_for(stored.seq, 5)
            assert other.ticks.has_work
            assert known(other, "n") is not None
