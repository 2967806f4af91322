"""What a client asks for: limits, defaults, identity."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.model import Gate, JobPriority, job_id_for_key
from gql_jobs.jobs.requests import ChildPlace, InvalidRequest, JobRequest
from gql_jobs.settings import Settings
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import JOB, accepted, request
from tests.viewers import viewer

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
        ({"child": ChildPlace(JOB, 1, "probe", key="")}, "key", "key must have 1 to 255 printable characters."),
        ({"child": ChildPlace(JOB, 1, "probe", key="a\nb")}, "key", "printable"),
        ({"tags": ("fine", "")}, "tags.1", "A tag must have 1 to 255 printable characters."),
        ({"tags": ("t" * 256,)}, "tags.0", "A tag must have"),
        ({"tags": tuple(map(str, range(33)))}, "tags", "A job has at most 32 tags."),
        ({"after": (JOB, "no id")}, "after.1", "'no id' is no id of a job."),
        ({"after": ("{} {0} {no}",)}, "after.0", "'{} {0} {no}' is no id of a job."),
        ({"after": ("x" * 500,)}, "after.0", f"'{'x' * 99}…' is no id of a job."),
        ({"after": (JOB, JOB)}, "after.1", f"The job '{JOB}' is named twice."),
        ({"concurrency_key": ""}, "concurrency_key", "concurrency_key must have 1 to 255 printable characters."),
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


def test_a_child_has_the_id_of_its_place_the_tenant_of_its_parent_and_no_key() -> None:
    place = ChildPlace(JOB, 7, "probe", nth=1, tenant="red", created_by="ada")
    child = request(child=place)
    assert child.job_id("blue") == child.job_id() == request(ProbePayload(steps=2), child=place).job_id()
    others = [replace(place, nth=2), replace(place, submission=8), replace(place, key="1"), replace(place, type="p")]
    # A type is no key, whatever its name, and a number none either.
    others += [replace(place, type="key"), replace(place, key="probe"), replace(place, key="probe\0001")]
    assert len({one.job_id for one in [place, *others]}) == 8
    spec = child.spec(NOW, SETTINGS, viewer=viewer("bob", "blue"))
    assert (spec.parent, spec.tenant, spec.created_by, spec.idempotency_key) == (JOB, "red", "ada", None)


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


def test_jobs_of_a_type_have_the_key_that_it_makes_of_their_payload_unless_they_are_given_one() -> None:
    assert keyed(lambda payload: f"customer-{payload.steps}").concurrency_key == "customer-3"
    assert keyed(lambda payload: f"customer-{payload.steps}", concurrency_key="mine").concurrency_key == "mine"
    assert keyed(lambda _: None).concurrency_key is None
    assert keyed(lambda _: "acme").spec(NOW, SETTINGS).concurrency_key == "acme"
    assert request().spec(NOW, SETTINGS).concurrency_key is None


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (
            lambda _: "",
            "concurrency_key, which the job type 'keyed' makes of the payload, must have 1 to 255 printable",
        ),
        (lambda _: "a\nb", "must have 1 to 255 printable characters."),
        (
            lambda _: 5,
            "concurrency_key must be a text, and what the job type 'keyed' makes of the payload is of the class",
        ),
        (lambda payload: payload.tenant, "the function that the job type 'keyed' has for it failed."),
        (sys.exit, "the function that the job type 'keyed' has for it failed."),
    ],
)
def test_what_a_type_makes_of_a_payload_is_refused_where_it_is_no_key(key: Callable[..., Any], problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        keyed(key)
    assert refused.value.field == "concurrency_key"
    assert problem in str(refused.value)


def test_a_failure_of_the_code_of_a_type_is_kept_for_the_log() -> None:
    with pytest.raises(InvalidRequest) as refused:
        keyed(lambda payload: payload.tenant)
    assert isinstance(refused.value.unexpected, AttributeError)
    with pytest.raises(InvalidRequest) as refused:
        keyed(lambda _: "")
    assert refused.value.unexpected is None


def test_a_job_that_is_limited_passes_the_gate_which_is_its_timer_then() -> None:
    later = NOW + timedelta(hours=1)
    free = request(run_at=later).spec(NOW, SETTINGS)
    assert (free.gate, free.run_at, free.earliest) == (None, later, later)
    limited = request(run_at=later).spec(NOW, SETTINGS, is_limited=True)
    assert (limited.gate, limited.run_at, limited.earliest) == (Gate(run_at=later), None, later)
    assert request().spec(NOW, SETTINGS, is_limited=True).gate == Gate()


def keyed(key: Callable[..., Any], **options: Any) -> JobRequest:
    """Return a creation of a type that has a function for keys."""
    job_type = replace(request().job_type, name="keyed", concurrency_key=key)
    return JobRequest.of(job_type, accepted(ProbePayload(steps=3)), **options)
