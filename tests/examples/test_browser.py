"""A browser's own ``EventSource``, which needs no library: it comes back by itself, to the server started anew."""

import re

import pytest
from playwright.async_api import async_playwright

from tests.chromium import CHROMIUM, FLAGS
from tests.deadline import until
from tests.running import ROOT
from tests.running_dev import Dev

OPERATIONS = (ROOT / "examples" / "javascript" / "operations.mjs").read_text()
WATCH = """async () => {
  const { job } = (await ask('/graphql', CREATE)).createJob;
  const cursors = job.events.map(({ cursor }) => cursor);
  const variables = JSON.stringify({ id: job.id, after: cursors.at(-1) });
  const events = new EventSource('/graphql?' + new URLSearchParams({ query: WATCH, variables }));
  events.addEventListener('next', ({ data }) => cursors.push(JSON.parse(data).data.jobProgress.cursor));
  const ended = new Promise((resolve) => events.addEventListener('complete', () => resolve(events.close())));
  Object.assign(window, { job, cursors, ended });
}"""
HISTORY = "async () => (await ask('/graphql', HISTORY, { id: job.id })).job.events.map(({ cursor }) => cursor)"


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
@pytest.mark.timeout(120)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_source_of_a_browser_sees_a_job_whole_though_the_api_is_killed(dev: Dev) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page()
        await page.goto(dev.urls()["API"].replace("/graphql", "/healthz"))
        await page.add_script_tag(content=re.sub(r"^export ", "", OPERATIONS, flags=re.MULTILINE))
        await page.evaluate(WATCH)
        await page.wait_for_function("cursors.length >= 4")
        api = dev.child("gql_jobs api")
        assert api is not None
        api.kill()
        await page.evaluate("() => ended")
        await until(lambda: dev.child("gql_jobs api"), "the API is back")
        cursors: list[str] = await page.evaluate("cursors")
        history: list[str] = await page.evaluate(HISTORY)
        await browser.close()
    assert [cursor for cursor in cursors if cursor in history] == history
    assert len(set(cursors)) == len(cursors)
