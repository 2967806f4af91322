"""What a creation says of when and beside what its job may run: after others, before a time, under keys."""

from typing import Any

import pytest

from gql_jobs.jobs.model import new_job_id
from gql_jobs.log.commands import HEADROOM
from tests.api.operations import CREATE, CREATE_MANY, UNKNOWN_ID, ahead, asked, create, create_many
from tests.serving import ServedApi

HELD = """query ($id: ID!) { job(id: $id) {
  status runAt after startBefore concurrencyKey key schedule cancelReason
} }"""
RAW = """mutation ($inputs: [RawJobInput!]!) { createRawJobs(inputs: $inputs) { jobs { id } } }"""


async def test_a_job_says_what_it_was_created_with(api: ServedApi) -> None:
    first, second = await create(api), await create(api)
    run_at, start_before = ahead(hours=1), ahead(hours=2)
    made = await create(
        api,
        after=[first["id"].upper(), second["id"]],
        afterPolicy="RUN",
        runAt=run_at,
        startBefore=start_before,
        concurrencyKey="customer 7",
        key={"value": "report 7"},
    )
    assert (await api.ask(HELD, id=made["id"]))["job"] == {
        "status": "WAITING",
        "runAt": run_at,
        "after": [first["id"], second["id"]],
        "startBefore": start_before,
        "concurrencyKey": "customer 7",
        "key": "report 7",
        "schedule": None,
        "cancelReason": None,
    }


async def test_a_job_that_waits_for_nothing_else_is_created_as_ever(api: ServedApi) -> None:
    made = await create(api, startBefore=ahead(hours=2), concurrencyKey="k", key={"value": "only one"})
    assert made["status"] == "QUEUED"
    held = (await api.ask(HELD, id=made["id"]))["job"]
    assert (held["after"], held["concurrencyKey"], held["key"]) == ([], "k", "only one")


async def test_raw_creations_take_the_same(api: ServedApi) -> None:
    first = await create(api)
    given = {"type": "probe", "payload": "{}", "after": [first["id"]], "concurrencyKey": "k"}
    (made,) = (await api.ask(RAW, inputs=[given]))["createRawJobs"]["jobs"]
    held = (await api.ask(HELD, id=made["id"]))["job"]
    assert (held["status"], held["after"], held["concurrencyKey"]) == ("WAITING", [first["id"]], "k")


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"after": ["no id"]}, "after.0"),
        ({"after": [UNKNOWN_ID]}, "after.0"),
        ({"after": [new_job_id() for _ in range(1001)]}, "after"),
        ({"concurrencyKey": ""}, "concurrencyKey"),
        ({"concurrencyKey": "a\nb"}, "concurrencyKey"),
        ({"key": {"value": "k" * 256}}, "key.value"),
        ({"key": {"value": "k", "maxDelaySeconds": 5}}, "key.maxDelaySeconds"),
        ({"key": {"value": "k", "policy": "REPLACE", "maxDelaySeconds": 0}}, "key.maxDelaySeconds"),
        ({"runAt": ahead(hours=2), "startBefore": ahead(hours=1)}, "startBefore"),
        ({"startBefore": ahead(days=800)}, "startBefore"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else None,
)
async def test_what_is_out_of_range_is_refused_by_its_name(api: ServedApi, given: Any, argument: str) -> None:
    refusal = await api.refusal(CREATE, input=asked(**given))
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": f"input.{argument}"}
    refusal = await api.refusal(CREATE_MANY, inputs=[asked(), asked(**given)])
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": f"inputs.1.{argument}"}


async def test_no_job_is_named_twice(api: ServedApi) -> None:
    job = await create(api)
    refusal = await api.refusal(CREATE, input=asked(after=[job["id"], job["id"].upper()]))
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "input.after.1"}
    assert refusal["message"] == f"The job {job['id']!r} is named twice."


@pytest.mark.parametrize("named", [UNKNOWN_ID, "{no} id"])
async def test_a_job_to_run_after_that_is_not_there_is_named(api: ServedApi, named: str) -> None:
    job = await create(api)
    refusal = await api.refusal(CREATE, input=asked(after=[job["id"], named]))
    assert refusal["message"] == f"There is no job {named!r}."
    refusal = await api.refusal(CREATE_MANY, inputs=[asked(), asked(origin=named)])
    assert refusal["message"] == f"There is no job {named!r}."


async def test_a_thousand_ids_leave_room_for_a_dead_letter_with_its_errors(api: ServedApi) -> None:
    ids = await create_many(api, [asked() for _ in range(1000)])
    body = "x" * (api.runtime.commands._log.max_payload - HEADROOM - len('{"trace":""}'))  # noqa: SLF001
    made = await create(api, {"trace": body}, after=ids)
    assert made["status"] == "WAITING"
