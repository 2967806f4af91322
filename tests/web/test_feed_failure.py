"""An API process whose feed has failed must not go on answering from an index that stands still."""

import asyncio

import pytest

from gql_jobs.index.index import Index, UnusableIndex
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.processes.listening import listen
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, RuntimeOpener
from gql_jobs.web.server import http_server
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES
from tests.stories import accepted


async def test_an_api_process_ends_when_its_index_cannot_be_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = http_server(settings, JOB_TYPES)
    serving = asyncio.create_task(server.serve(listen("127.0.0.1", 0)))
    runtime = await until(lambda: getattr(server.app.state, "runtime", None), "the API has started")

    def broken(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Index, "apply", broken)
    probe = runtime.registry.get("probe")
    await runtime.commands.create(JobRequest.of(probe, accepted(ProbePayload())))
    await asyncio.wait_for(serving, 10)
    assert server.app.state.opener.failed.is_set()


async def test_a_runtime_whose_index_has_failed_stays_open_until_its_requests_are_answered(settings: Settings) -> None:
    opened: asyncio.Queue[Runtime] = asyncio.Queue()
    opener = RuntimeOpener(settings, JOB_TYPES, opened.put_nowait)
    running = asyncio.create_task(opener.run())
    runtime = await asyncio.wait_for(opened.get(), 10)
    runtime.index.failure = UnusableIndex("it is gone")
    # Each part that fails with the index cancels what is open.
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    await asyncio.wait_for(opener.failed.wait(), 10)
    probe = runtime.registry.get("probe")
    assert probe is not None
    created = await opener.runtime.commands.create(JobRequest.of(probe, accepted(ProbePayload())))
    assert created.job.id
    opener.end()
    await asyncio.wait_for(asyncio.wait({running}), 10)
    assert opener.current is None


async def test_a_runtime_whose_index_fails_while_the_server_ends_is_closed(settings: Settings) -> None:
    opened: asyncio.Queue[Runtime] = asyncio.Queue()
    opener = RuntimeOpener(settings, JOB_TYPES, opened.put_nowait)
    running = asyncio.create_task(opener.run())
    runtime = await asyncio.wait_for(opened.get(), 10)
    opener.end()
    runtime.index.failure = UnusableIndex("it is gone")
    running.cancel()
    await asyncio.wait_for(asyncio.wait({running}), 10)
    assert opener.current is None
