"""Jobs are deleted by clients: one by its id, or all that match a plan; who may do that, and what it frees."""

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from gql.transport.exceptions import TransportQueryError

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.messages import Kind, Started
from gql_jobs.jobs.model import JobStatus, new_job_id
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, CREATE, WATCH, asked, create, create_many, find
from tests.api.test_api_bulk import LOOK, PLAN, RUN
from tests.by_hand import say, stored
from tests.deadline import until
from tests.guarded import GuardedApi, guarded
from tests.job_types import dying_process
from tests.serving import Data, ServedApi, api_process, free_port, serving

DELETE = "mutation ($id: ID!) { deleteJob(id: $id) { deleted } }"
SEE = {Scope.READ, Scope.CREATE}


async def _run_bulk(api: ServedApi, token: str) -> tuple[Any, ...]:
    run = (await api.ask(RUN, token=token))["runBulk"]

    async def is_over() -> Data | None:
        found: Data = (await api.ask(LOOK, id=run["id"]))["bulkRun"]
        return found if found["state"] != "RUNNING" else None

    ended = await until(is_over, "the run has ended", within=20)
    return ended["state"], ended["planned"], ended["done"], ended["skipped"], ended["failed"]


async def _is_running(api: ServedApi, job_id: str) -> bool:
    job = api.runtime.index.job(job_id)
    return job is not None and job.status is JobStatus.PROCESSING


async def _started(api: ServedApi, job_log: JobLog, job_id: str) -> None:
    job = api.runtime.index.job(job_id)
    assert job is not None
    await say(job_log, job, Started)
    await until(lambda: _is_running(api, job_id), "the index knows that the job runs")


async def test_a_deleted_job_is_gone_once_that_is_answered_and_its_key_is_free(api: ServedApi) -> None:
    job = await create(api, {"steps": 1}, idempotencyKey="k")
    assert (await api.ask(DELETE, id=job["id"]))["deleteJob"]["deleted"]
    assert (await api.ask("query ($id: ID!) { job(id: $id) { id } }", id=job["id"]))["job"] is None
    assert not (await api.ask(DELETE, id=job["id"]))["deleteJob"]["deleted"]
    again = (await api.ask(CREATE, input=asked({"steps": 2}, idempotencyKey="k")))["createJob"]
    assert (again["deduplicated"], again["job"]["id"], again["job"]["status"]) == (False, job["id"], "QUEUED")


async def test_what_cannot_be_deleted_is_refused_in_words(api: ServedApi, job_log: JobLog) -> None:
    running = await create(api)
    await _started(api, job_log, running["id"])
    refusal = await api.refusal(DELETE, id=running["id"])
    assert refusal["extensions"]["code"] == "INVALID_STATE"
    assert refusal["message"].endswith("Cancel it first: its handler may still write.")
    for unknown in (new_job_id(), "none"):
        assert (await api.refusal(DELETE, id=unknown))["extensions"]["code"] == "NOT_FOUND"


async def test_who_follows_a_job_that_is_deleted_is_told(api: ServedApi) -> None:
    job = await create(api)
    async with aclosing(api.events(WATCH, id=job["id"])) as events:
        assert (await anext(events))["__typename"] == "JobQueued"
        following = asyncio.create_task(anext(events))
        await api.ask(DELETE, id=job["id"])
        with pytest.raises(TransportQueryError, match="was deleted"):
            await following
    assert (await api.refusal(CANCEL, id=job["id"]))["extensions"]["code"] == "NOT_FOUND"


