"""updateJob and retryJob with a payload: a job is what it was changed into, wherever it is shown."""

from contextlib import aclosing
from typing import Any

import pytest

from gql_jobs.log.commands import HEADROOM
from tests.api.operations import UNKNOWN_ID, ahead, asked, create, ended, example, find, history, kinds, page
from tests.running import RunningWorker, running_worker
from tests.serving import Data, ServedApi

UPDATE = """mutation ($id: ID!, $input: UpdateJobInput!) { updateJob(id: $id, input: $input) {
  job { id status runAt priority tags rawPayload events { __typename actor ... on JobEdited { changed } } }
} }"""
RETRY = """mutation ($id: ID!, $payload: JobPayloadInput, $raw: String) {
  retryJob(id: $id, payload: $payload, rawPayload: $raw) { job { id status runAt rawPayload attempt } }
}"""
CANCEL = "mutation ($id: ID!) { cancelJob(id: $id) { job { status } } }"


async def update(api: ServedApi, job: Data, **changes: Any) -> Data:
    updated: Data = (await api.ask(UPDATE, id=job["id"], input=changes))["updateJob"]["job"]
    return updated


async def test_a_queued_job_runs_as_it_was_changed_and_in_no_other_way(api: ServedApi, settings: Any) -> None:
    job = await create(api, {"steps": 1}, tags=["old"])
    updated = await update(api, job, priority="CRITICAL", payload={"probe": {"steps": 3}}, tags=["new"])
    assert (updated["status"], updated["priority"], updated["tags"]) == ("QUEUED", "CRITICAL", ["new"])
    assert updated["rawPayload"] == {"steps": 3}
    assert [event for event in updated["events"] if event["__typename"] == "JobEdited"] == [
        {"__typename": "JobEdited", "actor": None, "changed": ["priority", "payload", "tags"]}
    ]
    async with running_worker(settings):
        done = await ended(api, job["id"])
    assert (done["status"], done["attempt"]) == ("COMPLETED", 1)
    told = kinds(await history(api, job["id"]))
    assert [kind for kind in told if kind != "Progress"] == ["Queued", "Edited", "Queued", "Started", "Completed"]


async def test_a_job_that_was_changed_is_found_by_what_it_is_now_and_by_nothing_that_it_was(api: ServedApi) -> None:
    job = await create(api, tags=["old"], priority="LOW")
    await update(api, job, priority="HIGH", tags=["new"])
    for filter_, total in (
        ({"tags": ["old"]}, 0),
        ({"tags": ["new"]}, 1),
        ({"priority": ["LOW"]}, 0),
        ({"priority": ["HIGH"], "status": ["QUEUED"]}, 1),
    ):
        assert (await page(api, filter=filter_))["totalCount"] == total, filter_
    queues = await api.ask("{ queues { name counts { status count } } }")
    counted = {c["status"]: c["count"] for queue in queues["queues"] for c in queue["counts"] if c["count"]}
    assert counted == {"QUEUED": 1}


async def test_a_watched_list_hears_of_a_job_that_a_change_brings_into_it(api: ServedApi) -> None:
    watched = """subscription { jobsChanged(filter: { tags: ["new"] }, first: 5) {
      __typename totalCount ... on JobsSnapshot { nodes { id } } ... on JobEntered { job { id } }
    } }"""
    job = await create(api, tags=["old"])
    async with aclosing(api.events(watched)) as events:
        assert await anext(events) == {"__typename": "JobsSnapshot", "totalCount": 0, "nodes": []}
        await update(api, job, tags=["new"])
        entered = await anext(events)
        assert entered == {"__typename": "JobEntered", "totalCount": 1, "job": {"id": job["id"]}}


async def test_a_time_is_put_off_and_taken_away(api: ServedApi, worker: RunningWorker) -> None:
    assert worker is not None
    run_at, later = ahead(hours=1), ahead(hours=2)
    job = await create(api, runAt=run_at)
    put_off = await update(api, job, runAt=later)
    assert (put_off["status"], put_off["runAt"]) == ("SCHEDULED", later)
    left = await update(api, job, priority="HIGH", tags=None)
    assert (left["status"], left["runAt"]) == ("SCHEDULED", later)
    await update(api, job, runAt=None)
    assert (await ended(api, job["id"]))["runAt"] is None


async def test_a_payload_may_be_given_as_a_text_for_the_jobs_own_type(api: ServedApi) -> None:
    job = await create(api, {"steps": 1})
    assert (await update(api, job, rawPayload='{"steps": 2}'))["rawPayload"] == {"steps": 2}
    refusal = await api.refusal(UPDATE, id=job["id"], input={"rawPayload": '{"steps": "many"}'})
    assert refusal["extensions"]["code"] == "INVALID_PAYLOAD"
    assert refusal["extensions"]["fields"][0]["path"] == "input.rawPayload.steps"


