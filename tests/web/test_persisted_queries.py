"""Automatic persisted queries: a client names a document by its digest, and sends it only where that is unknown."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gql_jobs.graphql.engine import documents
from gql_jobs.graphql.engine.documents import digest
from gql_jobs.settings import Settings
from gql_jobs.web.app import create_app

QUERY = "{ __typename }"
UNKNOWN = "query Another { __typename }"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
        yield client


def named(text: str) -> dict[str, Any]:
    return {"persistedQuery": {"version": 1, "sha256Hash": digest(text)}}


async def post(client: httpx.AsyncClient, **request: Any) -> httpx.Response:
    return await client.post("/graphql", json=request)


async def test_a_document_that_was_sent_once_is_found_by_its_digest(client: httpx.AsyncClient) -> None:
    (error,) = (await post(client, extensions=named(QUERY))).json()["errors"]
    assert (error["message"], error["extensions"]["code"]) == ("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")
    sent = await post(client, query=QUERY, extensions=named(QUERY))
    found = await post(client, extensions=named(QUERY))
    assert sent.json() == found.json() == {"data": {"__typename": "Query"}}


async def test_it_is_found_by_get_as_well(client: httpx.AsyncClient) -> None:
    await post(client, query=QUERY)
    found = await client.get("/graphql", params={"extensions": json.dumps(named(QUERY))})
    assert found.json() == {"data": {"__typename": "Query"}}


async def test_a_digest_of_another_document_is_refused(client: httpx.AsyncClient) -> None:
    (error,) = (await post(client, query=QUERY, extensions=named(UNKNOWN))).json()["errors"]
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert "errors" in (await post(client, extensions=named(UNKNOWN))).json()


async def test_what_is_not_valid_is_not_kept(client: httpx.AsyncClient) -> None:
    await post(client, query="{ nothing }", extensions=named("{ nothing }"))
    (error,) = (await post(client, extensions=named("{ nothing }"))).json()["errors"]
    assert error["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"


async def test_only_the_documents_used_last_are_kept(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_CACHED_DOCUMENTS", 1)
    await post(client, query=QUERY)
    await post(client, query=UNKNOWN)
    (error,) = (await post(client, extensions=named(QUERY))).json()["errors"]
    assert error["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
    assert "data" in (await post(client, extensions=named(UNKNOWN))).json()


@pytest.mark.parametrize("persisted", [1, {}, {"version": 2, "sha256Hash": "a"}, {"version": 1, "sha256Hash": 5}])
async def test_another_protocol_is_refused(client: httpx.AsyncClient, persisted: Any) -> None:
    response = await post(client, query=QUERY, extensions={"persistedQuery": persisted})
    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
