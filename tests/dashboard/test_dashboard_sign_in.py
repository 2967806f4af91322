"""The dashboard where everybody has to say who asks: signing in, what is absent, and tokens that end."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from gql_jobs.settings import Settings
from tests.dashboard.conftest import OpenPage
from tests.guarded import READ, GuardedApi, guarded
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


async def _sign_in(page: Page, token: str, *, keep: bool = False) -> None:
    await page.get_by_label("Key or token").fill(token)
    await page.get_by_label("Keep it when this tab is reloaded").set_checked(keep)
    await page.get_by_role("button", name="Sign in").click()


async def _signed_in(page: Page) -> None:
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await expect(page.get_by_role("heading", name="Queues")).to_be_visible()


async def test_whoever_has_a_key_signs_in_and_out_and_a_wrong_key_is_refused_in_a_sentence(
    shop: GuardedApi, open_page: OpenPage
) -> None:
    page = await open_page()
    await expect(page.get_by_role("status")).to_have_text("This needs a valid key or token.")
    await _sign_in(page, "not-a-key")
    await expect(page.get_by_role("alert")).to_contain_text("key or token")
    await _sign_in(page, "tröken")
    await expect(page.get_by_role("alert")).to_contain_text("without spaces")
    await _sign_in(page, shop.key)
    await _signed_in(page)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in to gql-jobs")).to_be_visible()
    assert await page.evaluate("sessionStorage.length + localStorage.length") == 0


async def test_a_key_outlasts_a_reload_only_if_that_was_wanted_and_no_other_tab_has_it(
    shop: GuardedApi, open_page: OpenPage
) -> None:
    page = await open_page()
    await _sign_in(page, shop.key)
    await _signed_in(page)
    await page.reload()
    await _sign_in(page, shop.key, keep=True)
    await _signed_in(page)
    await page.reload()
    await _signed_in(page)
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(other.get_by_role("heading", name="Sign in to gql-jobs")).to_be_visible()


async def test_what_the_viewer_may_not_do_is_absent(shop: GuardedApi, open_page: OpenPage) -> None:
    page = await open_page("new")
    await _sign_in(page, await shop.new_key("reader", READ))
    await expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()
    await expect(page.get_by_role("link", name="New job")).to_have_count(0)
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_a_token_that_ends_soon_is_renewed_without_an_interruption(shop: GuardedApi, open_page: OpenPage) -> None:
    page = await open_page()
    await _sign_in(page, (await shop.token(120)).token)
    await _signed_in(page)
    renewal = page.get_by_role("region", name="Your access ends")
    await expect(renewal).to_contain_text(re.compile(r"ends in \d"))
    before = shop.api.app.state.connections
    sockets = list(before._open)  # noqa: SLF001
    await renewal.get_by_label("Key or token").fill((await shop.token(6000)).token)
    await renewal.get_by_role("button", name="Go on with this token").click()
    await expect(renewal).to_have_count(0)
    assert list(before._open) == sockets  # noqa: SLF001
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_a_token_of_somebody_else_does_not_renew_the_access(shop: GuardedApi, open_page: OpenPage) -> None:
    page = await open_page()
    await _sign_in(page, (await shop.token(120)).token)
    renewal = page.get_by_role("region", name="Your access ends")
    await renewal.get_by_label("Key or token").fill(await shop.new_key("other"))
    await renewal.get_by_role("button", name="Go on with this token").click()
    await expect(renewal.get_by_role("alert")).not_to_be_empty()


async def test_a_token_that_is_revoked_leads_to_the_sign_in_and_says_why(shop: GuardedApi, open_page: OpenPage) -> None:
    page = await open_page()
    issued = await shop.token(6000)
    await _sign_in(page, issued.token)
    await _signed_in(page)
    await shop.revoke(issued)
    await expect(page.get_by_role("heading", name="Sign in to gql-jobs")).to_be_visible(timeout=20_000)
    await expect(page.get_by_role("status")).to_contain_text("key or token")
