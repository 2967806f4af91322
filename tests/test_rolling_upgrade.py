"""An upgrade in both orders, with real processes of the older release: what they do not know they leave alone."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus, job_id_for_key
from gql_jobs.jobs.viewer import EVERYTHING
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.api.operations import create as create_by
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker, worker_process
from tests.serving import Api, api_process, free_port
from tests.stories import request
from tests.viewers import viewer
from tests.workers.stories import dead_letter, ended, history, kinds, reached

OLDER_API = ("tests.older_release", "gql_jobs")
OLDER_WORKER = ("tests.older_release", "gql_jobs_worker")
RED = viewer("ada", "red")
FAILING = request(ProbePayload(permanent=True), max_retries=0)


async def _stored(runtime: Runtime, job_id: str) -> list[tuple[Kind, bytes]]:
    """Everything that the stream has of a job, byte by byte."""
    return [(message.kind, msgspec.json.encode(message.body)) for message in await history(runtime.connection, job_id)]


async def test_api_first_a_worker_of_the_older_release_leaves_the_job_of_a_tenant_to_a_newer_one(
    runtime: Runtime, settings: Settings
) -> None:
    async with worker_process(settings, program=OLDER_WORKER):
        plain = (await runtime.commands.create(request())).job
        assert (await ended(runtime, plain.id, within=30)).status is JobStatus.COMPLETED
        own = (await runtime.commands.create(request(), RED)).job
        for _ in range(3):
            again = (await runtime.commands.create(request())).job
            assert (await ended(runtime, again.id)).status is JobStatus.COMPLETED
        assert await kinds(runtime.connection, own.id) == [Kind.QUEUED]
        async with running_worker(settings):
            done = await ended(runtime, own.id, within=30)
    assert (done.status, done.attempt, done.spec.tenant, done.spec.created_by) == (
        JobStatus.COMPLETED,
        1,
        "red",
        "ada",
    )


async def test_workers_first_a_newer_worker_runs_what_an_older_api_creates(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    own_folder = settings.model_copy(update={"data_dir": tmp_path / "older"})
    async with api_process(own_folder, free_port(), program=OLDER_API) as (older, _), running_worker(settings):
        job_id = (await create_by(older))["id"]
        done = await ended(runtime, job_id, within=30)
        assert (done.status, done.spec.tenant) == (JobStatus.COMPLETED, None)
        await until(lambda: _is(older, job_id, "COMPLETED"), "the older API shows what the newer worker did")


async def _is(api: Api, job_id: str, status: str) -> bool:
    job = (await api.ask("query ($id: ID!) { job(id: $id) { status } }", id=job_id))["job"]
    return job is not None and job["status"] == status


async def test_an_older_api_neither_shows_nor_changes_nor_expires_the_job_of_a_tenant(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    keyed = request(ProbePayload(permanent=True), max_retries=0, idempotency_key="k")
    async with running_worker(settings):
        own = (await runtime.commands.create(keyed, RED)).job
        assert (await reached(runtime, own.id, JobStatus.DEAD_LETTER)).spec.tenant == "red"
    await dead_letter(runtime.connection, own.id)
    before = await _stored(runtime, own.id)
    assert [kind for kind, _ in before] == [Kind.QUEUED, Kind.STARTED, Kind.DEAD_LETTER]
    own_folder = settings.model_copy(update={"data_dir": tmp_path / "older"})
    async with api_process(own_folder, free_port(), program=OLDER_API) as (older, _):
        assert (await older.ask("query ($id: ID!) { job(id: $id) { id } }", id=own.id))["job"] is None
        assert (await older.ask("{ jobs { totalCount } }"))["jobs"]["totalCount"] == 0
        for move in ("retryJob", "cancelJob"):
            document = f"mutation ($id: ID!) {{ {move}(id: $id) {{ job {{ id }} }} }}"
            refusal = await older.refusal(document, id=own.id)
            # Not NOT_FOUND where the release says why it cannot tell.
            assert refusal["extensions"]["code"] in {"NOT_FOUND", "QUEUE_UNAVAILABLE"}
        other = (await create_by(older, idempotencyKey="k"))["id"]
        assert other == job_id_for_key("k") != own.id
    assert await _stored(runtime, own.id) == before
    retried = await runtime.feed.read_back(await runtime.commands.retry(own.id, RED))
    assert (retried.status, retried.spec.tenant, retried.spec.created_by, retried.actor) == (
        JobStatus.QUEUED,
        "red",
        "ada",
        "ada",
    )
    assert (await _stored(runtime, own.id))[-1][0] is Kind.QUEUED
    found = await runtime.job(other, EVERYTHING)
    assert found is not None
    assert found.spec.tenant is None


@pytest.mark.parametrize("order", ["API first", "workers first"])
async def test_in_both_orders_every_job_ends_once_as_what_it_was_created(
    runtime: Runtime, settings: Settings, tmp_path: Path, order: str
) -> None:
    own_folder = settings.model_copy(update={"data_dir": tmp_path / "older"})
    async with (
        api_process(own_folder, free_port(), program=OLDER_API) as (older, _),
        worker_process(settings, program=OLDER_WORKER),
    ):
        ids = [(await create_by(older))["id"]]
        if order == "workers first":
            async with running_worker(settings):
                ids.append((await create_by(older))["id"])
                await asyncio.gather(*(ended(runtime, job_id, within=30) for job_id in ids))
        tenants = [(await runtime.commands.create(request(), RED)).id for _ in range(3)]
        ids.append((await create_by(older))["id"])
        async with running_worker(settings):
            jobs = await asyncio.gather(*(ended(runtime, job_id, within=30) for job_id in [*ids, *tenants]))
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}
    assert [job.spec.tenant for job in jobs] == [None] * len(ids) + ["red"] * 3
    for job in jobs:
        assert (await kinds(runtime.connection, job.id)).count(Kind.COMPLETED) == 1
