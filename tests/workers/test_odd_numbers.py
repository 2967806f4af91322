"""Numbers that no clock and no store can hold: a handler's error is never hidden by them, and no attempt hangs."""

import logging
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from gql_jobs import JobContext, TransientError
from gql_jobs.jobs.messages import Failed, Started
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs.testing import arun_handler
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker.execution import checkpoint_json
from gql_jobs_worker.failures import MAX_RETRY_AFTER
from tests.by_hand import say
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker
from tests.workers.stories import create, ended, handled_by, lane_info, reached


class _Odd(TransientError):
    """Its delay cannot be asked for."""

    def __init__(self) -> None:
        Exception.__init__(self, "Busy.")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (math.inf, MAX_RETRY_AFTER),
        (1e11, MAX_RETRY_AFTER),
        (1_764_371_000_000, MAX_RETRY_AFTER),
        (10**400, None),
        (math.nan, None),
        (-math.inf, None),
        (-5, None),
        ("soon", None),
        (datetime(2026, 1, 31, tzinfo=UTC), None),
        ([1], None),
        ("120", 120),
        (timedelta(minutes=2), 120),
        (timedelta.max, MAX_RETRY_AFTER),
        (Decimal(90), 90),
        (None, None),
    ],
    ids=repr,
)
async def test_a_delay_that_cannot_be_waited_is_cut_or_ignored_and_the_handler_s_error_is_recorded(
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: Any,
    waited: float | None,
) -> None:
    caplog.set_level(logging.WARNING)

    async def handler(_: JobContext, __: Any) -> None:
        raise TransientError("Busy.", retry_after=asked)

    handled_by(monkeypatch, handler)
    job_id = await create(runtime)
    job = await reached(runtime, job_id, JobStatus.RETRYING)
    assert [(error.type, error.message) for error in job.errors] == [("TransientError", "Busy.")]
    assert job.next_attempt_at is not None
    if waited is not None:
        assert abs(job.next_attempt_at - job.updated_at - timedelta(seconds=waited)) < timedelta(seconds=5)
    else:
        assert job.next_attempt_at - job.updated_at < timedelta(seconds=5)
    told = [record for record in caplog.records if "retry_after" in record.getMessage()]
    assert bool(told) is (waited in (None, MAX_RETRY_AFTER) and asked is not None)
    await runtime.commands.cancel(job_id)


class _Odder(TransientError):
    """Its delay raises."""

    def __init__(self) -> None:
        Exception.__init__(self, "Busy.")

    @property
    def retry_after(self) -> float:  # type: ignore[override]
        """Fail."""
        raise ZeroDivisionError


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("odd", [_Odd, _Odder])
async def test_an_error_without_the_delay_that_its_class_promises_is_an_error_like_others(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, odd: type[TransientError]
) -> None:
    async def handler(context: JobContext, _: Any) -> dict[str, int]:
        if context.attempt == 1:
            raise odd()  # type: ignore[call-arg]
        return {"attempt": context.attempt}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert (job.status, job.errors[0].message) == (JobStatus.COMPLETED, "Busy.")


async def test_a_retry_that_is_due_in_eight_thousand_years_is_no_busy_loop(
    runtime: Runtime, settings: Settings, job_log: JobLog
) -> None:
    job_id = await create(runtime)
    job = await reached(runtime, job_id, JobStatus.QUEUED)
    await say(job_log, job, Started)
    await say(job_log, job, Failed, next_attempt_at=datetime(9999, 12, 31, tzinfo=UTC))
    async with running_worker(settings):
        for _ in range(3):
            await ended(runtime, await create(runtime))
        info = await lane_info(runtime.connection)
    assert info.delivered.consumer_seq == 4
    assert info.num_ack_pending == 1


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("type_name", ["probe", "probe_thread"])
async def test_a_report_that_is_no_number_neither_fails_the_attempt_nor_hides_its_error(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, type_name: str
) -> None:
    odd: list[Any] = [math.nan, "half", None, object(), 10**400, [1]]

    async def coroutine(context: JobContext, _: Any) -> None:
        plain(context, _)

    def plain(context: JobContext, _: Any) -> None:
        context.progress(40)
        try:
            raise LookupError("the error itself")
        finally:
            for percent in odd:
                context.progress(percent, "odd")
            context.progress(41, ValueError("a message that is no text"))  # type: ignore[arg-type]

    handled_by(monkeypatch, coroutine if type_name == "probe" else plain)
    job = await ended(runtime, await create(runtime, type_name, max_retries=0))
    assert [error.type for error in job.errors] == ["LookupError"]
    assert (job.progress, job.progress_message) == (41, "ValueError('a message that is no text')")
    assert len([record for record in caplog.records if "no number of percent" in record.getMessage()]) == 1


async def test_reports_outside_of_0_to_100_are_brought_to_the_nearer_end_and_what_is_no_number_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(context: JobContext, _: Any) -> None:
        odd: list[Any] = [7, math.nan, math.inf, -math.inf, "1", Decimal("33.4"), True, 10**400]
        for percent in odd:
            context.progress(percent)

    handled_by(monkeypatch, handler)
    outcome = await arun_handler(handler, ProbePayload(), type="probe")
    assert [percent for percent, _ in outcome.progress] == [7, 7, 100, 0, 0, 33, 1, 100]


@pytest.mark.parametrize(
    "data", [math.nan, {"a": [1, {"b": math.inf}]}, (-math.inf,), {"null": math.nan}, 10**5000], ids=lambda _: ""
)
def test_a_checkpoint_with_a_number_that_json_has_not_is_refused_in_a_sentence(data: Any) -> None:
    with pytest.raises(ValueError, match=r"^The checkpoint is no JSON: "):
        checkpoint_json(data)


@pytest.mark.usefixtures("worker")
async def test_a_checkpoint_keeps_integers_of_any_size_and_its_own_nulls(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"big": 10**300, "small": -(2**70), "nothing": None, "some": [1.5, None]}

    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        if context.attempt == 1:
            await context.checkpoint(data)
            raise ValueError
        return {"attempt": 2, "text": str(context.saved == data)}

    handled_by(monkeypatch, handler)
    job = await ended(runtime, await create(runtime))
    assert job.result is not None, job.errors
    assert b'"True"' in bytes(job.result)