@pytest.mark.parametrize(
    ("changes", "code", "place"),
    [
        (
            {"payload": {"email": {"to": "a@b.example", "subject": "s", "body": "b"}}},
            "INVALID_ARGUMENT",
            "input.payload",
        ),
        ({"payload": {"probe": {"steps": "many"}}}, "INVALID_PAYLOAD", "input.payload.probe.steps"),
        ({"payload": {"probe": {}}, "rawPayload": "{}"}, "INVALID_ARGUMENT", "input.rawPayload"),
        ({"rawPayload": "{"}, "INVALID_PAYLOAD", "input.rawPayload"),
        ({"runAt": ahead(days=500)}, "INVALID_ARGUMENT", "input.runAt"),
        ({"tags": ["a", "b\n"]}, "INVALID_ARGUMENT", "input.tags.1"),
        ({"tags": ["t"] * 33}, "INVALID_ARGUMENT", "input.tags"),
    ],
)
async def test_what_does_not_fit_is_refused_by_its_name_and_changes_nothing(
    api: ServedApi, changes: Data, code: str, place: str
) -> None:
    job = await create(api)
    refusal = await api.refusal(UPDATE, id=job["id"], input=changes)
    extensions = refusal["extensions"]
    assert extensions["code"] == code
    where = extensions["argument"] if code == "INVALID_ARGUMENT" else extensions["fields"][0]["path"]
    assert where == place
    assert await find(api, job["id"]) == job


async def test_a_job_that_is_unknown_has_ended_or_would_be_too_large_is_refused(api: ServedApi) -> None:
    for unknown in (UNKNOWN_ID, "no id"):
        refusal = await api.refusal(UPDATE, id=unknown, input={"rawPayload": "{}"})
        assert refusal["extensions"]["code"] == "NOT_FOUND"
    job = await create(api)
    size = api.runtime.commands._log.max_payload - HEADROOM  # noqa: SLF001
    refusal = await api.refusal(UPDATE, id=job["id"], input={"payload": {"probe": {"trace": "x" * size}}})
    assert refusal["extensions"]["code"] == "PAYLOAD_TOO_LARGE"
    await api.ask(CANCEL, id=job["id"])
    refusal = await api.refusal(UPDATE, id=job["id"], input={"priority": "LOW"})
    assert (refusal["extensions"]["code"], refusal["extensions"]["status"]) == ("INVALID_STATE", "CANCELLED")


async def test_a_dead_letter_is_retried_with_another_payload(api: ServedApi, worker: RunningWorker) -> None:
    assert worker is not None
    ways: list[Data] = [{"payload": {"probe": {"steps": 1}}}, {"raw": '{"steps": 1}'}]
    for number, given in enumerate(ways):
        job = await create(api, {"permanent": True})
        await ended(api, job["id"], "DEAD_LETTER")
        retried = (await api.ask(RETRY, id=job["id"], **given))["retryJob"]["job"]
        assert retried["rawPayload"] == {"steps": 1}, number
        done = await ended(api, job["id"])
        assert (done["status"], done["attempt"], done["rawPayload"]) == ("COMPLETED", 1, {"steps": 1})


async def test_a_retry_with_a_payload_that_does_not_fit_is_refused_by_the_name_of_its_argument(api: ServedApi) -> None:
    job = await create(api)
    await api.ask(CANCEL, id=job["id"])
    refusal = await api.refusal(RETRY, id=job["id"], payload={"probe": {"steps": "many"}})
    assert refusal["extensions"]["fields"][0]["path"] == "payload.probe.steps"
    other = asked({"to": "a@b.example", "subject": "s", "body": "b"}, "email")["payload"]
    refusal = await api.refusal(RETRY, id=job["id"], payload=other)
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "payload"}
    refusal = await api.refusal(RETRY, id=job["id"], raw='{"steps": 1.5}')
    assert refusal["extensions"]["fields"][0]["path"] == "rawPayload.steps"


async def test_a_job_that_was_cancelled_before_its_time_is_held_until_then_once_more(api: ServedApi) -> None:
    run_at = ahead(days=300)
    job = await create(api, runAt=run_at)
    await api.ask(CANCEL, id=job["id"])
    retried = (await api.ask(RETRY, id=job["id"]))["retryJob"]["job"]
    assert (retried["status"], retried["runAt"]) == ("SCHEDULED", run_at)
    assert kinds(await history(api, job["id"])) == ["Scheduled", "Cancelled", "Scheduled"]


async def test_the_example_changes_a_mail(api: ServedApi) -> None:
    job = await create(api, {"to": "a@b.example", "subject": "s", "body": "b"}, "email", runAt=ahead(hours=1))
    changed = (await api.ask(example("update_job"), id=job["id"]))["updateJob"]["job"]
    assert (changed["status"], changed["priority"]) == ("SCHEDULED", "HIGH")
