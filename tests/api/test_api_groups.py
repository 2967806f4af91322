"""deadLetterGroups over the real wire."""

import pytest

from tests.api.operations import RETRY, asked, create_many, ended
from tests.running import RunningWorker
from tests.serving import ServedApi

GROUPS = """
query ($filter: JobFilter, $first: Int) {
  deadLetterGroups(filter: $filter, first: $first) {
    key type errorType message count firstAt lastAt sample { __typename id rawPayload error { message } }
  }
}
"""


async def test_jobs_that_fail_alike_are_one_group_until_they_are_retried(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    jobs = await create_many(api, [asked({"permanent": True}, tags=["mine"]) for _ in range(3)])
    for job_id in jobs:
        await ended(api, job_id, "DEAD_LETTER")
    (group,) = (await api.ask(GROUPS, filter={"tags": ["mine"]}))["deadLetterGroups"]
    assert (group["type"], group["errorType"], group["count"]) == ("probe", "PermanentError", 3)
    assert group["sample"]["id"] in jobs
    assert group["sample"]["__typename"] == "ProbeJob"
    assert group["sample"]["rawPayload"]["permanent"] is True
    assert group["firstAt"] <= group["lastAt"]
    assert (await api.ask(GROUPS, filter={"tags": ["other"]}))["deadLetterGroups"] == []
    await worker.stop()
    await api.ask(RETRY, id=jobs[0])
    (left,) = (await api.ask(GROUPS))["deadLetterGroups"]
    assert (left["key"], left["count"]) == (group["key"], 2)


@pytest.mark.parametrize("first", [0, 101])
async def test_a_number_of_groups_that_cannot_be_is_refused(api: ServedApi, first: int) -> None:
    refusal = await api.refusal(f"{{ deadLetterGroups(first: {first}) {{ key }} }}")
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "first"}
