"""The lines that a worker's log has of its jobs."""

import asyncio
import json
import logging
import re
from asyncio.subprocess import PIPE, Process
from typing import Any

import pytest

from gql_jobs import JobContext, Model, PermanentError
from gql_jobs.jobs.messages import Started
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.log.job_log import JobLog
from gql_jobs.logs import job_fields
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker.telemetry import log_event, show_progress
from tests.by_hand import say
from tests.deadline import until
from tests.running import worker_process
from tests.stories import accepted
from tests.workers.stories import create, ended, handled_by, running

JOB_ID = "550e8400-e29b-41d4-a716-446655440000"
SECONDS = r"\d+\.\d{3}s"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What has been written, as far as a worker's log shows it."""
    caplog.set_level(logging.DEBUG, "gql_jobs.events")
    return caplog


@pytest.mark.parametrize(("shown", "level"), [(True, logging.INFO), (False, logging.DEBUG)])
def test_progress_is_logged_like_all_else_only_where_that_was_asked_for(
    lines: pytest.LogCaptureFixture, shown: bool, level: int
) -> None:
    try:
        show_progress(shown)
        log_event("progress", job_fields(job_id=JOB_ID), progress="25%")
        log_event("started", job_fields(job_id=JOB_ID), attempt=1)
    finally:
        show_progress(False)
    assert [record.levelno for record in lines.records] == [level, logging.INFO]


async def _lines(lines: pytest.LogCaptureFixture, job_id: str, number: int) -> list[str]:
    """So many lines about one job: a watcher hears of an event before the worker has written its line."""
    await until(lambda: len(_said(lines, job_id)) >= number, f"there are {number} lines")
    return _said(lines, job_id)


def _said(lines: pytest.LogCaptureFixture, job_id: str) -> list[str]:
    """The lines about one job, without what is the same in all of them."""
    begin = "[event] Job "
    said = [record.getMessage() for record in lines.records if record.name == "gql_jobs.events"]
    about = [line for line in said if f": {job_id[:8]}... (" in line]
    assert all(line.startswith(begin) for line in about)
    return [line.removeprefix(begin).replace(f"{job_id[:8]}... ", "") for line in about]


def _matches(lines: list[str], *patterns: str) -> None:
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_format_of_a_line(lines: pytest.LogCaptureFixture) -> None:
    log_event("progress", job_fields(job_id=JOB_ID), progress="25%", message="Connecting to SMTP...")
    (line,) = [record.getMessage() for record in lines.records]
    assert line == "[event] Job progress: 550e8400... (progress=25%, message=Connecting to SMTP...)"


def test_what_is_not_known_is_left_out(lines: pytest.LogCaptureFixture) -> None:
    log_event("progress", job_fields(job_id=JOB_ID), progress="25%", message=None)
    assert lines.records[0].getMessage() == "[event] Job progress: 550e8400... (progress=25%)"


