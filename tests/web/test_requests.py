"""What is no GraphQL request is refused in GraphQL's own JSON. No runtime: nothing here gets that far."""

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Message, Scope

from gql_jobs.settings import Settings
from gql_jobs.web.app import create_app
from gql_jobs.web.graphql_http import AllowedOrigins
from gql_jobs.web.graphql_request import GRAPHQL_RESPONSE


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(cors_origins=("https://shop.example",), max_body_bytes=500_000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'"text"',
        b"1",
        b"null",
        b"true",
        b"NaN",
        b"\xff",
        b"[1]",
        b"[" * 200_000,
        b'{"query": ' + b"1" * 5000 + b"}",
        b'{"query": 1}',
        b'{"query": ""}',
        b'{"query": "{ __typename }", "variables": 1}',
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
async def test_a_body_that_is_no_request(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/graphql", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert error["message"]
    assert error["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("request_body", "code"),
    [
        ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query ($id: ID!) { job(id: $id) { id } }", "variables": {"id": None}}, "INVALID_ARGUMENT"),
        ({"query": "query A { __typename }", "operationName": "B"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query A { __typename } query B { __typename }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "fragment F on Query { __typename }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "{ __typename " + "{ a " * 3000}, "TOO_COMPLEX"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_request_error_is_a_400_without_data_where_the_client_reads_graphql_responses(
    client: httpx.AsyncClient, request_body: dict[str, Any], code: str
) -> None:
    for media_type, status in (GRAPHQL_RESPONSE, 400), ("application/json", 200):
        response = await client.post("/graphql", json=request_body, headers={"Accept": media_type})
        assert (response.status_code, response.headers["content-type"]) == (status, f"{media_type}; charset=utf-8")
        assert "Accept" in response.headers["vary"]
        assert response.headers["cache-control"] == "no-store"
        answer = response.json()
        assert "data" not in answer
        assert [error["extensions"]["code"] for error in answer["errors"]] == [code]


async def test_a_method_that_is_not_served(client: httpx.AsyncClient) -> None:
    response = await client.put("/graphql", json={"query": "{ __typename }"})
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, POST"


async def test_a_query_by_get_and_post(client: httpx.AsyncClient) -> None:
    expected = {"data": {"__typename": "Query"}}
    assert (await client.get("/graphql", params={"query": "{ __typename }", "variables": "null"})).json() == expected
    assert (await client.post("/graphql", json={"query": "{ __typename }"})).json() == expected


async def test_a_mutation_by_get_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.get("/graphql", params={"query": 'mutation { cancelJob(id: "x") { job { id } } }'})
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json; charset=latin-1",
    ],
)
async def test_a_body_of_another_media_type_is_refused(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/graphql", content=b"{}", headers={"Content-Type": content_type})
    assert response.status_code == 415
    assert "application/json" in response.json()["errors"][0]["message"]


async def test_what_the_client_does_not_accept_is_not_sent(client: httpx.AsyncClient) -> None:
    response = await client.post("/graphql", json={"query": "{ __typename }"}, headers={"Accept": "text/csv"})
    assert response.status_code == 406
    assert "application/json" in response.json()["errors"][0]["message"]


async def test_a_browser_of_another_origin_can_read_a_refusal(client: httpx.AsyncClient) -> None:
    response = await client.post("/graphql", content=b"x" * 500_001, headers={"Origin": "https://shop.example"})
    assert response.status_code == 413
    assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"


@pytest.mark.parametrize(
    ("listed", "origin", "allowed"),
    [
        ("http://localhost:*", "http://localhost:5173", True),
        ("http://localhost:*", "http://localhost", True),
        ("http://localhost:*", "http://localhost.evil.example:5173", False),
        ("http://localhost:*", "https://localhost:5173", False),
        ("http://[::1]:*", "http://[::1]:5173", True),
        ("https://shop.example", "https://SHOP.example:443", True),
        ("https://shop.example", "null", False),
        ("https://shop.example", "\x1b[31m" + "x" * 5000, False),
        ("*", "https://anybody.example", True),
    ],
)
def test_an_origin_may_be_listed_with_any_port(
    listed: str, origin: str, caplog: pytest.LogCaptureFixture, *, allowed: bool
) -> None:
    origins = AllowedOrigins(Settings(cors_origins=(listed,)).cors_origins)
    assert [origins.allow(origin) for _ in range(3)] == [allowed] * 3
    assert caplog.text.count("GQL_JOBS_CORS_ORIGINS") == (0 if allowed else 1)
    assert len(caplog.text) < 600
    assert "\x1b" not in caplog.text


def test_refused_origins_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    origins = AllowedOrigins(())
    assert not any(origins.allow(f"https://{number}.example") for number in range(1000))
    assert len(caplog.records) == 100


async def test_the_ide_can_be_switched_off(client: httpx.AsyncClient) -> None:
    page = {"Accept": "text/html"}
    assert "text/html" in (await client.get("/graphql", headers=page)).headers["Content-Type"]
    app = create_app(Settings(graphiql=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as plain:
        response = await plain.get("/graphql", headers=page)
    assert response.status_code == 404
    assert "errors" in response.json()


async def test_the_process_says_that_it_lives(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_a_client_that_goes_away_while_it_sends_its_body_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings())
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"query": ', "more_body": True},
        {"type": "http.disconnect"},
    ]
    answers: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        answers.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/graphql",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    assert (messages, answers, caplog.records) == ([], [], [])


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "GZIP"])
async def test_a_body_in_a_content_encoding_is_refused_by_name(client: httpx.AsyncClient, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    body = gzip.compress(b'{"query": "{ __typename }"}')
    answer = await client.post("/graphql", content=body, headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert encoding in answer.json()["errors"][0]["message"]
    for none in "identity", "Identity", "", " ", "identity, identity":
        plain = {**headers, "Content-Encoding": none}
        assert (await client.post("/graphql", content=gzip.decompress(body), headers=plain)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Accept": "text/html"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Accept": "text/event-stream"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://shop.example"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://api"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
async def test_a_get_that_a_page_of_another_site_has_a_browser_send_is_refused(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    answer = await client.get("/graphql", params={"query": "{ __typename }"}, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_a_link_from_another_site_still_leads_to_the_page(client: httpx.AsyncClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
    assert (await client.get("/graphql", headers=headers)).status_code == 200
