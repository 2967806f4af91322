"""The page of schedules: when each is due, what became of it last, and what those who may do with it."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import Locator, Page, Route, expect

from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.dashboard.line import Line
from tests.dashboard.test_dashboard_connection import LOST, is_live
from tests.guarded import guarded
from tests.serving import Api, ServedApi

UPSERT = """mutation ($input: ScheduleInput!) {
  upsertSchedule(input: $input) { schedule { nextRuns(first: 3) } }
}"""
SCHEDULES = "{ schedules { name paused skips { reason count } lastJob { id status } } }"
_ID = re.compile("^[0-9a-f]{8}$")
NIGHTLY = {"name": "nightly", "cron": "30 2 * * *", "timeZone": "Europe/Berlin"}


async def define(api: Api, probe: dict[str, Any] | None = None, **options: Any) -> list[datetime]:
    """A schedule of probe jobs, every night where nothing else is said; its next runs."""
    given = options if "cron" in options or "everySeconds" in options else {**NIGHTLY, **options}
    answer = await api.ask(UPSERT, input={"payload": {"probe": probe or {}}, **given})
    return [datetime.fromisoformat(at) for at in answer["upsertSchedule"]["schedule"]["nextRuns"]]


async def stored(api: Api) -> list[dict[str, Any]]:
    """The schedules that there are."""
    found: list[dict[str, Any]] = (await api.ask(SCHEDULES))["schedules"]
    return found


def item(page: Page, name: str) -> Locator:
    """What the page shows of a schedule."""
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name, level=2))


async def test_a_schedule_is_shown_in_words_and_its_next_runs_in_its_zone(api: ServedApi, open_page: OpenPage) -> None:
    runs = await define(api, overlap="CANCEL_OTHER", catchUpSeconds=3600)
    await define(api, name="ping", everySeconds=90)
    page = await open_page(timezone_id="Asia/Tokyo", locale="en-GB")
    await is_live(page)
    await page.keyboard.press("g")
    await page.keyboard.press("s")
    await expect(page).to_have_url(re.compile("#/schedules$"))
    await expect(page).to_have_title("Schedules · gql-jobs")
    await expect(page.get_by_role("link", name="Schedules")).to_have_attribute("aria-current", "page")
    nightly = item(page, "nightly")
    for said in ("every day at 02:30", "30 2 * * * in Europe/Berlin", "Cancels an earlier job", "up to 1 h late"):
        await expect(nightly).to_contain_text(said)
    shown = nightly.locator("ol > li")
    await expect(shown).to_have_count(3)
    for place, run in enumerate(runs):
        there = run.astimezone(ZoneInfo("Europe/Berlin"))
        hours = (there.utcoffset() or there - there).seconds // 3600
        await expect(shown.nth(place)).to_contain_text(
            re.compile(f"{there:%a},? {there.day} {there:%b},? 02:30 GMT\\+{hours} in \\d+ ")
        )
    await expect(item(page, "ping")).to_contain_text("every 1 minute 30 seconds")
    await expect(page.get_by_text(re.compile(r"2 schedules, as of \d+ s ago"))).to_be_visible()


@pytest.mark.usefixtures("worker")
async def test_a_run_at_once_is_followed_and_found_among_the_runs(api: ServedApi, open_page: OpenPage) -> None:
    await define(api)
    await api.ask("mutation { createJob(input: { payload: { probe: {} } }) { job { id } } }")
    page = await open_page("schedules")
    await expect(item(page, "nightly")).to_contain_text("None yet, or it has expired")
    await page.get_by_role("button", name="Run now nightly").click()
    made = item(page, "nightly").get_by_role("status")
    await expect(made).to_contain_text("Completed")
    job = await made.get_by_role("link").get_attribute("title")
    await page.get_by_role("link", name="All runs of nightly").click()
    rows = page.get_by_role("grid", name="Jobs").locator("tbody").get_by_role("row")
    await expect(rows.get_by_role("link", name=str(job)[:8])).to_be_visible()
    # The one ahead is there as well, and no job that is of no schedule.
    await expect(rows).to_have_count(2)


@pytest.mark.usefixtures("worker")
async def test_a_run_that_is_due_shows_itself_and_how_it_ended(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("schedules")
    await expect(page.get_by_role("heading", name="There are no schedules yet")).to_be_visible()
    await define(api, {"permanent": True}, name="failing", everySeconds=2)
    await page.get_by_role("button", name="Ask again").click()
    failing = item(page, "failing")
    await expect(failing).to_contain_text("Dead letter")
    await expect(failing).to_contain_text("PermanentError: This can never work.")
    first = await failing.get_by_role("link", name=_ID).get_attribute("title")
    await expect(failing.get_by_title(str(first))).to_have_count(0)
    await expect(failing).to_contain_text("Dead letter")


@pytest.mark.usefixtures("worker")
async def test_the_last_run_is_followed_without_being_asked_for_again(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await define(api, {"gate": str(gate)}, name="slow", everySeconds=1)
    page = await open_page("schedules")
    slow = item(page, "slow")
    await expect(slow).to_contain_text("Running")
    job = await slow.get_by_role("link", name=_ID).get_attribute("title")

    async def unanswered(route: Route) -> None:
        if "query Schedules" not in (route.request.post_data or ""):
            await route.fallback()

    await page.route("**/graphql", unanswered)
    gate.touch()
    await expect(slow).to_contain_text("Completed", timeout=5000)
    assert await slow.get_by_role("link", name=_ID).get_attribute("title") == job


@pytest.mark.usefixtures("worker")
async def test_what_was_skipped_is_counted_with_the_reason(api: ServedApi, open_page: OpenPage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await define(api, {"gate": str(gate)}, name="slow", everySeconds=1)
    page = await open_page("schedules")
    slow = item(page, "slow")
    await expect(slow).to_contain_text(
        re.compile(r"\d+ ticks? had no run because an earlier job had not ended, last \d+ s ago")
    )
    gate.touch()


async def test_a_schedule_is_paused_and_resumed(api: ServedApi, open_page: OpenPage) -> None:
    await define(api)
    page = await open_page("schedules")
    await page.get_by_role("button", name="Pause nightly").click()
    nightly = item(page, "nightly")
    await expect(nightly.get_by_text("Paused", exact=True)).to_be_visible()
    await expect(nightly).to_contain_text("None while it is paused")
    assert [one["paused"] for one in await stored(api)] == [True]
    await page.get_by_role("button", name="Resume nightly").click()
    await expect(nightly.locator("ol > li")).to_have_count(3)
    await expect(nightly.get_by_text("Paused", exact=True)).to_have_count(0)
    assert [one["paused"] for one in await stored(api)] == [False]


async def test_a_schedule_is_deleted_once_that_is_confirmed(api: ServedApi, open_page: OpenPage) -> None:
    await define(api)
    await define(api, name="weekly", cron="0 3 * * MON")
    page = await open_page("schedules")
    delete = page.get_by_role("button", name="Delete… nightly")
    await delete.click()
    dialog = page.get_by_role("dialog", name="Delete the schedule “nightly”?")
    await dialog.get_by_role("button", name="Keep it").click()
    await expect(dialog).to_have_count(0)
    await expect(delete).to_be_focused()
    assert len(await stored(api)) == 2
    await delete.click()
    await dialog.get_by_role("button", name="Delete the schedule").click()
    await expect(item(page, "nightly")).to_have_count(0)
    await expect(page.get_by_role("status").filter(has_text="Deleted: nightly")).to_be_visible()
    await expect(page.get_by_role("heading", name="Schedules", level=1)).to_be_focused()
    await expect(item(page, "weekly")).to_be_visible()
    assert [one["name"] for one in await stored(api)] == ["weekly"]


async def test_a_schedule_that_somebody_else_has_deleted_is_said_to_be_gone(
    api: ServedApi, open_page: OpenPage
) -> None:
    await define(api)
    await define(api, name="weekly", cron="0 3 * * MON")
    page = await open_page("schedules")
    run = page.get_by_role("button", name="Run now weekly")
    await expect(run).to_be_visible()
    await api.ask('mutation { deleteSchedule(name: "nightly") { deleted } }')
    await page.get_by_role("button", name="Run now nightly").click()
    await expect(item(page, "nightly")).to_have_count(0)
    await expect(page.get_by_role("status").filter(has_text="Deleted: nightly")).to_be_visible()
    await expect(page.get_by_role("heading", name="Schedules", level=1)).to_be_focused()
    await expect(run).to_be_visible()


async def test_more_schedules_are_shown_when_they_are_asked_for(api: ServedApi, open_page: OpenPage) -> None:
    for number in range(30):
        await define(api, name=f"nightly-{number:02}")
    page = await open_page("schedules")
    await expect(page.get_by_text("the first 25, as of")).to_be_visible()
    await expect(item(page, "nightly-24")).to_be_visible()
    await expect(item(page, "nightly-25")).to_have_count(0)
    await page.get_by_role("button", name="Show more").click()
    await expect(item(page, "nightly-29")).to_be_visible()
    await expect(page.get_by_text("30 schedules, as of")).to_be_visible()
    await expect(page.get_by_role("button", name="Show more")).to_have_count(0)


async def test_a_lost_connection_is_said_and_what_was_missed_when_it_is_back(
    api: ServedApi, open_page: OpenPage
) -> None:
    await define(api)
    async with Line(api.port).listening() as line:
        page = await open_page("schedules", port=line.port)
        await is_live(page)
        await expect(item(page, "nightly")).to_be_visible()
        line.cut()
        await expect(page.get_by_text(LOST)).to_be_visible(timeout=2000)
        await expect(page.locator("main[data-stale]")).to_be_visible()
        await page.get_by_role("button", name="Pause nightly").click()
        await expect(page.get_by_role("alert").first).to_contain_text("There is no connection to the server.")
        await define(api, name="weekly", cron="0 3 * * MON")
        line.mend()
        await is_live(page)
        await expect(item(page, "weekly")).to_be_visible()
        said = page.get_by_role("status").filter(has_text="Back at")
        await expect(said).to_contain_text("Schedules: 1 new.")


async def test_a_page_that_is_shown_again_asks_at_once(api: ServedApi, open_page: OpenPage) -> None:
    await define(api)
    page = await open_page("schedules")
    await expect(item(page, "nightly")).to_be_visible()
    await define(api, name="weekly", cron="0 3 * * MON")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(item(page, "weekly")).to_be_visible(timeout=5000)


@NEEDS_AXE
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_page_is_accessible_and_fits_a_small_screen(
    api: ServedApi, open_page: OpenPage, theme: str, tmp_path: Path
) -> None:
    await define(api, {"permanent": True}, name="failing", everySeconds=1)
    await define(api, {"gate": str(tmp_path / "gate")}, name="slow", everySeconds=1)
    await define(api, name="x" * 64, cron="*/5,1 0-23/2 1,15,L JAN-MAR,12 1#2,5L", paused=True)
    page = await open_page("schedules", color_scheme=theme, viewport={"width": 360, "height": 740})
    await expect(item(page, "slow")).to_contain_text("had no run")
    await expect(item(page, "failing")).to_contain_text("Dead letter")
    await page.get_by_role("button", name="Run now slow").click()
    await expect(item(page, "slow").get_by_role("status")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await violations_on(page) == []
    await page.get_by_role("button", name="Delete… failing").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    assert await violations_on(page) == []
    (tmp_path / "gate").touch()


@pytest.mark.parametrize(
    ("scopes", "tenant", "sees"),
    [
        ({Scope.READ, Scope.CREATE, Scope.CONTROL}, None, True),
        (set(Scope), "acme", False),
        ({Scope.CREATE}, None, False),
    ],
    ids=["no-operate", "tenant", "no-read"],
)
async def test_what_a_viewer_may_not_see_or_do_is_absent(
    settings: Settings, open_page: OpenPage, scopes: set[Scope], tenant: str | None, sees: bool
) -> None:
    async with guarded(settings) as shop:
        defined = await shop.post(UPSERT, shop.key, variables={"input": {**NIGHTLY, "payload": {"probe": {}}}})
        assert "errors" not in defined.json()
        key = await shop.new_key("someone", frozenset(scopes), tenant=tenant)
        page = await open_page("schedules", port=shop.api.port)
        await page.get_by_label("Key or token").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("link", name="Schedules")).to_have_count(int(sees))
        if sees:
            await expect(page.get_by_role("link", name="All runs of nightly")).to_be_visible()
            await expect(page.get_by_role("button", name=re.compile(" nightly$"))).to_have_count(0)
            await expect(page.get_by_role("link", name=re.compile("^(Change|New schedule)"))).to_have_count(0)
            await page.evaluate("location.hash = '#/schedules/define'")
            await expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()
        else:
            await expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()
