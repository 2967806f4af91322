"""Queues are paused and resumed on the first page, by those who may."""

import re

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.guarded import guarded
from tests.serving import ServedApi
from tests.workers.stories import create


def _row(page: Page, queue: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=queue, exact=True))


async def test_a_queue_is_paused_for_a_reason_and_resumed(api: ServedApi, page: Page) -> None:
    await create(api.runtime)
    await page.get_by_role("button", name="Pause default…").click()
    dialog = page.get_by_role("dialog", name="Pause the queue “default”?")
    await dialog.get_by_label("Why, for all who wonder").fill("the bank is closed")
    await dialog.get_by_label("How long").select_option("For 2 hours")
    await dialog.get_by_role("button", name="Pause the queue").click()
    await expect(dialog).to_have_count(0)
    await expect(_row(page, "default")).to_contain_text(re.compile("Paused .* ago, until .*: the bank is closed"))
    attention = page.get_by_role("region", name="Needs attention")
    await expect(attention).to_contain_text("The queue “default” is paused: 1 job waits.")
    pause = api.runtime.pauses.of("default")
    assert pause is not None
    assert pause.until is not None
    assert abs((pause.until - pause.at).total_seconds() - 7200) < 30
    await page.get_by_role("button", name="Resume default").click()
    await expect(_row(page, "default")).not_to_contain_text("Paused")
    assert api.runtime.pauses.of("default") is None


async def test_the_job_says_that_its_queue_is_paused_and_why(api: ServedApi, open_page: OpenPage) -> None:
    job_id = await create(api.runtime)
    await api.runtime.pauses.pause("default", "the bank is closed", None, "ada")
    page = await open_page(f"jobs/{job_id}")
    said = "the queue `default` is paused by ada: the bank is closed"
    await expect(page.get_by_text(said)).to_be_visible()


async def test_what_is_wrong_with_a_pause_is_said_in_the_dialog(api: ServedApi, page: Page) -> None:
    await page.get_by_role("button", name="Pause default…").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Why, for all who wonder").fill("a\u202eb")
    await dialog.get_by_role("button", name="Pause the queue").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("printable characters")
    await dialog.get_by_role("button", name="Let it go on").click()
    await expect(dialog).to_have_count(0)
    assert api.runtime.pauses.now() == {}


@NEEDS_AXE
async def test_the_dialog_is_accessible(page: Page) -> None:
    await page.get_by_role("button", name="Pause default…").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    assert await violations_on(page) == []


@pytest.mark.parametrize(
    ("scopes", "tenant"), [({Scope.READ, Scope.CONTROL}, None), (set(Scope), "acme")], ids=["no-operate", "tenant"]
)
async def test_who_may_not_pause_sees_that_a_queue_is_paused_and_no_button(
    settings: Settings, open_page: OpenPage, scopes: set[Scope], tenant: str | None
) -> None:
    async with guarded(settings) as shop:
        await shop.api.runtime.pauses.pause("default", "the bank is closed", None, None)
        key = await shop.new_key("someone", frozenset(scopes), tenant=tenant)
        page = await open_page(port=shop.api.port)
        await page.get_by_label("Key or token").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(_row(page, "default")).to_contain_text("the bank is closed")
        await expect(page.get_by_role("button", name=re.compile("^(Pause|Resume) "))).to_have_count(0)