def test_a_line_names_the_whole_id_for_programs(lines: pytest.LogCaptureFixture) -> None:
    log_event("started", job_fields(job_id=JOB_ID), type="email", attempt=1)
    assert vars(lines.records[0])["job_id"] == JOB_ID


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1b[2K", "\x85", "\u2028", "\x00"])
def test_a_message_cannot_forge_a_line(lines: pytest.LogCaptureFixture, separator: str) -> None:
    log_event("progress", job_fields(job_id=JOB_ID), message=f"ok{separator}[event] Job completed: 550e8400...")
    line = lines.records[0].getMessage()
    assert line.isprintable()
    assert len(line.splitlines()) == 1


@pytest.mark.usefixtures("worker")
async def test_a_job_that_succeeds(
    runtime: Runtime, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        context.progress(25, "Connecting to SMTP...")
        await asyncio.sleep(0.01)
        return {"attempt": 1}

    handled_by(monkeypatch, handler)
    job_id = await create(runtime)
    await ended(runtime, job_id)
    _matches(
        await _lines(lines, job_id, 3),
        r"started: \(type=probe, attempt=1\)",
        r"progress: \(progress=25%, message=Connecting to SMTP\.\.\.\)",
        rf"completed: \(attempt=1, duration={SECONDS}\)",
    )


@pytest.mark.usefixtures("worker")
async def test_a_job_that_fails_and_is_given_up(runtime: Runtime, lines: pytest.LogCaptureFixture) -> None:
    job_id = await create(runtime, fail_attempts=9, max_retries=1)
    await ended(runtime, job_id)
    _matches(
        await _lines(lines, job_id, 4),
        r"started: \(type=probe, attempt=1\)",
        rf"failed: \(attempt=1, duration={SECONDS}, error=Attempt 1 fails\., retry_in=0\.1s\)",
        r"started: \(type=probe, attempt=2\)",
        rf"dead-letter: \(attempt=2, duration={SECONDS}, error=Attempt 2 fails\.\)",
    )


@pytest.mark.usefixtures("worker")
async def test_a_job_that_is_cancelled(runtime: Runtime, lines: pytest.LogCaptureFixture) -> None:
    job_id = await create(runtime, seconds=30)
    await running(runtime, job_id)
    await runtime.commands.cancel(job_id)
    _matches(
        await _lines(lines, job_id, 2),
        r"started: \(type=probe, attempt=1\)",
        rf"cancelled: \(attempt=1, duration={SECONDS}\)",
    )


@pytest.mark.usefixtures("worker")
async def test_an_error_cannot_forge_a_line(
    runtime: Runtime, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(_: JobContext, __: Any) -> None:
        raise PermanentError("bad\n12:00:00 INFO [event] Job completed: 12345678... (attempt=1)")

    handled_by(monkeypatch, handler)
    job_id = await create(runtime)
    await ended(runtime, job_id)
    said = await _lines(lines, job_id, 2)
    assert all(len(line.splitlines()) == 1 for line in said)
    assert "error=bad\\n12:00:00" in said[-1]


async def _json_lines(process: Process, job_id: str, until_message: str) -> list[dict[str, Any]]:
    """What a worker process logs about one job, up to a message that begins so."""
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not lines or not lines[-1]["message"].startswith(until_message):
            line = json.loads(await process.stderr.readline())
            if line.get("job_id") == job_id:
                lines.append(line)
    return lines


@pytest.mark.parametrize("type_name", ["breaking", "breaking_thread", "breaking_cpu"])
async def test_every_json_line_about_a_job_has_its_id_attempt_type_and_worker(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch, type_name: str
) -> None:
    monkeypatch.setenv("GQL_JOBS_LOG_FORMAT", "json")
    # Known to the worker only.
    job_type = JobType(type_name, payload=Model, result=Model, handler="registered:elsewhere")
    asked = JobRequest.of(job_type, accepted(Model()), max_retries=1)
    async with worker_process(settings, "--import", "tests.workers.breaking_jobs", stderr=PIPE) as process:
        job_id = (await runtime.commands.create(asked)).job.id
        lines = await _json_lines(process, job_id, "[event] Job dead-letter")
    job = await ended(runtime, job_id)
    attempts = [(line["message"].partition(":")[0], line["logger"], line["attempt"]) for line in lines]
    own = f"gql_jobs.jobs.{type_name}"
    assert attempts == [
        (message, logger, attempt)
        for attempt, outcome in ((1, "failed"), (2, "dead-letter"))
        for message, logger in (
            ("[event] Job started", "gql_jobs.events"),
            ("a line\nof the handler", own),
            ("the attempt failed unexpectedly", own),
            (f"[event] Job {outcome}", "gql_jobs.events"),
        )
    ]
    assert {(line["type"], line["worker"]) for line in lines} == {(type_name, job.worker_id)}
    assert {line["page"] for line in lines if line["logger"] == own and "exception" not in line} == {3}
    tracebacks = [line["exception"] for line in lines if "exception" in line]
    assert len(tracebacks) == 2
    assert all(text.endswith("RuntimeError: Nobody expected this.") for text in tracebacks)


@pytest.mark.usefixtures("worker")
async def test_the_warning_of_a_superseded_attempt_has_the_fields_of_the_attempt(
    runtime: Runtime, job_log: JobLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = asyncio.Event()

    async def handler(_: JobContext, __: Any) -> dict[str, int]:
        await going_on.wait()
        return {"attempt": 1}

    handled_by(monkeypatch, handler)
    job_id = await create(runtime)
    await running(runtime, job_id)
    job = runtime.index.job(job_id)
    assert job is not None
    await say(job_log, job, Started, attempt=2, supersedes=1)
    going_on.set()
    text = f"attempt 1 of job {job_id} was superseded by another worker"
    (record,) = await until(
        lambda: [record for record in caplog.records if record.getMessage() == text], "the warning is written"
    )
    fields = {"job_id": job_id, "attempt": 1, "type": "probe", "worker": job.worker_id}
    assert vars(record).items() >= fields.items()
