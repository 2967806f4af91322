"""What may stand in a URL where the API asks who calls: tickets for one stream, and signatures of one file."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gql_jobs.graphql.context import Session
from gql_jobs.jobs.viewer import Scope, ViewLimits
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.guarded import GuardedApi, TokenTime, guarded
from tests.serving import HOST, serving

FEED = "subscription ($after: String) { jobEvents(after: $after) { job { id } } }"
FILED = """mutation {
  createJob(input: { payload: { probe: { artifact: "a.bin", artifactBytes: 10 } } }) { job { id } }
}"""
EVENTS = {"Accept": "text/event-stream"}
MULTIPART = {"Accept": "multipart/mixed;subscriptionSpec=1.0"}


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[GuardedApi]:
    async with guarded(settings, cors_origins=("https://shop.example",)) as opened:
        yield opened


async def _ticket(shop: GuardedApi, token: str, query: str = FEED, **more: object) -> str:
    answer = await shop.post(query, token, "/tickets", **more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expiresIn"] == 60
    return str(answer.json()["ticket"])


@asynccontextmanager
async def _stream(shop: GuardedApi, **params: str) -> AsyncIterator[AsyncIterator[str]]:
    async with shop.api.http.stream("GET", "/graphql", params=params, headers=EVENTS) as response:
        assert response.status_code == 200, await response.aread()
        yield response.aiter_lines()


async def _data(lines: AsyncIterator[str]) -> dict[str, object]:
    async with asyncio.timeout(10):
        async for line in lines:
            if line.startswith("data: "):
                data: dict[str, object] = json.loads(line.removeprefix("data: "))
                return data
    raise AssertionError("the stream is over")


async def test_a_ticket_runs_its_operation_once(shop: GuardedApi) -> None:
    issued = await shop.token()
    ticket = await _ticket(shop, issued.token, variables={"after": None})
    async with _stream(shop, ticket=ticket) as lines:
        await shop.api.subscribers(1)
        job = await shop.create()
        assert await _data(lines) == {"data": {"jobEvents": {"job": {"id": job}}}}
        replayed = await shop.api.http.get("/graphql", params={"ticket": ticket}, headers=EVENTS)
        assert replayed.status_code == 401
    assert (await shop.api.http.get("/graphql", params={"ticket": ticket}, headers=EVENTS)).status_code == 401


async def test_a_ticket_is_for_the_operation_that_it_was_asked_for(shop: GuardedApi) -> None:
    issued = await shop.token()
    others = [{"query": "{ jobs { nodes { id } } }"}, {"query": FEED, "variables": '{"after":"1"}'}]
    others.append({"query": FEED, "operationName": "Other"})
    for params in others:
        ticket = await _ticket(shop, issued.token)
        answer = await shop.api.http.get("/graphql", params={"ticket": ticket, **params}, headers=EVENTS)
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")
    async with _stream(shop, ticket=await _ticket(shop, issued.token), query=FEED):
        await shop.api.subscribers(1)
    assert (await shop.api.http.get("/graphql?ticket=a&ticket=b", headers=EVENTS)).status_code == 400
    mutation = await _ticket(shop, shop.key, 'mutation { cancelJob(id: "x") { job { id } } }')
    assert (await shop.api.http.get("/graphql", params={"ticket": mutation})).status_code == 405


async def test_a_ticket_is_given_to_a_bearer_alone_and_to_no_form_of_another_site(shop: GuardedApi) -> None:
    issued = await shop.token()
    assert (await shop.post(FEED, None, "/tickets")).status_code == 401
    for content_type in "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x":
        headers = {"Authorization": f"Bearer {issued.token}", "Content-Type": content_type}
        answer = await shop.api.http.post("/tickets", content=json.dumps({"query": FEED}), headers=headers)
        assert answer.status_code == 415
    answer = await shop.api.http.get("/tickets", headers={"Authorization": f"Bearer {issued.token}"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    wrong = ("", "x", "gjt_", "gjt_" + "a" * 43, "gjt_" + "é" * 43, "gjt_" + "a" * 9999)
    for ticket in wrong:
        refused = await shop.api.http.get("/graphql", params={"ticket": ticket}, headers=EVENTS)
        assert refused.status_code == 401, ticket
    crossing = {"Origin": "https://evil.example", **EVENTS}
    ticket = await _ticket(shop, issued.token)
    assert (await shop.api.http.get("/graphql", params={"ticket": ticket}, headers=crossing)).status_code == 403


async def test_a_ticket_of_a_token_that_was_revoked_meanwhile_is_none(shop: GuardedApi) -> None:
    issued = await shop.token()
    ticket = await _ticket(shop, issued.token)
    await shop.revoke(issued)
    assert (await shop.api.http.get("/graphql", params={"ticket": ticket}, headers=EVENTS)).status_code == 401


@pytest.mark.parametrize("headers", [EVENTS, MULTIPART], ids=["events", "multipart"])
@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_stream_ends_within_a_second_of_its_token_with_an_error(
    token_time: TokenTime, shop: GuardedApi, headers: dict[str, str], how: str
) -> None:
    issued = await shop.token()
    given = {**headers, "Authorization": f"Bearer {issued.token}"}
    loop = asyncio.get_running_loop()
    async with shop.api.http.stream("POST", "/graphql", json={"query": FEED}, headers=given) as response:
        assert response.status_code == 200
        await shop.api.subscribers(1)
        if how == "revoked":
            await shop.revoke(issued)
        else:
            token_time.pass_until(issued.expires_at)
        began = loop.time()
        text = (await response.aread()).decode()
        assert loop.time() < began + 1
    assert text.count('"code":"UNAUTHENTICATED"') == 1
    assert text.endswith("event: complete\ndata:\n\n" if headers is EVENTS else "--graphql--\r\n")
    await shop.api.subscribers(0)


async def test_where_nobody_is_asked_who_calls_tickets_work_alike(settings: Settings) -> None:
    async with serving(settings) as api:
        answer = await api.http.post("/tickets", json={"query": "{ __typename }"})
        ticket = answer.json()["ticket"]
        assert (await api.http.get("/graphql", params={"ticket": ticket})).json() == {"data": {"__typename": "Query"}}
        assert (await api.http.get("/graphql", params={"ticket": ticket})).status_code == 401


async def _file(shop: GuardedApi, size: int = 3000) -> str:
    """The id of a job with the file ``a.bin``."""
    job_id = await shop.create(artifact="a.bin", artifact_bytes=size)
    async for _ in await shop.api.runtime.watch.job(job_id, Session()):
        pass
    return job_id


@pytest.mark.usefixtures("worker")
async def test_a_signed_address_is_for_one_file_again_and_again_and_in_ranges(shop: GuardedApi) -> None:
    viewer = await shop.access.viewer_of((await shop.token()).token)
    job, other = await _file(shop), await _file(shop)
    url = shop.access.artifact_url(viewer, job, "a.bin", "0" * 64)
    for _ in range(2):
        answer = await shop.api.http.get(url)
        assert (answer.status_code, answer.content) == (200, bytes(3000))
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "private" in answer.headers["cache-control"]
    assert (await shop.api.http.head(url)).headers["content-length"] == "3000"
    part = await shop.api.http.get(url, headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, bytes(10))
    signature = url.partition("?")[2]
    swapped = [f"/artifacts/{other}/a.bin?{signature}", f"/artifacts/{job}/b.bin?{signature}", f"{url}x", url[:-1]]
    swapped += [f"/artifacts/{job}/a.bin{query}" for query in ("", "?signature=", "?signature=a.b")]
    for path in swapped:
        answer = await shop.api.http.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
    assert (await shop.api.http.get(f"{url}&{signature}")).status_code == 400


@pytest.mark.usefixtures("worker")
async def test_a_bearer_gets_the_files_of_jobs_that_there_are_for_it(shop: GuardedApi) -> None:
    job, other = await _file(shop), await _file(shop)
    mine = await shop.token(limits=ViewLimits(ids=frozenset({job})))
    headers = {"Authorization": f"Bearer {mine.token}"}
    assert (await shop.api.http.get(f"/artifacts/{job}/a.bin", headers=headers)).status_code == 200
    hidden = await shop.api.http.get(f"/artifacts/{other}/a.bin", headers=headers)
    unknown = await shop.api.http.get("/artifacts/018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42/a.bin", headers=headers)
    assert (hidden.status_code, hidden.text) == (unknown.status_code, unknown.text) == (404, unknown.text)
    part = await shop.api.http.get(f"/artifacts/{other}/a.bin", headers={**headers, "Range": "bytes=0-9"})
    assert (part.status_code, part.text) == (404, unknown.text)


@pytest.mark.parametrize("scopes", [(), (Scope.CONTROL,), (Scope.OPERATE, Scope.CONTROL)])
@pytest.mark.usefixtures("worker")
async def test_whoever_may_neither_see_nor_create_gets_no_file(shop: GuardedApi, scopes: tuple[Scope, ...]) -> None:
    """Not of the jobs that its own subject has created either."""
    created = await shop.post(FILED, shop.key)
    job = str(created.json()["data"]["createJob"]["job"]["id"])
    url = f"/artifacts/{job}/a.bin"

    async def answer(token: str) -> httpx.Response:
        return await shop.api.http.get(url, headers={"Authorization": f"Bearer {token}"})

    async def is_there() -> bool:
        return (await answer(shop.key)).status_code == 200

    await until(is_there, "the file is there")
    issued = await shop.token(scopes=scopes, limits=ViewLimits(ids=frozenset({job})))
    assert (await answer(issued.token)).status_code == 404


@pytest.mark.usefixtures("worker")
async def test_a_revocation_ends_a_signed_address_and_a_download_that_is_under_way(settings: Settings) -> None:
    changed = settings.model_copy(update={"auth": "required"})
    async with guarded(changed) as shop:
        issued = await shop.token()
        viewer = await shop.access.viewer_of(issued.token)
        url = shop.access.artifact_url(viewer, await _file(shop, 60_000_000), "a.bin", "0" * 64)
        reader, writer = await asyncio.open_connection(HOST, shop.api.port, limit=1 << 16)
        writer.write(f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        assert b"60000000" in head
        await shop.revoke(issued)
        async with asyncio.timeout(10):
            got = 0
            while piece := await reader.read(1 << 20):
                got += len(piece)
        assert got < 60_000_000
        writer.close()
        assert (await shop.api.http.get(url)).status_code == 401
