"""What a viewer may not do is absent from the pages that make jobs and repair dead letters."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings
from tests.dashboard.conftest import OpenPage
from tests.guarded import GuardedApi, guarded
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


async def _group_as(shop: GuardedApi, open_page: OpenPage, name: str, scopes: set[Scope]) -> Page:
    """The one group of dead letters, as somebody with these scopes has it."""
    page = await open_page("dead-letters")
    await page.get_by_label("Key or token").fill(await shop.new_key(name, frozenset(scopes)))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="probe: PermanentError").click()
    await expect(page.get_by_role("region", name="Error", exact=True)).to_contain_text("This can never work.")
    return page


async def test_who_may_only_read_finds_no_way_to_repair_or_to_create(
    shop: GuardedApi, worker: RunningWorker, open_page: OpenPage
) -> None:
    assert worker
    job_id = await shop.create(permanent=True)
    repair, edit = "Try one, then the rest…", "Edit a copy and run it"
    page = await _group_as(shop, open_page, "reader", {Scope.READ})
    await expect(page.get_by_role("button", name=repair)).to_have_count(0)
    await expect(page.get_by_role("link", name=edit)).to_have_count(0)
    await expect(page.get_by_role("link", name="New job")).to_have_count(0)
    await page.evaluate(f"location.hash = '#/new?from={job_id}'")
    await expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()

    page = await _group_as(shop, open_page, "creator", {Scope.READ, Scope.CREATE})
    await expect(page.get_by_role("button", name=repair)).to_have_count(0)
    await page.get_by_role("link", name=edit).click()
    await page.get_by_text("As a command or a program").click()
    command = page.get_by_label("The job as curl")
    await expect(command).to_have_value(re.compile(r"Bearer \$GQL_JOBS_TOKEN"))

    page = await _group_as(shop, open_page, "controller", {Scope.READ, Scope.CONTROL})
    await expect(page.get_by_role("link", name=edit)).to_have_count(0)
    await page.get_by_role("button", name=repair).click()
    await page.get_by_role("dialog").get_by_role("button", name="Retry 1 job").click()
    await expect(page.get_by_role("dialog").get_by_text("Came back as dead letters1")).to_be_visible()
