"""The hooks of the TypeScript client under StrictMode: one subscription for all who look, one job for all clicks."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.dashboard.line import Line
from tests.deadline import until
from tests.serving import ServedApi
from tests.typescript.conftest import OpenPage

TOTAL = "{ jobs { totalCount nodes { id status } } }"


async def _total(api: ServedApi) -> int:
    total: int = (await api.ask(TOTAL))["jobs"]["totalCount"]
    return total


def _shown(page: Page, name: str = "first") -> tuple[Locator, Locator]:
    """What a view of a job says of it, and of its connection."""
    region = page.get_by_role("region", name=name)
    return region.get_by_role("status"), region.get_by_role("emphasis")


@pytest.mark.usefixtures("worker")
async def test_a_job_is_shown_to_its_end_by_one_subscription_for_all_who_look_and_none_is_left(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    page = await open_page(api.port, "Maker", NOTE_SENT, gate=str(gate), steps=1)
    await page.get_by_role("button", name="Create").click()
    said, connection = _shown(page)
    await expect(said).to_have_text("PROCESSING 0 -")
    await expect(connection).to_have_text("live")
    await expect(_shown(page, "second")[0]).to_have_text("PROCESSING 0 -")
    assert api.runtime.bus.subscribers == 1
    assert await page.evaluate("sent.filter((text) => text.includes('jobProgress(')).length") == 1
    await page.get_by_role("button", name="Toggle").click()
    await api.subscribers(0)
    await page.get_by_role("button", name="Toggle").click()
    await page.get_by_role("button", name="Create").click()
    await expect(said).to_have_text("PROCESSING 0 -")
    assert api.runtime.bus.subscribers == 1
    gate.touch()
    await expect(said).to_have_text("COMPLETED 100 1")
    await expect(connection).to_have_text("ended")
    await api.subscribers(0)
    assert await _total(api) == 2


@pytest.mark.usefixtures("worker")
async def test_a_lost_connection_is_said_and_what_was_missed_is_shown_when_it_is_back(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with Line(api.port).listening() as line:
        page = await open_page(line.port, "Maker", gate=str(gate))
        await page.get_by_role("button", name="Create").click()
        said, connection = _shown(page)
        await expect(connection).to_have_text("live")
        await expect(said).to_have_text("PROCESSING 0 -")
        line.cut()
        await expect(connection).to_have_text("reconnecting")
        gate.touch()
        await until(lambda: _is_completed(api), "the job is complete")
        await expect(said).to_have_text("PROCESSING 0 -")
        line.mend()
        await expect(said).to_have_text("COMPLETED 100 1")
        await expect(connection).to_have_text("ended")


async def _is_completed(api: ServedApi) -> bool:
    (job,) = (await api.ask(TOTAL))["jobs"]["nodes"]
    return bool(job["status"] == "COMPLETED")


async def test_a_double_click_makes_one_job_and_a_click_after_it_was_forgotten_another(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port, "Maker")
    await page.get_by_role("button", name="Create").dblclick()
    await expect(_shown(page)[0]).to_have_text("QUEUED 0 -")
    assert await _total(api) == 1
    await page.get_by_role("button", name="Forget").click()
    await expect(_shown(page)[0]).to_have_count(0)
    await page.get_by_role("button", name="Create").click()
    await expect(_shown(page)[0]).to_have_text("QUEUED 0 -")
    assert await _total(api) == 2


async def test_an_effect_that_creates_makes_one_job_though_strict_mode_runs_it_twice(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port, "OnMount")
    await expect(_shown(page)[0]).to_have_text("QUEUED 0 -")
    await api.subscribers(1)
    assert await page.evaluate("mounted") == 2
    assert await _total(api) == 1


async def test_a_creation_that_is_refused_says_so_with_the_field_and_the_next_one_is_tried(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port, "Maker", steps="many")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("alert")).to_have_text("INVALID_PAYLOAD steps")
    await expect(page.get_by_text("idle")).to_be_visible()
    async with page.expect_response("**/graphql"):
        await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("alert")).to_have_text("INVALID_PAYLOAD steps")
    assert await _total(api) == 0


@pytest.mark.usefixtures("worker")
async def test_a_job_that_has_failed_is_run_again_and_shown_on(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(api.port, "Maker", permanent=True, trace=str(tmp_path / "trace"))
    await page.get_by_role("button", name="Create").click()
    said, connection = _shown(page)
    await expect(said).to_have_text("DEAD_LETTER 0 This can never work.")
    await expect(connection).to_have_text("ended")
    await page.get_by_role("region", name="first").get_by_role("button", name="Again").click()
    await until(lambda: len((tmp_path / "trace").read_text().splitlines()) == 2, "it has run again")
    await expect(_shown(page, "second")[1]).to_have_text("ended")
    await expect(said).to_have_text("DEAD_LETTER 0 This can never work.")


@pytest.mark.usefixtures("worker")
async def test_a_job_is_changed_before_it_starts_run_again_with_another_payload_and_deleted(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port, "Changed", steps=1)
    said, connection = _shown(page)
    await page.get_by_role("button", name="Create").click()
    await expect(said).to_have_text("SCHEDULED")
    await page.get_by_role("button", name="Change").click()
    await expect(said).to_have_text("DEAD_LETTER")
    await page.get_by_role("button", name="Change").click()
    await expect(page.get_by_role("alert")).to_have_text("INVALID_STATE")
    await page.get_by_role("button", name="Repair").click()
    await expect(said).to_have_text("COMPLETED")
    await expect(connection).to_have_text("ended")
    await page.get_by_role("button", name="Delete").click()
    await until(lambda: _is_deleted(api), "the job is deleted")


async def _is_deleted(api: ServedApi) -> bool:
    return await _total(api) == 0


@pytest.mark.usefixtures("worker")
async def test_a_list_shows_the_newest_jobs_as_they_are_and_how_many_there_are_in_all_over_a_cut(
    api: ServedApi, open_page: OpenPage
) -> None:
    create = "mutation { createJob(input: { payload: { probe: {} } }) { job { id } } }"
    async with Line(api.port).listening() as line:
        page = await open_page(line.port, "List")
        region = page.get_by_role("region", name="list")
        await expect(region).to_have_attribute("data-total", "0")
        for _ in range(4):
            await api.ask(create)
        await expect(region).to_have_attribute("data-total", "4")
        await expect(region.get_by_role("listitem")).to_have_text(["COMPLETED"] * 3)
        assert len(api.runtime.windows) == 1
        line.cut()
        await expect(region.get_by_role("emphasis")).to_have_text("reconnecting")
        newest = (await api.ask(create))["createJob"]["job"]["id"]
        line.mend()
        await expect(region).to_have_attribute("data-total", "5")
        await expect(region.get_by_role("listitem").first).to_have_attribute("data-id", newest)
        await expect(region.get_by_role("emphasis")).to_have_text("live")
        await page.get_by_role("button", name="Toggle").click()
        await until(lambda: not len(api.runtime.windows), "no list is watched any more")


async def test_a_list_that_cannot_be_watched_says_why(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page(api.port, "List", NONE_LISTED)
    await expect(page.get_by_role("alert")).to_have_text(re.compile("INVALID_ARGUMENT"))
    await expect(page.get_by_role("emphasis")).to_have_text("ended")


NOTE_SENT = """
window.sent = [];
const { send } = WebSocket.prototype;
WebSocket.prototype.send = function (text) { sent.push(text); send.call(this, text); };
"""
NONE_LISTED = """
const { send } = WebSocket.prototype;
WebSocket.prototype.send = function (text) { send.call(this, text.replace('"first":3', '"first":0')); };
"""
