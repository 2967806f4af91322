"""Whatever a handler raises and reports, the event that tells of it can be stored and the worker goes on."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gql_jobs import JobContext, PermanentError, TransientError
from gql_jobs.jobs.model import Job, JobError, JobStatus
from gql_jobs.log.codec import fitting
from gql_jobs.log.commands import HEADROOM
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker.failures import Failure, job_error
from tests.workers.stories import create, dead_letter, done_with, ended, handled_by, lane_info, request

pytestmark = pytest.mark.usefixtures("worker")

ONE_MB = 1 << 20
MAX_MESSAGE_BYTES = 4000


class SpeechlessError(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def _exit(*_: object) -> Any:
    sys.exit("from within an exception")


class ExitingDelay:
    """A number that ends the process when it is read."""

    __float__ = __repr__ = _exit


class ExitingNotesError(Exception):
    """An exception that ends the process when its traceback is written."""

    __notes__ = property(_exit)


class ExitingGroup(ExceptionGroup[Exception]):
    """A group that ends the process when it is looked into."""

    exceptions = property(_exit)


async def _failed_with(runtime: Runtime, patch: pytest.MonkeyPatch, raised: Callable[[], BaseException]) -> Job:
    async def handler(_: JobContext, __: Any) -> None:
        raise raised()

    handled_by(patch, handler)
    return await ended(runtime, await create(runtime, max_retries=0))


@pytest.mark.parametrize(
    "message",
    ["x" * ONE_MB, "ü" * ONE_MB, "\x00" * ONE_MB, '"' * ONE_MB, "😀" * ONE_MB, "\ud800" * ONE_MB],
    ids=["ascii", "umlauts", "NULs", "quotes", "emoji", "surrogates"],
)
async def test_a_message_of_a_million_characters_is_cut(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    job = await _failed_with(runtime, monkeypatch, lambda: PermanentError(message))
    assert job.status is JobStatus.DEAD_LETTER
    (error,) = (await dead_letter(runtime.connection, job.id))["errors"]
    assert error["message"].endswith("…")
    assert 100 < len(error["message"].encode()) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    ("message", "stored"),
    [
        ("one\ntwo\r\nthree", "one\ntwo\r\nthree"),
        ("NUL \x00 ESC \x1b", "NUL \x00 ESC \x1b"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("", "PermanentError"),
        ("x" * 3990, "x" * 3990),
    ],
    ids=["line breaks", "control characters", "surrogate", "nothing", "just short enough"],
)
async def test_an_odd_message_is_stored(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, message: str, stored: str
) -> None:
    job = await _failed_with(runtime, monkeypatch, lambda: PermanentError(message))
    assert job.error is not None
    assert job.error.message == stored


async def test_an_exception_that_cannot_be_shown_is_a_failure(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await _failed_with(runtime, monkeypatch, SpeechlessError)
    assert job.error is not None
    assert (job.error.type, job.status) == ("SpeechlessError", JobStatus.DEAD_LETTER)


@pytest.mark.parametrize(
    "raised",
    [
        lambda: TransientError("x", retry_after=ExitingDelay()),  # type: ignore[arg-type]
        ExitingNotesError,
        lambda: ExitingGroup("x", [ValueError("x")]),
    ],
    ids=["delay", "notes", "group"],
)
async def test_no_code_of_an_exception_ends_the_worker(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, raised: Callable[[], BaseException]
) -> None:
    for _ in range(2):
        job = await _failed_with(runtime, monkeypatch, raised)
        assert job.error is not None
        assert (job.status, job.error.type) == (JobStatus.DEAD_LETTER, "UnknownError")


async def test_an_exception_type_with_an_endless_name_is_a_failure(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await _failed_with(runtime, monkeypatch, type("E" * ONE_MB, (Exception,), {}))
    assert job.error is not None
    assert len(job.error.type) < 1000


def test_the_errors_of_a_hundred_retries_fit_into_the_room_that_every_payload_leaves() -> None:
    now = datetime.now(UTC)
    errors: tuple[JobError, ...] = ()
    for attempt in range(1, 102):
        failure = Failure("E" * ONE_MB, f"Attempt {attempt}: " + "\x00" * 5000)
        errors = fitting((*errors, job_error(failure, attempt, now)))
    assert len(msgspec.json.encode(errors)) < HEADROOM - 16 * 1024
    assert [error.attempt for error in errors] == list(range(1, 102))
    assert all(error.message.startswith(f"Attempt {error.attempt}: ") for error in errors)


def test_errors_without_end_are_told_by_the_newest() -> None:
    now = datetime.now(UTC)
    errors = tuple(job_error(Failure("E", "x" * 4000), attempt, now) for attempt in range(1, 2001))
    kept = fitting(errors, 1 << 16)
    assert len(msgspec.json.encode(kept)) <= 1 << 16
    assert [error.attempt for error in kept] == list(range(2001 - len(kept), 2001))
    assert kept[-1] == errors[-1]


async def test_a_dead_letter_with_the_largest_payload_tags_and_errors_is_stored(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(_: JobContext, __: Any) -> None:
        # So long that 24 of them are just not cut.
        raise TransientError("x" * 3980)

    handled_by(monkeypatch, handler)
    monkeypatch.setattr("gql_jobs_worker.record.retry_delay", lambda *_: 0.05)
    room = runtime.connection.max_payload - HEADROOM - len(request(runtime, gate="").payload)
    tags = tuple(chr(0x1F600 + number) * 255 for number in range(32))
    largest = replace(request(runtime, gate="x" * room, max_retries=23), tags=tags, idempotency_key=chr(0x1F600) * 255)
    job = await ended(runtime, (await runtime.commands.create(largest)).job.id, within=25)
    letter = await dead_letter(runtime.connection, job.id)
    assert [error["attempt"] for error in letter["errors"]] == list(range(1, 25))
    assert {error["type"] for error in letter["errors"]} == {"TransientError"}
    assert letter["spec"]["payload"]["gate"] == "x" * room
    assert letter["spec"]["tags"] == list(tags)


@pytest.mark.parametrize("type_name", ["probe", "probe_thread"])
@pytest.mark.parametrize(
    "raised", [SystemExit, asyncio.CancelledError, StopIteration, GeneratorExit, KeyboardInterrupt, BaseException]
)
async def test_no_exception_of_a_handler_ends_the_worker(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], type_name: str
) -> None:
    async def handler(_: JobContext, __: Any) -> dict[str, int]:
        raise raised

    def in_a_thread(_: JobContext, __: Any) -> dict[str, int]:
        raise raised

    handled_by(monkeypatch, handler if type_name == "probe" else in_a_thread)
    job = await ended(runtime, await create(runtime, type_name, max_retries=0, timeout=5))
    assert job.status is JobStatus.DEAD_LETTER
    assert job.error is not None
    assert job.error.type == ("RuntimeError" if raised is StopIteration else raised.__name__)

    async def well(_: JobContext, __: Any) -> dict[str, int]:
        return {"attempt": 1}

    handled_by(monkeypatch, well)
    assert (await ended(runtime, await create(runtime, type_name))).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    "said", ["\ud800", "\x00", "a\nb", "x" * ONE_MB, 7], ids=["surrogate", "NUL", "line break", "1 MB", "number"]
)
async def test_an_odd_progress_message_does_not_keep_the_job_from_its_end(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        context.progress(10, said)
        await asyncio.sleep(0.05)
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, max_retries=0))
    assert job.status is JobStatus.COMPLETED
    assert job.progress_message is None or len(job.progress_message) <= 1000
    await done_with(runtime.connection)
    assert (await lane_info(runtime.connection)).num_redelivered == 0


@pytest.mark.parametrize("percent", [float("nan"), float("inf"), -5, 1e9, "ten", None])
async def test_an_odd_percentage_does_not_keep_the_job_from_its_end(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, percent: Any
) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        context.progress(percent)
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime, max_retries=0))
    assert job.status in {JobStatus.COMPLETED, JobStatus.DEAD_LETTER}
    assert 0 <= job.progress <= 100
