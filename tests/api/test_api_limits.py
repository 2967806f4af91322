"""Limits over the API: set while the queue is used, shown, refused, and what they do to jobs."""

from typing import Any

import pytest

from gql_jobs import clock
from gql_jobs.jobs.errors import no_such_queue
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.heartbeats import WorkerSeen
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.stored_limits import set_queue_limits
from tests.api.operations import PAGE, create
from tests.deadline import until
from tests.serving import Api, ServedApi

_SET = """mutation ($name: String! = "default", $limits: QueueLimitsInput!) {
  setQueueLimits(name: $name, limits: $limits) {
    ungated queue { name limits { concurrency concurrencyPerKey perSecond } }
  }
}"""
_SHOWN = "{ queues { name limits { concurrency concurrencyPerKey perSecond } } }"
NONE = {"concurrency": None, "concurrencyPerKey": None, "perSecond": None}


async def limit(api: Api, **limits: Any) -> dict[str, Any]:
    """Limit the queue of probes, and return the answer."""
    answer: dict[str, Any] = (await api.ask(_SET, limits=limits))["setQueueLimits"]
    return answer


async def status(api: Api, job_id: str) -> str:
    """The state of a job."""
    job = (await api.ask("query ($id: ID!) { job(id: $id) { status } }", id=job_id))["job"]
    return str(job["status"])


async def test_limits_take_the_place_of_those_that_there_are(api: ServedApi) -> None:
    assert (await limit(api, concurrency=5, perSecond=0.1))["queue"]["limits"] == NONE | {
        "concurrency": 5,
        "perSecond": 0.1,
    }
    assert (await limit(api, concurrencyPerKey=1, perSecond=None))["queue"]["limits"] == NONE | {"concurrencyPerKey": 1}
    shown = {queue["name"]: queue["limits"] for queue in (await api.ask(_SHOWN))["queues"]}
    assert shown["default"] == NONE | {"concurrencyPerKey": 1}
    assert (await limit(api))["queue"]["limits"] == NONE


async def test_limits_that_others_have_set_are_shown(api: ServedApi, job_log: JobLog) -> None:
    await set_queue_limits(job_log, "default", Limits.of(concurrency=7))

    async def shown() -> bool | None:
        queues = {queue["name"]: queue["limits"] for queue in (await api.ask(_SHOWN))["queues"]}
        return queues["default"]["concurrency"] == 7 or None

    await until(shown, "the limits are shown")


async def test_a_limit_outside_its_bounds_is_refused_and_named(api: ServedApi) -> None:
    for limits, argument in (
        ({"concurrency": 0}, "limits.concurrency"),
        ({"concurrencyPerKey": -1}, "limits.concurrencyPerKey"),
        ({"perSecond": 0}, "limits.perSecond"),
        ({"perSecond": 1e9}, "limits.perSecond"),
    ):
        refusal = await api.refusal(_SET, limits=limits)
        assert refusal["extensions"]["code"] == "INVALID_ARGUMENT"
        assert refusal["extensions"]["argument"] == argument
        assert refusal["message"].startswith(argument.removeprefix("limits."))
    refusal = await api.refusal(_SET, name="none", limits={})
    assert (refusal["extensions"]["argument"], refusal["message"]) == (
        "name",
        no_such_queue("none", api.runtime.registry.queues),
    )


async def test_jobs_of_before_are_counted_and_later_ones_wait(api: ServedApi) -> None:
    before = [(await create(api))["id"] for _ in range(2)]
    assert (await limit(api, concurrency=1))["ungated"] == 2
    later = (await create(api))["id"]
    assert await status(api, later) == JobStatus.WAITING.name
    # There are as many as may run at a time, without those that came before.
    assert (await limit(api, concurrency=2))["ungated"] == 2
    for job_id in before:
        await api.ask("mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }", id=job_id)

    async def queued() -> bool | None:
        return await status(api, later) == JobStatus.QUEUED.name or None

    await until(queued, "the job is let go")
    assert (await limit(api, concurrency=2))["ungated"] == 0


