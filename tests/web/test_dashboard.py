"""The dashboard as browsers get it: at the root or below any path, under a policy that allows its own files alone."""

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from gql_jobs.settings import Settings
from gql_jobs.web.app import create_app
from gql_jobs.web.pages import DASHBOARD, GRAPHIQL, addresses

INDEX = """<!doctype html>
<html lang="en">
<head>
<link rel="icon" href="dashboard/icon.svg">
<link rel="stylesheet" href="dashboard/assets/index-5d41402a.css">
<script type="module" src="dashboard/assets/index-7b8b965a.js"></script>
</head>
<body><div id="root"></div></body>
</html>
"""
FILES = {
    "index.html": INDEX,
    "icon.svg": "<svg/>",
    "licenses.txt": "react 19",
    "assets/index-5d41402a.css": "body {}",
    "assets/index-7b8b965a.js": "export {}",
}
built = pytest.mark.skipif(not DASHBOARD.is_built, reason="not built: make web")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the build leaves it, in the place of the real one."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(DASHBOARD, "files", tmp_path)
    return tmp_path


@asynccontextmanager
async def _client(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application without its lifespan: the page needs nothing of what that opens."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        yield client


def _policy(answer: httpx.Response) -> dict[str, str]:
    return dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))


def _named(page: httpx.Response) -> list[str]:
    """The addresses of the files that a page names, as a browser that is at the page makes them."""
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    return [urljoin(str(page.url), name) for name in found]


@pytest.mark.usefixtures("files")
async def test_the_dashboard_comes_from_here_and_allows_no_other_origin_and_no_inline_code() -> None:
    async with _client(create_app(Settings())) as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        answers = [page, *[await client.get(address) for address in _named(page)]]
    assert len(answers) == 4
    for answer in answers:
        assert answer.status_code == 200
        assert _policy(answer) == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data: blob:",
            "font-src": "'self'",
            "manifest-src": "'self'",
            "frame-src": "'self' blob:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_what_has_a_name_by_its_content_is_kept_and_all_else_asked_for_anew(files: Path) -> None:
    (files / "assets-of-mine").mkdir()
    (files / "assets-of-mine" / "a.js").write_text("")
    async with _client(create_app(Settings())) as client:

        async def kept(path: str) -> str:
            return str((await client.get(path)).headers.get("cache-control"))

        assert await kept("/dashboard/assets/index-7b8b965a.js") == "public, max-age=31536000, immutable"
        for path in ("/", "/dashboard/icon.svg", "/dashboard/licenses.txt", "/dashboard/assets-of-mine/a.js"):
            assert await kept(path) == "no-cache", path
        # Processes of two versions may answer in turn: what one of them lacks must not be kept as lacking.
        missing = await client.get("/dashboard/assets/index-of-another-version.js")
        assert missing.status_code == 404
        assert "immutable" not in missing.headers.get("cache-control", "")
        tag = (await client.get("/dashboard/icon.svg")).headers["etag"]
        again = await client.get("/dashboard/icon.svg", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.usefixtures("files")
async def test_the_page_is_read_and_never_written() -> None:
    async with _client(create_app(Settings())) as client:
        got, head = await client.get("/"), await client.head("/")
        assert (head.status_code, head.headers["content-length"]) == (200, got.headers["content-length"])
        assert (await client.head("/dashboard/icon.svg")).status_code == 200
        for method in ("POST", "PUT", "DELETE"):
            assert [(await client.request(method, path)).status_code for path in ("/", "/dashboard/icon.svg")] == [
                405
            ] * 2


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("has_graphiql", [True, False])
async def test_the_page_knows_whether_there_is_graphiql_to_link_to(has_graphiql: bool) -> None:
    async with _client(create_app(Settings(graphiql=has_graphiql))) as client:
        text = (await client.get("/")).text
    assert text == (INDEX.replace("<html", "<html data-graphiql") if has_graphiql else INDEX)


@pytest.mark.usefixtures("files")
async def test_it_works_below_the_path_of_a_host_that_mounts_the_application() -> None:
    host = FastAPI()
    host.mount("/jobs", create_app(Settings()))
    async with _client(host) as client:
        page = await client.get("/jobs", follow_redirects=True)
        assert page.url.path == "/jobs/", "relative addresses need the slash"
        assert [httpx.URL(address).path for address in _named(page)] == [
            "/jobs/dashboard/icon.svg",
            "/jobs/dashboard/assets/index-5d41402a.css",
            "/jobs/dashboard/assets/index-7b8b965a.js",
        ]
        assert [(await client.get(address)).status_code for address in _named(page)] == [200, 200, 200]
        assert (await client.get("/")).status_code == 404, "the root is the host's"


@pytest.mark.usefixtures("files")
async def test_it_works_below_a_path_that_a_proxy_takes_away() -> None:
    app = create_app(Settings())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as behind:
        page = await behind.get("/")
    in_front = "https://example.com/a/b/"
    addresses = [urljoin(in_front, name) for name in re.findall(r'(?:src|href)="([^"]+)"', page.text)]
    assert all(address.startswith(f"{in_front}dashboard/") for address in addresses)


@pytest.mark.usefixtures("files")
async def test_whoever_has_no_token_gets_the_page_and_with_it_the_sign_in(tmp_path: Path) -> None:
    async with _client(create_app(Settings(auth="required", data_dir=tmp_path / "data"))) as client:
        page = await client.get("/")
        assert [(await client.get(address)).status_code for address in (str(page.url), *_named(page))] == [200] * 4
        assert (await client.get("/graphql", params={"query": "{ jobs { totalCount } }"})).status_code in {401, 503}


@pytest.mark.usefixtures("files")
async def test_under_another_host_name_there_is_no_page() -> None:
    async with _client(create_app(Settings(allowed_hosts=("jobs.example",)))) as client:
        for path in ("/", "/dashboard/icon.svg"):
            assert (await client.get(path)).status_code == 400
            assert (await client.get(path, headers={"Host": "jobs.example"})).status_code == 200


@pytest.mark.usefixtures("files")
async def test_an_installation_without_it_has_nothing_there() -> None:
    async with _client(create_app(Settings(dashboard=False))) as client:
        paths = ("/", "/dashboard/", "/dashboard/index.html", "/dashboard/assets/index-7b8b965a.js")
        assert [(await client.get(path)).status_code for path in paths] == [404] * 4
    named = [name for name, _ in addresses("http://api", Settings(dashboard=False))]
    assert "Dashboard" not in named


@pytest.mark.usefixtures("files")
def test_its_address_is_announced_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(GRAPHIQL, "files", tmp_path / "nothing")
    pages = addresses("http://127.0.0.1:8000", Settings())
    assert pages == [("Dashboard", "http://127.0.0.1:8000/"), ("API", "http://127.0.0.1:8000/graphql")]


async def test_a_checkout_without_its_files_says_which_command_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DASHBOARD, "files", tmp_path)
    async with _client(create_app(Settings())) as client:
        page = await client.get("/")
        assert (await client.get("/dashboard/index.html")).status_code == 404
    assert page.status_code == 200
    assert "<pre>make web</pre>" in page.text
    assert "<script" not in page.text
    assert "Dashboard" not in dict(addresses("", Settings()))


