"""The page of one job: followed to its end, its timeline to the millisecond, and what can be done about it."""

import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from gql_jobs import JobContext, PermanentError
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import expire
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, ahead
from tests.api.operations import create as create_job
from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.running import RunningWorker, running_worker, worker_process
from tests.serving import ServedApi
from tests.workers.stories import all_ended, create, create_many, ended, handled_by, running

UNKNOWN = "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42"
MILLISECONDS = re.compile(r"\d\d:\d\d:\d\d[.,]\d\d\d")


def _standing(page: Page) -> Locator:
    """The panel that says how the job stands."""
    return page.get_by_role("region", name="How it stands")


def _status(page: Page, status: str) -> Locator:
    return _standing(page).get_by_role("status").get_by_text(status, exact=True)


def _lines(page: Page) -> Locator:
    return page.get_by_role("region", name="Timeline").get_by_role("listitem")


def _titles(page: Page) -> Locator:
    """What the lines of the timeline say in bold: the page's own words."""
    return _lines(page).locator("strong")


@pytest.mark.usefixtures("worker")
async def test_a_job_is_followed_live_from_its_start_to_its_result(
    open_page: OpenPage, api: ServedApi, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = await create(api.runtime, gate=gate, steps=4, seconds=0.4)
    page = await open_page(f"jobs/{job}")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("probe")
    await expect(_status(page, "Running")).to_be_visible()
    await expect(_standing(page).get_by_text("running for")).to_be_visible()
    await expect(page.get_by_role("progressbar", name="Progress")).to_have_attribute("aria-valuenow", "0")
    gate.touch()
    await expect(page.get_by_role("progressbar", name="Progress")).not_to_have_attribute("aria-valuenow", "0")
    await expect(_status(page, "Completed")).to_be_visible()
    await expect(_titles(page)).to_have_text(["Created", "Attempt 1 started", "Completed"])
    await expect(_lines(page).first).to_contain_text(MILLISECONDS)
    await expect(page.get_by_role("tree", name="Result").get_by_text('"attempt"')).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel the job")).to_have_count(0)


@pytest.mark.usefixtures("worker")
async def test_reports_of_progress_are_one_line_that_can_be_unfolded(
    open_page: OpenPage, api: ServedApi, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = await create(api.runtime, gate=gate, steps=5, seconds=1)
    page = await open_page(f"jobs/{job}")
    await expect(_titles(page)).to_have_text(["Created", "Attempt 1 started"])
    gate.touch()
    await expect(_status(page, "Completed")).to_be_visible()
    folded = page.get_by_role("button", name=re.compile(r"\d reports of progress, the last: 100 % step 5"))
    await expect(folded).to_have_attribute("aria-expanded", "false")
    await expect(page.get_by_text("step 1", exact=True)).to_have_count(0)
    await folded.press("Enter")
    await expect(folded).to_have_attribute("aria-expanded", "true")
    await expect(page.get_by_text("step 1", exact=True)).to_be_visible()


@pytest.mark.usefixtures("worker")
async def test_a_failing_job_tells_each_attempt_its_error_and_what_it_waited_for(
    open_page: OpenPage, api: ServedApi
) -> None:
    job = await create(api.runtime, fail_attempts=9, max_retries=2)
    page = await open_page(f"jobs/{job}")
    await expect(_status(page, "Dead letter")).to_be_visible()
    await expect(_titles(page)).to_have_text(
        [
            "Created",
            "Attempt 1 started",
            "Attempt 1 failed",
            "Attempt 2 started",
            "Attempt 2 failed",
            "Attempt 3 started",
            "Attempt 3 failed, and no other is left",
        ]
    )
    failed = _lines(page).filter(has_text="Attempt 2 failed")
    await expect(failed).to_contain_text("TransientError")
    await expect(failed).to_contain_text("may be tried again")
    await expect(failed).to_contain_text("Attempt 2 fails.")
    await expect(_standing(page)).to_contain_text("Why it failed")
    await expect(_standing(page)).to_contain_text("Attempt 3 fails.")
    await expect(page.get_by_text("3 of 3", exact=True)).to_be_visible()


async def test_a_job_that_is_retried_by_hand_goes_on_before_the_eyes(
    open_page: OpenPage, api: ServedApi, worker: RunningWorker
) -> None:
    assert worker.task is not None
    job = await create(api.runtime, permanent=True)
    page = await open_page(f"jobs/{job}")
    await expect(_titles(page).last).to_have_text("Attempt 1 failed for good")
    await page.get_by_role("button", name="Retry").press("Enter")
    again = ["Retried by hand", "Attempt 1 started", "Attempt 1 failed for good"]
    await expect(_titles(page)).to_have_text(["Created", *again[1:], *again])
    # By somebody else as well.
    await api.ask("mutation ($id: ID!) { retryJob(id: $id) { job { id } } }", id=job)
    await expect(_titles(page)).to_have_text(["Created", *again[1:], *again, *again])


@pytest.mark.usefixtures("worker")
async def test_a_cancellation_is_asked_about_and_its_receipts_come_after_it(
    open_page: OpenPage, api: ServedApi, tmp_path: Path
) -> None:
    job = await create(api.runtime, gate=tmp_path / "never")
    page = await open_page(f"jobs/{job}")
    await expect(_status(page, "Running")).to_be_visible()
    cancel = _standing(page).get_by_role("button", name="Cancel the job")
    await cancel.click()
    dialog = page.get_by_role("dialog", name="Cancel this job?")
    await dialog.get_by_role("button", name="Let it go on").click()
    await expect(dialog).to_have_count(0)
    await expect(cancel).to_be_focused()
    await cancel.click()
    await dialog.get_by_role("button", name="Cancel the job").click()
    await expect(_status(page, "Cancelled")).to_be_visible()
    await expect(_titles(page)).to_have_text(
        ["Created", "Attempt 1 started", "Cancelled", "The handler was told to stop", "The handler stopped"]
    )
    await expect(_standing(page)).to_be_focused()


async def test_a_job_that_was_handed_back_says_so_and_that_it_cost_no_attempt(
    open_page: OpenPage, api: ServedApi, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with running_worker(settings.model_copy(update={"shutdown_grace": 0})):
        job = await create(api.runtime, gate=gate)
        page = await open_page(f"jobs/{job}")
        await expect(_status(page, "Running")).to_be_visible()
    await expect(_titles(page).last).to_have_text(re.compile("Handed back by its worker.*does not count"))
    await expect(_standing(page)).to_contain_text("Why it waits: no worker serves the queue `default`")
    gate.touch()
    await workers.enter_async_context(running_worker(settings))
    await expect(_titles(page).last).to_have_text("Completed")


async def test_an_attempt_whose_worker_was_lost_is_told_with_the_one_that_replaces_it(
    open_page: OpenPage, api: ServedApi, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"ack_wait": 1.0})
    gate = tmp_path / "gate"
    async with worker_process(settings) as process:
        job = await create(api.runtime, gate=gate)
        await running(api.runtime, job, within=20)
        process.kill()
        await process.wait()
    page = await open_page(f"jobs/{job}")
    await workers.enter_async_context(running_worker(settings))
    replaced = _lines(page).filter(has_text="Attempt 2 started in place of attempt 1, whose worker was lost")
    await expect(replaced).to_contain_text("WorkerLost")
    gate.touch()
    await expect(_status(page, "Completed")).to_be_visible()


async def test_why_a_job_waits_is_said_and_kept_up_to_date(
    open_page: OpenPage, api: ServedApi, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    busy = await create(api.runtime, gate=gate, priority=JobPriority.CRITICAL)
    job = await create(api.runtime)
    page = await open_page(f"jobs/{job}")
    await expect(_standing(page)).to_contain_text("Why it waits: no worker serves the queue `default`")
    await expect(_standing(page)).to_contain_text("1 job before it")
    await workers.enter_async_context(running_worker(settings.model_copy(update={"num_workers": 1})))
    await running(api.runtime, busy)
    await expect(_standing(page)).to_contain_text("Why it waits: 1 of 1 slots busy, 0 ahead")
    gate.touch()
    await expect(_status(page, "Completed")).to_be_visible()
    await expect(_standing(page).get_by_text("Why it waits:")).to_have_count(0)


@pytest.mark.usefixtures("worker")
async def test_the_run_time_is_compared_with_what_is_usual_of_the_type(
    open_page: OpenPage, api: ServedApi, tmp_path: Path
) -> None:
    await all_ended(api.runtime, await create_many(api.runtime, 5, seconds=0.01))
    job = await create(api.runtime, gate=tmp_path / "never")
    page = await open_page(f"jobs/{job}")
    await expect(_standing(page)).to_contain_text(re.compile(r"running for \d+ s · usually \d+ ms"))
    await expect(_standing(page)).to_contain_text("so it is longer than nearly all")


async def test_an_unknown_id_is_said_to_be_unknown(open_page: OpenPage) -> None:
    for unknown in (UNKNOWN, "no-uuid"):
        page = await open_page(f"jobs/{unknown}")
        await expect(page.get_by_role("alert")).to_contain_text(f"There is no job {unknown}")


@pytest.mark.usefixtures("worker")
async def test_a_job_that_expires_while_it_is_shown_is_said_to_have_expired(
    open_page: OpenPage, api: ServedApi, job_log: JobLog
) -> None:
    job = await create(api.runtime)
    await ended(api.runtime, job)
    page = await open_page(f"jobs/{job}")
    await expect(_status(page, "Completed")).to_be_visible()
    await expect(page.get_by_role("tree", name="Payload")).to_be_visible()
    assert await expire(job_log, api.runtime.artifacts, job, datetime.now(UTC) + timedelta(days=1))
    await expect(page.get_by_role("alert")).to_contain_text("This job has expired")
    await expect(page.get_by_role("tree", name="Payload")).to_be_visible()


async def test_the_facts_of_a_job_lead_to_those_that_are_like_it_and_to_the_one_it_was_made_of(
    open_page: OpenPage, api: ServedApi
) -> None:
    create_tagged = """mutation ($tags: [String!], $origin: ID) {
      createJob(input: { payload: { probe: {} }, tags: $tags, origin: $origin }) { job { id } }
    }"""
    first = (await api.ask(create_tagged, tags=["a/b & c"]))["createJob"]["job"]["id"]
    other = (await api.ask(create_tagged, tags=[]))["createJob"]["job"]["id"]
    made = (await api.ask(create_tagged, tags=["a/b & c"], origin=first))["createJob"]["job"]["id"]
    page = await open_page(f"jobs/{made}")
    facts = page.get_by_role("region", name="Facts")
    await facts.get_by_role("link", name="a/b & c").click()
    await expect(page.get_by_role("link", name=first[:8])).to_be_visible()
    await expect(page.get_by_role("link", name=made[:8])).to_be_visible()
    await expect(page.get_by_role("link", name=other[:8])).to_have_count(0)
    await page.go_back()
    await facts.get_by_role("link", name=first[:8]).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(first[:8])
    await facts.get_by_role("link", name="default").click()
    await expect(page.get_by_role("link", name=other[:8])).to_be_visible()


async def test_what_steers_a_job_is_said_and_leads_to_those_that_share_it(open_page: OpenPage, api: ServedApi) -> None:
    before = [(await create_job(api, runAt=ahead(days=1)))["id"] for _ in range(15)]
    key = {"value": "shop 7"}
    job = await create_job(api, after=before, key=key, concurrencyKey="customer", startBefore=ahead(days=2))
    sharing = (await create_job(api, runAt=ahead(days=1), concurrencyKey="customer"))["id"]
    page = await open_page(f"jobs/{job['id']}")
    facts = page.get_by_role("region", name="Facts")
    await expect(facts.get_by_text("To start before")).to_be_visible()
    await expect(_titles(page)).to_have_text(["Created, and held back until other jobs have ended"])
    links = facts.get_by_role("link", name=re.compile("^[0-9a-f]{8}$"))
    await expect(links).to_have_count(12)
    await facts.get_by_role("button", name="Show all 15").press("Enter")
    await expect(links).to_have_text([one[:8] for one in before])
    await facts.get_by_role("link", name="customer").click()
    await expect(page.get_by_text("2 jobs match")).to_be_visible()
    await expect(page.get_by_role("button", name="Related by concurrency key customer")).to_be_visible()
    await expect(page.get_by_role("link", name=sharing[:8])).to_be_visible()
    await page.go_back()
    await facts.get_by_role("link", name="shop 7").click()
    await expect(page.get_by_text("1 job matches")).to_be_visible()
    await expect(page.get_by_role("button", name="Related by key shop 7")).to_be_visible()
    await page.go_back()
    await facts.get_by_role("link", name=before[0][:8]).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(before[0][:8])
    for name in ("To start before", "Runs after", "Key", "Concurrency key", "Schedule"):
        await expect(facts.get_by_text(name, exact=True)).to_have_count(0)


@NEEDS_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_what_steers_a_job_is_accessible_and_fits_a_narrow_screen(
    open_page: OpenPage, api: ServedApi, theme: str
) -> None:
    before = [(await create_job(api, runAt=ahead(days=1)))["id"] for _ in range(13)]
    steered = await create_job(api, after=before, key={"value": "W" * 255}, concurrencyKey="W" * 255)
    page = await open_page(f"jobs/{steered['id']}", color_scheme=theme, viewport={"width": 360, "height": 740})
    facts = page.get_by_role("region", name="Facts")
    await expect(facts.get_by_role("button", name="Show all 13")).to_be_visible()
    await api.ask(CANCEL, id=before[0])
    await expect(_standing(page)).to_contain_text("Why it was cancelled:")
    assert await violations_on(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_a_job_of_a_schedule_leads_to_the_others_of_it(open_page: OpenPage, api: ServedApi) -> None:
    schedule = {"name": "nightly", "everySeconds": 86400, "payload": {"probe": {}}}
    upsert = "mutation ($input: ScheduleInput!) { upsertSchedule(input: $input) { schedule { name } } }"
    await api.ask(upsert, input=schedule)
    ran = await api.ask('mutation { runSchedule(name: "nightly") { job { id } } }')
    page = await open_page(f"jobs/{ran['runSchedule']['job']['id']}")
    await page.get_by_role("region", name="Facts").get_by_role("link", name="nightly").click()
    await expect(page.get_by_role("button", name="Related by schedule nightly")).to_be_visible()
    await expect(page.get_by_role("link", name=ran["runSchedule"]["job"]["id"][:8])).to_be_visible()


async def test_a_job_that_the_system_has_cancelled_says_why(open_page: OpenPage, api: ServedApi) -> None:
    before = (await create_job(api, runAt=ahead(days=1)))["id"]
    job = (await create_job(api, after=[before]))["id"]
    page = await open_page(f"jobs/{job}")
    await expect(_status(page, "Held back")).to_be_visible()
    await api.ask(CANCEL, id=before)
    await expect(_status(page, "Cancelled")).to_be_visible()
    reason = (await api.ask("query ($id: ID!) { job(id: $id) { cancelReason } }", id=job))["job"]["cancelReason"]
    assert before in reason
    await expect(_standing(page)).to_contain_text(f"Why it was cancelled: {reason}")
    await expect(_lines(page).filter(has_text="Cancelled")).to_contain_text(reason)


async def test_children_lead_to_their_parent_and_a_parent_to_its_children(
    open_page: OpenPage, api: ServedApi, worker: RunningWorker
) -> None:
    assert worker.task is not None
    job = await create(api.runtime, children=2)
    page = await open_page(f"jobs/{job}")
    await expect(_status(page, "Completed")).to_be_visible()
    children = page.get_by_role("region", name="Children")
    await expect(children.get_by_role("listitem")).to_have_count(2)
    await expect(children.get_by_text("Completed")).to_have_count(2)
    await children.get_by_role("link", name="All of them as a list").click()
    await expect(page).to_have_url(re.compile(f"jobs[?]parent={job}"))
    rows = page.get_by_role("row").filter(has=page.get_by_text("probe"))
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name=f"Related by created by job {job[:8]}").click()
    await expect(page.get_by_role("searchbox", name="Created by job")).to_have_value(job)
    await page.go_back()
    await children.get_by_role("link").first.click()
    await expect(children).to_have_count(0)
    facts = page.get_by_role("region", name="Facts")
    await facts.get_by_role("link", name=job[:8]).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(job[:8])


async def test_a_long_message_is_cut_until_it_is_asked_for_and_scrolls_by_keys(
    open_page: OpenPage, api: ServedApi, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker.task is not None

    async def fail(_context: JobContext, _payload: ProbePayload) -> ProbeResult:
        raise PermanentError("\n".join(f"line {number}" for number in range(200)))

    handled_by(monkeypatch, fail)
    page = await open_page(f"jobs/{await create(api.runtime)}")
    standing = _standing(page)
    await expect(standing).to_contain_text("line 10")
    await expect(standing).not_to_contain_text("line 199")
    await standing.get_by_role("button", name=re.compile(r"Show all 1,\d\d\d characters")).click()
    await expect(standing).to_contain_text("line 199")
    message = standing.get_by_role("region", name="Message of attempt 1")
    await message.focus()
    await message.press("End")
    await page.wait_for_function("element => element.scrollTop > 0", arg=await message.element_handle())
