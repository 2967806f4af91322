"""Limits as a value: their bounds, how rates are written, and what is read of what was stored."""

import msgspec
import pytest
from msgspec import Raw

from gql_jobs.jobs.limits import MAX_CONCURRENCY, MAX_PER_SECOND, UNLIMITED, InvalidLimit, Limits, limits_of, parse_rate
from gql_jobs.jobs.limits import rate_text as written


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("10/s", 10.0), ("0.1/s", 0.1), ("30/min", 0.5), ("5/h", 5 / 3600), ("1/day", 1 / 86_400), ("1.5/min", 0.025)],
)
def test_a_rate_is_a_number_of_starts_in_a_time(text: str, per_second: float) -> None:
    assert parse_rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize(
    "text", ["10", "10/sec", "/s", "10 /s", "-1/s", "1e3/s", "10/s ", "", None, 10, "0/s", "0.1/day"]
)
def test_a_rate_that_is_written_otherwise_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidLimit, match=r"rate must .*\.$"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["10/s", "2.5/s", "30/min", "5/h", "1/day", "6/min"])
def test_a_rate_is_written_as_it_was_read(text: str) -> None:
    assert written(parse_rate(text)) == text


def test_a_limit_is_a_whole_number_from_one_on() -> None:
    assert Limits.of(concurrency=1, concurrency_per_key=MAX_CONCURRENCY).concurrency == 1
    for number in (0, -1, MAX_CONCURRENCY + 1, True, 1.5):
        with pytest.raises(InvalidLimit, match="concurrency must be a whole number from 1") as refused:
            Limits.of(concurrency=number)  # type: ignore[arg-type]
        assert refused.value.field == "concurrency"
    with pytest.raises(InvalidLimit) as refused:
        Limits.of(concurrency_per_key=0)
    assert refused.value.field == "concurrency_per_key"


def test_a_rate_may_be_a_fraction_and_is_a_number_in_its_bounds() -> None:
    assert Limits.of(per_second=0.1).per_second == 0.1
    assert Limits.of(per_second=10).per_second == 10.0
    for number in (0, -0.1, MAX_PER_SECOND + 1, float("inf"), float("nan"), True, "10"):
        with pytest.raises(InvalidLimit, match="per_second must allow from one start a day"):
            Limits.of(per_second=number)  # type: ignore[arg-type]


def test_no_limit_at_all_is_told_from_some() -> None:
    assert UNLIMITED.is_none
    assert Limits.of().is_none
    assert not Limits.of(per_second=1).is_none
    assert str(UNLIMITED) == "no limits"
    assert str(Limits.of(concurrency=5, concurrency_per_key=1, per_second=10)) == "5 at a time, 1 per key, 10/s"


def test_limits_are_read_back_as_they_were_stored_whatever_a_newer_release_has_added() -> None:
    limits = Limits.of(concurrency=5, concurrency_per_key=1, per_second=0.5)
    stored = msgspec.json.encode(limits)
    assert msgspec.json.decode(stored) == {"concurrency": 5, "concurrencyPerKey": 1, "perSecond": 0.5}
    assert limits_of(Raw(stored)) == limits
    assert limits_of(Raw(b'{"concurrency": 5, "perMonth": 3}')) == Limits.of(concurrency=5)


def test_what_is_removed_or_cannot_be_read_limits_nothing() -> None:
    assert limits_of(None) is UNLIMITED
    assert limits_of(Raw(b'{"concurrency": "five"}')) is UNLIMITED
