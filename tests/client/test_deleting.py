"""Jobs are deleted by clients, over HTTP and beside the broker, with one outcome."""

import asyncio

import pytest

from gql_jobs.client import AsyncClient, Client, InvalidState, NotFound
from gql_jobs.jobs.messages import Started
from gql_jobs.jobs.model import JobStatus, new_job_id
from gql_jobs.log.job_log import JobLog
from tests.by_hand import say
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.serving import HOST, ServedApi


async def test_a_job_is_deleted_once_and_its_key_is_free_again(by_either: AsyncClient) -> None:
    job = await by_either.create(ProbePayload(steps=1), type="probe", key="k")
    assert await job.delete()
    assert not await job.delete()
    with pytest.raises(NotFound):
        await job.state()
    again = await by_either.create(ProbePayload(steps=2), type="probe", key="k")
    assert (again.id, again.deduplicated) == (job.id, False)
    with pytest.raises(NotFound):
        await by_either.job(new_job_id()).delete()


async def test_a_job_that_runs_is_not_deleted(api: ServedApi, by_either: AsyncClient, job_log: JobLog) -> None:
    job = await by_either.create(ProbePayload(), type="probe")
    known = await until(lambda: api.runtime.index.job(job.id), "the index has the job")
    await say(job_log, known, Started)
    with pytest.raises(InvalidState, match="Cancel it first"):
        await job.delete()
    await job.cancel()
    assert await job.delete()


async def test_who_waits_for_a_job_that_is_deleted_waits_no_longer(by_either: AsyncClient) -> None:
    job, kept = [await by_either.create(ProbePayload(), type="probe") for _ in range(2)]
    waiting = [asyncio.create_task(one.result()) for one in (job, kept)]
    assert (await anext(aiter(job.events()))).job.status is JobStatus.QUEUED
    assert await job.delete()
    with pytest.raises(NotFound):
        await asyncio.wait_for(waiting[0], 20)
    assert not waiting[1].done()
    waiting[1].cancel()
    await asyncio.wait(waiting)


async def test_the_client_that_waits_has_the_same(api: ServedApi) -> None:
    def steps() -> list[bool]:
        with Client(f"http://{HOST}:{api.port}") as waiting:
            job = waiting.create(ProbePayload(), type="probe")
            return [job.delete(), job.delete()]

    assert await asyncio.to_thread(steps) == [True, False]
