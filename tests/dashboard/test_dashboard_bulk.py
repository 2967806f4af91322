"""Bulk actions from the list of jobs: what is counted is what is done, with a trial before, and it can be stopped."""

import re
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, ahead, asked, create_many, ended
from tests.api.operations import page as page_of
from tests.dashboard.conftest import OpenPage
from tests.deadline import until
from tests.guarded import READ, guarded
from tests.serving import Api, ServedApi, api_process, free_port


async def _waiting_jobs(api: Api, number: int) -> list[str]:
    return await create_many(api, [asked(runAt=ahead(days=1), tags=["mine"]) for _ in range(number)])


async def _in_state(api: Api, status: str) -> int:
    number: int = (await page_of(api, filter={"tags": ["mine"], "status": [status]}, first=1))["totalCount"]
    return number


def _dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


async def test_all_that_match_are_cancelled_after_a_trial_and_the_run_can_be_stopped_and_gone_on_with(
    api: ServedApi, open_page: OpenPage
) -> None:
    await _waiting_jobs(api, 300)
    await create_many(api, [asked(runAt=ahead(days=1))])
    page = await open_page("jobs?tags=mine")
    await expect(page.get_by_text("300 jobs match")).to_be_visible()
    await page.get_by_role("button", name="Cancel all…").click()
    dialog = _dialog(page)
    await expect(dialog.get_by_role("heading", name="Cancel all jobs that match: tags mine")).to_be_visible()
    await expect(dialog.get_by_role("button", name="Cancel 300 jobs")).to_be_visible()
    await expect(dialog.get_by_role("listitem")).to_have_count(5)
    assert await _in_state(api, "CANCELLED") == 0

    await dialog.get_by_role("button", name="Try with one first").click()
    await expect(dialog.get_by_text("Trial: Done. 1 cancelled.")).to_be_visible()
    assert await _in_state(api, "CANCELLED") == 1

    rate = dialog.get_by_label("Jobs per second at most")
    await rate.fill("none")
    await expect(dialog.get_by_text("A number above 0, up to 1000.")).to_be_visible()
    await expect(dialog.get_by_role("button", name="Go on")).to_be_disabled()
    await rate.fill("10")
    await dialog.get_by_role("button", name="Go on: cancel the other 299").click()
    bar = dialog.get_by_role("progressbar", name="Cancelling 299 jobs")
    await expect(bar).to_have_attribute("aria-valuetext", re.compile(r"[1-9]\d* of 299"))
    await dialog.get_by_role("button", name="Stop").click()
    await expect(dialog.get_by_text("Stopped; the rest was left alone.")).to_be_visible()
    cancelled = await _in_state(api, "CANCELLED")
    assert 1 < cancelled < 100
    await expect(dialog.get_by_text(f"left alone. {cancelled - 1} cancelled.")).to_be_visible()

    await rate.fill("")
    await dialog.get_by_role("button", name=f"Go on: cancel the other {300 - cancelled}").click()
    await expect(dialog.get_by_text(f"Done. {300 - cancelled} cancelled.")).to_be_visible()
    assert await _in_state(api, "CANCELLED") == 300
    await dialog.get_by_role("button", name="Close", exact=True).last.click()
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("button", name="Cancel all…")).to_be_focused()


@pytest.mark.usefixtures("worker")
async def test_what_is_selected_is_retried_and_nothing_else(api: ServedApi, open_page: OpenPage) -> None:
    ids = await create_many(api, [asked({"permanent": True}, tags=["mine"]) for _ in range(4)])
    for job in ids:
        await ended(api, job, "DEAD_LETTER")
    page = await open_page("jobs?status=DEAD_LETTER")
    for job in ids[:2]:
        await page.get_by_role("checkbox", name=f"Select job {job[:8]}").check()
    await expect(page.get_by_role("button", name="Cancel all…")).to_have_count(0)
    await page.get_by_role("button", name="Retry selected…").click()
    await _dialog(page).get_by_role("button", name="Retry 2 jobs").click()
    await expect(_dialog(page).get_by_text("Done. 2 retried.")).to_be_visible()


async def test_a_run_goes_on_when_its_dialog_is_closed_and_its_button_says_how_far_it_is(
    api: ServedApi, open_page: OpenPage
) -> None:
    await _waiting_jobs(api, 100)
    page = await open_page("jobs")
    await page.get_by_role("button", name="Cancel all…").click()
    await _dialog(page).get_by_label("Jobs per second at most").fill("20")
    await _dialog(page).get_by_role("button", name="Cancel 100 jobs").click()
    await _dialog(page).get_by_role("button", name="Close, and let it go on").click()
    progress = page.get_by_role("button", name=re.compile(r"Cancelling… [1-9]\d* of 100"))
    await progress.click()
    await expect(_dialog(page).get_by_role("progressbar")).to_be_visible()
    await _dialog(page).get_by_role("button", name="Stop").click()
    await expect(_dialog(page).get_by_text("Stopped;")).to_be_visible()


