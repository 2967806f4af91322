"""Settings as people write them into the environment."""

import pytest
from pydantic import ValidationError

from gql_jobs.settings import Settings


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
