"""One attempt of a handler, run without a server."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gql_jobs.jobs.errors import InvalidPayload, PayloadTooLarge
from gql_jobs.jobs.messages import Receipt
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.requests import InvalidRequest
from gql_jobs.settings import Settings
from gql_jobs.testing import (
    AttemptError,
    AttemptFailed,
    ErrorKind,
    HandlerOutcome,
    arun_handler,
    handler_runs,
    run_handler,
)
from tests.testing import sms_jobs
from tests.testing.sms_jobs import PlainPayload, SmsPayload, SmsResult, send_sms

SMS = SmsPayload(to="+44123", text="Hello, how are you?")


@pytest.fixture(autouse=True)
def _types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the types of this process be those of the module alone."""
    monkeypatch.setattr(handler_runs, "registered", sms_jobs.types)


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_an_attempt_comes_to_a_result_with_all_that_its_handler_has_told_and_kept() -> None:
    outcome = run_handler(send_sms, SMS)
    assert outcome.result == SmsResult(parts=2, token=outcome.job_id)
    assert outcome.status is JobStatus.COMPLETED
    assert outcome.error is None
    assert outcome.progress == ((50, "part 1"), (100, "part 2"))
    assert outcome.checkpoints == (1, 2)
    assert outcome.saved == 2
    file = outcome.artifacts["sent.txt"]
    assert (file.content_type, file.data) == ("text/plain", b"Hello, how are you?")
    assert [line.message for line in outcome.logs] == ["part 0 goes to +44123", "part 1 goes to +44123"]
    assert {line.level for line in outcome.logs} == {"INFO"}


def test_a_type_checker_knows_the_result_of_a_handler() -> None:
    """Each line is checked by mypy, too."""
    awaited: HandlerOutcome[SmsResult] = run_handler(send_sms, SMS)
    parts: int = awaited.result.parts
    plain: HandlerOutcome[dict[str, int]] = run_handler(sms_jobs.count, PlainPayload())
    assert (parts, plain.status) == (2, JobStatus.COMPLETED)


async def test_a_coroutine_awaits_the_same() -> None:
    assert (await arun_handler(send_sms, SMS)).result.parts == 2
    with pytest.raises(RuntimeError, match="await arun_handler"):
        run_handler(send_sms, SMS)


def test_a_later_attempt_goes_on_from_what_an_earlier_one_has_saved() -> None:
    outcome = run_handler(send_sms, SMS, attempt=2, saved=1)
    assert (outcome.attempt, outcome.result.parts) == (2, 2)
    assert [line.message for line in outcome.logs] == ["part 1 goes to +44123"]
    assert outcome.checkpoints == (2,)
    untouched = run_handler(send_sms, SMS, attempt=2, saved=2)
    assert (untouched.checkpoints, untouched.saved) == ((), 2)


def test_fields_are_taken_as_a_client_sends_them_and_refused_as_the_api_refuses_them() -> None:
    assert run_handler(send_sms, {"to": "+44", "text": "Hi"}).result.parts == 1
    with pytest.raises(InvalidPayload, match=r"to: .*pattern"):
        run_handler(send_sms, {"to": "nobody"})
    with pytest.raises(InvalidPayload, match="text: be nice"):
        run_handler(send_sms, SmsPayload.model_construct(to="+44", text="insult"))
    with pytest.raises(PayloadTooLarge):
        run_handler(send_sms, SmsPayload(to="+44", text="x" * (1 << 20)))
    with pytest.raises(InvalidRequest, match="between"):
        run_handler(send_sms, SMS, timeout=0.01)


def test_a_handler_is_given_what_was_read_from_json_and_not_the_object_of_the_test() -> None:
    seen: list[Any] = []

    def keep(_context: Any, payload: Any) -> dict[str, int]:
        seen.append(payload)
        return {"parts": 0}

    payload = PlainPayload(steps=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gql_jobs_worker.execution.load_handler", lambda _: keep)
        run_handler(keep, payload, type="count")
    assert seen == [payload]
    assert seen[0] is not payload


@pytest.mark.parametrize(("attempt", "status"), [(1, "retrying"), (2, "dead_letter")])
def test_a_transient_error_is_retried_as_long_as_there_are_retries(attempt: int, status: str) -> None:
    outcome = run_handler(sms_jobs.ask_again, PlainPayload(), attempt=attempt)
    assert outcome.error == AttemptError("TransientError", "The gateway is busy.", ErrorKind.TRANSIENT, 60.0)
    assert outcome.status == status


def test_an_exception_that_nobody_wrote_for_clients_is_told_by_a_reference_and_its_traceback_stands_in_the_log() -> (
    None
):
    outcome = run_handler(sms_jobs.ask_again, PlainPayload(fails=True))
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.kind) == ("KeyError", ErrorKind.TRANSIENT)
    (line,) = outcome.logs
    assert line.fields["reference"] in outcome.error.message
    assert line.exception is not None
    assert "in ask_again" in line.exception
    assert "hunter22" not in line.exception
    with pytest.raises(AttemptFailed, match=r"(?s)transient KeyError.*in ask_again"):
        _ = outcome.result


def test_secrets_are_in_nothing_that_a_worker_would_show() -> None:
    outcome = run_handler(sms_jobs.refuse, SmsPayload(to="+44", password=SecretStr("open sesame")), type="sms_refused")
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.message) == (
        ErrorKind.PERMANENT,
        "The gateway does not know [redacted].",
    )
    assert outcome.status is JobStatus.DEAD_LETTER
    assert outcome.progress == ((10, "logging in with [redacted]"),)
    assert [line.message for line in outcome.logs] == ["logging in with [redacted]"]


