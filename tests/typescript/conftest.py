"""The package of ``clients/typescript`` as an application has it: packed, installed, its page in a browser."""

import asyncio
import fcntl
import json
import os
import shutil
import tarfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from gql_jobs.settings import Settings
from tests.child_processes import running_process
from tests.chromium import CHROMIUM, FLAGS
from tests.file_server import Answer, FileServer, file_server
from tests.running import ROOT
from tests.serving import HOST, ServedApi, serving, without_nats

PACKAGE = ROOT / "clients" / "typescript"
CODEGEN = "node_modules/@gql-jobs/client/bin/gql-jobs-codegen.mjs"
TSC = "node_modules/typescript/bin/tsc"
VITE = "node_modules/vite/bin/vite.js"
ORIGINS = ("http://localhost:*",)
OpenPage = Callable[..., Awaitable[Page]]
"""Opens the page: the port of the API, then what it is asked to show (``view``, ``payload``)."""
_TYPES = {".html": "text/html", ".js": "text/javascript"}
# What a browser says of a connection that a test cuts, and of what the API refuses.
_EXPECTED = ("WebSocket connection to", "Failed to load resource", "Access to fetch at")
expect.set_options(timeout=15_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where there is no browser, or the package's own packages are not installed; allow for slow machines."""
    reason = None
    if CHROMIUM is None:
        reason = "no browser: apt-get install chromium"
    elif shutil.which("npm") is None or not (PACKAGE / "node_modules").is_dir():
        reason = "the packages of clients/typescript are not installed: make client-test"
    for item in items:
        if "tests/typescript/" not in item.path.as_posix():
            continue
        item.add_marker(pytest.mark.timeout(240))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an application that has installed the package; made once for all processes that run tests."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "application"
    with (folder.parent / "application.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not (folder / "page" / "dist").is_dir():
            await _make(folder)
    return folder


async def _make(folder: Path) -> None:
    app, packages = folder / "page", folder / "node_modules"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PACKAGE / "test" / "page", app)
    packages.mkdir()
    for package in (PACKAGE / "node_modules").iterdir():
        (packages / package.name).symlink_to(package)
    packed = (await run("npm", "pack", "--pack-destination", str(folder), cwd=PACKAGE)).split()[-1]
    with tarfile.open(folder / packed) as archive:
        archive.extractall(folder, filter="data")
    (packages / "@gql-jobs").mkdir()
    (folder / "package").rename(packages / "@gql-jobs" / "client")
    async with serving(without_nats(folder), opened=False) as api:
        await run("node", CODEGEN, f"http://{HOST}:{api.port}", "--out", "page/jobs.ts", cwd=folder)
    await run("node", TSC, "--project", "page", cwd=folder)
    # React mounts everything twice where it is one for development.
    build = ("build", "page", "--base", "./", "--minify", "false", "--mode", "development")
    await run("node", VITE, *build, cwd=folder, NODE_ENV="development")


async def run(*command: str, cwd: Path, **environment: str) -> str:
    """What a command prints, which has to succeed."""
    env = {**os.environ, **environment}
    async with running_process(*command, cwd=cwd, env=env, stdout=PIPE, stderr=STDOUT) as process:
        said, _ = await asyncio.wait_for(process.communicate(), 180)
        assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings of an API that pages of this machine may call."""
    return settings.model_copy(update={"cors_origins": ORIGINS})


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """The API on the test's nats-server."""
    async with serving(settings) as served:
        yield served


@pytest.fixture
async def site(application: Path) -> AsyncIterator[FileServer]:
    """Where the page is."""
    built = application / "page" / "dist"
    async with file_server() as files:
        for file in built.rglob("*"):
            if file.is_file():
                kind = {"Content-Type": _TYPES.get(file.suffix, "text/plain")}
                files.put(f"/{file.relative_to(built).as_posix()}", Answer(file.read_bytes(), headers=kind))
        yield files


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
async def open_page(site: FileServer, browser: Browser) -> AsyncIterator[OpenPage]:
    """Opens pages of the application. None of them may have had an error."""
    troubles: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_EXPECTED):
            troubles.append(message.text)

    async def open_one(port: int, view: str = "", init: str = "", **payload: Any) -> Page:
        page = await browser.new_page()
        page.set_default_timeout(30_000)
        page.on("console", on_console)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        asked = {"url": f"http://{HOST}:{port}", "view": view, "payload": payload}
        await page.add_init_script(f"window.asked = {json.dumps(asked)};\n{init}")
        await page.goto(site.url("/index.html", host="localhost"))
        await page.wait_for_function("'connect' in window")
        return page

    yield open_one
    assert troubles == []
