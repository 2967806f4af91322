"""What a client is told when the server cannot answer: one error in GraphQL's JSON, whatever happens."""

import asyncio
from typing import Any

import httpx
import pytest

from gql_jobs.settings import Settings
from gql_jobs.web import server
from gql_jobs.web.graphql_http import GraphQLEndpoint
from tests.serving import HOST, serving


async def test_a_request_that_is_under_way_when_the_server_ends_is_answered_in_words(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(*_: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(server, "_END_REQUESTS_WITHIN", 0.2)
    monkeypatch.setattr(GraphQLEndpoint, "_answer", hang)
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        async with serving(settings) as api:
            url = f"http://{HOST}:{api.port}/graphql"
            waiting = asyncio.create_task(http.post(url, json={"query": "{ __typename }"}))
            await begun.wait()
        answer = await waiting
    assert answer.status_code == 503
    (error,) = answer.json()["errors"]
    assert error["extensions"]["code"] == "QUEUE_UNAVAILABLE"
    assert "is ending" in error["message"]


async def test_what_fails_outside_of_an_operation_is_masked_and_logged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(GraphQLEndpoint, "_answer", fail)
    async with serving(settings) as api:
        answer = await api.http.post("/graphql", json={"query": "{ __typename }"})
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    assert answer.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert "a secret" in caplog.text


async def test_a_request_that_waits_for_what_a_failed_part_has_cancelled_is_answered_in_words(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_for_a_failed_part(*_: Any) -> Any:
        part = asyncio.get_running_loop().create_future()
        part.cancel()
        await part

    monkeypatch.setattr(GraphQLEndpoint, "_answer", wait_for_a_failed_part)
    async with serving(settings) as api:
        answer = await api.http.post("/graphql", json={"query": "{ __typename }"})
    assert answer.status_code == 503
    assert answer.json()["errors"][0]["extensions"]["code"] == "QUEUE_UNAVAILABLE"