async def test_jobs_are_found_by_their_key_and_by_their_concurrency_key(api: ServedApi) -> None:
    keyed = (await create(api, key={"value": "shop 7"}))["id"]
    ids = [(await create(api, concurrencyKey=key))["id"] for key in ("acme", "other", "acme")]
    await create(api)

    async def found(**wanted: str) -> list[str]:
        return [job["id"] for job in (await api.ask(PAGE, filter=wanted, first=9))["jobs"]["nodes"]]

    assert await found(key="shop 7") == [keyed]
    assert await found(concurrencyKey="acme") == [ids[2], ids[0]]
    assert await found(concurrencyKey="acme", key="shop 7") == await found(schedule="nightly") == []
    refusal = await api.refusal(PAGE, filter={"concurrencyKey": "x" * 256}, first=9)
    assert refusal["extensions"]["argument"] == "filter.concurrencyKey"


async def test_types_show_what_they_are_limited_to(api: ServedApi) -> None:
    types = (await api.ask("{ jobTypes { name limits { concurrency concurrencyPerKey perSecond } } }"))["jobTypes"]
    assert {kind["name"]: kind["limits"] for kind in types}["probe"] == NONE


_WAITING = "query ($id: ID!) { job(id: $id) { waiting { reason detail until ahead } } }"


async def waiting(api: Api, job_id: str) -> tuple[str, str] | None:
    """Why a job does not run yet."""
    found = (await api.ask(_WAITING, id=job_id))["job"]["waiting"]
    return (found["reason"], found["detail"]) if found is not None else None


@pytest.mark.usefixtures("seen")
async def test_a_job_says_which_limit_holds_it_back(api: ServedApi) -> None:
    await limit(api, concurrency=1)
    first, second = (await create(api))["id"], (await create(api))["id"]
    await until(lambda: _is(api, first, "QUEUED"), "the first is let go")
    assert await waiting(api, second) == ("LIMIT", "1 of 1 jobs of the queue `default` run")
    await limit(api, concurrencyPerKey=1)
    keyed = [(await create(api, concurrencyKey="acme"))["id"] for _ in range(2)]
    await until(lambda: _is(api, keyed[0], "QUEUED"), "the first with the key is let go")
    assert await waiting(api, keyed[1]) == ("LIMIT", "1 of 1 jobs of the queue `default` with the key acme run")
    await limit(api, perSecond=1 / 3600)
    rated = [(await create(api))["id"] for _ in range(2)]
    assert await waiting(api, rated[1]) == ("LIMIT", "1/h jobs of the queue `default` may start")


@pytest.mark.usefixtures("seen")
async def test_a_job_says_which_jobs_it_is_to_run_after(api: ServedApi) -> None:
    before = sorted([(await create(api))["id"] for _ in range(5)])
    one = (await create(api, after=before[:1]))["id"]
    many = (await create(api, after=before))["id"]
    assert await waiting(api, one) == ("DEPENDENCY", f"it is to run after the job {before[0]}")
    assert await waiting(api, many) == ("DEPENDENCY", f"it is to run after 5 jobs {', '.join(before[:3])}, …")


async def test_a_job_that_nobody_can_run_waits_for_a_worker_and_not_for_a_limit(api: ServedApi) -> None:
    await limit(api, concurrency=1)
    await create(api)
    held = (await create(api))["id"]
    assert await waiting(api, held) == ("NO_WORKER", "no worker serves the queue `default`")


async def _is(api: Api, job_id: str, wanted: str) -> bool | None:
    return await status(api, job_id) == wanted or None


@pytest.fixture
def seen(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the API see a worker that takes nothing."""
    now = clock.now()
    worker = WorkerSeen(
        id="w",
        hostname="here",
        queues=("default",),
        concurrency=2,
        running=0,
        started_at=now,
        last_seen_at=now,
        known_types=("probe",),
    )
    monkeypatch.setattr(api.runtime.presence, "workers", lambda: [worker])
