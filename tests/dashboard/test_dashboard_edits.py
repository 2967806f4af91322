"""A job is changed before it starts, on a page of its own, and retried with another payload once it has ended."""

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, Route, expect

from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, ahead, create
from tests.api.operations import ended as has_ended
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.guarded import guarded
from tests.running import running_worker
from tests.serving import HOST, Api, Data, ServedApi
from tests.workers.stories import running

JOB = """query ($id: ID!) { job(id: $id) {
  status runAt priority tags rawPayload events { __typename ... on JobEdited { changed } }
} }"""


pytestmark = pytest.mark.usefixtures("types")


async def stored(api: Api, job_id: str) -> Data:
    """The job as it is."""
    job: Data = (await api.ask(JOB, id=job_id))["job"]
    return job


async def edits(api: Api, job_id: str) -> list[list[str]]:
    """What was changed by each edit of the job."""
    return [event["changed"] for event in (await stored(api, job_id))["events"] if event["__typename"] == "JobEdited"]


def field(page: Page, name: str) -> Locator:
    """The field with this name."""
    return page.get_by_role("textbox", name=name, exact=True)


def save(page: Page) -> Locator:
    """The button that sends what was changed."""
    return page.get_by_role("button", name="Save the changes")


def sent_by(page: Page) -> list[Data]:
    """The variables of the edits that the page will have sent."""
    found: list[Data] = []

    def note(route_request: object) -> None:
        body = getattr(route_request, "post_data", None) or ""
        if "mutation UpdateJob" in body:
            found.append(json.loads(body)["variables"])

    page.on("request", note)
    return found


async def test_what_was_changed_is_sent_and_nothing_else(api: ServedApi, open_page: OpenPage) -> None:
    run_at = ahead(days=1)
    job = await create(api, {"steps": 3, "trace": "kept"}, runAt=run_at, tags=["one", "two"])
    page = await open_page(f"jobs/{job['id']}")
    sent = sent_by(page)
    await page.get_by_role("link", name="Edit", exact=True).press("Enter")
    await expect(page.get_by_role("heading", level=1, name="Edit job")).to_be_visible()
    await expect(field(page, "trace")).to_have_value("kept")
    await expect(page.get_by_text("Nothing is changed here yet.")).to_be_visible()
    await save(page).press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("there is nothing to save")
    assert sent == []
    await page.get_by_role("combobox", name="priority").select_option("HIGH")
    await field(page, "tags").fill("one\nthree")
    await expect(page.get_by_text("Changed here: priority, tags.")).to_be_visible()
    await save(page).press("Enter")
    await expect(page).to_have_url(f"http://{HOST}:{api.port}/#/jobs/{job['id']}")
    assert sent == [{"id": job["id"], "input": {"priority": "HIGH", "tags": ["one", "three"]}}]
    now = await stored(api, job["id"])
    assert (now["priority"], now["tags"], now["runAt"]) == ("HIGH", ["one", "three"], run_at)
    titles = page.get_by_role("region", name="Timeline").locator("strong")
    await expect(titles).to_have_text(
        ["Created, to run later", "Changed: its priority and its tags", "Queued again, to run later"]
    )
    assert await edits(api, job["id"]) == [["priority", "tags"]]


async def test_a_payload_and_a_time_are_changed_and_the_page_of_the_job_shows_them(
    api: ServedApi, open_page: OpenPage
) -> None:
    job = await create(api, {"steps": 3}, runAt=ahead(days=1))
    reader = await open_page(f"jobs/{job['id']}")
    await expect(reader.get_by_role("tree", name="Payload")).to_contain_text("3")
    page = await open_page(f"jobs/{job['id']}/edit")
    await field(page, "steps").fill("7")
    await page.get_by_label("runAt").fill("")
    await save(page).click()
    await expect(page.get_by_role("tree", name="Payload")).to_contain_text("7")
    now = await stored(api, job["id"])
    assert (now["status"], now["runAt"], now["rawPayload"]["steps"]) == ("QUEUED", None, 7)
    # Whoever reads the job meanwhile is shown what it is to do now.
    await expect(reader.get_by_role("tree", name="Payload")).to_contain_text("7")
    await expect(reader.get_by_text("Changed: when it runs and its payload")).to_be_visible()
    await expect(reader.get_by_role("region", name="Facts").get_by_text("To run at")).to_have_count(0)


