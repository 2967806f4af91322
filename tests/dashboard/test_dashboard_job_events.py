"""The events of a job on its page: very many of them, losses of the connection, and clocks that are wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs.jobs.messages import Failed, Kind, Started
from gql_jobs.log import codec
from tests.dashboard.conftest import OpenPage
from tests.dashboard.line import Line
from tests.deadline import until
from tests.serving import ServedApi
from tests.stories import attempt_body, error
from tests.workers.stories import create, ended, running

ATTEMPTS = 5000


def _timeline(page: Page) -> Locator:
    return page.get_by_role("region", name="Timeline")


def _titles(page: Page) -> Locator:
    return _timeline(page).get_by_role("listitem").locator("strong")


async def _say(api: ServedApi, job: str, kind: type[Any], name: Kind, attempt: int, **facts: Any) -> None:
    """Have an event in the stream, as if a worker said it."""
    known = api.runtime.index.job(job)
    assert known is not None
    body = attempt_body(kind, attempt, known.submission_seq, **facts)
    await api.runtime.connection.publish(codec.event_subject(job, name), codec.encode_body(body))


async def _with_many_events(api: ServedApi) -> str:
    """A job that has failed thousands of times, as it stands in the stream."""
    job = await create(api.runtime)
    await until(lambda: api.runtime.index.job(job), "the job is there")
    for attempt in range(1, ATTEMPTS + 1):
        await _say(api, job, Started, Kind.STARTED, attempt)
        await _say(api, job, Failed, Kind.FAILED, attempt, errors=(error(attempt, f"Failure {attempt}."),))

    def attempts() -> bool:
        found = api.runtime.index.job(job)
        return found is not None and found.failed_at is not None and found.attempt == ATTEMPTS

    await until(attempts, "all of it is known", within=60)
    return job


async def test_ten_thousand_events_are_all_there_and_few_of_them_are_made(open_page: OpenPage, api: ServedApi) -> None:
    job = await _with_many_events(api)
    page = await open_page(f"jobs/{job}")
    timeline = _timeline(page)
    await expect(timeline.locator("header")).to_contain_text("10,001 events", timeout=40_000)
    # The end is what one wants to see first.
    scroller = timeline.get_by_role("region", name="Events")
    await scroller.scroll_into_view_if_needed()
    await expect(timeline.get_by_text(f"Failure {ATTEMPTS}.")).to_be_in_viewport()
    assert await timeline.get_by_role("listitem").count() < 100
    await scroller.focus()
    await scroller.press("Home")
    await expect(timeline.get_by_text("Failure 1.", exact=True)).to_be_visible()
    await scroller.evaluate("element => { element.scrollTop = element.scrollHeight / 2 }")
    await expect(timeline.get_by_text(re.compile(r"Failure 2[3-7]\d\d\.")).first).to_be_visible()
    # Whoever reads is left where they are when more comes.
    at = await scroller.evaluate("element => element.scrollTop")
    await _say(api, job, Started, Kind.STARTED, ATTEMPTS + 1)
    await expect(timeline.locator("header")).to_contain_text("10,002 events")
    assert await scroller.evaluate("element => element.scrollTop") == at


@pytest.mark.usefixtures("worker")
async def test_after_a_loss_every_event_is_there_and_it_is_said_how_many_were_missed(
    open_page: OpenPage, api: ServedApi, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = await create(api.runtime, gate=gate)
    await running(api.runtime, job)
    async with Line(api.port).listening() as line:
        page = await open_page(f"jobs/{job}", port=line.port)
        await expect(_titles(page)).to_have_text(["Created", "Attempt 1 started"])
        line.cut()
        await expect(page.get_by_text(re.compile("Connection lost"))).to_be_visible()
        gate.touch()
        await ended(api.runtime, job)
        line.mend()
        await expect(_titles(page)).to_have_text(["Created", "Attempt 1 started", "Completed"], timeout=20_000)
        said = page.get_by_role("status").filter(has_text="Back at")
        await expect(said).to_contain_text(f"Job {job[:8]}: 1 event. It is completed.")
        await expect(page.get_by_role("tree", name="Result")).to_be_visible()


@pytest.mark.usefixtures("worker")
async def test_a_retry_that_was_missed_with_the_connection_is_followed(open_page: OpenPage, api: ServedApi) -> None:
    job = await create(api.runtime, permanent=True)
    await ended(api.runtime, job)
    first = ["Attempt 1 started", "Attempt 1 failed for good"]
    async with Line(api.port).listening() as line:
        page = await open_page(f"jobs/{job}", port=line.port)
        await expect(_titles(page)).to_have_text(["Created", *first])
        line.cut()
        await expect(page.get_by_text(re.compile("Connection lost"))).to_be_visible()
        await api.ask("mutation ($id: ID!) { retryJob(id: $id) { job { id } } }", id=job)
        await until(lambda: _events(api, job) == 6, "it has failed again")
        line.mend()
        await expect(_titles(page)).to_have_text(["Created", *first, "Retried by hand", *first], timeout=20_000)


def _events(api: ServedApi, job: str) -> int:
    return len(api.runtime.index.events(job))


@pytest.mark.usefixtures("worker")
async def test_a_browser_whose_clock_is_wrong_shows_no_time_below_nothing(
    open_page: OpenPage, api: ServedApi, tmp_path: Path
) -> None:
    job = await create(api.runtime, gate=tmp_path / "never")
    await running(api.runtime, job)
    for hours in (-5, 5):
        page = await open_page()
        await page.add_init_script(f"const now = Date.now.bind(Date); Date.now = () => now() + {hours * 3_600_000};")
        await page.goto(f"{page.url.partition('#')[0]}#/jobs/{job}")
        await page.reload()
        standing = page.get_by_role("region", name="How it stands")
        await expect(standing).to_contain_text(re.compile(r"running for \d+ s"))
        assert "-" not in await standing.inner_text()
        assert not re.search(r"\d h", await standing.inner_text())


@pytest.mark.usefixtures("worker")
async def test_a_refusal_is_said_in_a_sentence(open_page: OpenPage, api: ServedApi, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = await create(api.runtime, gate=gate)
    page = await open_page(f"jobs/{job}")
    await page.get_by_role("button", name="Cancel the job").click()
    gate.touch()
    await ended(api.runtime, job)
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    await expect(page.get_by_role("alert")).to_contain_text(re.compile("completed", re.IGNORECASE))


async def test_a_job_can_be_edited_and_run_again_as_a_new_one(open_page: OpenPage, api: ServedApi) -> None:
    job = await create(api.runtime)
    page = await open_page(f"jobs/{job}")
    await page.get_by_role("link", name="Edit and run as a new job").click()
    await page.wait_for_url(re.compile(f"#/new\\?from={job}$"))
