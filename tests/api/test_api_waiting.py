"""Job.waiting: why a job does not run yet, in words, and how many are before it."""

from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gql_jobs.index.reader import QueuePlace
from gql_jobs.log.heartbeats import LeftType, WorkerSeen
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, ahead, asked, create, create_many, ended, reached
from tests.deadline import until
from tests.running import running_worker
from tests.serving import Data, ServedApi

WAITING = "query ($id: ID!) { job(id: $id) { waiting { reason detail until ahead } } }"
PAGE = "{ jobs(first: 100, orderBy: { field: CREATED_AT, direction: ASC }) { nodes { priority waiting { ahead } } } }"


async def _waiting(api: ServedApi, job: Data) -> Data | None:
    waiting: Data | None = (await api.ask(WAITING, id=job["id"]))["job"]["waiting"]
    return waiting


def _worker(**changes: object) -> WorkerSeen:
    now = datetime.now(UTC)
    facts: dict[str, object] = {
        "id": "w1",
        "hostname": "here",
        "queues": ("default",),
        "concurrency": 2,
        "running": 0,
        "started_at": now,
        "last_seen_at": now,
        "known_types": ("probe",),
        **changes,
    }
    return WorkerSeen(**facts)  # type: ignore[arg-type]


@pytest.fixture
def seen(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the API see just these workers."""

    def see(*workers: WorkerSeen) -> None:
        monkeypatch.setattr(api.runtime.presence, "workers", lambda: list(workers))

    return see


async def test_a_job_of_a_queue_that_nobody_serves_waits_for_a_worker(api: ServedApi) -> None:
    first, second = await create(api), await create(api)
    urgent = await create(api, priority="HIGH")
    no_worker = {"reason": "NO_WORKER", "detail": "no worker serves the queue `default`", "until": None}
    assert await _waiting(api, urgent) == {**no_worker, "ahead": 0}
    assert await _waiting(api, first) == {**no_worker, "ahead": 1}
    assert await _waiting(api, second) == {**no_worker, "ahead": 2}


async def test_a_job_of_a_type_that_no_worker_of_its_queue_can_run_waits_for_one_that_can(
    api: ServedApi, seen: Callable[..., None]
) -> None:
    job = await create(api)
    detail = "no worker of the queue `default` can run all jobs of the type `probe`"
    expected = {"reason": "NO_WORKER", "detail": detail, "until": None, "ahead": 0}
    elsewhere = _worker(id="w2", queues=("cpu",))
    seen(_worker(known_types=("other",)), elsewhere)
    assert await _waiting(api, job) == expected
    seen(_worker(unable=(LeftType("probe", "the payload does not fit"),)), elsewhere)
    assert await _waiting(api, job) == expected
    seen(_worker(), elsewhere)
    assert await _waiting(api, job) is None


async def test_a_job_waits_while_slots_are_busy_and_starts_at_once_where_one_is_free(
    api: ServedApi, seen: Callable[..., None]
) -> None:
    jobs = [await create(api) for _ in range(3)]
    seen(_worker(running=2), _worker(id="w2", running=1, concurrency=3))
    waits = [await _waiting(api, job) for job in jobs]
    assert waits[:2] == [None, None]
    assert waits[2] == {"reason": "WORKERS_BUSY", "detail": "3 of 5 slots busy, 2 ahead", "until": None, "ahead": 2}
    seen(_worker(running=2), _worker(id="w2", queues=("cpu",)))
    first = await _waiting(api, jobs[0])
    assert first == {"reason": "WORKERS_BUSY", "detail": "2 of 2 slots busy, 0 ahead", "until": None, "ahead": 0}


async def test_with_a_real_worker_a_job_waits_for_those_before_it_and_then_for_nothing(
    api: ServedApi, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    one_at_a_time = settings.model_copy(update={"num_workers": 1})
    await workers.enter_async_context(running_worker(one_at_a_time, ("default",)))
    running = await create(api, {"gate": str(gate)})
    await reached(api, running["id"], "PROCESSING")
    job = await create(api, {"gate": str(gate)})

    async def is_busy() -> bool:
        waiting = await _waiting(api, job)
        return waiting is not None and waiting["detail"] == "1 of 1 slots busy, 0 ahead"

    await until(is_busy, "the worker is busy")
    assert await _waiting(api, running) is None
    gate.touch()
    await ended(api, job["id"])
    assert await _waiting(api, job) is None


async def test_a_job_for_later_waits_until_then_and_one_that_was_cancelled_for_nothing(api: ServedApi) -> None:
    job = await create(api, runAt=ahead(hours=1))
    waiting = await _waiting(api, job)
    assert waiting == {
        "reason": "SCHEDULED",
        "detail": "it is not to start before the time that it was scheduled for",
        "until": job["runAt"],
        "ahead": None,
    }
    await api.ask(CANCEL, id=job["id"])
    assert await _waiting(api, job) is None


async def test_a_job_that_failed_waits_until_its_next_attempt(
    api: ServedApi, settings: Settings, workers: AsyncExitStack
) -> None:
    patient = settings.model_copy(update={"base_retry_delay": 600.0, "max_retry_delay": 600.0})
    await workers.enter_async_context(running_worker(patient))
    job = await reached(api, (await create(api, {"failAttempts": 1}, maxRetries=3))["id"], "RETRYING")
    assert await _waiting(api, job) == {
        "reason": "BACKING_OFF",
        "detail": "attempt 1 of 4 failed, and the next one follows after a pause",
        "until": job["nextAttemptAt"],
        "ahead": None,
    }


async def test_a_job_whose_pause_is_over_waits_for_a_worker_if_there_is_none(
    api: ServedApi, settings: Settings
) -> None:
    async with running_worker(settings.model_copy(update={"base_retry_delay": 2.0})):
        job = await reached(api, (await create(api, {"failAttempts": 1}))["id"], "RETRYING")

    async def reason() -> bool:
        waiting = await _waiting(api, job)
        return waiting is not None and waiting["reason"] == "NO_WORKER"

    await until(reason, "it waits for a worker")


async def test_a_page_of_jobs_is_counted_with_one_read(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    priorities = ["NORMAL", "HIGH", "LOW", "CRITICAL"]
    jobs = await create_many(api, [asked(priority=priorities[n % 4]) for n in range(100)])
    reads: list[int] = []
    read = api.runtime.reader.ahead

    async def counted(places: Collection[QueuePlace]) -> dict[QueuePlace, int]:
        reads.append(len(places))
        return await read(places)

    monkeypatch.setattr(api.runtime.reader, "ahead", counted)

    async def page() -> list[Data] | None:
        reads.clear()
        nodes: list[Data] = (await api.ask(PAGE))["jobs"]["nodes"]
        return nodes if len(nodes) == len(jobs) else None

    nodes = await until(page, "all are there")
    assert nodes is not None
    assert reads == [100]
    ranks = {"LOW": 0, "NORMAL": 1, "HIGH": 2, "CRITICAL": 3}
    assert sorted(node["waiting"]["ahead"] for node in nodes) == list(range(100))
    in_order = sorted(nodes, key=lambda node: node["waiting"]["ahead"])
    assert [ranks[node["priority"]] for node in in_order] == sorted((ranks[n["priority"]] for n in nodes), reverse=True)
