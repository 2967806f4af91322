"""Who may call over HTTP, where the API asks who calls: nobody without a valid key or token, whatever they try."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gql_jobs.access import store
from gql_jobs.jobs.viewer import Scope as ViewerScope
from gql_jobs.jobs.viewer import Viewer, ViewLimits, Visibility
from gql_jobs.settings import Settings
from gql_jobs.web import server as web_server
from gql_jobs.web.request_authentication import HOST_VIEWER
from tests.deadline import until
from tests.guarded import EVERY, READ, GuardedApi, TokenTime, forgeries, guarded
from tests.serving import HOST, serving, without_nats

TYPENAME = "{ __typename }"
EVERYTHING = """query ($id: ID!, $filter: JobFilter) {
  job(id: $id) { id }
  jobs { totalCount nodes { id } }
  filtered: jobs(filter: $filter) { totalCount }
  beyond: jobs(offset: 1) { nodes { id } }
  queues { counts { count } }
  workers { id }
}"""
WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { cursor } }"
OPEN = {"/healthz", "/readyz", "/", "/dashboard", "/graphiql", "/example.jpg"}
"""Paths that tell nobody anything about jobs."""


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[GuardedApi]:
    async with guarded(settings, cors_origins=("https://shop.example",), rate_limit_failures="100000/minute") as opened:
        yield opened


def _is_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["cache-control"] == "no-store"
    (error,) = answer.json()["errors"]
    assert error["extensions"] == {"code": "UNAUTHENTICATED"}
    assert set(answer.json()) == {"errors"}


async def test_without_a_valid_bearer_a_request_is_answered_401_before_its_body_is_read(shop: GuardedApi) -> None:
    issued = await shop.token()
    assert (await shop.post(TYPENAME, shop.key)).json() == {"data": {"__typename": "Query"}}
    assert (await shop.post(TYPENAME, issued.token)).json() == {"data": {"__typename": "Query"}}
    headers = [{}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {shop.key}"}]
    headers += [{"Authorization": shop.key}, {"Authorization": f"Bearer {shop.key}x"}, {"X-Api-Key": shop.key}]
    headers += [{"Cookie": f"authorization=Bearer {shop.key}"}]
    for given in headers:
        answer = await shop.api.http.post(
            "/graphql", content=b"{ no json", headers={**given, "Origin": "https://shop.example"}
        )
        _is_refused(answer)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "WWW-Authenticate" in answer.headers["access-control-expose-headers"]
    twice = [("Authorization", f"Bearer {shop.key}"), ("Authorization", f"Bearer {shop.key}")]
    _is_refused(await shop.api.http.post("/graphql", json={"query": TYPENAME}, headers=twice))
    _is_refused(await shop.api.http.get("/graphql", params={"query": TYPENAME}))
    _is_refused(await shop.api.http.put("/graphql"))


async def test_a_preflight_needs_no_token(shop: GuardedApi) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for path in "/graphql", "/tickets", "/artifacts/018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42/a":
        answer = await shop.api.http.options(path, headers={"Origin": "https://shop.example", **asked})
        assert answer.status_code == 200
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()


async def test_forged_swapped_expired_and_revoked_tokens_are_all_refused_alike(
    token_time: TokenTime, shop: GuardedApi
) -> None:
    issued, other = await shop.token(), await shop.token()
    tried = forgeries(issued.token)
    one, two = issued.token.split("."), other.token.split(".")
    tried["the claims of another token"] = ".".join([one[0], two[1], one[2]])
    tried["the end of another key"] = shop.key[:16] + (await shop.new_key("other"))[16:]
    brief = await shop.token(seconds=300)
    ended = await shop.new_key("ended", expires_at=datetime.now(UTC) + timedelta(seconds=300))
    await shop.revoke(other)
    tried["revoked"] = other.token
    refusals = set()
    for how, token in tried.items():
        if not token:
            # The client itself would not send it.
            continue
        header = f"Bearer {token}".encode("latin-1", "replace")
        answer = await shop.api.http.post("/graphql", json={"query": TYPENAME}, headers={b"Authorization": header})
        if how == "very long" and answer.status_code == 431:
            continue
        assert answer.status_code == 401, how
        refusals.add(answer.text)
    assert len(refusals) == 1
    for token in brief.token, ended:
        assert (await shop.post(TYPENAME, token)).status_code == 200
    token_time.pass_until(brief.expires_at + timedelta(minutes=1))
    for token in brief.token, ended:
        _is_refused(await shop.post(TYPENAME, token))
    assert (await shop.post(TYPENAME, issued.token)).status_code == 200


async def _until_refused(shop: GuardedApi, token: str, within: float) -> httpx.Response:
    async def refused() -> httpx.Response | None:
        answer = await shop.post(TYPENAME, token)
        return answer if answer.status_code != 200 else None

    return await until(refused, "it is refused", within=within)


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_request_whose_body_comes_after_the_end_of_its_token_is_refused(
    token_time: TokenTime, shop: GuardedApi, how: str
) -> None:
    issued = await shop.token(scopes=EVERY)
    body = json.dumps({"query": "mutation { createJob(input: { payload: { probe: {} } }) { job { id } } }"})
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {issued.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(HOST, shop.api.port)
    writer.write((head + body[:1]).encode())
    await until(lambda: len(shop.access._known) == 1, "its token was looked at")  # noqa: SLF001
    if how == "revoked":
        await shop.revoke(issued)
    else:
        token_time.pass_until(issued.expires_at)
    writer.write(body[1:].encode())
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 401")
    assert (await shop.post("{ jobs { totalCount } }", shop.key)).json() == {"data": {"jobs": {"totalCount": 0}}}


async def test_a_query_that_has_not_ended_with_its_token_is_refused(
    shop: GuardedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued, read = await shop.token(), shop.api.runtime.reader.queue_counts

    async def revoked_meanwhile(visibility: Visibility) -> object:
        await shop.revoke(issued)
        return await read(visibility)

    monkeypatch.setattr(shop.api.runtime.reader, "queue_counts", revoked_meanwhile)
    _is_refused(await shop.post("{ queues { counts { count } } }", issued.token))


async def test_the_end_of_a_key_ends_what_was_made_with_it(shop: GuardedApi) -> None:
    key = await shop.new_key("backend")
    issued = await shop.token(key=key)
    viewer = await shop.access.viewer_of(key)
    assert await shop.access.revoke(await shop.access.viewer_of(shop.key), viewer.credentials[0])
    _is_refused(await _until_refused(shop, issued.token, within=1))
    _is_refused(await shop.post(TYPENAME, key))


async def test_a_token_in_a_url_is_refused_wherever_it_is_and_whether_or_not_it_is_asked_for(
    shop: GuardedApi, tmp_path: Path
) -> None:
    token = (await shop.token()).token
    jwt, coded = token.removeprefix("gjv_"), shop.key.replace("_", "%5f")
    in_urls = [f"{name}=x" for name in ("token", "access_token", "Authorization", "api_key")]
    in_urls += [shop.key, f"key={shop.key}", f"x%5B%5D=Bearer%20{coded}", f"view={token}", f"id_token={jwt}"]
    in_urls += [f"%22{token}%22", f"variables=%7B%22a%22%3A%22{token}%22%7D"]
    artifact = "/artifacts/018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42/a"
    paths = f"/graphql?query={TYPENAME}&", "/tickets?", f"{artifact}?", f"{artifact}?signature=x&", "/metrics?"
    async with serving(without_nats(tmp_path / "other"), opened=False) as open_to_all:
        for wrong in in_urls:
            for path in paths:
                answer = await shop.api.http.get(path + wrong, headers={"Authorization": f"Bearer {shop.key}"})
                (error,) = answer.json()["errors"]
                assert (answer.status_code, error["extensions"]["code"]) == (400, "BAD_REQUEST"), (path, wrong)
                assert not any(secret in answer.text for secret in (shop.key, token, jwt, coded))
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{HOST}:{shop.api.port}/graphql?{wrong}", proxy=None)
            assert refused.value.response.status_code == 400
            assert (await open_to_all.http.get(f"/graphql?query={TYPENAME}&{wrong}")).status_code == 400
            for api in (shop.api, open_to_all):
                for path in ("/graphql", "/"):
                    page = await api.http.get(f"{path}?{wrong}", headers={"Accept": "text/html"})
                    assert page.status_code == 400, wrong


async def test_every_route_asks_who_calls_but_for_those_that_tell_nothing(shop: GuardedApi) -> None:
    paths = {_path(route) for route in _routes(shop.api.app.router.routes)}
    assert {"/graphql", "/tickets", "/metrics", "/artifacts/x/x"} <= paths
    for path in sorted(paths - {"/x"}):
        answer = await shop.api.http.get(path)
        if path not in OPEN:
            _is_refused(answer)
        else:
            assert answer.status_code in {200, 307, 404, 503}
    page = await shop.api.http.get("/graphql", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")


def _routes(listed: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    for route in listed:
        included = getattr(route, "original_router", None)
        yield from [route] if included is None else _routes(included.routes)


def _path(route: BaseRoute) -> str:
    return re.sub(r"{[^}]*}", "x", str(getattr(route, "path", "")))


async def test_metrics_need_the_scope_operate_and_neither_a_tenant_nor_limits(shop: GuardedApi) -> None:
    reader = await shop.new_key("reader", READ)
    answer = await shop.api.http.get("/metrics", headers={"Authorization": f"Bearer {reader}"})
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (403, "FORBIDDEN")
    assert "gql_jobs_created" not in answer.text
    operator = await shop.new_key("prometheus", frozenset({ViewerScope.OPERATE}))
    answer = await shop.api.http.get("/metrics", headers={"Authorization": f"Bearer {operator}"})
    assert answer.status_code == 200
    assert "gql_jobs_created" in answer.text
    everything = frozenset(ViewerScope)
    for narrower in (
        await shop.new_key("of-a-tenant", everything, tenant="acme"),
        await shop.new_key("limited", everything, limits=ViewLimits(types=frozenset({"probe"}))),
    ):
        answer = await shop.api.http.get("/metrics", headers={"Authorization": f"Bearer {narrower}"})
        assert (answer.status_code, "gql_jobs_created" in answer.text) == (403, False)


async def test_a_port_of_one_process_on_loopback_has_metrics_for_whoever_is_there(settings: Settings) -> None:
    required = settings.model_copy(update={"auth": "required", "metrics_port": 0})
    for host, status in ("127.0.0.1", 200), ("0.0.0.0", 401):  # noqa: S104
        server = web_server.http_server(required.model_copy(update={"metrics_host": host}), ())
        (own,) = server.separate_metrics(required.model_copy(update={"metrics_host": host}))
        port = own.getsockname()[1]
        own.close()
        transport = _At(server.config.app, port)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(transport), base_url="http://x") as client:
            assert (await client.get("/metrics")).status_code == status


class _At:
    """An application as it is asked at a port."""

    def __init__(self, app: object, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["server"] = (HOST, self._port)
        await self._app(scope, receive, send)  # type: ignore[operator]


async def test_ten_thousand_wrong_keys_are_limited_and_lock_out_no_other_caller(settings: Settings) -> None:
    async with guarded(settings) as shop:
        issued = await shop.token()
        assert (await shop.post(TYPENAME, issued.token)).status_code == 200
        statuses = await _wrong_keys(shop.api.port, 10_000)
        assert statuses.count(401) == 100
        assert statuses.count(429) == 9_900
        refused = await shop.post(TYPENAME, "gj_000000000000_x")
        assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (429, "RATE_LIMITED")
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert (await shop.post(TYPENAME, issued.token)).status_code == 200
        assert (await shop.post(TYPENAME, shop.key)).status_code == 429, "it was not used here lately"


async def _wrong_keys(port: int, number: int) -> list[int]:
    """The statuses of so many guesses, which are sent without waiting for the answers."""
    reader, writer = await asyncio.open_connection(HOST, port)
    statuses = []
    for first in range(0, number, 500):
        for nth in range(first, first + 500):
            key = f"gj_{nth:012}_{nth:043}"
            writer.write(f"GET /graphql?query=a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        await writer.drain()
        for _ in range(500):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            statuses.append(int(answer.split()[1]))
            length = re.search(r"content-length: (\d+)", answer, re.IGNORECASE)
            assert length is not None
            await reader.readexactly(int(length[1]))
    writer.close()
    await writer.wait_closed()
    return statuses


async def test_a_host_may_say_itself_who_asks(settings: Settings) -> None:
    asked = Viewer("ada", READ, tenant="acme")

    class Hosting:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if dict(scope.get("headers", ())).get(b"x-user") == b"ada":
                scope[HOST_VIEWER] = asked
            await self._app(scope, receive, send)

    async with guarded(settings) as shop:
        transport = httpx.ASGITransport(Hosting(shop.api.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            query, told = {"query": TYPENAME}, {"X-User": "ada"}
            assert (await client.post("/graphql", json=query, headers=told)).status_code == 200
            assert (await client.post("/graphql", json=query)).status_code == 401
            assert (await client.get("/metrics", headers=told)).status_code == 403


async def test_while_nats_has_not_been_reached_nobody_is_let_in(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, auth="required"), opened=False) as api:
        answer = await api.http.post("/graphql", json={"query": TYPENAME}, headers={"Authorization": "Bearer gj_x"})
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (503, "QUEUE_UNAVAILABLE")
        _is_refused(await api.http.post("/graphql", json={"query": TYPENAME}))
        assert (await api.http.get("/healthz")).status_code == 200


async def test_a_process_that_cannot_know_who_asks_is_not_ready_and_says_why(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = {"jwks": str(tmp_path / "missing"), "jwt_issuer": "https://id.example", "jwt_audience": ("jobs",)}
    async with guarded(settings, **provider) as shop:
        ready = await shop.api.http.get("/readyz")
        assert ready.status_code == 200
        told = ready.json()["checks"]["credentials"]["message"]
        assert told == "followed; the keys of the identity provider were never read, so its tokens are refused"
        with monkeypatch.context() as patched:
            patched.setattr(store, "STALE_AFTER", -1.0)
            assert (await shop.post("{ __typename }", shop.key)).status_code == 503
            ready = await shop.api.http.get("/readyz")
            assert ready.status_code == 503
            assert [name for name, check in ready.json()["checks"].items() if not check["ok"]] == ["credentials"]
            told = ready.json()["checks"]["credentials"]["message"]
            assert told == "nothing was heard of the bucket of keys for 30 s, so all are refused"
        assert (await shop.api.http.get("/readyz")).status_code == 200
    async with serving(settings) as open_to_all:
        assert "credentials" not in (await open_to_all.http.get("/readyz")).json()["checks"]


async def test_a_token_for_one_job_opens_nothing_else(shop: GuardedApi) -> None:
    job, other = await shop.create(), await shop.create()
    token = (await shop.token(limits=ViewLimits(ids=frozenset({job})))).token
    assert (await shop.post("{ __schema { queryType { name } } }", token)).json()["data"]
    seen = (await shop.post(EVERYTHING, token, variables={"id": other, "filter": {"ids": [other]}})).json()["data"]
    assert [node["id"] for node in seen["jobs"]["nodes"]] == [job]
    assert (seen["jobs"]["totalCount"], seen["filtered"]["totalCount"], seen["beyond"]["nodes"]) == (1, 0, [])
    assert (seen["job"], seen["workers"]) == (None, [])
    assert sum(count["count"] for queue in seen["queues"] for count in queue["counts"]) == 1
    hidden = await shop.post(WATCH, token, variables={"id": other}, headers={"Accept": "text/event-stream"})
    assert "NOT_FOUND" in hidden.text
    for mutation in "cancelJob", "retryJob":
        answer = await shop.post(f'mutation {{ {mutation}(id: "{job}") {{ job {{ id }} }} }}', token)
        assert [error["extensions"]["code"] for error in answer.json()["errors"]] == ["FORBIDDEN"]
    assert (await shop.api.http.get("/metrics", headers={"Authorization": f"Bearer {token}"})).status_code == 403


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", None]
)
async def test_what_a_page_of_another_site_can_send_without_asking_never_acts(
    settings: Settings, content_type: str | None
) -> None:
    create = "mutation { createJob(input: { payload: { probe: {} } }) { job { id } } }"
    body = json.dumps({"query": create, "x": "="})
    async with serving(settings) as api:
        for origin in {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}:
            given = {**origin, **({"Content-Type": content_type} if content_type else {})}
            for path in "/graphql", "/tickets":
                assert (await api.http.post(path, content=body, headers=given)).status_code == 415
            assert (await api.http.get("/graphql", params={"query": create}, headers=origin)).status_code == 403
        assert (await api.http.get("/graphql", params={"query": create})).status_code == 405
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        answer = await api.http.options("/graphql", headers=preflight)
        assert "access-control-allow-origin" not in answer.headers
        assert (await api.ask("{ jobs { totalCount } }"))["jobs"]["totalCount"] == 0
