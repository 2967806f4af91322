"""The page of all jobs: rows come, change and go without moving what is read; filters are in the address."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Locator, Page, expect

from tests.api.operations import CANCEL, ahead, asked, create, create_many
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.dashboard.line import Line
from tests.deadline import until
from tests.serving import ServedApi

BATCH = 1000


async def _waiting_jobs(api: ServedApi, number: int, **options: Any) -> list[str]:
    """Jobs that wait for tomorrow; the ids, the first created first."""
    ids: list[str] = []
    while len(ids) < number:
        inputs = [asked(runAt=ahead(days=1), **options) for _ in range(min(BATCH, number - len(ids)))]
        ids += await create_many(api, inputs)
    return ids


def _row(page: Page, job_id: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=job_id[:8]))


def _rows(page: Page) -> Locator:
    return page.get_by_role("grid", name="Jobs").locator("tbody").get_by_role("row")


async def _top(row: Locator) -> float:
    box = await row.bounding_box()
    assert box is not None
    return box["y"]


async def _scroll_to(page: Page, pixels: int) -> None:
    await page.locator(".job-rows").evaluate("(box, pixels) => box.scrollTo(0, pixels)", pixels)


async def _ids(page: Page) -> list[str]:
    links: list[str] = await _rows(page).get_by_role("link").evaluate_all("links => links.map(link => link.title)")
    return links


@pytest.mark.usefixtures("worker")
async def test_rows_enter_change_and_leave_by_themselves_while_nobody_reads(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    page = await open_page("jobs?status=QUEUED&status=PROCESSING")
    await expect(page.get_by_text("No job matches: status Queued or Running")).to_be_visible()
    job = await create(api, {"gate": str(gate)}, "probeThread", tags=["fresh"])
    row = _row(page, job["id"])
    await expect(row).to_contain_text("Running")
    await expect(row).to_contain_text("50 % · in a thread")
    await expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    bar = row.locator(".bar > span")
    assert "scaleX(0.5)" in (await bar.get_attribute("style") or "")
    await expect(page.get_by_text("1 job matches")).to_be_visible()
    gate.touch()
    await expect(row).to_have_count(0)
    await expect(page.get_by_text("No job matches")).to_be_visible()


@pytest.mark.usefixtures("worker")
async def test_a_bar_moves_with_each_report(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("jobs")
    job = await create(api, {"steps": 40, "seconds": 20.0})
    bar = _row(page, job["id"]).get_by_role("progressbar")
    seen: list[int] = []

    async def has_moved() -> bool:
        now = int(await bar.get_attribute("aria-valuenow") or 0)
        if not seen or now != seen[-1]:
            seen.append(now)
        return len(seen) > 3

    await until(has_moved, "the bar has moved three times")
    assert seen == sorted(seen)
    await api.ask(CANCEL, id=job["id"])


async def test_what_is_read_stays_at_its_pixel_while_fifty_jobs_arrive(api: ServedApi, open_page: OpenPage) -> None:
    before = await _waiting_jobs(api, 120)
    page = await open_page("jobs")
    await expect(_rows(page).first).to_be_visible()
    await _scroll_to(page, 1000)
    read = _row(page, before[-30])
    await expect(read).to_be_visible()
    top = await _top(read)
    after = await _waiting_jobs(api, 50)
    show = page.get_by_role("button", name="50 new jobs")
    await expect(show).to_be_visible()
    assert await _top(read) == top
    await expect(_row(page, after[0])).to_have_count(0)
    await page.keyboard.press("n")
    await expect(show).to_have_count(0)
    await expect(_row(page, after[-1])).to_be_in_viewport()
    assert await page.locator(".job-rows").evaluate("box => box.scrollTop") == 0
    assert (await _ids(page))[:3] == after[::-1][:3]


async def test_new_jobs_wait_while_the_pointer_is_on_a_row_and_enter_when_it_leaves(
    api: ServedApi, open_page: OpenPage
) -> None:
    (old,) = await _waiting_jobs(api, 1)
    page = await open_page("jobs")
    await _row(page, old).hover()
    (new,) = await _waiting_jobs(api, 1)
    await expect(page.get_by_role("button", name="1 new job")).to_be_visible()
    await expect(_row(page, new)).to_have_count(0)
    await page.get_by_role("heading", name="Jobs").hover()
    await expect(_row(page, new)).to_be_visible()


async def test_a_row_that_is_read_stays_when_it_no_longer_matches_and_is_marked(
    api: ServedApi, open_page: OpenPage
) -> None:
    other, job = await _waiting_jobs(api, 2)
    page = await open_page("jobs?status=SCHEDULED")
    await _row(page, job).hover()
    top = await _top(_row(page, other))
    await api.ask(CANCEL, id=job)
    await expect(_row(page, job)).to_contain_text("no longer matches")
    await expect(_row(page, job)).to_contain_text("Cancelled")
    assert await _top(_row(page, other)) == top
    await page.get_by_role("heading", name="Jobs").hover()
    await expect(_row(page, job)).to_have_count(0)
    await expect(_row(page, other)).to_be_visible()


async def test_the_selection_is_kept_by_job_while_rows_change_and_come(api: ServedApi, open_page: OpenPage) -> None:
    ids = await _waiting_jobs(api, 6)
    page = await open_page("jobs")
    boxes = page.get_by_role("checkbox", name=re.compile("Select job"))
    await expect(boxes).to_have_count(6)
    await boxes.nth(1).check()
    await boxes.nth(4).click(modifiers=["Shift"])
    await expect(page.get_by_text("4 selected")).to_be_visible()
    await api.ask(CANCEL, id=ids[2])
    await expect(_row(page, ids[2])).to_contain_text("Cancelled")
    (new,) = await _waiting_jobs(api, 1)
    await page.get_by_role("button", name="1 new job").click()
    await expect(_row(page, new)).to_be_visible()
    for place, job in enumerate(ids):
        await expect(_row(page, job)).to_have_attribute("aria-selected", "true" if 1 <= place <= 4 else "false")
    await expect(page.get_by_text("4 selected")).to_be_visible()
    await page.get_by_label("Select all that are shown").check()
    await expect(page.get_by_text("7 selected")).to_be_visible()
    await page.get_by_role("button", name="Clear selection").click()
    await expect(page.get_by_role("row", selected=True)).to_have_count(0)


async def test_what_is_filtered_is_in_the_address_and_whoever_gets_that_sees_the_same(
    api: ServedApi, open_page: OpenPage
) -> None:
    await _waiting_jobs(api, 3, priority="LOW", tags=["a b", "x"])
    wanted = await _waiting_jobs(api, 2, priority="HIGH", tags=["a b", "x"])
    await _waiting_jobs(api, 2, priority="HIGH", tags=["x"])
    page = await open_page("jobs")
    await expect(_rows(page)).to_have_count(7)
    filters = page.get_by_role("search", name="Filters")
    await filters.get_by_role("button", name="Status").click()
    await filters.get_by_role("checkbox", name="Scheduled").check()
    await expect(page).to_have_url(re.compile(r"#/jobs\?status=SCHEDULED$"))
    await filters.get_by_role("button", name="Priority").click()
    await filters.get_by_role("checkbox", name="High").check()
    await expect(_rows(page)).to_have_count(4)
    await filters.get_by_label("Tag").fill("a b")
    await page.keyboard.press("Enter")
    await expect(_rows(page)).to_have_count(2)
    await filters.get_by_role("button", name="Type").click()
    await filters.get_by_role("checkbox", name="probe", exact=True).check()
    await filters.get_by_role("button", name="Queue").click()
    await filters.get_by_role("checkbox", name="default").check()
    await filters.get_by_label("Order").select_option("Oldest first")
    await expect(page).to_have_url(re.compile(r"order=CREATED_AT-ASC"))
    await expect(_rows(page).first.get_by_role("link")).to_have_attribute("title", wanted[0])

    other = await open_page(page.url.partition("#/")[2])
    await expect(_rows(other)).to_have_count(2)
    assert await _ids(other) == wanted
    await expect(other.get_by_role("button", name="Priority High")).to_be_visible()
    await expect(other.get_by_role("button", name="Remove the tag a b")).to_be_visible()

    for _ in range(4):
        await page.go_back()
    await expect(_rows(page)).to_have_count(4)
    await expect(filters.get_by_role("button", name="Status Scheduled")).to_be_visible()
    await page.go_forward()
    await expect(_rows(page)).to_have_count(2)
    await page.get_by_role("button", name="Clear filters").click()
    await expect(_rows(page)).to_have_count(7)
    await expect(page).to_have_url(re.compile(r"#/jobs$"))
    await expect(page.get_by_role("button", name="Clear filters")).to_have_count(0)


async def test_jobs_are_found_by_their_ids_and_by_when_they_were_created(api: ServedApi, open_page: OpenPage) -> None:
    first, _, third = await _waiting_jobs(api, 3)
    page = await open_page("jobs")
    await expect(_rows(page)).to_have_count(3)
    await page.keyboard.press("/")
    await expect(page.get_by_label("Job id")).to_be_focused()
    await page.keyboard.insert_text(f"{first}, {third}")
    await page.keyboard.press("Enter")
    await expect(_rows(page)).to_have_count(2)
    assert set(await _ids(page)) == {first, third}
    await page.get_by_role("button", name="Clear filters").click()
    await page.get_by_role("button", name="Created").click()
    await page.get_by_label("Created after").fill("2020-02-01T10:00")
    await page.get_by_label("Created before").fill("2020-02-02T10:00")
    await page.keyboard.press("Escape")
    await expect(page.get_by_text("No job matches: created after")).to_be_visible()
    await expect(page).to_have_url(re.compile("createdAfter=2020-0.*&createdBefore=2020-0"))
    await page.get_by_role("link", name="Show all jobs").click()
    await expect(_rows(page)).to_have_count(3)


async def test_jobs_are_found_by_what_steers_them(api: ServedApi, open_page: OpenPage) -> None:
    first, second = await create_many(
        api, [asked(runAt=ahead(days=1), key={"value": f"shop {n}"}, concurrencyKey="customer") for n in (1, 2)]
    )
    await _waiting_jobs(api, 1)
    page = await open_page("jobs")
    await expect(_rows(page)).to_have_count(3)
    await page.get_by_role("button", name="Related by").click()
    await page.get_by_role("searchbox", name="Concurrency key").fill("customer")
    await page.keyboard.press("Enter")
    await expect(_rows(page)).to_have_count(2)
    assert set(await _ids(page)) == {first, second}
    await page.get_by_role("searchbox", name="Key", exact=True).fill("shop 2")
    await page.keyboard.press("Enter")
    await expect(_rows(page)).to_have_count(1)
    assert await _ids(page) == [second]
    await expect(page).to_have_url(re.compile("key=shop[+]2&concurrencyKey=customer"))
    await page.get_by_role("searchbox", name="Schedule").fill("nightly")
    await page.keyboard.press("Enter")
    said = "No job matches: key shop 2, concurrency key customer, schedule nightly"
    await expect(page.get_by_text(said)).to_be_visible()


async def test_a_filter_that_is_refused_is_answered_by_the_sentence_of_the_server(open_page: OpenPage) -> None:
    tags = "&".join(f"tags={n}" for n in range(33))
    page = await open_page(f"jobs?{tags}")
    await expect(page.get_by_role("alert")).to_contain_text("32")
    await page.get_by_role("button", name="Clear filters").click()
    await expect(page.get_by_role("alert")).to_have_count(0)
    await expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    other = await open_page(f"jobs?createdAfter={quote('the day before')}")
    await expect(other.get_by_role("alert")).to_contain_text("the day before")


async def test_pages_follow_while_one_scrolls_and_what_is_on_the_screen_is_live_far_down(
    api: ServedApi, open_page: OpenPage
) -> None:
    ids = await _waiting_jobs(api, 3000)
    page = await open_page("jobs")
    grid = page.get_by_role("grid", name="Jobs")
    await expect(grid).to_have_attribute("aria-rowcount", "3001")
    await _to_the_end(page)
    oldest = _row(page, ids[0])
    await expect(oldest).to_be_visible()
    await expect(oldest).to_have_attribute("aria-rowindex", "3001")
    assert await _rows(page).count() < 60
    top = await _top(oldest)
    await api.ask(CANCEL, id=ids[0])
    await expect(oldest).to_contain_text("Cancelled")
    await _waiting_jobs(api, 5)
    await expect(page.get_by_role("button", name="5 new jobs")).to_be_visible()
    assert await _top(oldest) == top
    # Of thousands of rows, those on the screen are watched.
    await until(lambda: 1 < len(api.runtime.windows) <= 3, "few lists are watched")
    await page.get_by_role("link", name="New job").click()
    await until(lambda: not len(api.runtime.windows), "no list is watched any more")


async def test_ten_thousand_rows_are_shown_each_once_and_few_of_them_are_drawn(
    api: ServedApi, open_page: OpenPage
) -> None:
    ids = await _waiting_jobs(api, 10_000)
    page = await open_page("jobs")
    await expect(_rows(page).first).to_be_visible()
    await _to_the_end(page)
    await expect(page.get_by_text("10,000 jobs", exact=True)).to_be_visible()
    await expect(_row(page, ids[0])).to_have_attribute("aria-rowindex", "10001")
    assert await _rows(page).count() < 60
    await page.get_by_label("Select all that are shown").check()
    await expect(page.get_by_text("10,000 selected")).to_be_visible()


async def _to_the_end(page: Page) -> None:
    """Scroll until no page follows."""
    end = page.get_by_text("This is the end of the list.")

    async def is_there() -> bool:
        await _scroll_to(page, 1 << 30)
        return await end.is_visible()

    await until(is_there, "the end of the list is reached", within=60)
    await _scroll_to(page, 1 << 30)


async def test_a_page_can_be_asked_for_with_a_button(api: ServedApi, open_page: OpenPage) -> None:
    await _waiting_jobs(api, 150)
    page = await open_page("jobs")
    await expect(page.get_by_text("150 jobs, 100 shown")).to_be_visible()
    await page.get_by_role("button", name="Load more").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("150 jobs", exact=True)).to_be_visible()
    await expect(page.get_by_text("This is the end of the list.")).to_be_attached()


@pytest.mark.usefixtures("worker")
async def test_two_browsers_see_the_same_list(api: ServedApi, open_page: OpenPage) -> None:
    one, other = await open_page("jobs"), await open_page("jobs")
    ids = await create_many(api, [asked({"permanent": n % 2 == 0}) for n in range(10)])
    for page in (one, other):
        await expect(_rows(page).filter(has_text="Dead letter")).to_have_count(5)
        await expect(_rows(page).filter(has_text="Completed")).to_have_count(5)
        assert await _ids(page) == ids[::-1]


async def test_rows_are_moved_through_selected_and_opened_with_keys(api: ServedApi, open_page: OpenPage) -> None:
    ids = (await _waiting_jobs(api, 60))[::-1]
    page = await open_page("jobs")
    await expect(_rows(page).first).to_be_visible()
    await page.keyboard.press("j")
    await expect(_row(page, ids[0])).to_be_focused()
    await page.keyboard.press("j")
    await page.keyboard.press("ArrowDown")
    await expect(_row(page, ids[2])).to_be_focused()
    await page.keyboard.press("x")
    await expect(_row(page, ids[2])).to_have_attribute("aria-selected", "true")
    await page.keyboard.press("k")
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Shift+X")
    await expect(page.get_by_text("3 selected")).to_be_visible()
    await page.keyboard.press("End")
    await expect(_row(page, ids[-1])).to_be_focused()
    await expect(_row(page, ids[-1])).to_be_in_viewport()
    await _scroll_to(page, 0)
    await expect(_row(page, ids[-1])).to_be_focused()
    await page.keyboard.press("Home")
    await page.keyboard.press("Tab")
    await expect(_row(page, ids[0]).get_by_role("checkbox")).to_be_focused()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"#/jobs/{ids[1]}$"))


async def test_whoever_goes_back_to_a_list_finds_it_as_it_was_left(api: ServedApi, open_page: OpenPage) -> None:
    ids = await _waiting_jobs(api, 300)
    page = await open_page("jobs")
    await expect(_rows(page).first).to_be_visible()
    await _to_the_end(page)
    await _scroll_to(page, 5000)
    await page.get_by_role("checkbox", name=f"Select job {ids[-120][:8]}").check()
    top = await _top(_row(page, ids[-120]))
    await _row(page, ids[-121]).get_by_role("link").click()
    await expect(page).to_have_url(re.compile(f"#/jobs/{ids[-121]}$"))
    await api.ask(CANCEL, id=ids[-120])
    await _waiting_jobs(api, 7)
    await page.go_back()
    row = _row(page, ids[-120])
    await expect(row).to_contain_text("Cancelled")
    assert await _top(row) == top
    await expect(row).to_have_attribute("aria-selected", "true")
    await expect(page.get_by_role("button", name="7 new jobs")).to_be_visible()
    await page.get_by_role("link", name="Now").click()
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_text("307 jobs, 100 shown")).to_be_visible()
    await expect(page.get_by_text("1 selected")).to_have_count(0)


async def test_the_tag_of_a_job_and_the_queue_of_a_page_lead_to_their_jobs(api: ServedApi, open_page: OpenPage) -> None:
    (job,) = await _waiting_jobs(api, 1, tags=["customer 1, east"])
    await _waiting_jobs(api, 1)
    page = await open_page(f"jobs/{job}")
    await page.get_by_role("link", name="customer 1, east").click()
    await expect(page.get_by_text("1 job matches")).to_be_visible()
    assert await _ids(page) == [job]
    await page.get_by_role("link", name="Now", exact=True).click()
    await page.get_by_role("row").get_by_role("link", name="default").click()
    await expect(page.get_by_text("2 jobs match")).to_be_visible()


async def test_rows_that_leave_with_the_pointer_on_them_hold_nothing(api: ServedApi, open_page: OpenPage) -> None:
    (job,) = await _waiting_jobs(api, 1, tags=["one"])
    page = await open_page("jobs?tags=one")
    await _row(page, job).hover()
    await page.get_by_role("button", name="Clear filters").press("Enter")
    await expect(page).to_have_url(re.compile("#/jobs$"))
    await page.mouse.move(1, 1)
    (new,) = await _waiting_jobs(api, 1)
    await expect(_row(page, new)).to_be_visible()


async def test_on_a_small_screen_rows_are_cards_and_the_page_is_no_wider_than_the_screen(
    api: ServedApi, open_page: OpenPage
) -> None:
    ids = await _waiting_jobs(api, 30, tags=["a-tag-that-is-long", "another-one"], priority="CRITICAL")
    page = await open_page("jobs", viewport={"width": 360, "height": 740})
    row = _row(page, ids[-1])
    await expect(row).to_contain_text("Scheduled")
    await expect(row).to_contain_text("Critical")
    box = await row.bounding_box()
    assert box is not None
    assert box["width"] <= 360
    assert box["height"] > 100
    wide = "document.documentElement.scrollWidth"
    assert await page.evaluate(wide) == 360
    await expect(page.get_by_label("Job id")).to_be_hidden()
    await page.get_by_role("button", name="Filters").click()
    await expect(page.get_by_label("Job id")).to_be_visible()
    await page.get_by_role("button", name="Status").click()
    assert await page.evaluate(wide) == 360
    await page.keyboard.press("Escape")
    await row.get_by_role("checkbox").check()
    await expect(page.get_by_text("1 selected")).to_be_visible()
    assert await page.evaluate(wide) == 360


async def test_what_is_read_stays_on_the_screen_when_rows_become_cards(api: ServedApi, open_page: OpenPage) -> None:
    ids = await _waiting_jobs(api, 90)
    page = await open_page("jobs")
    await expect(_rows(page).first).to_be_visible()
    await _scroll_to(page, 50 * 44)
    await expect(_row(page, ids[-51])).to_be_in_viewport()
    await page.set_viewport_size({"width": 360, "height": 740})
    await expect(_row(page, ids[-51])).to_be_in_viewport()
    await page.set_viewport_size({"width": 1280, "height": 900})
    await expect(_row(page, ids[-51])).to_be_in_viewport()


async def test_a_list_that_opens_near_the_edge_makes_the_page_no_wider(api: ServedApi, open_page: OpenPage) -> None:
    assert api
    for width in (800, 900, 1000, 1100):
        page = await open_page("jobs", viewport={"width": width, "height": 900})
        await page.get_by_role("button", name="Created").click()
        await expect(page.get_by_label("Created before")).to_be_in_viewport(ratio=1)
        assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_a_list_that_is_read_keeps_its_rows_and_its_place_over_a_loss_of_the_connection(
    api: ServedApi, open_page: OpenPage
) -> None:
    ids = await _waiting_jobs(api, 150)
    async with Line(api.port).listening() as line:
        page = await open_page("jobs", port=line.port)
        await expect(_rows(page).first).to_be_visible()
        await _to_the_end(page)
        await _scroll_to(page, 4500)
        row = _row(page, ids[-110])
        await expect(row).to_be_visible()
        top = await _top(row)
        line.cut()
        await expect(page.get_by_text("Connection lost")).to_be_visible()
        await api.ask(CANCEL, id=ids[-110])
        await _waiting_jobs(api, 3)
        line.mend()
        await expect(row).to_contain_text("Cancelled", timeout=20_000)
        await expect(page.get_by_role("button", name="3 new jobs")).to_be_visible()
        assert await _top(row) == top
        said = page.get_by_role("status").filter(has_text="Back at")
        await expect(said).to_contain_text("3 new")


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_list_in_use_has_no_violation(api: ServedApi, open_page: OpenPage, theme: str) -> None:
    ids = await _waiting_jobs(api, 40, tags=["some", "tags"])
    page = await open_page("jobs?status=SCHEDULED&tags=some", color_scheme=theme)
    await page.get_by_role("checkbox", name=f"Select job {ids[-2][:8]}").check()
    await api.ask(CANCEL, id=ids[-1])
    await expect(_row(page, ids[-1])).to_contain_text("no longer matches")
    await _waiting_jobs(api, 2, tags=["some"])
    await expect(page.get_by_role("button", name="2 new jobs")).to_be_visible()
    await page.get_by_role("button", name="Status").click()
    assert await violations_on(page) == []
    await page.get_by_role("button", name="Cancel selected…").click()
    await expect(page.get_by_role("dialog").get_by_role("button", name="Cancel 1 job")).to_be_visible()
    assert await violations_on(page) == []
