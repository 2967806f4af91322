"""Who looks, one after the other and by scopes: nothing is left of the one before, nothing refused is shown."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.guarded import READ, GuardedApi, guarded
from tests.running import RunningWorker
from tests.serving import ServedApi


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[GuardedApi]:
    """An API that asks who calls."""
    async with guarded(settings) as opened:
        yield opened


@pytest.fixture
def api(shop: GuardedApi) -> ServedApi:
    """The same, for the fixtures that open pages."""
    return shop.api


async def _sign_in(page: Page, token: str) -> None:
    await page.get_by_label("Key or token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()


async def test_whoever_signs_in_next_is_told_nothing_of_the_one_before(shop: GuardedApi, open_page: OpenPage) -> None:
    page = await open_page("jobs?tags=of-the-first")
    await _sign_in(page, shop.key)
    await expect(page.get_by_role("status").filter(has_text="of-the-first")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in to gql-jobs")).to_be_visible()
    await _sign_in(page, await shop.new_key("second", READ))
    await expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    # They have lost nothing, so there is nothing that was caught up with.
    await expect(page.get_by_text("Back at")).to_have_count(0)
    await expect(page.get_by_text("of-the-first")).to_have_count(0)
    assert "of-the-first" not in page.url


async def test_a_loss_that_somebody_has_seen_is_not_told_to_the_next(shop: GuardedApi, open_page: OpenPage) -> None:
    page = await open_page("jobs")
    await _sign_in(page, shop.key)
    await expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    await page.context.set_offline(True)
    await expect(page.get_by_text("Connection lost at")).to_be_visible()
    await shop.create()
    await page.context.set_offline(False)
    await expect(page.get_by_role("status").filter(has_text="Back at")).to_contain_text("1 job in all")
    await page.get_by_role("button", name="Sign out").click()
    await _sign_in(page, await shop.new_key("second", READ, tenant="acme"))
    await expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    await expect(page.get_by_text("Back at")).to_have_count(0)


async def test_whoever_sees_what_they_created_is_not_told_that_no_worker_runs(
    shop: GuardedApi, worker: RunningWorker, open_page: OpenPage
) -> None:
    assert worker
    page = await open_page()
    await _sign_in(page, await shop.new_key("creator", frozenset({Scope.CREATE})))
    await expect(page.get_by_role("rowheader", name="default")).to_be_visible()
    await expect(page.get_by_role("heading", name="Workers")).to_have_count(0)


async def test_a_key_that_shows_no_jobs_says_so_on_each_page_and_nothing_is_refused(
    shop: GuardedApi, open_page: OpenPage
) -> None:
    job_id = await shop.create()
    key = await shop.new_key("control", frozenset({Scope.CONTROL}))
    for route in ("", "jobs", f"jobs/{job_id}", "dead-letters", "new"):
        page = await open_page(route)
        await _sign_in(page, key)
        await expect(page.get_by_role("heading", name="There is nothing to see for you")).to_be_visible()
        await expect(page.get_by_role("link", name="Jobs", exact=True)).to_have_count(0)
        await expect(page.get_by_role("alert")).to_have_count(0)
        await page.context.close()


@pytest.mark.parametrize("minutes", [-90, 90], ids=["behind", "ahead"])
async def test_a_token_is_renewed_in_time_whatever_the_clock_of_the_browser_says(
    shop: GuardedApi, open_page: OpenPage, minutes: int
) -> None:
    page = await open_page()
    await page.evaluate(f"(() => {{ const now = Date.now; Date.now = () => now() + {minutes * 60_000}; }})()")
    renewal = page.get_by_role("region", name="Your access ends")
    await _sign_in(page, (await shop.token(3000)).token)
    await expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    await expect(renewal).to_have_count(0)
    await page.get_by_role("button", name="Sign out").click()
    await _sign_in(page, (await shop.token(120)).token)
    await expect(renewal).to_contain_text(re.compile(r"ends in [12] min"))


async def test_whoever_is_asked_for_a_key_can_type_it_at_once_and_hears_why(
    shop: GuardedApi, open_page: OpenPage
) -> None:
    page = await open_page()
    field = page.get_by_label("Key or token")
    await expect(field).to_be_focused()
    issued = await shop.token(6000)
    await _sign_in(page, issued.token)
    await page.get_by_role("button", name="Help").click()
    await shop.revoke(issued)
    await expect(field).to_be_focused(timeout=20_000)
    await expect(field).to_have_accessible_description(re.compile("key or token", re.IGNORECASE))
    await expect(page.get_by_role("dialog")).to_have_count(0)


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_ways_in_have_no_violation(shop: GuardedApi, open_page: OpenPage, theme: str) -> None:
    page = await open_page(color_scheme=theme, viewport={"width": 360, "height": 740})
    await expect(page.get_by_label("Key or token")).to_be_focused()
    assert await violations_on(page) == []
    await page.get_by_label("Key or token").fill("not-a-key")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await violations_on(page) == []
    issued = await shop.token(120)
    await _sign_in(page, issued.token)
    await expect(page.get_by_role("region", name="Your access ends")).to_be_visible()
    assert await violations_on(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    await shop.revoke(issued)
    await expect(page.get_by_label("Key or token")).to_be_focused(timeout=20_000)
    assert await violations_on(page) == []
