"""What becomes of a job whose attempt fails."""

import asyncio
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs import JobContext, PermanentError, TransientError
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import execution
from tests.workers.stories import (
    create,
    dead_letter,
    done_with,
    ended,
    handled_by,
    history,
    kinds,
)

pytestmark = pytest.mark.usefixtures("worker")
LIMIT = 4000


async def test_a_transient_error_is_retried_and_the_job_completes_with_its_errors_kept(runtime: Runtime) -> None:
    job_id = await create(runtime, fail_attempts=2)
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt, job.retry_count) == (JobStatus.COMPLETED, 3, 2)
    assert [(e.message, e.type, e.attempt, e.retryable) for e in job.errors] == [
        ("Attempt 1 fails.", "TransientError", 1, True),
        ("Attempt 2 fails.", "TransientError", 2, True),
    ]
    assert await kinds(runtime.connection, job_id) == [
        Kind.QUEUED,
        Kind.STARTED,
        Kind.FAILED,
        Kind.STARTED,
        Kind.FAILED,
        Kind.STARTED,
        Kind.COMPLETED,
    ]
    await done_with(runtime.connection)


async def test_each_retry_waits_for_its_backoff(runtime: Runtime) -> None:
    job_id = await create(runtime, fail_attempts=2)
    await ended(runtime, job_id)
    messages = [m for m in await history(runtime.connection, job_id) if m.kind in (Kind.FAILED, Kind.STARTED)]
    for (failed, started), backoff in zip(
        ((messages[1], messages[2]), (messages[3], messages[4])), (0.1, 0.2), strict=True
    ):
        waited = started.at - failed.at
        assert failed.body.next_attempt_at - failed.at < timedelta(seconds=backoff)
        assert timedelta(seconds=backoff - 0.03) <= waited < timedelta(seconds=backoff + 1)