@built
async def test_each_file_that_the_built_page_names_is_there_and_no_code_stands_in_it() -> None:
    async with _client(create_app(Settings())) as client:
        page = await client.get("/")
        named = [address for address in _named(page) if not address.startswith("data:")]
        assert any(address.endswith(".js") for address in named)
        for found in named:
            assert found.startswith("http://api/dashboard/")
            assert (await client.get(found)).status_code == 200
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page.text) == []


@built
def test_the_licence_of_everything_in_it_is_there() -> None:
    text = (DASHBOARD.files / "licenses.txt").read_text()
    for package in ("react", "react-dom", "graphql-ws", "uplot"):
        assert re.search(rf"^{package} \d", text, re.MULTILINE | re.IGNORECASE), package


@pytest.mark.usefixtures("files")
async def test_a_file_is_sent_compressed_to_whoever_takes_that(files: Path) -> None:
    path = "/dashboard/assets/index-7b8b965a.js"
    (files / "assets" / "index-7b8b965a.js.gz").write_bytes(gzip.compress(b"export {}"))
    async with _client(create_app(Settings())) as client:
        packed = await client.get(path)
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})
        style = await client.get("/dashboard/assets/index-5d41402a.css")
        again = await client.get(path, headers={"If-None-Match": packed.headers["etag"]})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-type"] == plain.headers["content-type"] == "text/javascript; charset=utf-8"
    assert packed.text == plain.text == "export {}"
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in style.headers
    assert all("Accept-Encoding" in answer.headers["vary"] for answer in (packed, plain, style))
    assert again.status_code == 304
    assert packed.headers["etag"] != plain.headers["etag"]


@built
async def test_what_a_browser_loads_first_is_at_most_150_kilobytes() -> None:
    async with _client(create_app(Settings())) as client:
        page = await client.get("/")
        answers = [await client.get(address) for address in _named(page) if address.startswith("http")]
    sent = [int(answer.headers["content-length"]) for answer in answers]
    assert len(sent) >= 2
    assert all(answer.headers["content-encoding"] == "gzip" for answer in answers)
    assert sum(sent) + len(page.content) <= 150_000
