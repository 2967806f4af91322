"""``examples/transcribe`` as its readers run it: a video is uploaded in a page, and what is said in it comes back."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest
from playwright.async_api import async_playwright, expect

from tests.child_processes import running_process
from tests.chromium import CHROMIUM, FLAGS
from tests.deadline import until
from tests.running import ROOT
from tests.running_dev import running_dev
from tests.serving import free_port

EXAMPLE = ROOT / "examples" / "transcribe"
SAID = "please bring the report we will talk about the new house by the river"

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("pocketsphinx") is None or not (EXAMPLE / "web" / "dist").is_dir(),
        reason="its packages are not installed, or its page is not built: make examples",
    ),
    pytest.mark.timeout(240),
]


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
async def test_a_video_is_uploaded_and_transcribed_though_the_relay_begins_late_and_a_worker_is_killed(
    tmp_path: Path,
) -> None:
    port = free_port()
    own = {
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")]),
        "TRANSCRIBE_DATABASE": f"sqlite:///{tmp_path / 'videos.db'}",
        "TRANSCRIBE_UPLOADS": str(tmp_path / "uploads"),
        "GQL_JOBS_TYPES": "none",
        "GQL_JOBS_OUTBOX_DATABASE": f"sqlite:///{tmp_path / 'videos.db'}",
    }
    async with running_dev(tmp_path, "--import", "transcribe.jobs", **own) as dev:
        api = (await dev.ready())["API"]
        environment = {**os.environ, **own, "GQL_JOBS_URL": api}
        application = (sys.executable, "-m", "uvicorn", "transcribe.app:app", "--port", str(port))
        relay = (sys.executable, "-m", "gql_jobs", "outbox", "--import", "transcribe.jobs")
        site = f"http://127.0.0.1:{port}"
        async with running_process(*application, env=environment, cwd=tmp_path), async_playwright() as playwright:
            await until(lambda: _answers(f"{site}/videos"), "the application answers")
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            page = await browser.new_page()
            await page.goto(f"{site}/?jobs={api}")
            await page.get_by_label("A video").set_input_files(EXAMPLE / "media" / "meeting.mp4")
            await page.get_by_role("button", name="Transcribe it").click()
            await expect(page.get_by_text("not begun yet")).to_be_visible()
            async with running_process(*relay, env=environment, cwd=tmp_path):
                await expect(page.get_by_text("Listening for pauses")).to_be_visible(timeout=30_000)
                worker = await until(lambda: dev.child("gql_jobs_worker"), "there is a worker")
                worker.kill()
                await expect(page.get_by_text(SAID)).to_be_visible(timeout=120_000)
                address = await page.get_by_role("link", name="As a text file").get_attribute("href")
                assert address is not None
                text = await (await page.request.get(address)).text()
            await browser.close()
    assert SAID in text.splitlines()


async def _answers(address: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(address)).is_success
    except httpx.TransportError:
        return False


async def test_the_types_in_the_page_are_those_of_the_job_types(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLE}{os.pathsep}{ROOT}", "GQL_JOBS_TYPES": "none"}
    schema = tmp_path / "schema.graphql"
    command = (sys.executable, "-m", "gql_jobs", "schema", "--import", "transcribe.jobs")
    with schema.open("wb") as printed:
        async with running_process(*command, env=environment, stdout=printed) as process:
            assert await process.wait() == 0
    assert shutil.which("node") is not None
    codegen = ("node", "node_modules/.bin/gql-jobs-codegen", str(schema), "--out", "src/jobs.ts", "--check")
    async with running_process(*codegen, cwd=EXAMPLE / "web") as process:
        assert await process.wait() == 0
