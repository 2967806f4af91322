"""Settings as people write them into the environment."""

import annotated_types
import pytest
from pydantic import ValidationError

from gql_jobs.jobs.model import MAX_RETRIES, MAX_TIMEOUT, MIN_TIMEOUT
from gql_jobs.settings import Settings

NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation in (int, float, int | None)]


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://app.example.com", ("https://app.example.com",)),
        ("https://app.example.com, http://localhost:5173,", ("https://app.example.com", "http://localhost:5173")),
        ('["https://app.example.com"]', ("https://app.example.com",)),
        ("*", ("*",)),
        ("", ()),
    ],
)
def test_origins_are_separated_by_commas(text: str, origins: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GQL_JOBS_CORS_ORIGINS", text)
    assert Settings().cors_origins == origins


@pytest.mark.parametrize("text", ["app.example.com", "https://app.example.com/path", "[1", "ftp://app.example.com"])
def test_what_is_no_origin_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GQL_JOBS_CORS_ORIGINS", text)
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "-1", "1e300", "1" + 30 * "0", "1" + 400 * "0"])
def test_a_number_that_no_clock_and_no_store_can_hold_is_refused_with_its_setting_s_name(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GQL_JOBS_{name.upper()}", text)
    with pytest.raises(ValidationError, match=name):
        Settings()


@pytest.mark.parametrize("name", ["retention", "ack_wait", "process_timeout"])
def test_a_duration_of_a_trillion_seconds_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GQL_JOBS_{name.upper()}", "1e12")
    with pytest.raises(ValidationError, match=name):
        Settings()


def _bounds(name: str) -> tuple[object, object]:
    marks = Settings.model_fields[name].metadata
    (least,) = [mark.ge for mark in marks if isinstance(mark, annotated_types.Ge)]
    (most,) = [mark.le for mark in marks if isinstance(mark, annotated_types.Le)]
    return least, most


def test_the_defaults_of_jobs_are_within_what_a_job_may_ask_for() -> None:
    assert _bounds("max_retries") == (0, MAX_RETRIES)
    assert _bounds("process_timeout") == (MIN_TIMEOUT, MAX_TIMEOUT)
