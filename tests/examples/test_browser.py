"""A browser's own ``EventSource``, and graphql-ws in a browser: both come back to the server that is started anew."""

import re
import signal

import pytest
from playwright.async_api import Page, Route, async_playwright

from tests.chromium import CHROMIUM, FLAGS
from tests.deadline import until
from tests.file_server import Answer, file_server
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
CREATING, EVENT_SOURCE, GRAPHQL_WS_CLIENT = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
"""The programs of the README for a page."""
HISTORY = "async ([url, id]) => (await ask(url, HISTORY, { id })).job.events.map(({ cursor }) => cursor)"


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
@pytest.mark.timeout(120)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_source_of_a_browser_sees_a_job_whole_though_the_api_is_killed(dev: Dev) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page(bypass_csp=True)
        await page.goto(dev.urls()["API"].replace("/graphql", "/healthz"))
        await page.add_script_tag(content=re.sub(r"^export ", "", OPERATIONS, flags=re.MULTILINE))
        await page.evaluate(WATCH)
        await page.wait_for_function("cursors.length >= 4")
        api = dev.child("gql_jobs api")
        assert api is not None
        api.kill()
        await page.evaluate("() => ended")
        await dev.api_is_back()
        cursors: list[str] = await page.evaluate("cursors")
        history: list[str] = await page.evaluate(HISTORY, ["/graphql", await page.evaluate("job.id")])
        await browser.close()
    assert [cursor for cursor in cursors if cursor in history] == history
    assert len(set(cursors)) == len(cursors)


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
@pytest.mark.timeout(120)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("watching", [EVENT_SOURCE, GRAPHQL_WS_CLIENT], ids=["EventSource", "graphql-ws"])
async def test_what_the_readme_shows_runs_in_a_page_elsewhere_and_outlives_a_restart_of_the_api(
    dev: Dev, watching: str
) -> None:
    api_url = dev.urls()["API"]
    async with file_server() as files, async_playwright() as playwright:
        files.put("/", Answer(b"<!doctype html><title>A page</title>", headers={"Content-Type": "text/html"}))
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page(bypass_csp=True)
        await page.route("**/graphql-ws/*", _graphql_ws)
        await page.goto(files.url(host="localhost"))
        await page.add_script_tag(content=re.sub(r"^export ", "", OPERATIONS, flags=re.MULTILINE))
        await page.add_script_tag(type="module", content=_as_shown(watching, api_url))
        await page.wait_for_function("window.seen?.some(({ status }) => status === 'RETRYING')")
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
        await dev.api_is_back()
        await page.wait_for_function("window.ended", timeout=60_000)
        cursors: list[str] = await page.evaluate("seen.map(({ cursor }) => cursor)")
        history: list[str] = await page.evaluate(HISTORY, [api_url, await page.evaluate("id")])
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


def _as_shown(watching: str, api: str) -> str:
    """Both programs of the README as one, with this server's address and files, and a record of what they print.

    The mail that they have sent is one that the mailbox refuses twice, so that there is time to restart the server.
    """
    changes = {
        "http://127.0.0.1:8000/graphql": api,
        "ws://127.0.0.1:8000/graphql": api.replace("http", "ws"),
        "'graphql-ws'": "'/graphql-ws/client.js'",
        "ada@example.com": "ada@greylist.example",
        "data.createJob.job;": "Object.assign(window, data.createJob.job);",
        # What is seen, and when it has ended.
        "({ data }) => console.log(JSON.parse(data).data.jobProgress.job)": (
            "({ data, lastEventId }) => seen.push({ cursor: lastEventId, ...JSON.parse(data).data.jobProgress.job })"
        ),
        "() => events.close()": "() => { events.close(); window.ended = true; }",
        "console.log(job.status, job.progress);\n}": "seen.push({ cursor, ...job });\n}\nwindow.ended = true;",
    }
    program = CREATING + watching
    for shown, here in changes.items():
        program = program.replace(shown, here)
    assert "console.log" not in program
    assert "127.0.0.1:8000" not in program
    return f"window.seen = [];\n{program}"