async def test_what_the_server_refuses_stands_at_the_fields_and_nothing_is_changed(
    api: ServedApi, open_page: OpenPage
) -> None:
    mail = {"to": "ada@example.com", "subject": "Hello", "body": "It works."}
    job = await create(api, mail, "email", runAt=ahead(days=1))
    page = await open_page(f"jobs/{job['id']}/edit")
    to, tags = field(page, "to"), field(page, "tags")
    await to.fill("nobody")
    await tags.fill("fine\n" + "x" * 256)
    await save(page).click()
    await expect(to).to_be_focused()
    await expect(to).to_have_accessible_description(re.compile("valid email address"))
    await to.fill("grace@example.com")
    await save(page).click()
    await expect(tags).to_be_focused()
    await expect(tags).to_have_accessible_description(re.compile("Line 2: A tag must have"))
    await tags.fill("fine")
    await page.get_by_label("runAt").fill("2199-01-01T00:00:00")
    await save(page).click()
    await expect(page.get_by_label("runAt")).to_have_accessible_description(re.compile("a year"))
    assert await edits(api, job["id"]) == []
    await page.get_by_label("runAt").fill("")
    await save(page).click()
    await expect(page.get_by_role("region", name="How it stands")).to_be_visible()
    assert await edits(api, job["id"]) == [["runAt", "payload", "tags"]]


async def test_secrets_stay_unless_the_payload_is_changed(api: ServedApi, open_page: OpenPage) -> None:
    secrets = {"title": "a", "colour": "RED", "key": "hunter2"}
    job = await create(api, secrets, kind="everyKind", runAt=ahead(days=1))
    page = await open_page(f"jobs/{job['id']}/edit")
    await expect(page.get_by_role("note")).to_contain_text("They stay as they are unless the payload is changed")
    await field(page, "tags").fill("new")
    await save(page).click()
    await expect(page.get_by_role("region", name="How it stands")).to_be_visible()
    assert await edits(api, job["id"]) == [["tags"]]
    assert (await stored(api, job["id"]))["rawPayload"]["key"] == "[redacted]"

    await page.get_by_role("link", name="Edit", exact=True).click()
    await field(page, "title").fill("b")
    await save(page).click()
    key = page.get_by_label("key", exact=True)
    await expect(key).to_be_focused()
    await expect(key).to_have_accessible_description(re.compile("The job has a secret here: type it anew"))
    await key.fill("hunter3")
    await save(page).click()
    await expect(page.get_by_role("region", name="How it stands")).to_be_visible()
    assert await edits(api, job["id"]) == [["tags"], ["payload"]]


