"""The form of the dashboard for a schedule: its preview, what the server says of its fields, and what is stored."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs.jobs.schedules import SCHEDULE, Schedule
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.dashboard.test_dashboard_schedules import define, item, stored
from tests.serving import ServedApi

pytestmark = pytest.mark.usefixtures("types")


async def _form(page: Page) -> Locator:
    form = page.get_by_role("form", name="A schedule")
    await expect(form).to_be_visible()
    return form


async def test_a_schedule_is_defined_with_a_preview_of_what_it_means(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("schedules", timezone_id="Europe/Berlin", locale="en-GB")
    await page.get_by_role("link", name="New schedule").click()
    form = await _form(page)
    await form.get_by_role("textbox", name="name", exact=True).fill("nightly")
    await expect(form.get_by_label("timeZone")).to_have_value("Europe/Berlin")
    await form.get_by_role("textbox", name="cron", exact=True).fill("30 2 * * MON-FRI")
    preview = form.get_by_role("region", name="When it would be due")
    await expect(preview.get_by_role("status")).to_have_text("on Monday to Friday at 02:30")
    answer = await api.ask('{ schedulePreview(cron: "30 2 * * MON-FRI", timeZone: "Europe/Berlin") }')
    first = datetime.fromisoformat(answer["schedulePreview"][0]).astimezone(ZoneInfo("Europe/Berlin"))
    await expect(preview.get_by_role("listitem")).to_have_count(5)
    await expect(preview.get_by_role("listitem").first).to_contain_text(
        re.compile(f"{first:%a},? {first.day} {first:%b},? 02:30 GMT")
    )
    await form.get_by_role("combobox", name="type", exact=True).select_option("probe")
    await form.get_by_label("steps").fill("3")
    await form.get_by_label("overlap").select_option("Runs beside earlier jobs")
    await form.get_by_label("tags").fill("nightly\nreports")
    await form.get_by_role("button", name="Save the schedule").click()
    await expect(item(page, "nightly")).to_contain_text("on Monday to Friday at 02:30")
    answer = await api.ask("{ schedules { cron timeZone overlap tags catchUpSeconds paused type rawPayload } }")
    (found,) = answer["schedules"]
    assert found.pop("rawPayload")["steps"] == 3
    assert found == {
        "cron": "30 2 * * MON-FRI",
        "timeZone": "Europe/Berlin",
        "overlap": "ALLOW",
        "tags": ["nightly", "reports"],
        "catchUpSeconds": 60,
        "paused": False,
        "type": "probe",
    }


async def test_what_is_wrong_with_a_schedule_is_said_at_its_fields(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("schedules/define")
    form = await _form(page)
    cron, zone = form.get_by_role("textbox", name="cron", exact=True), form.get_by_label("timeZone")
    await zone.fill("UTC")
    await cron.fill("61 * * * *")
    await expect(cron).to_have_accessible_description(re.compile("minute cannot be what it says"))
    await cron.fill("0 3 * * *")
    await expect(cron).not_to_have_attribute("aria-invalid", "true")
    await zone.fill("Moon/Tranquility")
    await expect(zone).to_have_accessible_description(re.compile("There is no time zone 'Moon/Tranquility'"))
    await zone.fill("UTC")
    await form.get_by_role("button", name="Save the schedule").click()
    await expect(form.get_by_role("alert")).to_contain_text("2 fields need another look")
    await expect(form.get_by_role("textbox", name="name", exact=True)).to_be_focused()
    await form.get_by_role("textbox", name="name", exact=True).fill("every night!")
    await form.get_by_role("combobox", name="type", exact=True).select_option("email")
    for field, given in {"to": "nobody", "subject": "Last night", "body": "All is well."}.items():
        await form.get_by_role("textbox", name=field, exact=True).fill(given)
    await form.get_by_label("spreadSeconds").fill("86401")
    await form.get_by_role("button", name="Save the schedule").click()
    to = form.get_by_role("textbox", name="to", exact=True)
    await expect(to).to_be_focused()
    await expect(to).to_have_accessible_description(re.compile("valid email address"))
    await to.fill("ops@example.com")
    await form.get_by_role("button", name="Save the schedule").click()
    name = form.get_by_role("textbox", name="name", exact=True)
    await expect(name).to_have_accessible_description(re.compile("letters of ASCII"))
    await expect(name).to_be_focused()
    await name.fill("every-night")
    await form.get_by_role("button", name="Save the schedule").click()
    spread = form.get_by_label("spreadSeconds")
    await expect(spread).to_have_accessible_description(re.compile("must be between 0 and 86400"))
    assert await stored(api) == []


async def test_a_schedule_that_is_there_is_replaced_only_by_those_who_mean_it(
    api: ServedApi, open_page: OpenPage
) -> None:
    await define(api)
    page = await open_page("schedules/define")
    form = await _form(page)
    await form.get_by_role("textbox", name="name", exact=True).fill("nightly")
    await form.get_by_label("By an interval").check()
    await form.get_by_label("everySeconds").fill("86400")
    await form.get_by_role("combobox", name="type", exact=True).select_option("probe")
    save = form.get_by_role("button", name="Save the schedule")
    await save.click()
    name = form.get_by_role("textbox", name="name", exact=True)
    await expect(name).to_have_accessible_description(re.compile("save again to replace it"))
    await save.click()
    await expect(item(page, "nightly")).to_contain_text("every day")
    assert (await api.ask("{ schedules { everySeconds cron } }"))["schedules"] == [
        {"everySeconds": 86400, "cron": None}
    ]


async def test_a_schedule_is_changed_and_stays_as_it_was_otherwise(api: ServedApi, open_page: OpenPage) -> None:
    await define(api, {"steps": 7}, overlap="ALLOW", catchUpSeconds=5, spreadSeconds=9, tags=["a"], priority="HIGH")
    await api.ask('mutation { pauseSchedule(name: "nightly") { schedule { name } } }')
    asked = "{ schedules { timeZone overlap catchUpSeconds spreadSeconds tags priority paused rawPayload } }"
    before = await api.ask(asked)
    page = await open_page("schedules")
    await page.get_by_role("link", name="Change nightly").click()
    await expect(page.get_by_role("heading", name="Change schedule nightly")).to_be_visible()
    form = await _form(page)
    await expect(form.get_by_label("steps")).to_have_value("7")
    await form.get_by_role("textbox", name="cron", exact=True).fill("0 4 * * *")
    await form.get_by_role("button", name="Save the schedule").click()
    await expect(item(page, "nightly")).to_contain_text("every day at 04:00")
    await expect(item(page, "nightly").get_by_text("Paused", exact=True)).to_be_visible()
    assert await api.ask(asked) == before


async def test_secrets_of_a_schedule_have_to_be_typed_anew_and_are_stored_as_such(
    api: ServedApi, open_page: OpenPage
) -> None:
    secrets = {"title": "a", "colour": "RED", "key": "hunter2"}
    await define(api, payload={"everyKind": secrets})
    page = await open_page("schedules/define?name=nightly")
    form = await _form(page)
    await expect(form.get_by_role("note")).to_contain_text("type them anew")
    save = form.get_by_role("button", name="Save the schedule")
    await save.click()
    key = form.get_by_label("key", exact=True)
    await expect(key).to_be_focused()
    await expect(key).to_have_accessible_description(re.compile("save again to leave it out"))
    await key.fill("hunter3")
    await save.click()
    await expect(item(page, "nightly")).to_be_visible()
    schedule = api.runtime.steering.value(SCHEDULE, "nightly", Schedule)
    assert schedule is not None
    assert b"hunter3" in bytes(schedule.payload)


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_form_is_accessible_and_fits_a_small_screen(api: ServedApi, open_page: OpenPage, theme: str) -> None:
    await define(api)
    page = await open_page("schedules/define?name=nightly", color_scheme=theme, viewport={"width": 360, "height": 740})
    form = await _form(page)
    await expect(form.get_by_role("region", name="When it would be due").get_by_role("listitem")).to_have_count(5)
    await form.get_by_role("textbox", name="cron", exact=True).fill("never")
    await expect(form.get_by_role("textbox", name="cron", exact=True)).to_have_attribute("aria-invalid", "true")
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await violations_on(page) == []
