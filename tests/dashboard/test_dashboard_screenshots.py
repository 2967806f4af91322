"""What README and docs show of the dashboard, made of a real run. ``SCREENSHOTS=docs/dashboard`` keeps the pictures."""

import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.dashboard.conftest import OpenPage
from tests.dashboard.test_dashboard_connection import is_live
from tests.running_dev import Dev, running_dev
from tests.serving import Api, connected

KEPT = os.environ.get("SCREENSHOTS")
PICTURES = {
    "now": "",
    "jobs": "jobs",
    "job": "jobs/{job}",
    "dead_letters": "dead-letters?group={group}",
    "schedules": "schedules",
    "new_job": "new",
}
COMES_LAST = {"job": "growth_percent", "dead_letters": "Payload"}
"""Texts of what is asked for on a page when the rest is there."""
MAILS = """mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { id } } }"""
REPORT = """mutation {
  createJob(input: {
    tags: ["monthly"]
    payload: {
      reportGeneration: {
        reportType: MONTHLY_SALES, format: CSV, dateRange: { start: "2026-01-01", end: "2026-06-30" }
      }
    }
  }) { job { id } }
}"""

SCHEDULE = """mutation ($name: String!, $cron: String!, $type: String!, $payload: String!) {
  upsertRawSchedule(input: {
    name: $name, cron: $cron, timeZone: "Europe/Berlin", type: $type, payload: $payload
  }) { schedule { name } }
}"""
DIGEST = {"to": "team@example.com", "subject": "Yesterday", "body": "It went well."}
SALES = {
    "reportType": "MONTHLY_SALES",
    "format": "CSV",
    "dateRange": {"start": "2026-01-01", "end": "2026-06-30"},
}


def _mail(to: str, **options: object) -> dict[str, object]:
    return {**options, "payload": {"email": {"to": to, "subject": "Hello", "body": "It works."}}}


async def _fill(api: Api) -> dict[str, str]:
    """Make jobs of every kind, and wait until some have ended as they do; the names that routes need."""
    mails = [_mail(f"user{number}@example.com", tags=["welcome"]) for number in range(40)]
    bad = [_mail(f"nobody{number}@reject.example", tags=["welcome"]) for number in range(12)]
    slow = [_mail(f"late{number}@greylist.example", tags=["newsletter"]) for number in range(4)]
    later = [_mail("ada@example.com", runAt=(datetime.now(UTC) + timedelta(days=1)).isoformat(), priority="HIGH")]
    await api.ask(MAILS, inputs=[*mails, *bad, *slow, *later])
    report = (await api.ask(REPORT))["createJob"]["job"]["id"]
    events = api.events("subscription ($id: ID!) { jobProgress(id: $id) { __typename } }", id=report)
    async for _ in events:
        pass
    changes = "subscription { jobsChanged(filter: { status: DEAD_LETTER }, first: 1) { totalCount } }"
    async for change in api.events(changes):
        if change["totalCount"] == len(bad):
            break
    groups = await api.ask("{ deadLetterGroups { key } }")
    for _ in range(6):
        await api.ask(REPORT)
    await api.ask(SCHEDULE, name="nightly-sales", cron="0 3 * * *", type="report_generation", payload=json.dumps(SALES))
    await api.ask(SCHEDULE, name="morning-digest", cron="30 7 * * 1-5", type="email", payload=json.dumps(DIGEST))
    return {"job": report, "group": groups["deadLetterGroups"][0]["key"]}


async def _is_shown(page: Page) -> None:
    await is_live(page)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.get_by_text("Loading…")).to_have_count(0)
    await page.wait_for_load_state("networkidle")


@pytest.fixture
async def dev(tmp_path: Path) -> AsyncIterator[Dev]:
    """A system as a new user has it."""
    async with running_dev(tmp_path) as started:
        await started.ready()
        yield started


async def test_every_page_shows_what_a_new_user_would_see(dev: Dev, open_page: OpenPage, tmp_path: Path) -> None:
    port = int(dev.urls()["Dashboard"].rpartition(":")[2].strip("/"))
    async with connected(port) as api:
        names = await _fill(api)
    folder = Path(KEPT) if KEPT else tmp_path
    page = await open_page(port=port, viewport={"width": 1280, "height": 800})
    await _is_shown(page)
    for picture, route in PICTURES.items():
        await page.goto(f"{page.url.partition('#')[0]}#/{route.format(**names)}")
        await _is_shown(page)
        if picture in COMES_LAST:
            await expect(page.get_by_text(COMES_LAST[picture], exact=True)).to_be_visible()
        await page.screenshot(path=folder / f"{picture}.png")
        assert (folder / f"{picture}.png").stat().st_size > 10_000
