"""createJob: one durable write, found at once and everywhere, made once per idempotency key."""

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gql_jobs.settings import Settings
from tests.api.operations import (
    CANCEL,
    CREATE,
    CREATIONS,
    FIND,
    RETRY,
    TERMINAL,
    ahead,
    asked,
    create,
    ended,
    example,
    find,
    history,
    kinds,
    page,
    reached,
    watched,
)
from tests.running import RunningWorker, running_worker
from tests.serving import ServedApi, serving


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a second API process, with an index of its own."""
    return settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})


async def test_a_created_job_is_found_at_once(api: ServedApi) -> None:
    job = await create(api, {"steps": 3}, priority="HIGH", tags=["a", "b"], maxRetries=2)
    assert job["status"] == "QUEUED"
    assert job["__typename"] == "ProbeJob"
    assert (job["priority"], job["tags"], job["maxRetries"], job["queue"]) == ("HIGH", ["a", "b"], 2, "default")
    assert (job["progress"], job["attempt"], job["retryCount"]) == (0, 0, 0)
    assert job["rawPayload"]["steps"] == 3
    assert await find(api, job["id"]) == job
    assert [node["id"] for node in (await page(api))["nodes"]] == [job["id"]]


async def test_a_job_says_how_long_one_attempt_may_take_whether_it_or_its_type_says_so(api: ServedApi) -> None:
    ask = "query ($id: ID!) { job(id: $id) { timeoutSeconds } }"
    own, of_type = await create(api, {}, timeoutSeconds=20.5), await create(api, {})
    said = [(await api.ask(ask, id=job["id"]))["job"]["timeoutSeconds"] for job in (own, of_type)]
    (probe,) = [
        kind for kind in (await api.ask("{ jobTypes { name timeoutSeconds } }"))["jobTypes"] if kind["name"] == "probe"
    ]
    assert said == [20.5, probe["timeoutSeconds"]]


async def test_every_example_of_a_creation_makes_a_job_of_its_own_type(api: ServedApi) -> None:
    run_at = ahead(days=1)
    for name in CREATIONS:
        variables = {"runAt": run_at} if "$runAt" in example(name) else {}
        job = await find(api, (await api.ask(example(name), **variables))["createJob"]["job"]["id"])
        assert job["__typename"] != "UnknownJob"
        assert job["rawPayload"]
        if variables:
            assert (job["status"], job["maxRetries"]) == ("SCHEDULED", 2)
            assert datetime.fromisoformat(job["runAt"]) == datetime.fromisoformat(run_at)
        else:
            assert job["status"] == "QUEUED"


async def test_a_job_is_found_at_once_on_another_server(api: ServedApi, elsewhere: Settings) -> None:
    async with serving(elsewhere) as other:
        for _ in range(25):
            job = await create(api)
            assert (await find(other, job["id"]))["createdAt"] == job["createdAt"]


async def test_a_job_is_watched_at_once_on_another_server(
    api: ServedApi, elsewhere: Settings, worker: RunningWorker
) -> None:
    assert worker.task is not None
    async with serving(elsewhere) as other:
        job = await create(api, {"steps": 2})
        events = await watched(other, job["id"])
    assert kinds(events)[-1] == "Completed"


async def test_a_job_is_cancelled_and_retried_at_once_on_another_server(api: ServedApi, elsewhere: Settings) -> None:
    async with serving(elsewhere) as other:
        job = await create(api)
        cancelled = (await other.ask(CANCEL, id=job["id"]))["cancelJob"]["job"]
        assert cancelled["status"] == "CANCELLED"
        retried = (await api.ask(RETRY, id=job["id"]))["retryJob"]["job"]
        assert retried["status"] == "QUEUED"
        assert (await other.ask(CANCEL, id=job["id"]))["cancelJob"]["job"]["status"] == "CANCELLED"


async def test_the_same_key_and_payload_are_the_same_job(api: ServedApi) -> None:
    first = await api.ask(CREATE, input=asked({"steps": 1}, idempotencyKey="invoice-7"))
    again = await api.ask(
        CREATE, input=asked({"steps": 1}, idempotencyKey="invoice-7", priority="LOW", tags=["other"], maxRetries=0)
    )
    assert first["createJob"]["deduplicated"] is False
    assert again["createJob"] == {"deduplicated": True, "job": first["createJob"]["job"]}
    assert (await page(api))["totalCount"] == 1


async def test_a_key_is_known_after_a_restart_without_the_index(settings: Settings) -> None:
    async with serving(settings) as before:
        job = await create(before, {"steps": 1}, idempotencyKey="invoice-7")
    shutil.rmtree(settings.data_dir)
    async with serving(settings) as after:
        again = (await after.ask(CREATE, input=asked({"steps": 1}, idempotencyKey="invoice-7")))["createJob"]
        assert again == {"deduplicated": True, "job": job}
        assert (await page(after))["totalCount"] == 1


async def test_the_same_key_with_another_payload_is_a_conflict(api: ServedApi) -> None:
    job = await create(api, {"steps": 1}, idempotencyKey="invoice-7")
    for payload, kind in ({"steps": 2}, "probe"), ({"steps": 1}, "probeThread"):
        refusal = await api.refusal(CREATE, input=asked(payload, kind, idempotencyKey="invoice-7"))
        assert refusal["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"
        assert refusal["extensions"]["existingJobId"] == job["id"]
    assert (await page(api))["totalCount"] == 1


async def test_a_key_used_on_two_servers_at_once_makes_one_job(api: ServedApi, elsewhere: Settings) -> None:
    async with serving(elsewhere) as other:
        creation = asked({"steps": 1}, idempotencyKey="invoice-7")
        answers = await asyncio.gather(*(server.ask(CREATE, input=creation) for server in (api, other) * 10))
    created = [answer["createJob"] for answer in answers]
    assert len({answer["job"]["id"] for answer in created}) == 1
    assert [answer["deduplicated"] for answer in created].count(False) == 1


async def test_a_job_for_later_is_scheduled_until_then(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    run_at = datetime.now(UTC) + timedelta(seconds=0.7)
    job = await create(api, runAt=run_at.isoformat())
    assert job["status"] == "SCHEDULED"
    assert datetime.fromisoformat(job["runAt"]) == run_at
    await ended(api, job["id"])
    happened = await history(api, job["id"])
    assert kinds(happened) == ["Scheduled", "Queued", "Started", "Completed"]
    assert [event["job"]["status"] for event in happened] == ["SCHEDULED", "QUEUED", "PROCESSING", "COMPLETED"]
    assert datetime.fromisoformat(happened[1]["at"]) >= run_at


async def test_a_job_for_the_past_runs_now(api: ServedApi) -> None:
    for moment in "2020-01-31T12:00:00Z", "0001-01-01T00:00:00+14:00":
        job = await create(api, runAt=moment)
        assert (job["status"], job["runAt"]) == ("QUEUED", None)


async def test_a_free_worker_takes_the_most_urgent_job(api: ServedApi, settings: Settings, tmp_path: Path) -> None:
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    async with running_worker(settings.model_copy(update={"num_workers": 1})):
        first = await create(api, {"gate": str(gate), "trace": str(trace)})
        await reached(api, first["id"], "PROCESSING")
        payload = {"trace": str(trace)}
        urgency = [await create(api, payload, priority=p) for p in ("LOW", "NORMAL", "CRITICAL", "HIGH")]
        gate.touch()
        for job in urgency:
            await ended(api, job["id"])
    ids = [line.split()[0] for line in trace.read_text().splitlines()]
    low, normal, critical, high = (job["id"] for job in urgency)
    assert ids == [first["id"], critical, high, normal, low]


async def test_a_job_that_is_unknown_everywhere_is_null(api: ServedApi) -> None:
    for job_id in "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42", "jobs.>", "", "*":
        assert (await api.ask(FIND, id=job_id))["job"] is None


async def test_progress_is_100_once_completed(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    job = await ended(api, (await create(api, {"resultBytes": 3}))["id"])
    assert job["status"] in TERMINAL
    assert (job["progress"], job["attempt"], job["retryCount"]) == (100, 1, 0)
    assert job["rawResult"] == {"attempt": 1, "saved": None, "text": "xxx"}
    assert job["durationMs"] >= 0
    assert job["workerId"]
    assert datetime.fromisoformat(job["startedAt"]) <= datetime.fromisoformat(job["finishedAt"])