async def test_what_became_of_a_run_is_said_beside_its_button_when_it_ends_unseen(
    api: ServedApi, open_page: OpenPage
) -> None:
    await _waiting_jobs(api, 15)
    page = await open_page("jobs")
    await page.get_by_role("button", name="Cancel all…").click()
    await _dialog(page).get_by_label("Jobs per second at most").fill("10")
    await _dialog(page).get_by_role("button", name="Cancel 15 jobs").click()
    await _dialog(page).get_by_role("button", name="Close, and let it go on").click()
    await expect(page.get_by_text("Done. 15 cancelled.")).to_be_visible()


async def test_jobs_that_move_after_the_plan_are_skipped_and_said_to_be(api: ServedApi, open_page: OpenPage) -> None:
    first, second = await _waiting_jobs(api, 2)
    page = await open_page("jobs")
    await page.get_by_role("button", name="Cancel all…").click()
    await expect(_dialog(page).get_by_role("button", name="Cancel 2 jobs")).to_be_visible()
    await api.ask(CANCEL, id=first)
    await _dialog(page).get_by_role("button", name="Cancel 2 jobs").click()
    await expect(_dialog(page).get_by_text("Done. 1 cancelled.")).to_be_visible()
    await ended(api, second, "CANCELLED")


async def test_an_action_that_fits_no_job_says_so(api: ServedApi, open_page: OpenPage) -> None:
    (job,) = await _waiting_jobs(api, 1)
    page = await open_page("jobs")
    await page.get_by_role("checkbox", name=f"Select job {job[:8]}").check()
    await page.get_by_role("button", name="Retry selected…").click()
    await expect(_dialog(page).get_by_text("None of these jobs can be retried")).to_be_visible()


async def test_more_than_an_action_takes_cannot_be_acted_on_by_selection(api: ServedApi, open_page: OpenPage) -> None:
    for _ in range(3):
        await create_many(api, [asked(runAt=ahead(days=1)) for _ in range(200)])
    page = await open_page("jobs")
    for shown in ("300", "500", "600"):
        await page.get_by_role("button", name="Load more").press("Enter")
        await expect(page.get_by_text(re.compile(f"^600 jobs(, {shown} shown)?$"))).to_be_visible()
    await page.get_by_label("Select all that are shown").check()
    await expect(page.get_by_role("button", name="Cancel selected…")).to_be_disabled()
    await expect(page.get_by_text("No more than 500 can be selected")).to_be_visible()


async def test_a_run_whose_server_has_ended_says_so_and_is_gone_on_with(
    settings: Settings, api: ServedApi, open_page: OpenPage
) -> None:
    own, port = settings.model_copy(update={"data_dir": settings.data_dir / "own"}), free_port()
    await _waiting_jobs(api, 100)
    async with AsyncExitStack() as stack:
        _, process = await stack.enter_async_context(api_process(own, port))
        page = await open_page("jobs", port=port)
        await page.get_by_role("button", name="Cancel all…").click()
        await _dialog(page).get_by_label("Jobs per second at most").fill("5")
        await _dialog(page).get_by_role("button", name="Cancel 100 jobs").click()

        async def has_begun() -> bool:
            return await _in_state(api, "CANCELLED") > 2

        await until(has_begun, "some are cancelled")
        process.kill()
        await process.wait()
        await stack.enter_async_context(api_process(own, port))
        await expect(_dialog(page).get_by_text("Interrupted: the server process")).to_be_visible(timeout=40_000)
        await _dialog(page).get_by_label("Jobs per second at most").fill("")
        await _dialog(page).get_by_role("button", name="Go on").click()
        await expect(_dialog(page).get_by_text(re.compile("^Done"))).to_be_visible(timeout=20_000)
    assert await _in_state(api, "CANCELLED") == 100


async def test_whoever_may_not_control_jobs_sees_no_action(settings: Settings, open_page: OpenPage) -> None:
    own = settings.model_copy(update={"data_dir": settings.data_dir / "own"})
    async with guarded(own) as shop:
        await shop.create()
        page = await open_page("jobs", port=shop.api.port)
        await page.get_by_label("Key or token").fill(await shop.new_key("reader", READ))
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("checkbox", name=re.compile("Select job")).check()
        await expect(page.get_by_text("1 selected")).to_be_visible()
        await expect(page.get_by_role("button", name=re.compile("Retry|Cancel"))).to_have_count(0)
