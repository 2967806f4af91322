"""When a failed attempt is tried again."""

import pytest

from gql_jobs.settings import Settings
from gql_jobs_worker.record import retry_delay


def test_doubles_from_one_second_up_to_the_cap() -> None:
    delays = [retry_delay(Settings(), attempt) for attempt in range(1, 10)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("attempt", [100, 10_000])
def test_no_number_of_attempts_is_too_large(attempt: int) -> None:
    assert retry_delay(Settings(), attempt) == 60


def test_base_and_cap_are_settings() -> None:
    settings = Settings(base_retry_delay=0.5, max_retry_delay=3)
    assert [retry_delay(settings, attempt) for attempt in range(1, 5)] == [0.5, 1, 2, 3]


def test_has_no_jitter_by_default() -> None:
    assert {retry_delay(Settings(), 4) for _ in range(100)} == {8}


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_jitter_takes_at_most_its_share(share: float) -> None:
    delays = [retry_delay(Settings(retry_jitter=share), 4) for _ in range(500)]
    assert all(8 * (1 - share) <= delay <= 8 for delay in delays)
    assert max(delays) - min(delays) > 8 * share / 2


def test_what_the_outside_system_asked_for_is_kept_to_even_above_the_cap() -> None:
    assert retry_delay(Settings(), 1, retry_after=120) == 120


def test_what_the_outside_system_asked_for_does_not_hurry_the_backoff() -> None:
    assert retry_delay(Settings(), 4, retry_after=0.5) == 8
