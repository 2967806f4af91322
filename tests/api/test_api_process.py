"""The API as a process: its health, its page, its answer to the unexpected, its index over a kill."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gql_jobs.settings import Settings
from tests.api.operations import CREATE, asked, create, create_many, ended, find, page
from tests.deadline import until
from tests.running import RunningWorker, running_worker
from tests.serving import Api, Data, ServedApi, api_process, free_port, hear, is_ready, say


async def test_health_and_readiness(api: ServedApi) -> None:
    alive = await api.http.get("/healthz")
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    await create(api)
    ready = await api.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.headers["Cache-Control"] == "no-store"
    assert ready.json()["status"] == "ready"
    checks = ready.json()["checks"]
    assert {"nats", "feed"} <= set(checks)
    assert all(check["ok"] and check["message"] for check in checks.values())


async def test_a_browser_gets_graphiql(api: ServedApi) -> None:
    response = await api.http.get("/graphql", headers={"Accept": "text/html"})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")
    assert "graphiql" in response.text.lower()


async def test_the_schema_describes_itself(api: ServedApi) -> None:
    document = "{ __schema { types { name description fields { name description } } } }"
    types = (await api.ask(document))["__schema"]["types"]
    described = {kind["name"]: kind for kind in types}
    assert {"ProbeJob", "EmailJob", "UnknownJob", "JobEvent", "ErrorCode"} <= set(described)
    own = [kind for kind in types if not kind["name"].startswith("__")]
    assert [kind["name"] for kind in own if not kind["description"]] == []


async def test_what_nobody_expected_is_masked(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(api.runtime.reader, "page", broken)
    refusal = await api.refusal("{ jobs { totalCount } }")
    assert refusal["extensions"] == {"code": "INTERNAL"}
    assert "1234" not in str(refusal)
    assert "the password is 1234" in caplog.text
    monkeypatch.undo()
    assert (await page(api))["totalCount"] == 0


async def test_a_killed_process_resumes_its_index(settings: Settings) -> None:
    port = free_port()
    async with running_worker(settings):
        async with api_process(settings, port) as (api, process):
            done = await create(api, {"steps": 2})
            await ended(api, done["id"])
            index = settings.data_dir / "index-0.sqlite"
            file = await asyncio.to_thread(_identity, index)
            os.kill(process.pid, signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
            assert not await is_ready(api)
        async with api_process(settings, port) as (api, _):
            assert (await find(api, done["id"]))["progress"] == 100
            new = await create(api)
            await ended(api, new["id"])
            assert (await page(api))["totalCount"] == 2
            # Built anew it would be another file.
            assert await asyncio.to_thread(_identity, index) == file


def _identity(path: Path) -> int:
    return path.stat().st_ino


async def test_two_processes_in_one_folder_have_an_index_each_and_a_key_makes_one_job(settings: Settings) -> None:
    async with (
        api_process(settings, free_port(), ready=False) as (one, _),
        api_process(settings, free_port()) as (two, process),
    ):
        await until(lambda: is_ready(one), "the first is ready", within=20)
        ids = await create_many(one, [asked() for _ in range(3)])
        for job_id in ids:
            assert (await find(two, job_id))["status"] == "QUEUED"
        answers = await _asked_at_once((one, two), asked(idempotencyKey="same"), sockets=10, calls=50)
        made = [answer["data"]["createJob"] for answer in answers if answer["data"]]
        # An overloaded process may say that it does not know whether the job is stored; it names the same job.
        unknown = [answer["errors"][0]["extensions"] for answer in answers if not answer["data"]]
        assert {refusal["code"] for refusal in unknown} <= {"QUEUE_UNAVAILABLE"}
        assert len({answer["job"]["id"] for answer in made} | {refusal["jobId"] for refusal in unknown}) == 1
        assert sum(not answer["deduplicated"] for answer in made) <= 1 <= len(made)
        assert len(answers) == 1000
        process.terminate()
        assert await process.wait() == 0
        assert (await page(one))["totalCount"] == 4
    names = {path.name for path in settings.data_dir.glob("index-*.sqlite")}
    assert names == {"index-0.sqlite", "index-1.sqlite"}


async def _asked_at_once(apis: tuple[Api, ...], creation: Data, sockets: int, calls: int) -> list[Data]:
    """The answers of every API to the same creation, asked so often on each of so many sockets, all at once."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(api.raw_socket()) for _ in range(sockets) for api in apis]
        operation = {"query": CREATE, "variables": {"input": creation}}
        for number in range(calls):
            for socket in opened:
                await say(socket, id=str(number), type="subscribe", payload=operation)
        heard = [await hear(socket, within=30) for socket in opened for _ in range(2 * calls)]
    return [message["payload"] for message in heard if message["type"] == "next"]


async def test_the_python_bus_of_the_process_sees_the_same_events(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    async with api.app.state.bus.subscribe_all() as events:
        job = await create(api)
        kinds = []
        async for event in events:
            assert event.job.id == job["id"]
            kinds.append(event.kind.value)
            if event.is_terminal:
                break
    assert kinds == ["queued", "started", "completed"]
