"""Dead letters of the dashboard: groups, one of them in full, a trial, the rest, and what came of it."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from gql_jobs.jobs.registry import Registry
from gql_jobs.settings import Settings
from tests.api.operations import asked, create_many
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.deadline import until
from tests.running import RunningWorker, running_worker
from tests.serving import Data, ServedApi

HOSTILE = "\"'`$(id) </pre><img src=x onerror=alert(1)> \u202e {{}} 😀"


pytestmark = pytest.mark.usefixtures("types")


@pytest.fixture
async def mending(settings: Settings, types: Registry) -> AsyncIterator[RunningWorker]:
    """A worker that knows these types."""
    async with running_worker(settings, registry=types) as worker:
        yield worker


async def count(api: ServedApi, status: str) -> int:
    """How many jobs whose handler needs a file are in a state."""
    document = "query ($filter: JobFilter) { jobs(filter: $filter, first: 0) { totalCount } }"
    total: int = (await api.ask(document, filter={"type": ["needs_file"], "status": [status]}))["jobs"]["totalCount"]
    return total


async def counted(api: ServedApi, number: int, status: str) -> None:
    """Wait until so many are in a state."""

    async def are_there() -> bool:
        return await count(api, status) == number

    await until(are_there, f"{number} jobs are {status}", within=60)


async def dead(api: ServedApi, number: int, payload: Data) -> list[str]:
    """Create jobs that fail for good because a file is missing."""
    before = await count(api, "DEAD_LETTER")
    created = await create_many(api, [asked(payload, "needsFile") for _ in range(number)])
    await counted(api, before + number, "DEAD_LETTER")
    return created


async def test_where_nothing_is_dead_that_is_said(open_page: OpenPage) -> None:
    page = await open_page("dead-letters")
    await expect(page.get_by_role("heading", name="Nothing is dead")).to_be_visible()
    page = await open_page("dead-letters?group=none")
    await expect(page.get_by_role("alert")).to_contain_text("There is no such group")


async def test_a_job_goes_from_red_to_green_by_an_edited_copy_and_by_a_retry(
    api: ServedApi, mending: RunningWorker, open_page: OpenPage, tmp_path: Path
) -> None:
    assert mending
    file = tmp_path / "it's"
    (job_id,) = await dead(api, 1, {"file": str(file), "text": HOSTILE})
    page = await open_page("dead-letters")
    await page.get_by_role("link", name="needs_file: PermanentError").click()
    await expect(page.get_by_role("heading", name="Dead letters")).to_be_focused()
    error = page.get_by_role("region", name="Error", exact=True)
    await expect(error).to_contain_text(f"A file is missing. {HOSTILE}")
    # An edited copy is another job, which passes.
    await page.get_by_role("link", name=f"Edit a copy and run it of job {job_id[:8]}").click()
    field = page.get_by_role("textbox", name="file", exact=True)
    await expect(field).to_have_value(str(file))
    await expect(page.get_by_role("textbox", name="text", exact=True)).to_have_value(HOSTILE)
    await field.fill(str(tmp_path))
    await page.get_by_role("button", name="Create the job").click()
    await expect(page.get_by_text("Completed", exact=True)).to_be_visible()
    # The cause is mended, and the job itself passes.
    file.touch()
    await page.go_back()
    await page.get_by_role("button", name="Try one, then the rest…").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Retry 1 job").click()
    await expect(dialog.get_by_text("Completed", exact=True)).to_be_visible()
    await dialog.get_by_role("button", name="Close", exact=True).last.click()
    await expect(page.get_by_text("Nothing of this group is dead any more.")).to_be_visible()
    await expect(page.get_by_text("1 passed, 0 came back as dead letters.")).to_have_count(1)
    await page.get_by_role("link", name="All groups").click()
    await expect(page.get_by_role("heading", name="Nothing is dead")).to_be_visible()
    await counted(api, 2, "COMPLETED")


async def test_a_group_of_two_hundred_is_repaired(
    api: ServedApi, mending: RunningWorker, open_page: OpenPage, tmp_path: Path
) -> None:
    assert mending
    file = tmp_path / "mended"
    await dead(api, 200, {"file": str(file)})
    page = await open_page("dead-letters")
    group = page.get_by_role("listitem").filter(has_text="A file is missing.")
    await expect(group).to_contain_text("200")
    await group.get_by_role("link").click()
    # A copy with another payload passes, so the payload is at fault, or what it names.
    await page.get_by_role("link", name="Edit a copy and run it").click()
    await page.get_by_role("textbox", name="file", exact=True).fill(str(tmp_path))
    await page.get_by_role("button", name="Create the job").click()
    await expect(page.get_by_text("Completed", exact=True)).to_be_visible()
    await page.go_back()

    # The first trial comes back, because nothing was mended.
    await page.get_by_role("button", name="Try one, then the rest…").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Try with one first").click()
    outcome = dialog.get_by_role("region", name="What became of them")
    await expect(outcome.get_by_text("Dead letter", exact=True)).to_be_visible()
    await expect(outcome.get_by_text("PermanentError: A file is missing.")).to_be_visible()
    await expect(outcome.locator("[data-alarming]")).to_contain_text("Came back as dead letters1")
    # The second passes.
    file.touch()
    await dialog.get_by_role("button", name="Try another one").click()
    await expect(dialog.get_by_text("Completed", exact=True)).to_be_visible()
    # The rest at a rate, stopped on its way, and then all of it.
    rate = dialog.get_by_role("textbox", name="Jobs per second at most")
    await rate.fill("20")
    await dialog.get_by_role("button", name="Go on: retry the other 198").click()
    progress = dialog.get_by_role("progressbar", name="Retrying 198 jobs")
    await expect(progress).to_have_attribute("aria-valuetext", re.compile("[1-9] of 198"))
    await dialog.get_by_role("button", name="Stop").click()
    await expect(dialog.get_by_text("Stopped; the rest was left alone.")).to_be_visible()
    await rate.fill("500")
    await dialog.get_by_role("button", name=re.compile("Go on: retry the other")).click()
    await expect(dialog.get_by_text(re.compile(r"^Done\. "))).to_be_visible()
    await expect(outcome.get_by_text("Run again200")).to_be_visible()
    await expect(outcome.get_by_text("Passed199")).to_be_visible(timeout=30_000)
    await expect(outcome.get_by_text("Came back as dead letters1")).to_be_visible()
    await dialog.get_by_role("button", name="Close", exact=True).last.click()
    # What came back is what is left.
    await expect(page.get_by_text("Dead letters now1")).to_be_visible()
    await page.get_by_role("button", name="Try one, then the rest…").click()
    await dialog.get_by_role("button", name="Retry 1 job").click()
    await expect(page.get_by_text("Dead letters now0")).to_be_visible()
    await counted(api, 201, "COMPLETED")


async def test_who_leaves_the_page_of_a_run_finds_it_again_and_can_stop_it(
    api: ServedApi, mending: RunningWorker, open_page: OpenPage, tmp_path: Path
) -> None:
    assert mending
    file = tmp_path / "mended"
    await dead(api, 100, {"file": str(file)})
    file.touch()
    page = await open_page("dead-letters")
    await page.get_by_role("link", name="needs_file: PermanentError").click()
    await page.get_by_role("button", name="Try one, then the rest…").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("textbox", name="Jobs per second at most").fill("10")
    await dialog.get_by_role("button", name="Retry 100 jobs").click()
    await dialog.get_by_role("button", name="Close, and let it go on").click()
    await expect(page.get_by_role("button", name="Retrying…")).to_be_visible()
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()

    async def went_on() -> bool:
        return await count(api, "COMPLETED") >= 20

    await until(went_on, "the run goes on by itself")
    await page.go_back()
    await page.get_by_role("button", name="Retrying…").click()
    await dialog.get_by_role("button", name="Stop").click()
    await expect(dialog.get_by_text("Stopped; the rest was left alone.")).to_be_visible()
    done = await count(api, "COMPLETED")
    assert 20 <= done < 100
    # What ended while nobody looked is counted, too.
    await expect(dialog.get_by_text(f"Passed{done}", exact=True)).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_text(f"Dead letters now{100 - done}", exact=True)).to_be_visible()
    await expect(page.get_by_role("button", name="Try one, then the rest…")).to_be_visible()


async def test_groups_come_and_go_while_they_are_looked_at(
    api: ServedApi, mending: RunningWorker, open_page: OpenPage, tmp_path: Path
) -> None:
    assert mending
    page = await open_page("dead-letters")
    await expect(page.get_by_role("heading", name="Nothing is dead")).to_be_visible()
    await dead(api, 2, {"file": str(tmp_path / "a")})
    await expect(page.get_by_role("listitem").filter(has_text="A file is missing.")).to_contain_text("2")
    await dead(api, 1, {"file": str(tmp_path / "a")})
    await expect(page.get_by_role("listitem").filter(has_text="A file is missing.")).to_contain_text("3")
    (tmp_path / "a").touch()
    await api.ask('mutation { retryJobs(filter: {type: ["needs_file"]}) { retriedCount } }')
    await expect(page.get_by_role("heading", name="Nothing is dead")).to_be_visible()


async def test_a_group_is_repaired_by_keyboard_on_a_narrow_screen(
    api: ServedApi, mending: RunningWorker, open_page: OpenPage, tmp_path: Path
) -> None:
    assert mending
    file = tmp_path / "mended"
    await dead(api, 2, {"file": str(file), "text": "x" * 300})
    page = await open_page("dead-letters", viewport={"width": 360, "height": 740})
    link = page.get_by_role("link", name="needs_file: PermanentError")
    await link.focus()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Dead letters")).to_be_focused()
    await expect(page.get_by_role("region", name="Error", exact=True)).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    file.touch()
    # All groups, the job, its editing, and the repair.
    for _ in range(4):
        await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Try one, then the rest…")).to_be_focused()
    await page.keyboard.press("Enter")
    trial = page.get_by_role("button", name="Try with one first")
    await trial.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog").get_by_text("Completed", exact=True)).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_text("Dead letters now1")).to_be_visible()


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_group_and_its_repair_have_no_violation(
    api: ServedApi, mending: RunningWorker, open_page: OpenPage, tmp_path: Path, theme: str
) -> None:
    assert mending
    await dead(api, 5, {"file": str(tmp_path / "missing"), "text": HOSTILE * 20})
    page = await open_page("dead-letters", color_scheme=theme)
    await page.get_by_role("link", name="needs_file: PermanentError").click()
    await expect(page.get_by_role("region", name="Error", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Try one, then the rest…").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Try with one first").click()
    outcome = dialog.get_by_role("region", name="What became of them")
    await expect(outcome.get_by_text("Dead letter", exact=True)).to_be_visible()
    assert await violations_on(page) == []
    await dialog.get_by_role("button", name="Go on: retry the other 4").click()
    await expect(dialog.get_by_text("Came back as dead letters5")).to_be_visible()
    await page.keyboard.press("Escape")
    assert await violations_on(page) == []
