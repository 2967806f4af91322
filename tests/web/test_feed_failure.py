"""An API process whose feed has failed must not go on answering from an index that stands still."""

import asyncio

import pytest

from gql_jobs.index.index import Index
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.processes.listening import listen
from gql_jobs.settings import Settings
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
