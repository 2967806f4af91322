"""Ticks that meet a job of an earlier one, by way of the gate and a worker: skipped, or run in its place."""

from typing import Any

import pytest

from gql_jobs.jobs.model import Job, JobStatus, OverlapPolicy
from gql_jobs.jobs.recurrence import Recurrence
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.jobs.schedules import SCHEDULE_STATE, ScheduleState, SkipReason
from gql_jobs.log.schedules import ScheduleDefinition
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import accepted


async def jobs_of(runtime: Runtime) -> list[Job]:
    page = await runtime.reader.page(JobFilter(), JobOrder(descending=False), first=500, after=None, offset=0)
    return [job for one in page.jobs if (job := runtime.index.job(one.id)) is not None]


async def often(runtime: Runtime, overlap: OverlapPolicy, **payload: Any) -> None:
    probe = runtime.registry.of_payload(ProbePayload, "probe")
    await runtime.schedules.upsert(
        ScheduleDefinition(
            name="often",
            job_type=probe,
            payload=accepted(ProbePayload(**payload)),
            recurrence=Recurrence(every_seconds=1),
            overlap=overlap,
        )
    )


@pytest.mark.usefixtures("worker")
async def test_a_tick_is_skipped_while_an_earlier_job_runs_and_that_is_counted(runtime: Runtime) -> None:
    await often(runtime, OverlapPolicy.SKIP, seconds=3.0)

    def skipped() -> ScheduleState | None:
        state = runtime.steering.value(SCHEDULE_STATE, "often", ScheduleState)
        return state if state is not None and SkipReason.OVERLAP in state.skips else None

    state = await until(skipped, "a tick is skipped", within=30)
    running = [job for job in await jobs_of(runtime) if job.status in {JobStatus.PROCESSING, JobStatus.QUEUED}]
    assert len(running) <= 1
    assert state.skipped >= 1


@pytest.mark.usefixtures("worker")
async def test_an_earlier_job_is_cancelled_where_the_later_one_is_to_run(runtime: Runtime) -> None:
    await often(runtime, OverlapPolicy.CANCEL_OTHER, seconds=30.0)

    async def replaced() -> bool:
        jobs = await jobs_of(runtime)
        stopped = [job for job in jobs if job.status is JobStatus.CANCELLED and job.attempt == 1]
        return len(stopped) >= 2 and any(job.status is JobStatus.PROCESSING for job in jobs)

    await until(replaced, "later jobs took the place of two", within=30)
