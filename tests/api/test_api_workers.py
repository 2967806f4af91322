"""What workers are doing: the jobs that each of them runs now."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.graphql import queries
from gql_jobs.index import reader
from gql_jobs.settings import Settings
from tests.api.operations import create, ended, reached
from tests.deadline import until
from tests.running import running_worker
from tests.serving import Data, ServedApi

WORKERS = "{ workers { id stale running jobs { id status workerId } } }"


async def _workers(api: ServedApi, document: str = WORKERS) -> list[Data]:
    listed: list[Data] = (await api.ask(document))["workers"]
    return listed


async def test_a_worker_has_the_jobs_that_it_runs_now(
    api: ServedApi, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    one_at_a_time = settings.model_copy(update={"num_workers": 1})
    for _ in range(2):
        await workers.enter_async_context(running_worker(one_at_a_time, ("default",)))
    jobs = [await create(api, {"gate": str(gate)}) for _ in range(3)]

    async def both_run() -> bool:
        return [len(worker["jobs"]) for worker in await _workers(api)] == [1, 1]

    await until(both_run, "each runs one")
    listed = await _workers(api)
    for worker in listed:
        assert not worker["stale"]
        assert worker["jobs"][0]["status"] == "PROCESSING"
        assert worker["jobs"][0]["workerId"] == worker["id"]
    running = {worker["jobs"][0]["id"] for worker in listed}
    assert len(running & {job["id"] for job in jobs}) == 2
    gate.touch()
    for job in jobs:
        await ended(api, job["id"])
    assert [worker["jobs"] for worker in await _workers(api)] == [[], []]


async def test_its_jobs_have_their_types_and_their_payloads_where_these_are_selected(
    api: ServedApi, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    await workers.enter_async_context(running_worker(settings))
    gate = tmp_path / "gate"
    job = await create(api, {"gate": str(gate), "trace": str(tmp_path / ("x" * 100)), "steps": 1})
    await reached(api, job["id"], "PROCESSING")
    (worker,) = await _workers(api, "{ workers { jobs { __typename } } }")
    assert worker["jobs"] == [{"__typename": "ProbeJob"}]
    (worker,) = await _workers(api, "{ workers { jobs { rawPayload ... on ProbeJob { payload { gate } } } } }")
    assert worker["jobs"][0]["payload"]["gate"] == worker["jobs"][0]["rawPayload"]["gate"] == str(gate)
    gate.touch()
    await ended(api, job["id"])


async def test_few_running_jobs_are_looked_at_and_listed(
    api: ServedApi,
    settings: Settings,
    workers: AsyncExitStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await workers.enter_async_context(running_worker(settings))
    gate = tmp_path / "gate"
    jobs = [await create(api, {"gate": str(gate)}) for _ in range(3)]
    for job in jobs:
        await reached(api, job["id"], "PROCESSING")

    async def listed() -> list[Any]:
        (worker,) = await _workers(api)
        return [job["id"] for job in worker["jobs"]]

    assert await listed() == [job["id"] for job in jobs]
    monkeypatch.setattr(queries, "LARGEST_PAGE", 1)
    assert await listed() == [jobs[0]["id"]]
    monkeypatch.setattr(queries, "LARGEST_PAGE", 500)
    monkeypatch.setattr(reader, "MOST_RUNNING", 2)
    assert await listed() == [job["id"] for job in jobs[:2]]
    gate.touch()


async def test_the_running_jobs_are_read_once_for_all_workers(
    api: ServedApi, settings: Settings, workers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await workers.enter_async_context(running_worker(settings))
    reads = 0
    read = api.runtime.reader.running

    async def counted() -> dict[str, list[str]]:
        nonlocal reads
        reads += 1
        return await read()

    monkeypatch.setattr(api.runtime.reader, "running", counted)

    async def three() -> bool:
        return len(await _workers(api, "{ workers { id } }")) == 3

    await until(three, "all are there")
    await api.ask("{ workers { a: jobs { id } } more: workers { jobs { id } } }")
    assert reads == 1
