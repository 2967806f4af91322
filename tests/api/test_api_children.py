"""Jobs that the handlers of others have created: Job.parent, Job.children and the filter by a parent."""

from datetime import timedelta

import pytest

from gql_jobs.log.retention import expire
from gql_jobs.settings import Settings
from tests.api.operations import PAGE, RETRY, create, ended
from tests.deadline import until
from tests.running import running_worker
from tests.serving import ServedApi

FAMILY = """query ($id: ID!, $first: Int) {
  job(id: $id) {
    parent { __typename id status }
    children(first: $first) { __typename id status parent { id } ... on ProbeJob { payload { steps } } }
  }
}"""


async def _family(api: ServedApi, job_id: str, first: int | None = None) -> dict[str, object]:
    found: dict[str, object] = (await api.ask(FAMILY, id=job_id, first=first))["job"]
    return found


async def test_a_job_shows_its_children_in_order_and_each_of_them_its_parent(
    api: ServedApi, settings: Settings
) -> None:
    job = await create(api, {"children": 3})
    async with running_worker(settings):
        await ended(api, job["id"])
        children = (await api.ask(FAMILY, id=job["id"]))["job"]["children"]
        assert [child["payload"]["steps"] for child in children] == [0, 1, 2]
        for child in children:
            await ended(api, child["id"])
    shown = await _family(api, job["id"])
    assert shown == {
        "parent": None,
        "children": [
            {
                "__typename": "ProbeJob",
                "id": child["id"],
                "status": "COMPLETED",
                "parent": {"id": job["id"]},
                "payload": {"steps": steps},
            }
            for steps, child in enumerate(children)
        ],
    }
    assert await _family(api, children[0]["id"]) == {
        "parent": {"__typename": "ProbeJob", "id": job["id"], "status": "COMPLETED"},
        "children": [],
    }


async def test_children_are_of_every_submission_as_many_as_are_wanted_and_a_page_has_the_rest(
    api: ServedApi, settings: Settings
) -> None:
    job = await create(api, {"children": 2, "permanent": True})
    async with running_worker(settings):
        await ended(api, job["id"], "DEAD_LETTER")
        await api.ask(RETRY, id=job["id"])
        await ended(api, job["id"], "DEAD_LETTER")
    everybody = [child["id"] for child in (await api.ask(FAMILY, id=job["id"]))["job"]["children"]]
    assert len(set(everybody)) == 4
    for first in (0, 1, 3, 500):
        shown = (await api.ask(FAMILY, id=job["id"], first=first))["job"]["children"]
        assert [child["id"] for child in shown] == everybody[:first]
    page = (await api.ask(PAGE, filter={"parent": job["id"].upper()}, first=3))["jobs"]
    assert page["totalCount"] == 4
    assert [node["id"] for node in page["nodes"]] == everybody[:0:-1]
    rest = (await api.ask(PAGE, filter={"parent": job["id"]}, first=3, after=page["pageInfo"]["endCursor"]))["jobs"]
    assert [node["id"] for node in rest["nodes"]] == everybody[:1]
    narrower = {"parent": job["id"], "status": ["CANCELLED"]}
    assert (await api.ask(PAGE, filter=narrower))["jobs"]["totalCount"] == 0
    assert (await api.ask(PAGE, filter={"parent": "none"}))["jobs"]["totalCount"] == 0


@pytest.mark.parametrize("first", [-1, 501])
async def test_more_children_than_a_page_has_are_refused(api: ServedApi, first: int) -> None:
    job = await create(api)
    refusal = await api.refusal(FAMILY, id=job["id"], first=first)
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "first"}


async def test_children_of_children_cost_what_they_may_come_to(api: ServedApi) -> None:
    job = await create(api)
    nested = "children(first: 500) { children(first: 500) { id } }"
    refusal = await api.refusal(f'{{ job(id: "{job["id"]}") {{ {nested} }} }}')
    assert refusal["extensions"]["code"] == "TOO_COMPLEX"
    assert refusal["extensions"]["measure"] == "cost"


async def test_a_parent_that_has_expired_is_null_and_its_children_stay(api: ServedApi, settings: Settings) -> None:
    job = await create(api, {"children": 1})
    async with running_worker(settings):
        await ended(api, job["id"])
    (child,) = (await api.ask(FAMILY, id=job["id"]))["job"]["children"]
    runtime = api.runtime
    found = await runtime.commands.find(job["id"])
    assert found is not None
    assert found.finished_at is not None
    await expire(runtime.commands._log, runtime.artifacts, job["id"], found.finished_at + timedelta(1))  # noqa: SLF001

    async def is_gone() -> bool:
        return (await _family(api, child["id"]))["parent"] is None

    await until(is_gone, "the parent has expired")
    assert (await api.ask(PAGE, filter={"parent": job["id"]}))["jobs"]["totalCount"] == 1
