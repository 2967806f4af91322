"""A browser's own ``EventSource``, and graphql-ws in a browser: both come back to the server that is started anew."""

import re
import signal

import pytest
from playwright.async_api import Page, Route, async_playwright

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
GRAPHQL_WS = ROOT / "examples" / "javascript" / "node_modules" / "graphql-ws" / "dist"
(SNIPPET,) = re.findall(r"```js\n(import .*? from 'graphql-ws';.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
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


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
@pytest.mark.timeout(120)
@pytest.mark.asyncio(loop_scope="module")
async def test_graphql_ws_in_a_browser_as_the_readme_shows_it_outlives_a_restart_of_the_api(dev: Dev) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page()
        await page.route("**/graphql-ws/*", _graphql_ws)
        await page.goto(dev.urls()["API"].replace("/graphql", "/healthz"))
        await page.add_script_tag(content=re.sub(r"^export ", "", OPERATIONS, flags=re.MULTILINE))
        await page.evaluate("async () => { window.job = (await ask('/graphql', CREATE)).createJob.job; }")
        await page.add_script_tag(type="module", content=_as_shown(dev.urls()["API"]))
        await page.wait_for_function("window.seen?.some(({ status }) => status === 'PROCESSING')")
        api = dev.child("gql_jobs api")
        assert api is not None
        refused = _refused(page)
        # Its parent would start it again before the browser tries to connect.
        dev.process.send_signal(signal.SIGSTOP)
        try:
            api.kill()
            await until(lambda: refused, "the browser has been refused a connection", within=30)
        finally:
            dev.process.send_signal(signal.SIGCONT)
        await until(lambda: dev.child("gql_jobs api"), "the API is back")
        await page.wait_for_function("window.ended", timeout=60_000)
        cursors: list[str] = await page.evaluate("seen.map(({ cursor }) => cursor)")
        history: list[str] = await page.evaluate(HISTORY)
        await browser.close()
    assert cursors[-1] == history[-1], "it ended with the job"
    assert [cursor for cursor in history if int(cursor) >= int(cursors[0]) and cursor not in cursors] == []
    assert len(set(cursors)) == len(cursors)


def _refused(page: Page) -> list[str]:
    messages: list[str] = []

    def note(message: object) -> None:
        if "ERR_CONNECTION_REFUSED" in str(message):
            messages.append(str(message))

    page.on("console", lambda message: note(message.text))
    return messages


async def _graphql_ws(route: Route) -> None:
    await route.fulfill(path=GRAPHQL_WS / route.request.url.rpartition("/")[2], content_type="text/javascript")


def _as_shown(api: str) -> str:
    """The README's program, with this server's address and files, and a record of what it prints."""
    socket = api.replace("http", "ws")
    program = SNIPPET.replace("'graphql-ws'", "'/graphql-ws/client.js'").replace("ws://127.0.0.1:8000/graphql", socket)
    assert program.count(socket) == 1
    record = program.replace("console.log(", "window.seen.push({ cursor, status: job.status }); console.log(")
    return (
        f"{record.replace('const client', 'window.seen = []; const id = job.id; const client')}\nwindow.ended = true;"
    )
