"""A job made by the form of the dashboard: its fields, what the server says of them, and programs made of it."""

import asyncio
import json
import os
import re
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import APIResponse, Locator, Page, Route, expect

from gql_jobs.jobs.registry import Registry
from gql_jobs.settings import Settings
from tests.api.operations import ahead, create
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.running import running_worker
from tests.serving import HOST, Api, Data, ServedApi

HOSTILE = "\"'`$(touch owned)\\ \\u0041 </script><img src=x> %0A !! ' \u202e ünï 😀 \u2028 {{}} ${x} #{x}"
JOBS = """query { jobs(orderBy: {field: CREATED_AT, direction: DESC}) {
  totalCount nodes { id type rawPayload tags priority maxRetries status runAt origin { id } }
} }"""


pytestmark = pytest.mark.usefixtures("types")


async def jobs(api: Api) -> list[Data]:
    """All jobs, the newest first."""
    nodes: list[Data] = (await api.ask(JOBS))["jobs"]["nodes"]
    return nodes


async def newest(api: Api) -> Data:
    """The newest job, with its payload as it was written."""
    answer = await api.http.post("/graphql", json={"query": JOBS})
    found: Data = json.loads(answer.text, parse_float=str)["data"]["jobs"]["nodes"][0]
    return found


def text(page: Page, name: str) -> Locator:
    """The text field with this name."""
    return page.get_by_role("textbox", name=name, exact=True)


def choice(page: Page, name: str) -> Locator:
    """The field with this name in which one of several is chosen."""
    return page.get_by_role("combobox", name=name, exact=True)


async def made(page: Page) -> None:
    """Press the button, and wait until the job is there."""
    await page.get_by_role("button", name="Create the job").click()
    await expect(page.get_by_role("heading", name="was created")).to_be_focused()


async def test_a_job_of_a_real_type_is_made_by_filling_in_its_fields(api: ServedApi, open_page: OpenPage) -> None:
    one_line = HOSTILE.replace("\u2028", "").replace("\u202e", "")
    page = await open_page("new")
    await choice(page, "type").select_option("email")
    await expect(choice(page, "type")).to_be_focused()
    await text(page, "to").fill("ada@example.com")
    await text(page, "subject").fill(one_line)
    await text(page, "body").fill(f"One.\n{HOSTILE}")
    await choice(page, "priority").select_option("HIGH")
    await text(page, "tags").fill("one\ntwo, too\n")
    await text(page, "maxRetries").fill("0")
    await made(page)
    (job,) = await jobs(api)
    assert job["rawPayload"] == {"to": "ada@example.com", "subject": one_line, "body": f"One.\n{HOSTILE}"}
    assert (job["type"], job["tags"], job["priority"], job["maxRetries"]) == ("email", ["one", "two, too"], "HIGH", 0)
    await page.get_by_role("link", name="Go to the job").click()
    await expect(page).to_have_url(f"http://{HOST}:{api.port}/#/jobs/{job['id']}")


async def test_a_field_that_gets_the_focus_is_not_hidden_below_the_frame(open_page: OpenPage) -> None:
    page = await open_page("new?type=email", viewport={"width": 1280, "height": 320})
    await page.get_by_role("button", name="Create the job").click()
    await expect(text(page, "to")).to_be_focused()
    frame = await page.get_by_role("banner").bounding_box()
    field = await text(page, "to").bounding_box()
    assert frame is not None
    assert field is not None
    assert frame["y"] == 0, "it stays at the top"
    assert field["y"] >= frame["height"]


