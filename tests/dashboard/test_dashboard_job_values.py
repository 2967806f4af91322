"""What a job was asked for and what came of it, on its page: exact JSON of any size, files, and hostile texts."""

import asyncio
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from playwright.async_api import Browser, Download, Locator, Page, Request, Route, expect
from reportlab.pdfgen.canvas import Canvas

from gql_jobs import JobContext
from gql_jobs.access import tickets
from gql_jobs.jobs.messages import DeadLetter, Failed, Kind, Progress, Saved, Started, Submission
from gql_jobs.jobs.model import Artifact, JobError, JobPriority
from gql_jobs.log import codec
from gql_jobs.settings import Settings
from tests.dashboard.conftest import OpenPage
from tests.deadline import until
from tests.guarded import READ, guarded
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.pictures import encoded, gradient
from tests.serving import ServedApi
from tests.stories import BEGAN, attempt_body, spec
from tests.workers.stories import create, ended, handled_by

JOB = "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42"
LONG = "W" * 400
HOSTILE = f'<img src=x onerror="hacked=1"><script>hacked=1</script>\u202egpj.exe\x00\x1b[31m {LONG}'
CSV_ROWS = 3000


def _pdf() -> bytes:
    file = BytesIO()
    canvas = Canvas(file)
    canvas.drawString(100, 700, "A report")
    canvas.save()
    return file.getvalue()


def _csv() -> bytes:
    rows = "".join(f'{number},"a, ""b""",{number * 1.5}\r\n' for number in range(CSV_ROWS))
    return f"number,name,value\r\n{rows}".encode()


async def _save_files(context: JobContext, _payload: ProbePayload) -> ProbeResult:
    await context.save_artifact("out/picture.png", encoded(gradient(), "PNG"))
    await context.save_artifact("rows.csv", _csv())
    await context.save_artifact("report.pdf", _pdf())
    await context.save_artifact("notes.json", b'{"kept": "<b>as text</b>"}')
    await context.save_artifact("page.html", b"<script>hacked=1</script>")
    return ProbeResult(attempt=1)


async def _tell(api: ServedApi, *bodies: Any, **asked: Any) -> None:
    """Have a job in the stream that nobody would create: its submission, then what is said of it."""
    connection = api.runtime.connection
    queued = Submission(spec=spec(**asked))
    await connection.publish(codec.queued_subject(JOB, "default", JobPriority.NORMAL), codec.encode_body(queued))
    submission = (await until(lambda: api.runtime.index.job(JOB), "the job is there")).submission_seq
    for make in bodies:
        subject, body = make(submission)
        await connection.publish(subject, codec.encode_body(body))


def _said(kind: type[Any], name: Kind | None = None, **facts: Any) -> Any:
    subject = codec.progress_subject(JOB) if name is None else codec.event_subject(JOB, name)
    return lambda submission: (subject, attempt_body(kind, submission=submission, **facts))


def _row(tree: Locator, text: str) -> Locator:
    return tree.get_by_role("treeitem").filter(has_text=text)


def _file(page: Page, name: str) -> Locator:
    return page.get_by_role("figure").filter(has_text=name)


async def _content(download: Download) -> bytes:
    return await asyncio.to_thread(Path(await download.path()).read_bytes)


