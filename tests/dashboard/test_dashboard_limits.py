"""Limits of queues are shown on the first page, and set and taken away there, by those who may."""

import re

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs.jobs.limits import UNLIMITED, Limits
from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.deadline import until
from tests.guarded import guarded
from tests.serving import ServedApi
from tests.workers.stories import create

SET = """mutation ($limits: QueueLimitsInput!) {
  setQueueLimits(name: "default", limits: $limits) { queue { name } }
}"""
ALL = {"concurrency": 5, "concurrencyPerKey": 1, "perSecond": 0.5}


def _limits(page: Page, queue: str) -> Locator:
    """What the row of a queue says of its limits."""
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=queue, exact=True))
    return row.locator("td").last.get_by_role("listitem")


def _field(dialog: Locator, name: str) -> Locator:
    return dialog.get_by_role("textbox", name=re.compile(rf"\b{name}$"))


async def _opened(page: Page) -> Locator:
    await page.get_by_role("button", name="Limit default…").click()
    dialog = page.get_by_role("dialog", name="Limits of the queue “default”")
    await expect(_field(dialog, "concurrency")).to_be_visible()
    return dialog


def _are(api: ServedApi, limits: Limits) -> bool:
    return api.runtime.feed.steering.limits_of_queue("default") == limits


async def test_limits_are_set_and_shown_and_taken_away_by_keys_alone(api: ServedApi, page: Page) -> None:
    await expect(_limits(page, "default")).to_have_count(0)
    button = page.get_by_role("button", name="Limit default…")
    await button.press("Enter")
    dialog = page.get_by_role("dialog", name="Limits of the queue “default”")
    await _field(dialog, "concurrency").fill("5")
    await _field(dialog, "perSecond").fill("0.5")
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    await expect(button).to_be_focused()
    await expect(_limits(page, "default")).to_have_text(["5 at a time", "30/min"])
    await until(lambda: _are(api, Limits(concurrency=5, per_second=0.5)), "the limits are those")

    await button.press("Enter")
    await expect(_field(dialog, "concurrency")).to_have_value("5")
    await expect(_field(dialog, "concurrencyPerKey")).to_have_value("")
    await expect(_field(dialog, "perSecond")).to_have_value("0.5")
    await _field(dialog, "concurrency").fill("")
    await _field(dialog, "concurrencyPerKey").fill("2")
    await page.keyboard.press("Enter")
    await expect(_limits(page, "default")).to_have_text(["2 per key", "30/min"])

    await button.press("Enter")
    await dialog.get_by_role("button", name="Take all of them away").press("Enter")
    await expect(dialog).to_have_count(0)
    await expect(_limits(page, "default")).to_have_count(0)
    await until(lambda: _are(api, UNLIMITED), "there are no limits")


async def test_limits_that_somebody_else_sets_come_by_themselves(api: ServedApi, page: Page) -> None:
    dialog = await _opened(page)
    await api.ask(SET, limits=ALL)
    changed = dialog.get_by_role("status").filter(has_text="Somebody has changed them since this was opened.")
    await expect(changed).to_contain_text("Now they are: 5 at a time, 1 per key, 30/min.")
    await dialog.get_by_role("button", name="Leave them").click()
    await expect(_limits(page, "default")).to_have_text(["5 at a time", "1 per key", "30/min"])


async def test_what_is_no_limit_is_said_at_its_field_and_nothing_is_set(api: ServedApi, page: Page) -> None:
    dialog = await _opened(page)
    concurrency, rate = _field(dialog, "concurrency"), _field(dialog, "perSecond")
    await concurrency.fill("many")
    await rate.fill("9" * 400)
    await dialog.get_by_role("button", name="Set the limits").click()
    await expect(concurrency).to_be_focused()
    await expect(concurrency).to_have_accessible_description(re.compile("Write a whole number"))
    await expect(rate).to_have_accessible_description(re.compile("Write a number"))
    await concurrency.fill("0")
    await rate.fill("0")
    await dialog.get_by_role("button", name="Set the limits").click()
    await expect(concurrency).to_have_accessible_description(re.compile("from 1 to 1000000; to have no job start"))
    await concurrency.fill("1")
    await dialog.get_by_role("button", name="Set the limits").click()
    await expect(rate).to_be_focused()
    await expect(rate).to_have_attribute("aria-invalid", "true")
    await expect(rate).to_have_accessible_description(re.compile("perSecond must allow from one start a day"))
    await expect(concurrency).not_to_have_attribute("aria-invalid", "true")
    assert _are(api, UNLIMITED)


async def test_jobs_that_the_new_limits_do_not_hold_are_told(api: ServedApi, page: Page) -> None:
    await create(api.runtime)
    await create(api.runtime)
    dialog = await _opened(page)
    await _field(dialog, "concurrency").fill("1")
    await dialog.get_by_role("button", name="Set the limits").click()
    await expect(dialog.get_by_text("2 jobs were submitted before and have not ended")).to_be_focused()
    await dialog.get_by_role("button", name="Close").last.click()
    await expect(dialog).to_have_count(0)
    await expect(_limits(page, "default")).to_have_text(["1 at a time"])


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_limits_are_accessible_and_fit_a_narrow_screen(api: ServedApi, open_page: OpenPage, theme: str) -> None:
    await api.ask(SET, limits=ALL)
    page = await open_page(color_scheme=theme, viewport={"width": 360, "height": 740})
    await expect(_limits(page, "default")).to_have_count(3)
    assert await violations_on(page) == []
    dialog = await _opened(page)
    await api.ask(SET, limits={"concurrency": 2})
    await expect(dialog.get_by_role("status").filter(has_text="Now they are: 2 at a time.")).to_be_visible()
    await _field(dialog, "concurrency").fill("0")
    await dialog.get_by_role("button", name="Set the limits").click()
    await expect(_field(dialog, "concurrency")).to_have_attribute("aria-invalid", "true")
    assert await violations_on(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await dialog.evaluate("one => one.scrollWidth <= one.clientWidth")


@pytest.mark.parametrize(
    ("scopes", "tenant"), [({Scope.READ, Scope.CONTROL}, None), (set(Scope), "acme")], ids=["no-operate", "tenant"]
)
async def test_who_may_not_set_limits_sees_those_that_there_are_and_no_button(
    settings: Settings, open_page: OpenPage, scopes: set[Scope], tenant: str | None
) -> None:
    async with guarded(settings) as shop:
        answer = await shop.post(SET, shop.key, variables={"limits": ALL})
        assert "errors" not in answer.json()
        key = await shop.new_key("someone", frozenset(scopes), tenant=tenant)
        page = await open_page(port=shop.api.port)
        await page.get_by_label("Key or token").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(_limits(page, "default")).to_have_text(["5 at a time", "1 per key", "30/min"])
        await expect(_limits(page, "threads")).to_have_count(0)
        await expect(page.get_by_role("button", name=re.compile("^Limit "))).to_have_count(0)
