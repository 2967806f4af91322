"""What a client asks for: limits, defaults, identity."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.model import JobPriority, job_id_for_key
from gql_jobs.jobs.requests import InvalidRequest, JobRequest
from gql_jobs.settings import Settings
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import accepted, request

SETTINGS = Settings(max_retries=3, process_timeout=30.0)
NOW = datetime.now(UTC)
EAST, WEST = timezone(timedelta(hours=12)), timezone(timedelta(hours=-12))


@pytest.mark.parametrize(
    ("options", "field", "problem"),
    [
        ({"max_retries": -1}, "max_retries", "max_retries must be between 0 and 100."),
        ({"max_retries": 101}, "max_retries", "between 0 and 100"),
        ({"timeout": 0.0}, "timeout", "timeout must be between 0.1 and 86400."),
        ({"timeout": 86_401.0}, "timeout", "between"),
        ({"timeout": float("nan")}, "timeout", "between"),
        ({"timeout": float("inf")}, "timeout", "between"),
        ({"idempotency_key": ""}, "idempotency_key", "idempotency_key must have 1 to 255 printable characters."),
        ({"idempotency_key": "k" * 256}, "idempotency_key", "printable"),
        ({"idempotency_key": "a\nb"}, "idempotency_key", "printable"),
        ({"idempotency_key": "\ud800"}, "idempotency_key", "printable"),
        ({"idempotency_key": "a\u202eb"}, "idempotency_key", "printable"),
        ({"tags": ("fine", "")}, "tags.1", "A tag must have 1 to 255 printable characters."),
        ({"tags": ("t" * 256,)}, "tags.0", "A tag must have"),
        ({"tags": tuple(map(str, range(33)))}, "tags", "A job has at most 32 tags."),
        ({"run_at": NOW + timedelta(days=367)}, "run_at", "run_at may be at most a year ahead."),
        ({"run_at": datetime.max.replace(tzinfo=WEST)}, "run_at", "at most a year ahead"),
    ],
)
def test_a_value_outside_its_limits_is_refused_and_named(options: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(**options)
    index = refused.value.index
    assert (refused.value.field if index is None else f"{refused.value.field}.{index}") == field
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": 0},
        {"max_retries": 100},
        {"timeout": 0.1},
        {"timeout": 86_400.0},
        {"idempotency_key": "ä" * 255},
        {"tags": tuple(map(str, range(32)))},
        {"tags": ("👩\u200d💻", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "a\u200cb")},
        {"idempotency_key": "👨\u200d👩\u200d👧"},
        {"run_at": NOW + timedelta(days=365)},
    ],
)
def test_a_value_at_its_limit_is_taken(options: dict[str, Any]) -> None:
    request(**options)


def test_what_was_not_asked_for_comes_from_the_type_and_then_from_the_settings() -> None:
    spec = request().spec(NOW, SETTINGS)
    assert (spec.max_retries, spec.timeout, spec.priority, spec.queue) == (3, 30.0, JobPriority.NORMAL, "default")
    plain = request()
    typed = replace(plain, job_type=replace(plain.job_type, max_retries=0, timeout=1.0)).spec(NOW, SETTINGS)
    assert (typed.max_retries, typed.timeout) == (0, 1.0)
    asked = request(max_retries=7, timeout=9.0).spec(NOW, SETTINGS)
    assert (asked.max_retries, asked.timeout) == (7, 9.0)


def test_repeated_tags_count_once_and_keep_their_order() -> None:
    assert request(tags=("b", "a", "b")).spec(NOW, SETTINGS).tags == ("b", "a")


@pytest.mark.parametrize(
    "past", [NOW - timedelta(seconds=1), datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=EAST)]
)
def test_a_run_at_in_the_past_means_now(past: datetime) -> None:
    assert request(run_at=past).spec(datetime.now(UTC), SETTINGS).run_at is None


def test_a_run_at_is_kept_in_utc_and_one_without_an_offset_is_taken_for_utc() -> None:
    later = NOW + timedelta(hours=1)
    for written in (later.astimezone(EAST), later.replace(tzinfo=None)):
        run_at = request(run_at=written).spec(NOW, SETTINGS).run_at
        assert run_at == later
        assert run_at.tzinfo is UTC


def test_a_key_decides_the_id_and_without_one_each_creation_has_its_own() -> None:
    assert request(idempotency_key="k").job_id() == job_id_for_key("k")
    plain = request()
    assert plain.job_id() != plain.job_id()


def test_type_and_payload_alone_make_two_requests_the_same() -> None:
    asked = request(ProbePayload(steps=1), idempotency_key="k")
    again = request(ProbePayload(steps=1), idempotency_key="k", priority=JobPriority.LOW, tags=("t",), max_retries=0)
    assert again.repeats(asked)
    assert again.repeats(asked.spec(NOW, SETTINGS))
    assert not request(ProbePayload(steps=2), idempotency_key="k").repeats(asked)
    other_type = JobRequest.of(
        replace(asked.job_type, name="probe_thread"), accepted(ProbePayload(steps=1)), idempotency_key="k"
    )
    assert not other_type.repeats(asked)
