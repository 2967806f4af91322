"""Every page, in both themes, as axe sees it: no violation of WCAG 2.2 A and AA, nor of its best practices."""

import json
from typing import Any

import pytest
from playwright.async_api import expect

from tests.dashboard.axe import NEEDS_AXE, violations_on
from tests.dashboard.conftest import OpenPage
from tests.running import RunningWorker
from tests.serving import ServedApi

CREATE = """mutation ($payload: ProbePayloadInput!) {
  createJob(input: { payload: { probe: $payload }, maxRetries: 0, tags: ["nightly"] }) { job { id } }
}"""
pytestmark = NEEDS_AXE


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_page_has_a_violation(api: ServedApi, worker: RunningWorker, open_page: OpenPage, theme: str) -> None:
    done = await api.ask(CREATE, payload={"steps": 3, "artifact": "a.txt", "artifactBytes": 20})
    dead = await api.ask(CREATE, payload={"permanent": True})
    job, failed = done["createJob"]["job"]["id"], dead["createJob"]["job"]["id"]
    page = await open_page(color_scheme=theme)
    found: dict[str, Any] = {}
    await expect(page.get_by_role("region", name="Needs attention")).to_be_visible()
    await worker.stop()
    await api.ask(CREATE, payload={})
    for route, shown in {
        "": "Now",
        "jobs": "Jobs",
        f"jobs/{job}": "probe",
        f"jobs/{failed}": "probe",
        "dead-letters": "Dead letters",
        "schedules": "Schedules",
        "new?type=probe": "New job",
        "nowhere": "Nothing is here",
    }.items():
        await page.goto(f"{page.url.partition('#')[0]}#/{route}")
        await expect(page.get_by_role("heading", level=1)).to_contain_text(shown)
        await expect(page.get_by_text("Loading…")).to_have_count(0)
        await page.wait_for_load_state("networkidle")
        if violations := await violations_on(page):
            found[route] = violations
    await page.get_by_role("button", name="Help").click()
    if violations := await violations_on(page):
        found["help"] = violations
    assert found == {}, json.dumps(found, indent=1)


async def test_the_main_button_can_be_read_while_a_pointer_is_over_it(api: ServedApi, open_page: OpenPage) -> None:
    assert api
    page = await open_page("new?type=probe")
    button = page.get_by_role("button", name="Create the job")
    at_rest = await button.evaluate("one => getComputedStyle(one).backgroundColor")
    await button.hover()
    assert await button.evaluate("one => one.matches(':hover') && getComputedStyle(one).backgroundColor") == at_rest