async def _is_as_wide_as_the_window(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.usefixtures("worker")
async def test_pictures_tables_and_pdfs_can_be_looked_at_and_a_page_of_html_only_be_kept(
    open_page: OpenPage, api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled_by(monkeypatch, _save_files)
    job = await create(api.runtime)
    await ended(api.runtime, job)
    page = await open_page()
    ranges: list[str] = []

    def noted(request: Request) -> None:
        if "/artifacts/" in request.url and "rows.csv" in request.url:
            ranges.append(request.headers.get("range", "none"))

    page.on("request", noted)
    await page.evaluate(f"location.hash = '#/jobs/{job}'")
    await expect(page.get_by_role("img", name="out/picture.png")).to_have_js_property("naturalWidth", 400)
    table = page.get_by_role("region", name="Beginning of rows.csv").get_by_role("table")
    await expect(table.get_by_role("row")).to_have_count(21)
    await expect(table.get_by_role("columnheader")).to_have_text(["number", "name", "value"])
    await expect(table.get_by_role("row").nth(2).get_by_role("cell")).to_have_text(["1", 'a, "b"', "1.5"])
    assert ranges == ["bytes=0-8191"]
    await expect(page.get_by_role("region", name="Beginning of notes.json")).to_have_text('{"kept": "<b>as text</b>"}')
    await _file(page, "report.pdf").get_by_role("button", name="Show the pages").click()
    # The browser's own viewer, which is an extension of it.
    await until(
        lambda: any(frame.url.startswith("chrome-extension:") for frame in page.frames), "the viewer shows the PDF"
    )
    html = _file(page, "page.html")
    await expect(html.locator("iframe, img, pre, button")).to_have_count(0)
    async with page.expect_download() as downloading:
        await html.get_by_role("link", name="Download").click()
    download = await downloading.value
    assert download.suggested_filename == "page.html"
    assert await _content(download) == b"<script>hacked=1</script>"
    assert await page.evaluate("typeof hacked") == "undefined"


@pytest.mark.usefixtures("worker")
async def test_files_are_shown_under_authentication_and_their_addresses_are_asked_for_anew(
    browser: Browser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled_by(monkeypatch, _save_files)
    async with guarded(settings) as shop:
        job = await shop.create()
        await ended(shop.api.runtime, job)
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{shop.api.port}/#/jobs/{job}")
        await page.get_by_label("Key or token").fill(await shop.new_key("reader", READ))
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("img", name="out/picture.png")).to_have_js_property("naturalWidth", 400)
        await expect(page.get_by_role("region", name="Beginning of rows.csv")).to_be_visible()
        async with (
            page.expect_request(lambda request: "JobFiles" in (request.post_data or "")),
            page.expect_download() as downloading,
        ):
            await _file(page, "rows.csv").get_by_role("link", name="Download").click()
        download = await downloading.value
        assert "signature=" in download.url
        assert await _content(download) == _csv()
        for absent in ("Cancel the job", "Retry"):
            await expect(page.get_by_role("button", name=absent)).to_have_count(0)
        await expect(page.get_by_role("link", name="Edit and run as a new job")).to_have_count(0)
        await page.close()


@pytest.mark.usefixtures("worker")
async def test_a_picture_whose_address_has_ended_is_asked_for_anew(
    browser: Browser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def save(context: JobContext, _payload: ProbePayload) -> ProbeResult:
        await context.save_artifact("out/picture.png", encoded(gradient(), "PNG"))
        return ProbeResult(attempt=1)

    handled_by(monkeypatch, save)
    whole = tickets.SIGNATURE_SECONDS
    # What is signed has ended by then, as if the page had been left alone for long.
    monkeypatch.setattr(tickets, "SIGNATURE_SECONDS", 0)
    answers: list[int] = []

    async def hold(route: Route) -> None:
        monkeypatch.setattr(tickets, "SIGNATURE_SECONDS", whole)
        await route.continue_()

    async with guarded(settings) as shop:
        job = await shop.create()
        await ended(shop.api.runtime, job)
        page = await browser.new_page()
        page.on("response", lambda answer: answers.append(answer.status) if "picture.png" in answer.url else None)
        await page.route(re.compile("/artifacts/.*picture"), hold)
        await page.goto(f"http://127.0.0.1:{shop.api.port}/#/jobs/{job}")
        await page.get_by_label("Key or token").fill(await shop.new_key("reader", READ))
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("img", name="out/picture.png")).to_have_js_property("naturalWidth", 400)
        assert answers == [401, 200]
        await page.close()


@pytest.mark.usefixtures("worker")
async def test_a_picture_that_is_none_is_said_to_be_none(
    open_page: OpenPage, api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def save(context: JobContext, _payload: ProbePayload) -> ProbeResult:
        await context.save_artifact("broken.png", b"no picture")
        return ProbeResult(attempt=1)

    handled_by(monkeypatch, save)
    page = await open_page(f"jobs/{await create(api.runtime)}")
    await expect(_file(page, "broken.png")).to_contain_text("This picture cannot be shown.")
    await expect(page.get_by_role("img", name="broken.png")).to_have_count(0)


async def test_numbers_are_shown_as_they_are_written(open_page: OpenPage, api: ServedApi) -> None:
    numbers = ["9223372036854775807", "12345678901234567890123", "0.10", "-0.0", "1.5e300"]
    await _tell(api, payload=Raw(f'{{"saves":[{",".join(numbers)}]}}'.encode()))
    page = await open_page(f"jobs/{JOB}")
    payload = page.get_by_role("region", name="Payload")
    for number in numbers:
        await expect(payload.get_by_role("treeitem").get_by_text(number, exact=True)).to_be_visible()
    await payload.get_by_role("button", name="As text").click()
    await expect(payload.get_by_role("region", name="Payload as text")).to_contain_text(numbers[1])


async def test_json_is_walked_and_unfolded_by_keys_and_long_texts_are_cut_until_asked_for(
    open_page: OpenPage, api: ServedApi
) -> None:
    saves = {"list": [{"deep": [n]} for n in range(60)], "long": "y" * 2500, "last": None}
    job = await create(api.runtime, saves=saves)
    page = await open_page(f"jobs/{job}")
    tree = page.get_by_role("tree", name="Payload")
    await expect(_row(tree, '"saves"')).to_have_attribute("aria-expanded", "true")
    await expect(_row(tree, "show all 2,500 characters")).to_have_attribute("aria-expanded", "false")
    await tree.focus()

    async def chosen(text: str) -> None:
        row = tree.locator("[aria-selected=true]")
        await expect(row).to_contain_text(text)
        await expect(tree).to_have_attribute("aria-activedescendant", str(await row.get_attribute("id")))

    await chosen("1 member")
    for key, text in (
        ("ArrowDown", '"saves"'),
        ("ArrowRight", '"list"'),
        ("ArrowRight", '"list"'),
        ("ArrowRight", "0:"),
        ("ArrowRight", "0:"),
        ("ArrowRight", '"deep"'),
        ("ArrowLeft", "0:"),
        ("End", '"last"'),
        ("ArrowUp", '"long"'),
        ("Enter", "text of 2,500 characters"),
        ("ArrowDown", "yyy"),
        ("ArrowLeft", '"long"'),
        ("Home", "1 member"),
        ("ArrowLeft", "1 member"),
    ):
        await tree.press(key)
        await chosen(text)
    await expect(tree.get_by_role("treeitem")).to_have_count(1)


async def test_a_payload_of_a_megabyte_is_shown_at_once_and_scrolls(open_page: OpenPage, api: ServedApi) -> None:
    saves = [{"name": f"item {n}", "value": n} for n in range(20_000)]
    job = await create(api.runtime, saves=saves)
    page = await open_page(f"jobs/{job}")
    payload = page.get_by_role("region", name="Payload")
    await expect(payload.get_by_text(re.compile(r"1\.\d MB|9\d\d kB|[6-9]\d\d kB"))).to_be_visible()
    tree = payload.get_by_role("tree")
    await payload.get_by_role("button", name="Unfold all").click()
    await tree.focus()
    await tree.press("End")
    await expect(tree.locator("[aria-selected=true]")).to_be_in_viewport()
    # Of tens of thousands of lines, those are made that are seen.
    assert await tree.get_by_role("treeitem").count() < 100


@pytest.mark.parametrize("width", [1280, 360])
async def test_whatever_is_written_into_a_job_is_shown_as_text_and_breaks_nothing(
    open_page: OpenPage, api: ServedApi, width: int
) -> None:
    error = JobError(message=HOSTILE * 3, type=HOSTILE, attempt=1, at=BEGAN, retryable=True)
    file = Artifact(f"a/{HOSTILE}.csv", HOSTILE, size_bytes=3, sha256="00" * 32, created_at=BEGAN, object="no/where")
    await _tell(
        api,
        _said(Started, Kind.STARTED, worker_id=HOSTILE),
        _said(Progress, worker_id=HOSTILE, progress=40, message=HOSTILE),
        _said(Failed, Kind.FAILED, worker_id=HOSTILE, errors=(error,), message=HOSTILE),
        _said(Started, Kind.STARTED, attempt=2, worker_id=HOSTILE, errors=(error,)),
        lambda _: (codec.artifact_subject(JOB, file.name), Saved(artifact=file)),
        _said(DeadLetter, Kind.DEAD_LETTER, attempt=2, worker_id=HOSTILE, errors=(error,), spec=spec()),
        type=HOSTILE,
        queue=HOSTILE,
        tags=(HOSTILE, "plain"),
        created_by=HOSTILE,
    )
    page = await open_page(f"jobs/{JOB}", viewport={"width": width, "height": 900})
    shown = page.locator("main").get_by_text("<img src=x onerror=")
    await expect(page.get_by_role("heading", level=1)).to_contain_text('<img src=x onerror="hacked=1">')
    await expect(page.get_by_role("heading", level=1)).to_contain_text("\\u202egpj.exe\\u0000\\u001b[31m")
    await expect(page.get_by_role("region", name="Timeline")).to_contain_text("and no other is left")
    await expect(page.get_by_role("region", name="Files")).to_contain_text("<script>hacked=1</script>")
    assert await shown.count() > 8
    assert await page.locator("main img, main script, main iframe").count() == 0
    assert await page.evaluate("typeof hacked") == "undefined"
    await _is_as_wide_as_the_window(page)


@pytest.mark.parametrize("width", [1280, 360])
async def test_names_and_texts_of_a_payload_are_text_whatever_they_are(
    open_page: OpenPage, api: ServedApi, width: int
) -> None:
    saves = {HOSTILE: [HOSTILE, {"__proto__": HOSTILE}], "constructor": {"toString": 1}}
    job = await create(api.runtime, saves=saves)
    page = await open_page(f"jobs/{job}", viewport={"width": width, "height": 900})
    tree = page.get_by_role("tree", name="Payload")
    await expect(_row(tree, '"<img src=x onerror=')).not_to_have_count(0)
    await expect(_row(tree, '"__proto__": "<img src=x')).to_be_visible()
    await expect(_row(tree, '"toString": 1')).to_be_visible()
    await expect(_row(tree, "\\u202egpj.exe\\u0000\\u001b[31m")).not_to_have_count(0)
    assert await page.locator("main img, main script").count() == 0
    assert await page.evaluate("typeof hacked") == "undefined"
    await _is_as_wide_as_the_window(page)