async def test_a_job_that_starts_while_it_is_edited_is_said_to_have_started(
    api: ServedApi, open_page: OpenPage, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    job = await create(api, {"gate": str(tmp_path / "never")})
    page = await open_page(f"jobs/{job['id']}/edit")
    await field(page, "tags").fill("mine")
    await workers.enter_async_context(running_worker(settings))
    await running(api.runtime, job["id"])
    await expect(page.get_by_role("alert")).to_contain_text("The job has started, so it cannot be changed any more.")
    await expect(save(page)).to_have_count(0)
    await expect(field(page, "tags")).to_have_value("mine")
    await page.get_by_role("link", name="Edit its payload and run it as a new job").click()
    await expect(page.get_by_role("heading", level=1, name="New job")).to_be_visible()


async def test_a_change_that_comes_too_late_is_said_to_have_changed_nothing(
    api: ServedApi, open_page: OpenPage
) -> None:
    job = await create(api)
    page = await open_page(f"jobs/{job['id']}/edit")
    await field(page, "tags").fill("mine")

    async def late(route: Route) -> None:
        if "mutation UpdateJob" in (route.request.post_data or ""):
            await api.ask(CANCEL, id=job["id"])
        await route.continue_()

    await page.route("**/graphql", late)
    await save(page).click()
    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text("The job was cancelled, so it cannot be changed any more.")
    await expect(alert).to_contain_text("Nothing of what is here was done.")
    assert (await stored(api, job["id"]))["tags"] == []
    await page.get_by_role("link", name="Retry it with another payload").click()
    await expect(page.get_by_role("heading", level=1, name="Retry with another payload")).to_be_visible()


async def test_an_edit_whose_answer_was_lost_may_be_repeated(api: ServedApi, open_page: OpenPage) -> None:
    job = await create(api)
    page = await open_page(f"jobs/{job['id']}/edit")
    await field(page, "tags").fill("mine")

    async def lose(route: Route) -> None:
        if "mutation UpdateJob" in (route.request.post_data or ""):
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await page.route("**/graphql", lose)
    await save(page).click()
    await expect(page.get_by_role("alert")).to_contain_text("It is not known whether the job was changed.")
    await page.unroute("**/graphql", lose)
    await save(page).click()
    await expect(page.get_by_role("region", name="How it stands")).to_be_visible()
    assert await edits(api, job["id"]) == [["tags"]]


@pytest.mark.usefixtures("worker")
async def test_a_dead_letter_is_retried_with_another_payload_and_passes(api: ServedApi, open_page: OpenPage) -> None:
    job = await create(api, {"permanent": True, "steps": 2})
    await has_ended(api, job["id"], "DEAD_LETTER")
    page = await open_page(f"jobs/{job['id']}")
    await page.get_by_role("link", name="Retry with another payload").click()
    await expect(page.get_by_role("heading", level=1, name="Retry with another payload")).to_be_visible()
    await expect(page.get_by_text("The payload is as it was")).to_be_visible()
    await expect(page.get_by_label("priority")).to_have_count(0)
    await field(page, "steps").fill("many")
    await page.get_by_role("button", name="Retry", exact=True).click()
    await expect(field(page, "steps")).to_have_accessible_description(re.compile("Write a whole number"))
    await field(page, "steps").fill("1")
    await page.get_by_role("combobox", name="permanent").select_option("no")
    await page.get_by_role("button", name="Retry", exact=True).click()
    standing = page.get_by_role("region", name="How it stands")
    await expect(standing.get_by_role("status").get_by_text("Completed", exact=True)).to_be_visible()
    await expect(page.get_by_role("tree", name="Payload")).to_contain_text("false")
    assert (await stored(api, job["id"]))["rawPayload"]["steps"] == 1


async def test_what_the_server_refuses_of_a_retry_stands_at_the_fields(api: ServedApi, open_page: OpenPage) -> None:
    mail = {"to": "ada@example.com", "subject": "Hello", "body": "It works."}
    job = await create(api, mail, "email")
    await api.ask(CANCEL, id=job["id"])
    page = await open_page(f"jobs/{job['id']}/retry")
    await field(page, "to").fill("nobody")
    await page.get_by_role("button", name="Retry", exact=True).click()
    await expect(field(page, "to")).to_be_focused()
    await expect(field(page, "to")).to_have_accessible_description(re.compile("valid email address"))
    assert (await stored(api, job["id"]))["status"] == "CANCELLED"
    await api.ask("mutation ($id: ID!) { retryJob(id: $id) { job { id } } }", id=job["id"])
    await expect(page.get_by_role("alert")).to_contain_text("The job runs again already")


@pytest.mark.usefixtures("worker")
async def test_a_job_that_has_ended_cannot_be_edited_and_what_can_be_done_is_said(
    api: ServedApi, open_page: OpenPage
) -> None:
    job = await create(api)
    await has_ended(api, job["id"])
    page = await open_page(f"jobs/{job['id']}")
    await expect(page.get_by_role("link", name="Edit and run as a new job")).to_be_visible()
    await expect(page.get_by_role("link", name="Edit", exact=True)).to_have_count(0)
    await expect(page.get_by_role("link", name="Retry with another payload")).to_have_count(0)
    page = await open_page(f"jobs/{job['id']}/edit")
    await expect(page.get_by_role("alert")).to_contain_text("The job has started, so it cannot be changed any more.")
    page = await open_page(f"jobs/{job['id']}/retry")
    await expect(page.get_by_role("alert")).to_contain_text("The job has completed")
    page = await open_page("jobs/018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42/edit")
    await expect(page.get_by_role("alert")).to_contain_text("The job is not there (any more).")


async def test_who_may_not_control_jobs_finds_no_way_to_edit_one(settings: Settings, open_page: OpenPage) -> None:
    async with guarded(settings) as shop:
        job = await shop.create()
        page = await open_page(f"jobs/{job}", port=shop.api.port)
        await page.get_by_label("Key or token").fill(await shop.new_key("reader", frozenset({Scope.READ})))
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("region", name="How it stands")).to_contain_text("Why it waits")
        await expect(page.get_by_role("link", name=re.compile("^(Edit|Retry)"))).to_have_count(0)
        await page.evaluate(f"location.hash = '#/jobs/{job}/edit'")
        await expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_forms_are_accessible_and_fit_a_narrow_screen(
    api: ServedApi, open_page: OpenPage, theme: str
) -> None:
    mail = {"to": "ada@example.com", "subject": "Hello", "body": "It works."}
    job = await create(api, mail, "email", runAt=ahead(days=1))
    page = await open_page(f"jobs/{job['id']}/edit", color_scheme=theme, viewport={"width": 360, "height": 740})
    await field(page, "to").fill("nobody")
    await save(page).click()
    await expect(field(page, "to")).to_be_focused()
    assert await violations_on(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await api.ask(CANCEL, id=job["id"])
    await expect(page.get_by_role("alert").filter(has_text="The job was cancelled")).to_be_visible()
    assert await violations_on(page) == []
    await page.evaluate(f"location.hash = '#/jobs/{job['id']}/retry'")
    await expect(page.get_by_role("button", name="Retry", exact=True)).to_be_visible()
    assert await violations_on(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await page.evaluate(f"location.hash = '#/jobs/{job['id']}'")
    await expect(page.get_by_role("link", name="Retry with another payload")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
