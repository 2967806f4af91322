"""Two real API processes, and keys that an operator makes and revokes on the command line."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE

import pytest

from gql_jobs.settings import Settings
from tests.child_processes import running_process
from tests.deadline import until
from tests.serving import Api, api_process, free_port

pytestmark = pytest.mark.timeout(180)
_QUERY = {"query": "{ jobs { totalCount } }"}


async def _keys(settings: Settings, *arguments: str) -> str:
    """What ``gql-jobs keys`` prints."""
    environment = {**os.environ, "GQL_JOBS_NATS_URL": settings.nats_url or ""}
    command = (sys.executable, "-m", "gql_jobs", "keys", *arguments)
    async with running_process(*command, stdout=PIPE, cwd=settings.data_dir.parent, env=environment) as process:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return out.decode().strip()


async def _status(api: Api, token: str) -> int:
    answer = await api.http.post("/graphql", json=_QUERY, headers={"Authorization": f"Bearer {token}"})
    if answer.status_code == 200:
        assert answer.json() == {"data": {"jobs": {"totalCount": 0}}}
    return answer.status_code


async def test_a_key_that_is_revoked_on_the_command_line_ends_within_a_second_on_every_process_and_its_tokens_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GQL_JOBS_AUTH", "required")
    elsewhere = settings.model_copy(update={"data_dir": settings.data_dir.with_name("elsewhere")})
    async with (
        api_process(settings, free_port()) as (one, first),
        api_process(elsewhere, free_port()) as (two, second),
    ):
        key, other = [await _keys(settings, "create", name, "--scope", "read") for name in ("shop", "other")]

        async def serve() -> bool:
            return [await _status(api, other) for api in (one, two)] == [200, 200]

        await until(serve, "both processes know the keys", within=30)
        document = "mutation { createViewToken(input: { limitedTo: {} }) { viewToken { token } } }"
        answer = await one.http.post("/graphql", json={"query": document}, headers={"Authorization": f"Bearer {key}"})
        token = answer.json()["data"]["createViewToken"]["viewToken"]["token"]
        assert [await _status(api, known) for api in (one, two) for known in (key, token)] == [200] * 4

        await _keys(settings, "revoke", key.split("_")[1])
        revoked_at = time.monotonic()

        async def are_refused() -> bool:
            return [await _status(api, known) for api in (one, two) for known in (key, token)] == [401] * 4

        await until(are_refused, "both processes refuse the key and its token", within=1.0)
        assert time.monotonic() - revoked_at < 1.0
        assert await serve(), "other keys go on"
        assert first.returncode is second.returncode is None
