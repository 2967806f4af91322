"""A tick that becomes due while NATS is away is made up for within ``catchUpSeconds``, and else skipped and counted."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta

import pytest

from gql_jobs import clock
from gql_jobs.jobs.claim import MISSED
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job, JobStatus, OverlapPolicy
from gql_jobs.jobs.recurrence import Recurrence
from gql_jobs.jobs.registry import registry
from gql_jobs.jobs.schedules import SCHEDULE_STATE, ScheduleState, SkipReason
from gql_jobs.log.schedules import ScheduleDefinition
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import RestartingServer
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES, running_worker
from tests.stories import accepted

ENOUGH, NOTHING = 60, 0
"""Seconds of ``catch_up_seconds``."""
AWAY_FOR = timedelta(seconds=4)
"""How long after the tick NATS is back: later than is in time where nothing is made up for."""
AHEAD = timedelta(seconds=2)
"""How long before the tick it goes away."""


def _interval(now: datetime) -> int | None:
    """How many seconds apart ticks are of which one comes soon, and the next one once NATS is back."""
    return next((number for number in range(12, 40) if 6 <= number - now.timestamp() % number < 8), None)


async def _define(runtime: Runtime) -> dict[str, int]:
    """Define a schedule of each kind; return for each, by its name, how many seconds it is made up for."""
    probe = registry.get("probe")
    assert probe is not None
    often = Recurrence(every_seconds=await until(lambda: _interval(clock.now()), "some number will do"))
    found = {}
    for overlap in OverlapPolicy:
        for catch_up in (ENOUGH, NOTHING):
            name = f"{overlap}_{catch_up}"
            definition = ScheduleDefinition(
                name=name,
                job_type=probe,
                payload=accepted(ProbePayload()),
                recurrence=often,
                overlap=overlap,
                catch_up_seconds=catch_up,
            )
            await runtime.schedules.upsert(definition)
            found[name] = catch_up
    return found


def _state(runtime: Runtime, name: str) -> ScheduleState | None:
    return runtime.steering.value(SCHEDULE_STATE, name, ScheduleState)


def _next(runtime: Runtime, names: list[str]) -> dict[str, tuple[datetime, str]] | None:
    """The same tick of all schedules with the ids of its jobs, once these are made, and soon enough."""
    states = [state for name in names if (state := _state(runtime, name)) is not None and state.ahead]
    ticks = {state.ahead[-1] for state in states}
    if len(states) < len(names) or len(ticks) != 1 or clock.now() > min(ticks) - AHEAD:
        return None
    found = {name: (state.ahead[-1], state.job_id(state.ahead[-1])) for name, state in zip(names, states, strict=True)}
    return found if all(runtime.index.job(job_id) for _, job_id in found.values()) else None


@pytest.mark.timeout(180)
@pytest.mark.parametrize("lives", [True, False], ids=["the API lives", "the API is started anew"])
async def test_what_became_due_while_nats_was_away(
    server: RestartingServer, settings: Settings, *, lives: bool
) -> None:
    await server.start()
    settings = settings.model_copy(update={"nats_url": server.url})
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(AsyncExitStack())
        runtime = await api.enter_async_context(open_runtime(settings, JOB_TYPES))
        worker = await stack.enter_async_context(running_worker(settings))
        await asyncio.wait_for(worker.started.wait(), 20)
        schedules = await _define(runtime)
        ticks = await until(lambda: _next(runtime, list(schedules)), "a tick is made", within=90)
        ((due, _), *_) = ticks.values()
        await until(lambda: clock.now() > due - AHEAD, "the ticks are due soon", within=20)
        if not lives:
            await api.aclose()
        await server.stop()
        await until(lambda: clock.now() > due + AWAY_FOR, "they are late", within=20)
        await server.start()
        if not lives:
            runtime = await stack.enter_async_context(open_runtime(settings, JOB_TYPES))
        for name, catch_up in schedules.items():
            await _came_to_the_right_end(runtime, name, ticks[name], is_made_up_for=catch_up == ENOUGH)


async def _came_to_the_right_end(
    runtime: Runtime, name: str, tick: tuple[datetime, str], *, is_made_up_for: bool
) -> None:
    due, job_id = tick
    job = await until(lambda: _ended(runtime, job_id), f"{name} has ended", within=30)
    has_started = Kind.STARTED in [event.kind for event in runtime.index.events(job_id)]
    state = await until(lambda: _settled(runtime, name, due), f"{name} is settled", within=30)
    skips = {reason: skips.count for reason, skips in state.skips.items()}
    if is_made_up_for:
        assert (job.status, job.attempt, skips) == (JobStatus.COMPLETED, 1, {}), name
    else:
        assert (job.status, job.cancel_reason, has_started) == (JobStatus.CANCELLED, MISSED, False), name
        assert skips == {SkipReason.OUTAGE: 1}, name


def _ended(runtime: Runtime, job_id: str) -> Job | None:
    job = runtime.index.job(job_id)
    return job if job is not None and job.status.is_terminal else None


def _settled(runtime: Runtime, name: str, tick: datetime) -> ScheduleState | None:
    state = _state(runtime, name)
    return state if state is not None and tick not in state.ahead and state.until >= tick else None
