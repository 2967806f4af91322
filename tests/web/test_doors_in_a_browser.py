"""A real browser at an API that asks who calls: ``EventSource`` with tickets, GraphiQL with a token in its headers."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright

from gql_jobs.settings import Settings
from gql_jobs.web import pages
from tests.chromium import CHROMIUM, FLAGS
from tests.guarded import GuardedApi, guarded
from tests.running import ROOT
from tests.serving import HOST

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium"),
    pytest.mark.timeout(180),
]
WRAPPER = (ROOT / "examples" / "javascript" / "tickets.mjs").read_text()
MAIL = """mutation {
  createJob(input: { payload: { email: { to: "ada@example.com", subject: "Hello", body: "It works." } } }) {
    job { id }
  }
}"""
FEED = "subscription ($after: String) { jobEvents(after: $after) { cursor job { id } } }"
WATCH = """({ url, query }) => {
  window.seen = [];
  const token = async () => { window.asked = (window.asked ?? 0) + 1; return window.token; };
  const onResult = ({ data }) => window.seen.push(data.jobEvents.job.id);
  window.ending = new AbortController();
  window.ended = subscribe({ url, token, query, onResult, signal: window.ending.signal });
}"""


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[GuardedApi]:
    async with guarded(settings) as opened:
        yield opened


@asynccontextmanager
async def _page(troubles: list[str], *, bypass_csp: bool = False) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page(bypass_csp=bypass_csp, viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        try:
            yield page
        finally:
            await browser.close()


async def test_an_event_source_with_tickets_sees_each_event_once_though_its_token_is_revoked_and_its_line_cut(
    shop: GuardedApi,
) -> None:
    first, second = await shop.token(), await shop.token()
    url = f"http://{HOST}:{shop.api.port}/graphql"
    async with _page([], bypass_csp=True) as page:
        await page.goto(url.replace("/graphql", "/healthz"))
        await page.add_script_tag(content=re.sub(r"^export ", "", WRAPPER, flags=re.MULTILINE))
        await page.evaluate("token => { window.token = token; }", first.token)
        await page.evaluate(WATCH, {"url": url, "query": FEED})
        await shop.api.subscribers(1)
        created = [await shop.create()]
        await page.wait_for_function("seen.length === 1")
        await page.evaluate("token => { window.token = token; }", second.token)
        await shop.revoke(first)
        await shop.api.subscribers(0)
        created.append(await shop.create())
        await page.wait_for_function("seen.length === 2")
        await shop.api.subscribers(1)
        for close in list(shop.api.app.state.connections._open.values()):  # noqa: SLF001
            close("Maximum age reached")
        created.append(await shop.create())
        await page.wait_for_function("seen.length === 3")
        assert await page.evaluate("seen") == created
        assert await page.evaluate("asked") == 3
        await page.evaluate("() => { ending.abort(); return ended; }")
        await shop.api.subscribers(0)


@pytest.mark.skipif(not pages.GRAPHIQL.is_built, reason="not built: make web")
async def test_graphiql_sends_the_token_of_its_headers_over_http_and_over_its_socket(shop: GuardedApi) -> None:
    issued = await shop.token()
    troubles: list[str] = []
    async with _page(troubles) as page:
        await page.goto(f"http://{HOST}:{shop.api.port}/graphql")
        await page.get_by_role("button", name="Headers", exact=True).click()
        await page.locator(".graphiql-editor-tool .monaco-editor").last.click()
        await page.keyboard.insert_text(json.dumps({"Authorization": f"Bearer {issued.token}"}))
        await page.get_by_role("tab", name="Jobs", exact=True).click()
        await page.wait_for_function("() => (localStorage['graphiql:query'] ?? '').includes(' Jobs')")
        await _give_headers(page, issued.token)
        await page.get_by_role("button", name="Execute query").click()
        await page.locator(".result-window").get_by_text("totalCount").first.wait_for()
        await page.get_by_role("tab", name="JobEvents", exact=True).click()
        await page.wait_for_function("() => (localStorage['graphiql:query'] ?? '').includes(' JobEvents')")
        await _give_headers(page, issued.token)
        await page.get_by_role("button", name="Execute query").click()
        await shop.api.subscribers(1)
        job = (await shop.post(MAIL, shop.key)).json()["data"]["createJob"]["job"]["id"]
        await page.locator(".result-window").get_by_text(job).first.wait_for()
    assert [trouble for trouble in troubles if "Content Security Policy" in trouble] == []


async def _give_headers(page: Page, token: str) -> None:
    """Each tab has headers of its own."""
    await page.get_by_role("button", name="Headers", exact=True).click()
    editor = page.locator(".graphiql-editor-tool .monaco-editor").last
    await editor.click()
    await page.keyboard.press("Control+A")
    await page.keyboard.insert_text(json.dumps({"Authorization": f"Bearer {token}"}))