async def test_what_the_server_refuses_stands_at_the_fields_and_the_first_has_the_focus(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page("new?type=email")
    to, tags = text(page, "to"), text(page, "tags")
    await to.fill("nobody")
    await text(page, "subject").fill("Hello")
    await page.get_by_role("button", name="Create the job").click()
    await expect(text(page, "body")).to_be_focused()
    await expect(text(page, "body")).to_have_accessible_description(re.compile("This is needed"))
    await text(page, "body").fill("It works.")
    await tags.fill("fine\n" + "x" * 256)
    await page.get_by_role("button", name="Create the job").click()
    await expect(to).to_be_focused()
    await expect(to).to_have_attribute("aria-invalid", "true")
    await expect(to).to_have_accessible_description(re.compile("valid email address"))
    await to.fill("ada@example.com")
    await page.get_by_role("button", name="Create the job").click()
    await expect(tags).to_be_focused()
    await expect(tags).to_have_accessible_description(re.compile("Line 2: A tag must have"))
    assert await jobs(api) == []
    await tags.fill("fine")
    await made(page)


async def test_faults_deep_in_a_payload_stand_at_their_fields(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("new?type=report_generation")
    await choice(page, "reportType").select_option("MONTHLY_SALES")
    await choice(page, "format").select_option("CSV")
    await page.get_by_role("group", name="dateRange").get_by_label("start").fill("2026-02-01")
    await page.get_by_label("end").fill("2026-01-01")
    await page.get_by_role("button", name="Create the job").click()
    # The two days are wrong together, so it is said of both of them.
    group = page.get_by_role("group", name="dateRange")
    await expect(group).to_be_focused()
    await expect(group).to_have_accessible_description(re.compile("before"))
    await page.get_by_label("end").fill("2026-02-02")
    await made(page)
    assert (await newest(api))["rawPayload"]["dateRange"] == {"start": "2026-02-01", "end": "2026-02-02"}


EVERY_KIND: Data = {
    "title": HOSTILE[:39],
    "mail": "ada@example.com",
    "colour": "#00f",
    "colours": ["#f00", "#00f", "#f00"],
    "day": "2026-01-31",
    "at": "2026-01-31T12:00:00.123456Z",
    "price": "12.340",
    "share": 0.25,
    "times": 7,
    "strict": False,
    "shape": {"kind": "square", "side": 4},
    "either": "5",
    "limits": {HOSTILE: 1, "b": 2},
    "leaf": {"name": "a", "below": {"name": "b", "below": None}},
    "anything": {"id": 9007199254740993, HOSTILE: [HOSTILE, None, True]},
}


async def test_a_field_of_every_kind_is_filled_in_and_its_copy_is_the_same(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("new?type=every_kind")
    await text(page, "title").fill(EVERY_KIND["title"])
    await text(page, "mail").fill("ada@example.com")
    await choice(page, "colour").select_option("#00f")
    await page.get_by_role("button", name="Add to colours").click()
    await choice(page, "colours 1").select_option("#00f")
    await page.get_by_role("button", name="Add to colours").click()
    await choice(page, "colours 2").select_option("#f00")
    await page.get_by_role("button", name="Add to colours").click()
    await choice(page, "colours 3").select_option("#f00")
    await page.get_by_role("button", name="Move colours 2 up").click()
    await page.get_by_label("day").fill("2026-01-31")
    await text(page, "at").fill("2026-01-31T12:00:00.123456Z")
    await text(page, "price").fill("12.340")
    await text(page, "share").fill("0.25")
    await text(page, "times").fill("7")
    await choice(page, "strict").select_option("no")
    await page.get_by_role("button", name="Give shape").click()
    await choice(page, "Which shape").select_option("square")
    await text(page, "side").fill("4")
    await page.get_by_role("button", name="Give either").click()
    await choice(page, "Which either").select_option("a text")
    await text(page, "either").fill("5")
    await page.get_by_role("button", name="Add to limits").click()
    await text(page, "name 1").fill(HOSTILE)
    await text(page, "value 1").fill("1")
    await page.get_by_role("button", name="Add to limits").click()
    await text(page, "name 2").fill("b")
    await text(page, "value 2").fill("2")
    await page.get_by_role("button", name="Give leaf").click()
    await page.get_by_role("group", name="leaf").get_by_role("textbox", name="name").fill("a")
    await text(page, "below").fill('{"name": "b", "below": null}')
    await text(page, "anything").fill(json.dumps(EVERY_KIND["anything"]))
    await made(page)
    original = await newest(api)
    assert original["rawPayload"] == {**EVERY_KIND, "share": "0.25", "keys": []}

    page = await open_page(f"new?from={original['id']}")
    await expect(page.get_by_text("Made from job")).to_be_visible()
    await expect(text(page, "title")).to_have_value(EVERY_KIND["title"])
    await made(page)
    copy = await newest(api)
    assert copy["id"] != original["id"]
    assert copy["origin"] == {"id": original["id"]}
    assert copy["rawPayload"] == original["rawPayload"]


async def test_integers_of_64_bits_keep_all_digits_as_fields_and_as_json(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("new?type=probe")
    await text(page, "saves").fill("[9223372036854775807, 0.1000000000000000055]")
    await page.get_by_label("as JSON").check()
    await expect(text(page, "payload")).to_have_value(re.compile("9223372036854775807"))
    await text(page, "payload").fill('{"saves": {"n": 9223372036854775807, "m": -9007199254740993}}')
    await page.get_by_label("as JSON").uncheck()
    await expect(text(page, "saves")).to_have_value('{\n  "n": 9223372036854775807,\n  "m": -9007199254740993\n}')
    await made(page)
    assert (await newest(api))["rawPayload"] == {"saves": {"n": 9223372036854775807, "m": -9007199254740993}}


async def test_a_number_that_the_api_cannot_take_is_refused_at_its_field(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("new?type=probe")
    await text(page, "steps").fill("9007199254740993")
    await page.get_by_role("button", name="Create the job").click()
    await expect(text(page, "steps")).to_be_focused()
    await expect(text(page, "steps")).to_have_accessible_description(re.compile("32-bit"))
    assert await jobs(api) == []


async def test_faults_of_a_payload_that_is_written_as_json_are_said_with_their_places(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page("new?type=report_generation")
    await page.get_by_label("as JSON").check()
    payload = text(page, "payload")
    await payload.fill('{"reportType": "MONTHLY_SALES"')
    await page.get_by_role("button", name="Create the job").click()
    await expect(payload).to_have_accessible_description(re.compile("This is no JSON"))
    await payload.fill(
        '{"reportType": "MONTHLY_SALES", "format": "CSV", "dateRange": {"start": "2026-01-01", "end": "never"}}'
    )
    await page.get_by_role("button", name="Create the job").click()
    await expect(payload).to_be_focused()
    await expect(payload).to_have_accessible_description(re.compile(r"dateRange\.end: "))
    assert await jobs(api) == []


async def test_secrets_of_the_original_have_to_be_typed_anew(api: ServedApi, open_page: OpenPage) -> None:
    secrets = {"title": "a", "colour": "RED", "key": "hunter2", "keys": ["one", "two"]}
    original = await create(api, secrets, kind="everyKind")
    page = await open_page(f"new?from={original['id']}")
    await expect(page.get_by_role("note")).to_contain_text("type them anew")
    key = page.get_by_label("key", exact=True)
    await expect(key).to_have_value("")
    await expect(key).to_have_accessible_description(re.compile("type it anew"))
    await page.get_by_role("button", name="Create the job").click()
    await expect(key).to_be_focused()
    await expect(key).to_have_accessible_description(re.compile("create again to leave it out"))
    await page.get_by_role("button", name="Create the job").click()
    await expect(text(page, "keys 1")).to_be_focused()
    await text(page, "keys 1").fill("three")
    await text(page, "keys 2").fill("four")
    await page.get_by_label("as JSON").check()
    text_now = await text(page, "payload").input_value()
    assert "hunter2" not in text_now
    await text(page, "payload").fill(text_now.replace("three", "[redacted]"))
    await page.get_by_role("button", name="Create the job").click()
    await expect(text(page, "payload")).to_have_accessible_description(re.compile(r"keys\.0: The secret is not known"))
    assert len(await jobs(api)) == 1
    await text(page, "payload").fill(text_now)
    await made(page)
    assert (await newest(api))["rawPayload"]["keys"] == ["[redacted]", "[redacted]"]


async def test_two_clicks_make_one_job(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("new?type=probe")
    await text(page, "steps").fill("1")
    await page.get_by_role("button", name="Create the job").dblclick()
    # Not the focus: the second click may meet the page of the created job, and takes the focus with it.
    await expect(page.get_by_role("heading", name="was created")).to_be_visible()
    await page.get_by_role("button", name="Create another").click()
    await expect(text(page, "failAttempts")).to_be_focused()
    await made(page)
    assert len(await jobs(api)) == 2


async def test_a_creation_whose_answer_was_lost_is_repeated_without_a_second_job(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page("new?type=probe")
    await text(page, "steps").fill("1")
    lost: list[APIResponse] = []

    async def lose(route: Route) -> None:
        """Let the creation through, and lose its answer."""
        if "createJob" not in (route.request.post_data or "") or lost:
            return await route.continue_()
        lost.append(await route.fetch())
        return await route.abort()

    await page.route("**/graphql", lose)
    await page.get_by_role("button", name="Create the job").click()
    await expect(page.get_by_role("alert")).to_contain_text("It is not known whether the job was created.")
    assert len(await jobs(api)) == 1
    await made(page)
    assert len(await jobs(api)) == 1


async def test_a_job_is_followed_on_the_page_that_made_it(
    api: ServedApi, settings: Settings, types: Registry, open_page: OpenPage, tmp_path: Path
) -> None:
    async with running_worker(settings, registry=types):
        page = await open_page("new?type=needs_file")
        await text(page, "file").fill(str(tmp_path / "missing"))
        await made(page)
        await expect(page.get_by_text("Dead letter", exact=True)).to_be_visible()
        await expect(page.get_by_text("PermanentError: A file is missing.")).to_be_visible()
        job = await newest(api)
        page = await open_page(f"new?from={job['id']}")
        await text(page, "file").fill(str(tmp_path))
        await made(page)
        await expect(page.get_by_text("Completed", exact=True)).to_be_visible()
        assert (await newest(api))["origin"] == {"id": job["id"]}


async def program(page: Page, language: str) -> str:
    """What is shown as the job in a language."""
    if not await page.get_by_label("The job as ").is_visible():
        await page.get_by_text("As a command or a program").click()
    await page.get_by_role("button", name=language, exact=True).click()
    return await page.get_by_label(f"The job as {language}").input_value()


async def output_of(*command: str, folder: Path) -> str:
    """What a program writes; it has to end well."""
    environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_copied_programs_make_the_same_job_whatever_is_in_it(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page("new?type=probe", permissions=["clipboard-read", "clipboard-write"])
    payload = {"trace": HOSTILE, "saves": {HOSTILE: ["\u007f\u0085\x1b[31m\n", 9007199254740993, None, True, {}, []]}}
    await page.get_by_label("as JSON").check()
    await text(page, "payload").fill(json.dumps(payload))
    await text(page, "tags").fill("it's")
    shells = [shell for shell in ("sh", "bash", "zsh", "dash") if shutil.which(shell)]
    command = await program(page, "curl")
    await page.get_by_role("button", name="Copy as curl").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == command
    for shell in shells:
        answer = json.loads(await output_of(shell, "-c", command, folder=tmp_path))
        assert answer["data"]["createJob"]["job"]["status"] == "QUEUED"
        assert (await newest(api))["rawPayload"] == payload
    (tmp_path / "job.py").write_text(await program(page, "Python"))
    job_id = await output_of(sys.executable, "job.py", folder=tmp_path)
    job = await newest(api)
    assert (job["id"], job["rawPayload"], job["tags"]) == (job_id.strip(), payload, ["it's"])
    node = shutil.which("node")
    for rounded, expected in ((False, payload), (True, {"trace": HOSTILE, "saves": {"__proto__x": 1.5}})):
        if rounded:
            await text(page, "payload").fill(json.dumps(expected))
        (tmp_path / "job.mjs").write_text(await program(page, "TypeScript"))
        if node:
            job_id = await output_of(node, "job.mjs", folder=tmp_path)
            job = json.loads((await api.http.post("/graphql", json={"query": JOBS})).text)["data"]["jobs"]["nodes"][0]
            assert (job["id"], job["rawPayload"], job["tags"]) == (job_id.strip(), expected, ["it's"])
    assert not (tmp_path / "owned").exists()


async def test_a_copied_command_may_be_longer_than_an_argument_can_be(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page("new?type=probe")
    payload = {"trace": HOSTILE * 4000}
    await page.get_by_label("as JSON").check()
    await text(page, "payload").fill(json.dumps(payload))
    (tmp_path / "job.sh").write_text(await program(page, "curl"))
    await output_of("sh", "job.sh", folder=tmp_path)
    assert (await newest(api))["rawPayload"] == payload


async def test_a_job_is_made_by_keyboard_alone_on_a_narrow_screen(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("new?type=email", viewport={"width": 360, "height": 740})
    await text(page, "to").wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await choice(page, "type").focus()
    for value in ("ada@example.com", "Hello", "It works."):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.type") == "checkbox":
            await page.keyboard.press("Tab")
        await page.keyboard.type(value)
    await page.keyboard.press("Control+Enter")
    await expect(page.get_by_role("heading", name="was created")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Go to the job")).to_be_focused()
    assert len(await jobs(api)) == 1


async def test_the_focus_stays_where_parts_of_a_form_come_and_go(open_page: OpenPage) -> None:
    page = await open_page("new?type=every_kind")
    group = page.get_by_role("group", name="keys")
    await page.get_by_role("button", name="Add to keys").focus()
    await page.keyboard.press("Enter")
    await expect(group).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(text(page, "keys 1")).to_be_focused()
    await page.get_by_role("button", name="Remove keys 1").focus()
    await page.keyboard.press("Enter")
    await expect(group).to_be_focused()
    await page.get_by_role("button", name="Leave out keys").focus()
    await page.keyboard.press("Enter")
    await expect(group).to_be_focused()
    await choice(page, "type").focus()
    await choice(page, "type").select_option("probe")
    await expect(choice(page, "type")).to_be_focused()
    await choice(page, "type").select_option("email")
    await expect(text(page, "subject")).to_be_visible()
    await expect(choice(page, "type")).to_be_focused()


async def test_names_with_dots_do_not_lose_what_is_said_of_them(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page("new?type=every_kind")
    await text(page, "title").fill("a")
    await choice(page, "colour").select_option("#f00")
    await page.get_by_role("button", name="Add to limits").click()
    await text(page, "name 1").fill("a.b")
    await text(page, "value 1").fill("1.5")
    await page.get_by_role("button", name="Create the job").click()
    await expect(page.get_by_role("alert").first).to_contain_text("integer")
    assert await jobs(api) == []


async def test_a_payload_may_look_like_what_the_page_uses_itself(api: ServedApi, open_page: OpenPage) -> None:
    odd = {"isLosslessNumber": True, "value": "1", "__proto__": {"a": 1}, "toString": 1, "constructor": None}
    original = await create(api, {"saves": odd})
    page = await open_page(f"new?from={original['id']}")
    await made(page)
    assert (await newest(api))["rawPayload"] == {"saves": odd}


async def test_a_page_that_cannot_be_loaded_is_loaded_again_when_asked(api: ServedApi, open_page: OpenPage) -> None:
    assert api
    page = await open_page("jobs")
    await page.get_by_text("Live", exact=True).wait_for()
    await page.route("**/graphql", lambda route: route.abort())
    await page.get_by_role("link", name="New job").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await page.unroute("**/graphql")
    await page.get_by_role("button", name="Try again").click()
    await expect(choice(page, "type")).to_be_visible()


async def test_a_job_is_made_to_wait_for_others_under_a_key_and_to_be_of_use_until_a_moment(
    api: ServedApi, open_page: OpenPage
) -> None:
    before = await create(api, {"file": "a"}, "needsFile", runAt=ahead(days=1))
    page = await open_page("new?type=needs_file", timezone_id="Europe/Berlin")
    await text(page, "file").fill("b")
    await text(page, "after").fill("no-job")
    await choice(page, "afterPolicy").select_option("RUN")
    await page.get_by_label("startBefore").fill("2199-01-01T00:00:00")
    await text(page, "concurrencyKey").fill("customer")
    await text(page, "key.value").fill("shop 7")
    await choice(page, "key.policy").select_option("REPLACE")
    await text(page, "key.maxDelaySeconds").fill("0")
    button = page.get_by_role("button", name="Create the job")
    await button.click()
    await expect(text(page, "after")).to_have_accessible_description(re.compile("Line 1: There is no job"))
    await text(page, "after").fill(before["id"])
    await button.click()
    await expect(text(page, "key.maxDelaySeconds")).to_have_accessible_description(re.compile("from 1 to|between 1"))
    await text(page, "key.maxDelaySeconds").fill("60")
    await button.click()
    await expect(page.get_by_label("startBefore")).to_be_focused()
    await expect(page.get_by_label("startBefore")).to_have_attribute("aria-invalid", "true")
    in_a_year = datetime.now(UTC).replace(microsecond=0) + timedelta(days=365)
    local = in_a_year.astimezone(ZoneInfo("Europe/Berlin"))
    await page.get_by_label("startBefore").fill(f"{local:%Y-%m-%dT%H:%M:%S}")
    await made(page)
    asked_for = """{ jobs(orderBy: {field: CREATED_AT, direction: DESC}, first: 1) { nodes {
      id status after startBefore concurrencyKey key
    } } }"""
    (job,) = (await api.ask(asked_for))["jobs"]["nodes"]
    assert (job["status"], job["after"], job["key"]) == ("WAITING", [before["id"]], "shop 7")
    assert datetime.fromisoformat(job["startBefore"]) == in_a_year
    assert job["concurrencyKey"] == "customer"

    await page.get_by_role("button", name="Create another").click()
    await choice(page, "key.policy").select_option("REJECT")
    await button.click()
    await expect(text(page, "key.value")).to_be_focused()
    await expect(text(page, "key.value")).to_have_accessible_description(re.compile(f"belongs to job {job['id']}"))
    await choice(page, "key.policy").select_option("RETURN")
    await button.click()
    await expect(page.get_by_role("heading", name=f"Job {job['id'][:8]} was there already")).to_be_focused()
    await expect(page.get_by_text("It has the key, or its idempotency key had made it before.")).to_be_visible()


async def test_what_is_not_there_is_said(open_page: OpenPage) -> None:
    page = await open_page("new?from=018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42")
    await expect(page.get_by_role("alert")).to_contain_text("is not there")
    page = await open_page("new?type=<b>none")
    await expect(page.get_by_role("alert")).to_contain_text("There is no job type “<b>none” on this server")


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_form_and_what_is_wrong_with_it_has_no_violation(
    api: ServedApi, open_page: OpenPage, theme: str
) -> None:
    original = await create(api, {"title": "a", "colour": "RED", "key": "hunter2", "keys": ["a"]}, kind="everyKind")
    page = await open_page(f"new?from={original['id']}", color_scheme=theme)
    for name in ("Give shape", "Give either", "Add to limits", "Add to colours"):
        await page.get_by_role("button", name=name).click()
    await page.get_by_role("button", name="Create the job").click()
    await expect(page.get_by_role("alert")).to_contain_text("another look")
    await page.get_by_role("button", name="Create the job").click()
    assert await program(page, "curl")
    assert await violations_on(page) == []
    await page.get_by_label("as JSON").check()
    await text(page, "payload").fill("{")
    await page.get_by_role("button", name="Create the job").click()
    await expect(page.get_by_role("alert")).to_contain_text("One field needs another look")
    assert await violations_on(page) == []
    await text(page, "payload").fill('{"title": "a", "colour": "#f00"}')
    await made(page)
    await expect(page.get_by_text("Queued", exact=True)).to_be_visible()
    assert await violations_on(page) == []
