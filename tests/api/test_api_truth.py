"""workers, queues, jobTypes: what the API says of the installation is so."""

import os
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gql_jobs.log import heartbeats as presence
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, ahead, create, ended, example, find, reached
from tests.deadline import until
from tests.running import running_worker, worker_process
from tests.serving import Data, ServedApi

STATES = ["SCHEDULED", "WAITING", "QUEUED", "PROCESSING", "RETRYING", "COMPLETED", "DEAD_LETTER", "CANCELLED"]


async def _workers(api: ServedApi) -> list[Data]:
    listed: list[Data] = (await api.ask(example("workers")))["workers"]
    return listed


async def test_workers_are_those_that_run(api: ServedApi, settings: Settings, tmp_path: Path) -> None:
    async def shown(running: int) -> list[Data]:
        listed = await _workers(api)
        return listed if [worker["running"] for worker in listed] == [running] else []

    assert await _workers(api) == []
    gate = tmp_path / "gate"
    async with running_worker(settings.model_copy(update={"num_workers": 7}), ("default",)):
        jobs = [await create(api, {"gate": str(gate)}) for _ in range(2)]
        (worker,) = await until(lambda: shown(2), "one worker runs both")
        assert worker["hostname"] == socket.gethostname()
        assert (worker["queues"], worker["concurrency"]) == (["default"], 7)
        assert worker["startedAt"] <= worker["lastSeenAt"] <= datetime.now(UTC).isoformat()
        assert (await find(api, jobs[0]["id"]))["workerId"] == worker["id"]
        gate.touch()
        for job in jobs:
            await ended(api, job["id"])
        await until(lambda: shown(0), "it runs nothing")
        async with running_worker(settings, ("threads",)):

            async def both() -> bool:
                return [worker["queues"] for worker in await _workers(api)] == [["default"], ["threads"]]

            await until(both, "two workers are listed")

    async def nobody() -> bool:
        return await _workers(api) == []

    await until(nobody, "those that have stopped are gone at once", within=3)


async def test_a_worker_that_was_killed_disappears_for_its_silence(
    api: ServedApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def listed() -> list[Data]:
        return await _workers(api)

    async def nobody() -> bool:
        return await _workers(api) == []

    assert presence.GONE_AFTER < 15
    async with worker_process(settings) as process:
        (worker,) = await until(listed, "the worker process is listed", within=20)
        assert str(process.pid) in worker["id"]
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        assert await _workers(api) == [worker]
        monkeypatch.setattr(presence, "GONE_AFTER", 1.0)
        await until(nobody, "the killed worker is gone")


async def test_queues_count_every_state(api: ServedApi, settings: Settings, tmp_path: Path) -> None:
    async def counts() -> dict[str, dict[str, int]]:
        queues = (await api.ask(example("queues")))["queues"]
        assert all([count["status"] for count in queue["counts"]] == STATES for queue in queues)
        return {queue["name"]: {c["status"]: c["count"] for c in queue["counts"] if c["count"]} for queue in queues}

    before = await counts()
    assert (before["default"], before["threads"]) == ({}, {})
    async with running_worker(settings.model_copy(update={"base_retry_delay": 30.0, "max_retry_delay": 30.0})):
        done, dead = await create(api), await create(api, {"permanent": True})
        retrying = await create(api, {"failAttempts": 1})
        running = await create(api, {"gate": str(tmp_path / "never")})
        await ended(api, done["id"])
        await ended(api, dead["id"], "DEAD_LETTER")
        await reached(api, retrying["id"], "RETRYING")
        await reached(api, running["id"], "PROCESSING")
        then = await counts()
        assert then["default"] == {"PROCESSING": 1, "RETRYING": 1, "COMPLETED": 1, "DEAD_LETTER": 1}
        assert then["threads"] == {}
    waiting = await create(api, {}, "probeThread")
    cancelled = await create(api, {}, "probeThread")
    await api.ask(CANCEL, id=cancelled["id"])
    await create(api, {}, "probeThread", runAt=ahead(days=1))
    threads = (await counts())["threads"]
    assert threads == {"QUEUED": 1, "CANCELLED": 1, "SCHEDULED": 1}
    oldest = {q["name"]: q["oldestQueuedAt"] for q in (await api.ask(example("queues")))["queues"]}
    assert oldest["threads"] == waiting["updatedAt"]


async def test_job_types_are_those_registered(api: ServedApi, settings: Settings) -> None:
    types = {kind["name"]: kind for kind in (await api.ask(example("job_types")))["jobTypes"]}
    assert {"email", "probe", "probe_thread"} <= set(types)
    thread = types["probe_thread"]
    assert thread["queue"] == "threads"
    assert (thread["maxRetries"], thread["timeoutSeconds"]) == (settings.max_retries, settings.process_timeout)
    assert "failAttempts" in thread["payloadSchema"]["properties"]
    assert set(types["email"]["payloadSchema"]["required"]) == {"to", "subject", "body"}
