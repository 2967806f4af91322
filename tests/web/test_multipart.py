"""Multipart subscriptions, byte for byte as Apollo's clients read them."""

import json

import pytest

from tests.api.operations import CANCEL, create
from tests.serving import ServedApi

pytestmark = pytest.mark.asyncio(loop_scope="module")

WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { __typename } }"
ACCEPT = {"Accept": "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json;q=0.9"}


def _part(payload: object) -> str:
    body = json.dumps({"payload": payload}, separators=(",", ":"))
    return f"\r\nContent-Type: application/json\r\n\r\n{body}\r\n--graphql"


async def test_a_part_is_closed_by_its_boundary_at_once(wire: ServedApi) -> None:
    job = await create(wire)
    body = {"query": WATCH, "variables": {"id": job["id"]}}
    async with wire.http.stream("POST", "/graphql", json=body, headers=ACCEPT) as response:
        assert response.headers["content-type"] == 'multipart/mixed;boundary="graphql";subscriptionSpec=1.0'
        assert response.headers["cache-control"] == "no-cache, no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        first = "\r\n--graphql" + _part({"data": {"jobProgress": {"__typename": "JobQueued"}}})
        text, chunks = "", response.aiter_text()
        while len(text) < len(first):
            text += await anext(chunks)
        assert text == first
        await wire.ask(CANCEL, id=job["id"])
        rest = "".join([chunk async for chunk in chunks])
    assert rest == _part({"data": {"jobProgress": {"__typename": "JobCancelled"}}}) + "--\r\n"


async def test_a_refusal_is_the_payload_of_a_part(wire: ServedApi) -> None:
    body = {"query": WATCH, "variables": {"id": "none"}}
    response = await wire.http.post("/graphql", json=body, headers=ACCEPT)
    assert response.status_code == 200
    _, part, end = response.text.split("\r\n--graphql")
    assert end == "--\r\n"
    (error,) = json.loads(part.partition("\r\n\r\n")[2])["payload"]["errors"]
    assert error["extensions"]["code"] == "NOT_FOUND"
