"""A job that this process cannot describe is an UnknownJob, wherever it stands."""

from contextlib import aclosing

import pytest
from msgspec import Raw

from gql_jobs.jobs.model import new_job_id
from gql_jobs.log.commands import creation
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, FIND, RETRY, WATCH, create, ended, find
from tests.running import RunningWorker, running_worker
from tests.serving import ServedApi
from tests.stories import spec

PAGE = """{ jobs { totalCount nodes {
  __typename id type rawPayload ... on ProbeJob { payload { steps } } ... on EmailJob { payload { to } }
} } }"""
STRANGE = [
    ("fax", b'{"number":"0800"}'),
    ("probe", b'{"steps":"many"}'),
    ("email", b'{"to":"nobody"}'),
    ("probe", b"[]"),
    # GraphQL's Int has 32 bits.
    ("probe", b'{"steps":5000000000}'),
]


async def _stored(job_log: JobLog, type_name: str, payload: bytes) -> str:
    """Submit what this version would refuse."""
    job_id = new_job_id()
    await job_log.append(creation(job_id, spec(type=type_name, payload=Raw(payload), payload_hash=job_id)))
    return job_id


async def test_a_page_with_unknown_jobs_has_no_error(api: ServedApi, job_log: JobLog) -> None:
    ids = [await _stored(job_log, type_name, payload) for type_name, payload in STRANGE]
    known = await create(api, {"steps": 7})
    for job_id in ids:
        await find(api, job_id)
    found = (await api.ask(PAGE))["jobs"]
    shown = {node["id"]: node for node in found["nodes"]}
    assert found["totalCount"] == len(shown) == 6
    assert shown[known["id"]]["payload"] == {"steps": 7}
    assert {shown[job_id]["__typename"] for job_id in ids} == {"UnknownJob"}
    # Nothing says which parts of these are secret. Of the last one its model does, and GraphQL alone cannot write it.
    assert [shown[job_id]["rawPayload"] for job_id in ids] == [*["[redacted]"] * 4, {"steps": 5000000000}]
    assert [shown[job_id]["type"] for job_id in ids] == [type_name for type_name, _ in STRANGE]


async def test_a_job_with_fields_that_are_unknown_here_keeps_its_type(api: ServedApi, job_log: JobLog) -> None:
    job_id = await _stored(job_log, "probe", b'{"steps":1,"colour":"red"}')
    await find(api, job_id)
    (node,) = (await api.ask(PAGE))["jobs"]["nodes"]
    assert (node["__typename"], node["payload"]) == ("ProbeJob", {"steps": 1})
    assert node["rawPayload"] == {"steps": 1, "colour": "red"}


async def test_a_worker_runs_a_job_with_fields_that_are_unknown_here(
    api: ServedApi, job_log: JobLog, worker: RunningWorker
) -> None:
    assert worker.task is not None
    job_id = await _stored(job_log, "probe", b'{"steps":1,"colour":"red"}')
    assert (await ended(api, job_id, "COMPLETED"))["attempt"] == 1


async def test_an_unknown_job_can_be_watched_cancelled_and_retried(api: ServedApi, job_log: JobLog) -> None:
    job_id = await _stored(job_log, "fax", b"{}")
    async with aclosing(api.events(WATCH, id=job_id)) as stream:
        assert (await anext(stream))["job"]["type"] == "fax"
        assert (await api.ask(CANCEL, id=job_id))["cancelJob"]["job"]["status"] == "CANCELLED"
        assert (await anext(stream))["__typename"] == "JobCancelled"
    assert (await api.ask(RETRY, id=job_id))["retryJob"]["job"]["__typename"] == "UnknownJob"


@pytest.mark.parametrize(("type_name", "payload"), STRANGE[:2])
async def test_what_no_worker_can_read_is_queued_until_it_is_given_up_and_can_be_cancelled_and_retried_then(
    api: ServedApi, job_log: JobLog, settings: Settings, type_name: str, payload: bytes
) -> None:
    job_id = await _stored(job_log, type_name, payload)
    async with running_worker(settings.model_copy(update={"unable_timeout": 1.0})):
        job = await ended(api, job_id, "DEAD_LETTER")
    assert job["error"]["retryable"] is False
    assert job["attempt"] == 1
    assert (await api.ask(FIND, id=job_id))["job"]["__typename"] == "UnknownJob"
    assert (await api.ask(RETRY, id=job_id))["retryJob"]["job"]["status"] == "QUEUED"
    async with running_worker(settings):
        assert (await api.ask(FIND, id=job_id))["job"]["status"] == "QUEUED"
        assert (await api.ask(CANCEL, id=job_id))["cancelJob"]["job"]["status"] == "CANCELLED"


async def test_jobs_keep_their_types_on_a_page_that_does_not_read_large_payloads(
    settings: Settings, api: ServedApi, job_log: JobLog
) -> None:
    large = b"x" * 10_000
    ids = [
        await _stored(job_log, "probe", b'{"steps":1,"colour":"%b"}' % large),
        await _stored(job_log, "probe", b'{"steps":"%b"}' % large),
        await _stored(job_log, "fax", b'{"steps":"%b"}' % large),
        await _stored(job_log, "probe", b'{"steps":1}'),
    ]
    await find(api, ids[-1])
    page = "query ($ids: [ID!]) { jobs(filter: { ids: $ids }) { nodes { __typename id } } }"
    # Twice: types that were found are remembered.
    for _ in range(2):
        found = {job["id"]: job["__typename"] for job in (await api.ask(page, ids=ids))["jobs"]["nodes"]}
        assert [found[job_id] for job_id in ids] == ["ProbeJob", "UnknownJob", "UnknownJob", "ProbeJob"]
    # A result decides on the type as well, once there is one.
    async with running_worker(settings):
        await ended(api, ids[0])
    found = {job["id"]: job["__typename"] for job in (await api.ask(page, ids=ids))["jobs"]["nodes"]}
    assert found[ids[0]] == "ProbeJob"
