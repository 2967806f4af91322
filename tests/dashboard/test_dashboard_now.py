"""The first page: what needs a person, the queues, the workers."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs.settings import Settings
from tests.dashboard.conftest import OpenPage
from tests.deadline import until
from tests.running import running_worker
from tests.serving import ServedApi

CREATE = """mutation ($payload: ProbePayloadInput!) {
  createJob(input: { payload: { probe: $payload }, maxRetries: 0 }) { job { id } }
}"""


LIMIT = 'mutation { setQueueLimits(name: "default", limits: { concurrency: 1 }) { queue { name } } }'
COUNTS = ("Held back", "Queued", "Running", "Retrying", "Scheduled", "Dead", "Completed")


def _row(page: Page, queue: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=queue, exact=True))


def count_of(page: Page, column: str) -> Locator:
    """How many jobs of the queue of the probe jobs are in the state that the column is called after."""
    return _row(page, "default").get_by_role("cell").nth(COUNTS.index(column))


async def test_a_queue_that_no_worker_serves_comes_first_and_goes_when_one_does(
    api: ServedApi, settings: Settings, page: Page
) -> None:
    await expect(page.get_by_role("heading", name="Nothing needs attention")).to_be_visible()
    await api.ask(CREATE, payload={})
    attention = page.get_by_role("region", name="Needs attention")
    await expect(attention).to_contain_text("No worker serves the queue “default”: 1 job waits.")
    await expect(count_of(page, "Queued")).to_have_text("1")
    async with running_worker(settings):
        await expect(page.get_by_role("heading", name="Nothing needs attention")).to_be_visible()
        await expect(count_of(page, "Completed")).to_have_text("1")
        await expect(page.get_by_role("article", name=re.compile("^Worker "))).to_contain_text("of 3 slots busy")


async def test_jobs_that_a_limit_holds_back_are_counted_beside_those_that_are_queued(
    api: ServedApi, page: Page
) -> None:
    await api.ask(LIMIT)
    for _ in range(3):
        await api.ask(CREATE, payload={})
    await expect(count_of(page, "Held back")).to_have_text("2")
    await expect(count_of(page, "Queued")).to_have_text("1")
    headers = page.get_by_role("region", name="Queues").get_by_role("columnheader")
    assert (await headers.all_inner_texts())[1 : len(COUNTS) + 1] == list(COUNTS)
    await count_of(page, "Held back").get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    await expect(page.get_by_role("row").filter(has_text="Held back")).to_have_count(2)


@pytest.mark.usefixtures("worker")
async def test_a_running_job_is_shown_with_its_worker_and_its_bar_moves(
    api: ServedApi, page: Page, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    created = await api.ask(CREATE, payload={"steps": 4, "gate": str(gate)})
    job = created["createJob"]["job"]["id"]
    worker = page.get_by_role("article", name=re.compile("^Worker "))
    await expect(worker.get_by_role("link", name=job[:8])).to_be_visible()
    await expect(count_of(page, "Running")).to_have_text("1")
    gate.touch()
    await expect(worker.get_by_role("link", name=job[:8])).to_have_count(0)
    await expect(count_of(page, "Completed")).to_have_text("1")


@pytest.mark.usefixtures("worker")
async def test_dead_letters_that_failed_alike_are_one_line_that_leads_to_them(api: ServedApi, page: Page) -> None:
    for _ in range(3):
        await api.ask(CREATE, payload={"permanent": True})
    attention = page.get_by_role("region", name="Needs attention")
    await expect(attention).to_contain_text("3 jobs failed for good. Most of them: PermanentError in probe")
    groups = page.get_by_role("region", name="Dead letters that failed alike")
    await groups.get_by_role("link", name="3 jobs").click()
    await expect(page.get_by_role("heading", level=1, name="Dead letters")).to_be_visible()
    assert "group=" in page.url


@pytest.mark.usefixtures("worker")
async def test_the_last_hour_of_a_queue_is_drawn_and_said(api: ServedApi, page: Page) -> None:
    await api.ask(CREATE, payload={})
    row = _row(page, "default")
    await expect(row).to_contain_text("1 in, 1 out", timeout=30_000)
    chart = row.get_by_role("img", name="Jobs created, completed and failed in each minute of the last hour")
    drawn = """canvas => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value) => value !== 0);
    }"""
    assert await until(lambda: chart.locator("canvas").evaluate(drawn), "something is drawn")


@pytest.mark.usefixtures("worker")
async def test_the_page_fits_a_narrow_screen(api: ServedApi, open_page: OpenPage) -> None:
    await api.ask(CREATE, payload={"permanent": True})
    page = await open_page(viewport={"width": 360, "height": 740})
    await expect(page.get_by_role("region", name="Needs attention")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_every_page_is_reached_by_keys_and_the_help_says_which(page: Page) -> None:
    await page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Help")
    await expect(help_).to_contain_text("outside of fields")
    await page.keyboard.press("g")
    await page.keyboard.press("j")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Now")
    await page.keyboard.press("Escape")
    await expect(help_).to_have_count(0)
    for keys, title in (("gj", "Jobs"), ("gd", "Dead letters"), ("gc", "New job"), ("gn", "Now")):
        for key in keys:
            await page.keyboard.press(key)
        await expect(page).to_have_title(f"{title} · gql-jobs")


async def test_the_help_gives_the_focus_back_to_its_button(page: Page) -> None:
    button = page.get_by_role("button", name="Help")
    await button.focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("dialog", name="Help").get_by_role("button", name="Close").click()
    await expect(button).to_be_focused()


async def test_the_theme_is_the_systems_unless_the_user_chooses_one(open_page: OpenPage) -> None:
    page = await open_page(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    await expect(page.get_by_label("Theme")).to_have_value("system")
    dark = await page.evaluate(ground)
    await page.get_by_label("Theme").select_option("light")
    light = await page.evaluate(ground)
    assert light != dark
    await page.reload()
    assert await page.evaluate(ground) == light