def test_a_plain_function_runs_in_a_thread() -> None:
    outcome = run_handler(sms_jobs.count, PlainPayload(steps=2))
    assert outcome.checkpoints == ({"step": 0}, {"step": 1})
    returned: Any = outcome.returned
    assert returned == SmsResult(parts=2)
    assert {report.message for report in outcome.progress} == {f"job {outcome.job_id}"}
    assert threading.current_thread().name not in str(outcome.progress)


def test_a_cpu_bound_handler_runs_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_handler(sms_jobs.compute, PlainPayload(steps=3))
    assert outcome.result is None
    assert outcome.status is JobStatus.COMPLETED
    assert [report.percent for report in outcome.progress] == [0, 1, 2]
    assert (outcome.checkpoints, outcome.artifacts["steps.csv"].content_type) == ((0, 1, 2), "text/csv")
    (line,) = outcome.logs
    assert (line.level, line.logger, line.message) == ("WARNING", "sms_gateway", "computing 3")
    assert capsys.readouterr().err == "said beside the log\n"


def test_a_cpu_bound_handler_is_killed_when_its_time_is_over() -> None:
    outcome = run_handler(sms_jobs.compute, PlainPayload(fails=True), timeout=1)
    assert outcome.error == AttemptError("Timeout", "The attempt took longer than 1 s.", ErrorKind.TRANSIENT)
    assert outcome.receipt is Receipt.KILLED


def test_a_cpu_bound_handler_may_run_here_for_a_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncio.create_subprocess_exec", None)
    outcome = run_handler(sms_jobs.compute, PlainPayload(steps=1), in_process=True)
    assert (outcome.status, outcome.checkpoints) == (JobStatus.COMPLETED, (0,))


@pytest.mark.parametrize("options", [{"cancel_after": 0.05}, {"cancel_after_reports": 3}])
def test_a_cancellation_stops_the_handler(options: dict[str, Any]) -> None:
    outcome = run_handler(sms_jobs.wait, PlainPayload(), type="wait", **options)
    assert (outcome.status, outcome.receipt, outcome.error) == (JobStatus.CANCELLED, Receipt.STOPPED, None)
    assert [report.percent for report in outcome.progress] == [0, 1, 2]
    with pytest.raises(AttemptFailed, match="was cancelled"):
        _ = outcome.result


def test_a_timeout_stops_the_handler_and_counts_as_transient() -> None:
    outcome = run_handler(sms_jobs.wait, PlainPayload(), type="wait", timeout=0.1)
    assert outcome.error == AttemptError("Timeout", "The attempt took longer than 0.1 s.", ErrorKind.TRANSIENT)


@pytest.mark.parametrize("max_retries", [0, 3])
def test_an_attempt_that_no_worker_would_begin_is_refused(max_retries: int) -> None:
    with pytest.raises(ValueError, match="no such attempt"):
        run_handler(send_sms, SMS, attempt=max_retries + 2, max_retries=max_retries)
    with pytest.raises(ValueError, match="no such attempt"):
        run_handler(send_sms, SMS, attempt=0)
    with pytest.raises(ValueError, match="The checkpoint is no JSON"):
        run_handler(send_sms, SMS, attempt=2, saved=float("nan"))


def test_an_option_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="atempt"):
        run_handler(send_sms, SMS, atempt=2)  # type: ignore[call-overload]


def test_a_handler_of_no_registered_type_is_refused_in_a_sentence() -> None:
    async def other(_context: Any, _payload: SmsPayload) -> SmsResult:
        raise AssertionError

    class Unregistered(PlainPayload):
        """Of no type."""

    with pytest.raises(LookupError, match="no registered job type: import the module"):
        run_handler(sms_jobs.count, Unregistered())
    with pytest.raises(LookupError, match="import the module that calls job_type"):
        run_handler(other, SMS)
    with pytest.raises(LookupError, match=r"is tests\.testing\.sms_jobs:send_sms, and not .*other: a worker would run"):
        run_handler(other, SMS, type="sms")
    with pytest.raises(LookupError, match=r"several job types.*'wait', 'wait_long'"):
        run_handler(sms_jobs.wait, PlainPayload())


def test_the_children_of_a_handler_are_told_each_once() -> None:
    outcome = run_handler(sms_jobs.spread, PlainPayload(steps=2), state="the state")
    first, second = outcome.created
    assert (first.type, first.payload) == ("sms", SmsPayload(to="+44", text="0"))
    assert (second.key, second.priority, second.tags, second.run_at) == ("1", JobPriority.HIGH, ("spread",), None)
    assert outcome.progress[-1].message == f"see /artifacts/{outcome.job_id}/log.txt of the state"


def test_a_handler_that_no_worker_could_load_fails_as_in_a_worker() -> None:
    registry = Registry()
    registry.add(JobType("lost", PlainPayload, None, "tests.testing.nowhere:run"))
    outcome = run_handler(sms_jobs.wait, PlainPayload(), registry=registry)
    assert outcome.error is not None
    assert outcome.error.type == "HandlerNotFound"


def test_payload_checkpoints_and_result_pass_through_the_codec() -> None:
    settings = Settings(codec="tests.testing.sms_jobs:backwards")
    outcome = run_handler(send_sms, SMS, attempt=2, saved=1, settings=settings)
    assert (outcome.result.parts, outcome.checkpoints, outcome.saved) == (2, (2,), 2)
    assert sms_jobs.backwards.encoded == {"payload", "checkpoint", "result"}


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = logging.getLogger()
    before = (root.level, list(root.handlers), threading.active_count(), _open_files())
    run_handler(sms_jobs.compute, PlainPayload())
    run_handler(sms_jobs.count, PlainPayload(steps=1))
    assert (root.level, root.handlers, threading.active_count(), _open_files()) == before
    assert list(tmp_path.iterdir()) == []