async def test_any_other_exception_is_transient(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        if context.attempt == 1:
            raise KeyError("missing")
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert (job.status, job.errors[0].type) == (JobStatus.COMPLETED, "KeyError")


SECRET_URL = "https://ada:hunter2@api.example/v1?api_key=hunter2&page=2"  # noqa: S105


@pytest.mark.parametrize(
    "raised",
    [
        RuntimeError(SECRET_URL),
        subprocess.CalledProcessError(1, ["curl", "--token", "hunter2"]),
        KeyError("postgresql://ada:hunter2@db/shop"),
        SystemExit("hunter2"),
        OSError(2, "hunter2"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("type_name", ["probe", "probe_thread"])
async def test_of_an_exception_that_was_not_raised_on_purpose_clients_see_its_type_and_a_reference_that_the_log_has(
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raised: BaseException,
    type_name: str,
) -> None:
    def in_a_thread(_: JobContext, __: Any) -> None:
        raise raised

    async def handler(context: JobContext, payload: Any) -> None:
        in_a_thread(context, payload)

    handled_by(monkeypatch, handler if type_name == "probe" else in_a_thread)
    job_id = await create(runtime, type_name, max_retries=0)
    job = await ended(runtime, job_id)
    assert job.error is not None
    said = re.fullmatch(
        r"(\w+) was raised; the worker's log says more, under the reference ([0-9a-f]{8})\.", job.error.message
    )
    assert said is not None, job.error.message
    assert said[1] == job.error.type == type(raised).__name__
    (record,) = [record for record in caplog.records if said[2] in record.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[1] is raised
    assert "hunter2" not in str(await dead_letter(runtime.connection, job_id))


async def test_what_one_task_of_a_group_raises_on_purpose_is_what_the_handler_has_raised(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def step() -> None:
        raise PermanentError("There is no such page.")

    async def handler(_: JobContext, __: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step())

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert job.error is not None
    assert (job.status, job.error.message) == (JobStatus.DEAD_LETTER, "There is no such page.")


@pytest.mark.parametrize("raised", [PermanentError, TransientError])
async def test_secrets_are_taken_out_of_messages_on_purpose_and_of_progress_too(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, raised: type[Exception]
) -> None:
    async def handler(context: JobContext, _: Any) -> None:
        context.progress(10, f"Asking {SECRET_URL}")
        raise raised(f"{SECRET_URL} does not answer.")

    handled_by(monkeypatch, handler)
    job_id = await create(runtime, max_retries=0)
    job = await ended(runtime, job_id)
    assert job.error is not None
    shown = "https://***@api.example/v1?api_key=***&page=2"
    assert job.error.message == f"{shown} does not answer."
    assert job.progress_message == f"Asking {shown}"
    assert "hunter2" not in str(await dead_letter(runtime.connection, job_id))


async def test_the_delay_that_a_handler_asks_for_is_kept_to(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        if context.attempt == 1:
            raise TransientError("Too many requests.", retry_after=0.7)
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    job_id = await create(runtime)
    await ended(runtime, job_id)
    _, _, failed, started, _ = await history(runtime.connection, job_id)
    assert timedelta(seconds=0.65) <= started.at - failed.at < timedelta(seconds=1.7)


async def test_a_permanent_error_is_a_dead_letter_at_once(runtime: Runtime) -> None:
    job_id = await create(runtime, permanent=True)
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.DEAD_LETTER, 1)
    assert job.error is not None
    assert (job.error.type, job.error.message, job.error.retryable) == ("PermanentError", "This can never work.", False)
    assert await kinds(runtime.connection, job_id) == [Kind.QUEUED, Kind.STARTED, Kind.DEAD_LETTER]
    await done_with(runtime.connection)


async def test_used_up_retries_are_a_dead_letter_with_payload_and_every_error(runtime: Runtime) -> None:
    job_id = await create(runtime, fail_attempts=9, max_retries=2, saves={"page": 3})
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.DEAD_LETTER, 3)
    letter = await dead_letter(runtime.connection, job_id)
    assert letter["spec"]["type"] == "probe"
    assert letter["spec"]["payload"]["failAttempts"] == 9
    assert letter["spec"]["payload"]["saves"] == {"page": 3}
    assert [(e["attempt"], e["message"]) for e in letter["errors"]] == [
        (1, "Attempt 1 fails."),
        (2, "Attempt 2 fails."),
        (3, "Attempt 3 fails."),
    ]


@pytest.mark.parametrize("max_retries", [0, 1, 3])
async def test_the_number_of_retries_is_the_job_s_own(runtime: Runtime, max_retries: int) -> None:
    job = await ended(runtime, await create(runtime, fail_attempts=99, max_retries=max_retries))
    assert (job.status, job.attempt, len(job.errors)) == (JobStatus.DEAD_LETTER, max_retries + 1, max_retries + 1)


async def test_a_function_that_its_module_lacks_is_a_failure_that_is_tried_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may have another version of it."""
    job_type = runtime.registry.get("probe")
    assert job_type is not None
    missing = "tests.job_types.probe_handlers:no_such_function"
    monkeypatch.setitem(runtime.registry._types, "probe", replace(job_type, handler=missing))  # noqa: SLF001
    job = await ended(runtime, await create(runtime, max_retries=1))
    assert [(e.type, e.retryable) for e in job.errors] == [("HandlerNotFound", True)] * 2


async def test_a_handler_module_that_cannot_be_imported_is_a_failure(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_on_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    job_type = runtime.registry.get("probe")
    assert job_type is not None
    broken = replace(job_type, handler="broken_on_import:run")
    monkeypatch.setitem(runtime.registry._types, "probe", broken)  # noqa: SLF001
    job = await ended(runtime, await create(runtime, max_retries=0))
    assert job.error is not None
    assert job.error.type == "HandlerNotFound"
    assert "broken_on_import:run cannot be loaded: ZeroDivisionError was raised; the worker's log" in job.error.message


@pytest.mark.parametrize(
    "result",
    [
        None,
        {},
        {"attempt": "one"},
        {"attempt": 1, "more": 2},
        {"attempt": 1, "saved": object()},
        {"attempt": 1, "text": "\ud800"},
        {"attempt": 1, "saved": "\ud800"},
    ],
    ids=["nothing", "empty", "wrong type", "unknown field", "no JSON", "surrogate", "hidden surrogate"],
)
async def test_a_result_that_does_not_fit_its_model_is_permanent(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    async def handler(_: JobContext, __: Any) -> Any:
        return result

    handled_by(monkeypatch, handler)
    job_id = await create(runtime)
    job = await ended(runtime, job_id)
    assert job.status is JobStatus.DEAD_LETTER
    assert job.error is not None
    assert (job.error.type, job.error.retryable) == ("InvalidResult", False)


@pytest.fixture
def no_result(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    """Have the type ``probe`` without a result."""
    probe = runtime.registry.get("probe")
    assert probe is not None
    silent = {"probe": replace(probe, result=None)}
    monkeypatch.setattr(runtime.registry, "get", silent.get)


@pytest.mark.usefixtures("no_result")
async def test_a_handler_that_returns_nothing_completes_its_job_with_null(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(_: JobContext, __: Any) -> None:
        """Does nothing."""

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert (job.status, job.error) == (JobStatus.COMPLETED, None)
    assert job.result is not None
    assert bytes(job.result) == b"null"


@pytest.mark.usefixtures("no_result")
async def test_a_handler_that_returns_something_where_nothing_is_to_be_fails_for_good(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(_: JobContext, __: Any) -> dict[str, int]:
        return {"attempt": 1}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert job.error is not None
    assert (job.status, job.error.type, job.error.retryable) == (JobStatus.DEAD_LETTER, "InvalidResult", False)
    assert job.error.message == "The handler returned a value of dict, but the job type has no result (result=None)."


async def test_a_number_of_a_result_that_clients_are_not_shown_is_said_once_in_the_log(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(_: JobContext, __: Any) -> dict[str, int]:
        return {"attempt": 3 * 2**30}

    handled_by(monkeypatch, handler)
    execution._warn_once.cache_clear()  # noqa: SLF001
    for _ in range(2):
        job = await ended(runtime, await create(runtime))
        assert job.status is JobStatus.COMPLETED
        assert job.result is not None
        assert b"3221225472" in bytes(job.result)
    (said,) = [record.getMessage() for record in caplog.records if "BigInt" in record.getMessage()]
    assert said.startswith("Results of the job type probe have a number at attempt that GraphQL has not")


async def test_a_result_too_large_is_permanent_and_names_both_sizes(runtime: Runtime) -> None:
    job_id = await create(runtime, result_bytes=1 << 20)
    job = await ended(runtime, job_id)
    assert job.status is JobStatus.DEAD_LETTER
    assert job.error is not None
    assert (job.error.type, job.error.retryable) == ("ResultTooLarge", False)
    limit = runtime.connection.max_payload - 128 * 1024
    assert str(limit) in job.error.message


async def test_a_result_just_below_the_limit_is_stored(runtime: Runtime) -> None:
    limit = runtime.connection.max_payload - 128 * 1024
    job = await ended(runtime, await create(runtime, result_bytes=limit - 100))
    assert job.status is JobStatus.COMPLETED