async def test_jobs_that_do_not_run_are_deleted_in_bulk(api: ServedApi, job_log: JobLog) -> None:
    jobs = await create_many(api, [asked(tags=["mine"]) for _ in range(5)])
    await _started(api, job_log, jobs[0])
    await api.ask(CANCEL, id=jobs[1])
    (other,) = await create_many(api, [asked(tags=["other"])])
    plan = (await api.ask(PLAN, action="DELETE", filter={"tags": ["mine"]}))["planBulk"]
    assert (plan["action"], plan["count"]) == ("DELETE", 4)
    assert (await api.ask(DELETE, id=jobs[2]))["deleteJob"]["deleted"]
    assert await _run_bulk(api, plan["token"]) == ("DONE", 3, 3, 0, 0)
    assert [api.runtime.index.job(job_id) is None for job_id in (*jobs, other)] == [False, *[True] * 4, False]
    assert (await find(api, other))["status"] == "QUEUED"
    assert await _run_bulk(api, plan["token"]) == ("DONE", 0, 0, 0, 0)


async def test_what_a_process_left_that_was_killed_amid_a_deletion_is_removed_by_the_next(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    program = (dying_process.__name__, "gql_jobs")
    dying = settings.model_copy(update={"data_dir": tmp_path / "dying"})
    async with api_process(dying, free_port(), program=program) as (api, process):
        job = await create(api, idempotencyKey="k")
        asking = asyncio.create_task(api.refusal(DELETE, id=job["id"]))
        assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGKILL
        await asyncio.wait([asking])
    assert {message.kind for message in await stored(connection)} == {Kind.QUEUED, Kind.EXPIRED}
    async with serving(settings) as api:
        assert (await api.refusal(CANCEL, id=job["id"]))["extensions"]["code"] == "NOT_FOUND"
        await until(lambda: _is_clean(connection), "nothing is left of it", within=20)


async def _is_clean(connection: Connection) -> bool:
    return all(message.kind is Kind.EXPIRED for message in await stored(connection))


async def _codes(shop: GuardedApi, key: str, query: str, **variables: Any) -> list[str]:
    answer: Data = (await shop.post(query, key, variables=variables)).json()
    return [error["extensions"]["code"] for error in answer.get("errors", [])]


async def test_deleting_takes_the_scope_operate_in_bulk_too_and_the_other_actions_control(settings: Settings) -> None:
    async with guarded(settings) as shop:
        controls = await shop.new_key("controls", frozenset({*SEE, Scope.CONTROL}))
        operates = await shop.new_key("operates", frozenset({*SEE, Scope.OPERATE}))
        job = await shop.create()
        assert await _codes(shop, controls, DELETE, id=job) == ["FORBIDDEN"]
        assert await _codes(shop, controls, PLAN, action="DELETE") == ["FORBIDDEN"]
        assert await _codes(shop, operates, PLAN, action="CANCEL") == ["FORBIDDEN"]
        planned = (await shop.post(PLAN, operates, variables={"action": "DELETE"})).json()["data"]["planBulk"]
        assert planned["count"] == 1
        assert await _codes(shop, controls, RUN, token=planned["token"]) == ["FORBIDDEN"]
        assert await _codes(shop, operates, RUN, token=planned["token"]) == []
        await until(lambda: shop.api.runtime.index.job(job) is None, "the job is deleted")


async def test_a_tenant_deletes_its_own_jobs_and_learns_nothing_of_others(settings: Settings) -> None:
    async with guarded(settings) as shop:
        acme = await shop.new_key("acme", frozenset({*SEE, Scope.OPERATE}), tenant="acme")
        others = await shop.create()
        made: Data = (await shop.post(CREATE, acme, variables={"input": asked()})).json()
        own = made["data"]["createJob"]["job"]["id"]
        assert await _codes(shop, acme, DELETE, id=others) == ["NOT_FOUND"]
        assert await _codes(shop, acme, DELETE, id=own) == []
        assert await _codes(shop, acme, DELETE, id=own) == ["NOT_FOUND"]
        assert await _codes(shop, shop.key, DELETE, id=own) == []
        planned: Data = (await shop.post(PLAN, acme, variables={"action": "DELETE"})).json()
        assert planned["data"]["planBulk"]["count"] == 0
