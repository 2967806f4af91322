"""The dashboard as a user has it: the built page, a real Chromium, a real API on a real nats-server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.settings import Settings
from gql_jobs.web import app, runtime
from gql_jobs.web.pages import DASHBOARD
from tests.chromium import CHROMIUM, FLAGS
from tests.job_types import form_jobs
from tests.running import JOB_TYPES
from tests.serving import HOST, ServedApi, serving

expect.set_options(timeout=15_000)
OpenPage = Callable[..., Awaitable[Page]]
"""Opens a page of the dashboard in a browser session of its own: the route (as ``jobs?status=QUEUED``), then the
options of a browser context, such as ``viewport``, ``color_scheme`` or ``reduced_motion``."""
# What a browser says of a connection that a test cuts.
_EXPECTED = ("WebSocket connection to", "Failed to load resource", "ERR_INTERNET_DISCONNECTED")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where there is no browser, or where the page is not built; allow for slow machines."""
    reason = None
    if CHROMIUM is None:
        reason = "no browser: apt-get install chromium"
    elif not DASHBOARD.is_built:
        reason = "not built: make web"
    for item in items:
        if "tests/dashboard/" not in item.path.as_posix():
            continue
        item.add_marker(pytest.mark.timeout(180))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The probe and the bundled types, and those of forms: what an API and workers know that are started after it."""
    registry = Registry()
    for known in (*load_job_types(JOB_TYPES), *form_jobs.registered()):
        registry.add(known)
    for module in (app, runtime):
        monkeypatch.setattr(module, "load_job_types", lambda *_: registry)
    return registry


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """The API and its dashboard on the test's nats-server."""
    async with serving(settings) as served:
        yield served


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A Chromium of its own, which reaches nothing but this machine."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield started
        finally:
            await started.close()


@pytest.fixture
async def open_page(api: ServedApi, browser: Browser) -> AsyncIterator[OpenPage]:
    """Opens pages of the dashboard. None of them may have had an error, or have asked another host for anything."""
    troubles: list[str] = []
    hosts: set[str] = set()

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_EXPECTED):
            troubles.append(message.text)

    def on_request(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.netloc not in hosts:
            troubles.append(f"asked for {request.url}")

    async def open_one(route: str = "", *, port: int | None = None, path: str = "/", **options: object) -> Page:
        here = f"{HOST}:{port or api.port}"
        hosts.add(here)
        context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        page = await context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", on_console)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", on_request)
        await page.goto(f"http://{here}{path}#/{route}")
        return page

    yield open_one
    assert troubles == []


@pytest.fixture
async def page(open_page: OpenPage) -> Page:
    """The first page, live."""
    opened = await open_page()
    await opened.get_by_text("Live", exact=True).wait_for()
    return opened
