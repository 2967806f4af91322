"""GraphiQL as browsers get it: its own files, its policy, and a browser that runs the examples without a network."""

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Page, Route, async_playwright

from gql_jobs.settings import Settings
from gql_jobs.web.app import create_app
from gql_jobs.web.pages import GRAPHIQL
from tests.chromium import CHROMIUM, FLAGS
from tests.running_dev import running_dev

SCREENSHOT = os.environ.get("SCREENSHOT")
"""Where to keep what the browser shows."""
built = pytest.mark.skipif(not GRAPHIQL.is_built, reason="not built: make web")


@asynccontextmanager
async def _browser(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The application without its lifespan: the page needs nothing of what that opens."""
    transport = httpx.ASGITransport(create_app(settings))
    accept = {"Accept": "text/html,application/xhtml+xml"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=accept) as client:
        yield client


@built
async def test_the_page_and_its_files_come_from_here_and_allow_no_other_origin() -> None:
    async with _browser(Settings()) as client:
        page = await client.get("/graphql")
        files = re.findall(r'(?:src|href)="(graphiql/[^"]+)"', page.text)
        assert [name.rpartition(".")[2] for name in files] == ["css", "js"]
        assert "http" not in page.text.replace("<!doctype html>", "")
        answers = [page, *[await client.get(f"/{name}") for name in (*files, "graphiql/graphql.worker.js")]]
    for answer in answers:
        assert answer.status_code == 200
        policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


@built
def test_the_licence_of_everything_bundled_is_there() -> None:
    text = (GRAPHIQL.files / "licenses.txt").read_text()
    for package in ("graphiql 5", "react 19", "monaco-editor 0", "graphql 17", "graphql-ws 6"):
        assert f"\n{package}" in text


async def test_a_checkout_without_the_files_says_which_command_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GRAPHIQL, "files", tmp_path)
    async with _browser(Settings()) as client:
        page = await client.get("/graphql")
        assert (await client.get("/graphiql/graphiql.js")).status_code == 404
    assert page.status_code == 200
    assert "<pre>make web</pre>" in page.text
    assert "<script" not in page.text


async def test_it_can_be_switched_off() -> None:
    async with _browser(Settings(graphiql=False)) as client:
        paths = ("/graphql", "/graphiql/graphiql.js", "/example.jpg")
        assert [(await client.get(path)).status_code for path in paths] == [404, 404, 404]


@built
@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
@pytest.mark.timeout(240)
async def test_a_browser_without_a_network_watches_a_job_of_the_examples_to_its_end(tmp_path: Path) -> None:
    strangers: list[str] = []
    troubles: list[str] = []
    async with running_dev(tmp_path) as dev, async_playwright() as playwright:
        url = (await dev.ready())["GraphiQL"]

        async def pass_on(route: Route) -> None:
            if urlsplit(route.request.url).netloc == urlsplit(url).netloc:
                await route.continue_()
            else:
                strangers.append(route.request.url)
                await route.abort()

        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(90_000)
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        await page.route("**/*", pass_on)
        await page.goto(url)
        created = await _run(page, "CreateImageJob", "id")
        assert json.loads(created)["data"]["createJob"]["job"]["payload"] == {"operations": ["RESIZE", "WATERMARK"]}
        assert '"JobCompleted"' in await _run(page, "JobProgress", "JobCompleted")
        if SCREENSHOT:
            await page.screenshot(path=SCREENSHOT)
        await browser.close()
    assert (strangers, troubles) == ([], [])


async def _run(page: Page, tab: str, awaited: str) -> str:
    """Run the operation of a tab; what the page then shows, once it has the word in it."""
    await page.get_by_role("tab", name=tab, exact=True).click()
    # GraphiQL notices a moment after the tab has changed which operation is in it.
    await page.wait_for_function("tab => (localStorage['graphiql:query'] ?? '').includes(` ${tab}`)", arg=tab)
    await page.get_by_role("button", name="Execute query").click()
    result = page.locator(".result-window")
    await result.get_by_text(awaited).first.wait_for()
    return (await result.inner_text()).replace("\xa0", " ")
