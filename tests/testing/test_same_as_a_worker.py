"""What ``run_handler`` says of an attempt is what a real worker records of it: nothing passes there that fails here."""

import asyncio
import io
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gql_jobs import JobContext, PermanentError, TransientError
from gql_jobs.jobs.errors import PayloadTooLarge
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.commands import HEADROOM
from gql_jobs.settings import Settings
from gql_jobs.testing import arun_handler
from gql_jobs.web.runtime import Runtime
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.workers.stories import create, ended, handled_by

LARGEST = (1 << 20) - HEADROOM
DAY = timedelta(days=1)
CHECKPOINT = 256 * 1024
FILE = 300_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A small limit on files; jobs are not tried again."""
    return settings.model_copy(update={"max_artifact_bytes": FILE, "max_retries": 0})


def _of_length(length: int) -> dict[str, Any]:
    """A result whose JSON has so many bytes."""
    return {"attempt": 1, "saved": None, "text": "x" * (length - len('{"attempt":1,"saved":null,"text":""}'))}


def returns(value: Any) -> Callable[..., Any]:
    async def handler(_context: JobContext, _payload: Any) -> Any:
        return value() if callable(value) else value

    return handler


def raises(error: BaseException) -> Callable[..., Any]:
    async def handler(_context: JobContext, _payload: Any) -> Any:
        raise error

    return handler


def saves(data: Any) -> Callable[..., Any]:
    async def handler(context: JobContext, _payload: Any) -> Any:
        await context.checkpoint(data)
        return {"attempt": 1, "saved": context.saved}

    return handler


def keeps(name: Any, data: Any = b"abc", content_type: Any = None) -> Callable[..., Any]:
    async def handler(context: JobContext, _payload: Any) -> Any:
        await context.save_artifact("first.txt", b"1", "text/plain")
        artifact = await context.save_artifact(name, data() if callable(data) else data, content_type)
        return {
            "attempt": 1,
            "text": f"{artifact.name} {artifact.content_type} {artifact.size_bytes} {artifact.sha256}",
        }

    return handler


def creates(payload: Any, **options: Any) -> Callable[..., Any]:
    async def handler(context: JobContext, _payload: Any) -> Any:
        first = await context.create(ProbePayload(steps=1), type="probe_thread", key="first")
        second = await context.create(payload, **options)
        return {"attempt": 1, "text": f"{first.id == second.id} {second.deduplicated}"}

    return handler


def reports(percent: Any, message: Any = None) -> Callable[..., Any]:
    async def handler(context: JobContext, _payload: Any) -> Any:
        context.progress(percent, message)
        raise PermanentError("Seen.")

    return handler


async def awaits_wrongly(context: JobContext, _payload: Any) -> Any:
    context.wait(context.checkpoint(1))


async def cancels_itself(_context: JobContext, _payload: Any) -> Any:
    raise asyncio.CancelledError


def yields(_context: JobContext, _payload: Any) -> Iterator[int]:
    yield 1


async def yields_later(_context: JobContext, _payload: Any) -> AsyncIterator[int]:
    yield 1


def stops(_context: JobContext, _payload: Any) -> Any:
    raise StopIteration


def in_a_thread(context: JobContext, _payload: Any) -> Any:
    context.progress(30, "here")
    context.wait(context.checkpoint([1]))
    context.wait(context.save_artifact("a/b.json", io.BytesIO(b"{}")))
    return {"attempt": context.attempt, "saved": context.saved}


class Unread(io.BytesIO):
    """A file that cannot be read."""

    def read(self, *_: Any) -> bytes:
        raise OSError("the disk is gone")


HANDLERS: dict[str, Callable[..., Any]] = {
    "a result": returns({"attempt": 1, "saved": {"a": [1, 2.5, None]}, "text": "ä😀"}),
    "the largest result": returns(lambda: _of_length(LARGEST)),
    "a result that is too large": returns(lambda: _of_length(LARGEST + 1)),
    "a result that does not fit": returns({"attempt": "one"}),
    "a result with a field too many": returns({"attempt": 1, "more": 2}),
    "no result": returns(None),
    "a result with infinity": returns({"attempt": 1, "saved": math.inf}),
    "a result with half a character": returns({"attempt": 1, "text": "\ud800"}),
    "a result that is no JSON": returns({"attempt": 1, "saved": object()}),
    "a generator": yields,
    "an asynchronous generator": yields_later,
    "a permanent error": raises(PermanentError("No.")),
    "a transient error": raises(TransientError("Later.", retry_after=5)),
    "an error with a secret": raises(PermanentError("api_key=12345678 is wrong")),
    "an error with a long text": raises(PermanentError("x" * 100_000)),
    "any other error": raises(ZeroDivisionError("1/0")),
    "an exit": raises(SystemExit(3)),
    "an interrupt": raises(KeyboardInterrupt()),
    "a group of one error": raises(ExceptionGroup("some", [PermanentError("One.")])),
    "a group of errors": raises(ExceptionGroup("some", [PermanentError("One."), ValueError("Two")])),
    "a cancellation of its own": cancels_itself,
    "the end of an iteration": stops,
    "a wait on the event loop": awaits_wrongly,
    "a thread": in_a_thread,
    "a checkpoint": saves({"a": [1, "ü", None, 2.5], "b": 10**30}),
    "the largest checkpoint": saves("x" * (CHECKPOINT - 2)),
    "a checkpoint that is too large": saves("x" * (CHECKPOINT - 1)),
    "a checkpoint with NaN": saves([math.nan]),
    "a checkpoint that is no JSON": saves(object()),
    "a tuple as a checkpoint": saves((1, 2)),
    "a child": creates(
        ProbePayload(), type="probe_thread", priority="low", tags=("a",), run_at=datetime.now(UTC) + DAY
    ),
    "a child that is there already": creates(ProbePayload(steps=1), type="probe_thread", key="first"),
    "a child with another payload": creates(ProbePayload(steps=2), type="probe_thread", key="first"),
    "a child of several types": creates(ProbePayload()),
    "a child of no type": creates(ProbeResult(attempt=1)),
    "a child with too many retries": creates(ProbePayload(), type="probe_thread", max_retries=1000),
    "a child with a key of nothing": creates(ProbePayload(), type="probe_thread", key=""),
    "a child that is too large": creates(ProbePayload(saves="x" * LARGEST), type="probe_thread"),
    "a file": keeps("report.pdf"),
    "a file in a folder": keeps("/out put/ä.jpg"),
    "a file without a type": keeps("data"),
    "a file with a type of its own": keeps("data.bin", content_type="text/csv; charset=utf-8"),
    "a file with a type that is none": keeps("data.bin", content_type="text"),
    "a file above its folder with a type of its own": keeps("../x", content_type="text/csv"),
    "a file without a name": keeps(""),
    "a file above its folder": keeps("../../etc/passwd"),
    "a file with a line break in its name": keeps("a\nb"),
    "a file with a long name": keeps("x" * 300),
    "the largest file": keeps("a.bin", bytes(FILE)),
    "a file that is too large": keeps("a.bin", bytes(FILE + 1)),
    "an open file": keeps("a.bin", lambda: io.BytesIO(bytes(200_000))),
    "a path": keeps("a.py", Path(__file__)),
    "a path to nowhere": keeps("a.py", Path("/nowhere/at/all")),
    "an open file of text": keeps("a.txt", lambda: io.StringIO("text")),
    "a text as a file": keeps("a.txt", "text"),
    "a file that cannot be read": keeps("a.bin", Unread),
    "a file that replaces another": keeps("first.txt", b"2", "text/html"),
    "a report": reports(41.6, "soon"),
    "a report that is far out": reports(1000, "x" * 5000),
    "a report that is no number": reports(math.nan, 3),
    "a report with a secret": reports(1, "password=hunter22"),
    "a report with half a character": reports(1, "\ud800"),
}


def _without_reference(text: str) -> str:
    return re.sub(r"reference [0-9a-f]{8}|[0-9a-f]{8}-[0-9a-f-]{27}", "…", text)


async def _in_a_worker(runtime: Runtime) -> dict[str, Any]:
    job = await ended(runtime, await create(runtime))
    files = [await runtime.artifacts.find(job.id, artifact.name) for artifact in runtime.index.artifacts(job.id)]
    return {
        "status": job.status,
        "result": msgspec.json.decode(job.result) if job.result is not None else None,
        "errors": [(error.type, _without_reference(error.message), error.retryable) for error in job.errors],
        "progress": (job.progress, job.progress_message) if job.status is not JobStatus.COMPLETED else None,
        "files": {file.name: (file.content_type, file.size_bytes) for file in files if file is not None},
    }


async def _here(handler: Callable[..., Any], settings: Settings) -> dict[str, Any]:
    outcome = await arun_handler(handler, ProbePayload(), type="probe", settings=settings)
    error, last = outcome.error, outcome.progress[-1] if outcome.progress else (0, None)
    return {
        "status": outcome.status,
        "result": outcome.result.model_dump(mode="json") if outcome.status is JobStatus.COMPLETED else None,
        "errors": [(error.type, _without_reference(error.message), error.kind == "transient")] if error else [],
        "progress": tuple(last) if error else None,
        "files": {file.name: (file.content_type, len(file.data)) for file in outcome.artifacts.values()},
    }


@pytest.mark.usefixtures("worker")
async def test_an_attempt_is_told_as_a_worker_records_it(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, recorded = {}, {}
    for name, handler in HANDLERS.items():
        handled_by(monkeypatch, handler)
        told[name] = await _here(handler, settings)
        recorded[name] = await _in_a_worker(runtime)
    assert told == recorded
    assert {one["status"] for one in told.values()} == {JobStatus.COMPLETED, JobStatus.DEAD_LETTER}


def _payload(length: int) -> dict[str, Any]:
    return {"saves": "x" * (length - len('{"saves":""}'))}


@pytest.mark.parametrize(("length", "fits"), [(LARGEST, True), (LARGEST + 1, False)])
async def test_a_payload_is_as_large_as_one_that_can_be_created(
    runtime: Runtime, settings: Settings, length: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = returns({"attempt": 1})
    handled_by(monkeypatch, handler)
    asked = _payload(length)
    if fits:
        assert await create(runtime, **asked)
        assert (await arun_handler(handler, asked, type="probe", settings=settings)).result
    else:
        with pytest.raises(PayloadTooLarge) as refused:
            await create(runtime, **asked)
        with pytest.raises(PayloadTooLarge, match=re.escape(refused.value.message)):
            await arun_handler(handler, asked, type="probe", settings=settings)
