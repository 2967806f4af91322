"""The site of ``examples/react`` as its readers run it: an API that asks who calls, its back end, and its page.

No worker runs until a test starts one, so that a job waits while access to it is renewed, lost or revoked.
"""

import asyncio
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, Page

from gql_jobs.settings import Settings
from tests.child_processes import running_process
from tests.deadline import until
from tests.running import ROOT
from tests.serving import HOST, Data, connected, free_port, is_ready

REACT = ROOT / "examples" / "react"
_SALES = "date,product,region,quantity,amount\n2023-05-04,Lamp,North,2,40.00\n2024-02-03,Chair,South,1,75.50\n"
_NOTE_SOCKETS = """
window.closeCodes = [];
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener('close', ({ code }) => window.closeCodes.push(code));
  }
};
"""


class ReportsSite:
    """An API under ``GQL_JOBS_AUTH=required``, and two of its keys: of the site's back end, and of an operator."""

    def __init__(self, settings: Settings, folder: Path, api_url: str, keys: dict[str, str]) -> None:
        self.api_url = api_url
        self._settings = settings
        self._folder = folder
        self._keys = keys

    async def ask(self, query: str, token: str | None = None, **variables: Any) -> httpx.Response:
        """What the API answers over HTTP; the operator where no token is given."""
        headers = {"Authorization": f"Bearer {token or self._keys['operator']}"}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            return await http.post(self.api_url, json={"query": query, "variables": variables}, headers=headers)

    async def has_ended(self, job_id: str) -> bool:
        """Whether a job is complete."""
        answer = (await self.ask("query ($id: ID!) { job(id: $id) { status } }", id=job_id)).json()
        return bool(answer["data"]["job"]["status"] == "COMPLETED")

    async def cursors(self, job_id: str) -> list[str]:
        """All events of a job that are kept."""
        answer = (await self.ask("query ($id: ID!) { job(id: $id) { events { cursor } } }", id=job_id)).json()
        return [event["cursor"] for event in answer["data"]["job"]["events"]]

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """A worker, until the block ends."""
        async with running_process(*_command("gql_jobs", "worker"), env=_environment(self._settings)):
            yield

    @asynccontextmanager
    async def back_end(self, token_seconds: int) -> AsyncIterator[str]:
        """The site's own back end; yields where its page is.

        :param token_seconds: for how long each view token is good.
        """
        key_file = self._folder / "shop.key"
        key_file.write_text(f"{self._keys['shop']}\n")
        environment = {
            **os.environ,
            "JOBS_KEY_FILE": str(key_file),
            "JOBS_URL": self.api_url,
            "PORT": "0",
            "VIEW_TOKEN_SECONDS": str(token_seconds),
        }
        async with running_process(_node(), str(REACT / "back_end.mjs"), env=environment, stdout=PIPE) as process:
            assert process.stdout is not None
            said = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
            yield said.split()[-1]


@cache
def _node() -> str:
    """Node itself: what is on the PATH may be a script that starts it, and the end of that script would leave it."""
    command = ["node", "-p", "process.execPath"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Visitor:
    """A page of the site, and what it has heard over its sockets."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sent: list[str] = []
        self.heard: list[str] = []
        page.on("websocket", self._note)

    async def sign_in(self, url: str, user: str) -> None:
        """Open the site and sign in."""
        await self.page.goto(url)
        await self.page.get_by_label("Your name").fill(user)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.get_by_text(f"You are {user}.").wait_for()

    async def make_report(self) -> str:
        """Have a job created, and wait until its first event is shown; return its id."""
        async with self.page.expect_response("**/api/jobs") as created:
            await self.page.get_by_role("button", name="Make a report").click()
        await self.page.locator("li[data-type=JobQueued]").wait_for()
        job: Data = await (await created.value).json()
        return str(job["id"])

    async def status(self, sentence: str, within: float = 60.0) -> None:
        """Wait until the page says so of the job."""
        await self.page.get_by_role("status").get_by_text(sentence).wait_for(timeout=within * 1000)

    async def cursors(self) -> list[str]:
        """The events that the page shows."""
        shown: list[str] = await self.page.locator("li").evaluate_all("items => items.map(i => i.dataset.cursor)")
        return shown

    async def close_codes(self) -> list[int]:
        """With which codes its sockets were closed."""
        codes: list[int] = await self.page.evaluate("() => closeCodes")
        return codes

    def _note(self, opened: Any) -> None:
        # Playwright marks its handlers, which a method of a list does not allow.
        opened.on("framesent", lambda frame: self.sent.append(frame))  # noqa: PLW0108
        opened.on("framereceived", lambda frame: self.heard.append(frame))  # noqa: PLW0108


@asynccontextmanager
async def visitor(browser: Browser) -> AsyncIterator[Visitor]:
    """Somebody with a browser profile of their own."""
    context = await browser.new_context()
    context.set_default_timeout(60_000)
    try:
        yield await visit(await context.new_page())
    finally:
        await context.close()


async def visit(page: Page) -> Visitor:
    """Whoever looks at a page."""
    await page.add_init_script(_NOTE_SOCKETS)
    return Visitor(page)


@asynccontextmanager
async def reports_site(settings: Settings, folder: Path) -> AsyncIterator[ReportsSite]:
    """The page, built, and the API with its keys, until the block ends."""
    (folder / "sales.csv").write_text(_SALES)
    async with running_process("npm", "run", "--silent", "build", cwd=REACT, stdout=PIPE) as build:
        said, _ = await asyncio.wait_for(build.communicate(), 120)
        assert build.returncode == 0, said.decode()
    scopes = {"shop": ("read", "create"), "operator": ("read", "operate")}
    keys = {name: await _new_key(settings, name, given) for name, given in scopes.items()}
    port = free_port()
    command = _command("gql_jobs", "api", "--port", str(port), "--data-dir", str(settings.data_dir))
    async with running_process(*command, env=_environment(settings)), connected(port) as api:
        await until(lambda: is_ready(api), "the API is ready", within=60)
        yield ReportsSite(settings, folder, f"http://{HOST}:{port}/graphql", keys)


async def _new_key(settings: Settings, name: str, scopes: tuple[str, ...]) -> str:
    options = [part for scope in scopes for part in ("--scope", scope)]
    command = _command("gql_jobs", "keys", "create", name, *options)
    async with running_process(*command, env=_environment(settings), stdout=PIPE, stderr=PIPE) as process:
        key, _ = await asyncio.wait_for(process.communicate(), 60)
    assert re.fullmatch(r"gj_\S+\n", key.decode())
    return key.decode().strip()


def _command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "GQL_JOBS_NATS_URL": settings.nats_url or "",
        "GQL_JOBS_AUTH": "required",
        # Where the page is; its back end takes a free port.
        "GQL_JOBS_CORS_ORIGINS": "http://localhost:*",
        "GQL_JOBS_SALES_SOURCE": str(settings.data_dir.parent / "sales.csv"),
    }
