"""A job is deleted from its page, once it is said what that means, by those who may."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.guarded import guarded
from tests.running import running_worker
from tests.serving import ServedApi
from tests.workers.stories import create, ended, running

DELETE = "mutation ($id: ID!) { deleteJob(id: $id) { deleted } }"
WORD = "a word of the payload"


def _button(page: Page) -> Locator:
    return page.get_by_role("region", name="How it stands").get_by_role("button", name="Delete…")


def _dialog(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Delete this job?")


@pytest.mark.usefixtures("worker")
async def test_a_job_that_has_ended_is_deleted_by_keys_after_a_question_and_nothing_of_it_is_left(
    open_page: OpenPage, api: ServedApi, tmp_path: Path
) -> None:
    job = await create(api.runtime, artifact="a.txt", artifact_bytes=20, trace=tmp_path / WORD, permanent=True)
    await ended(api.runtime, job)
    page = await open_page(f"jobs/{job}")
    await expect(page.get_by_role("tree", name="Payload").get_by_text(WORD)).to_be_visible()
    await _button(page).press("Enter")
    await expect(_dialog(page)).to_contain_text("its payload, its result and its errors, its history, its files")
    await expect(_dialog(page)).to_contain_text("This cannot be undone.")
    await _dialog(page).get_by_role("button", name="Keep it").press("Enter")
    await expect(_dialog(page)).to_have_count(0)
    await expect(_button(page)).to_be_focused()
    assert api.runtime.index.job(job) is not None

    await _button(page).press("Enter")
    await _dialog(page).get_by_role("button", name="Delete the job").press("Enter")
    said = page.get_by_text(f"Job {job} is deleted: nothing of it is there any more.")
    await expect(said).to_be_focused()
    await expect(page.get_by_text(WORD)).to_have_count(0)
    await expect(page.get_by_role("region", name="Timeline")).to_have_count(0)
    assert api.runtime.index.job(job) is None
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("There are no jobs yet.")).to_be_visible()


async def test_a_job_that_waits_is_deleted_and_will_not_run(open_page: OpenPage, api: ServedApi) -> None:
    job = await create(api.runtime)
    page = await open_page(f"jobs/{job}")
    await _button(page).click()
    await expect(_dialog(page)).to_contain_text("It will not run.")
    await _dialog(page).get_by_role("button", name="Delete the job").click()
    await expect(page.get_by_text("is deleted: nothing of it is there any more.")).to_be_focused()
    assert api.runtime.index.job(job) is None


async def test_a_job_that_runs_is_not_deleted_and_one_that_has_started_meanwhile_neither(
    open_page: OpenPage, api: ServedApi, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    job = await create(api.runtime, gate=tmp_path / "never")
    page = await open_page(f"jobs/{job}")
    await _button(page).click()
    await workers.enter_async_context(running_worker(settings))
    await running(api.runtime, job)
    await _dialog(page).get_by_role("button", name="Delete the job").click()
    await expect(_dialog(page).get_by_role("alert")).to_contain_text("Cancel it first")
    await _dialog(page).get_by_role("button", name="Keep it").click()
    standing = page.get_by_role("region", name="How it stands")
    await expect(standing.get_by_role("status").get_by_text("Running")).to_be_visible()
    await expect(_button(page)).to_have_count(0)
    await api.ask("mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }", id=job)
    await expect(_button(page)).to_be_visible()


async def test_a_job_that_somebody_else_deletes_is_said_to_be_and_can_be_read_to_the_end(
    open_page: OpenPage, api: ServedApi
) -> None:
    job = await create(api.runtime, trace=WORD)
    page = await open_page(f"jobs/{job}")
    await expect(page.get_by_role("tree", name="Payload").get_by_text(WORD)).to_be_visible()
    await expect(page.get_by_role("region", name="Timeline")).to_contain_text("1 event")
    await api.ask(DELETE, id=job)
    await expect(page.get_by_role("alert")).to_contain_text("This job was deleted: the server does not have it")
    await expect(page.get_by_role("tree", name="Payload").get_by_text(WORD)).to_be_visible()
    await expect(_button(page)).to_have_count(0)


@pytest.mark.parametrize(
    ("scopes", "buttons"), [({Scope.READ, Scope.CONTROL}, 0), ({Scope.READ, Scope.OPERATE}, 1)], ids=["no", "operate"]
)
async def test_only_who_operates_finds_the_button(
    settings: Settings, open_page: OpenPage, scopes: set[Scope], buttons: int
) -> None:
    async with guarded(settings) as shop:
        job = await shop.create()
        page = await open_page(f"jobs/{job}", port=shop.api.port)
        await page.get_by_label("Key or token").fill(await shop.new_key("someone", frozenset(scopes)))
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("region", name="How it stands")).to_contain_text("Why it waits")
        await expect(_button(page)).to_have_count(buttons)


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_question_and_what_is_left_are_accessible_and_fit_a_narrow_screen(
    open_page: OpenPage, api: ServedApi, theme: str
) -> None:
    job = await create(api.runtime)
    page = await open_page(f"jobs/{job}", color_scheme=theme, viewport={"width": 360, "height": 740})
    await _button(page).click()
    await expect(_dialog(page)).to_be_visible()
    assert await violations_on(page) == []
    assert await _dialog(page).evaluate("one => one.scrollWidth <= one.clientWidth")
    await _dialog(page).get_by_role("button", name="Delete the job").click()
    await expect(page.get_by_text("is deleted: nothing of it is there any more.")).to_be_visible()
    assert await violations_on(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
