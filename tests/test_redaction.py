"""Secrets are taken out of whatever is shown."""

import subprocess
import sys

import pytest

from gql_jobs.logs import redact
from gql_jobs.settings import Settings, url_secrets

WITH_A_SECRET = [
    "https://ada:hunter2@api.example/v1",
    "https://hunter2@api.example/v1",
    "nats://ada:hu/nt#hunter2@nats.example:4222",
    "nats://ada:p@hunter2@nats.example:4222",
    "postgresql+psycopg://ada:hunter2@db/shop",
    "https://api.example/v1?api_key=hunter2&page=2",
    "https://api.example/v1?page=2&access_token=hunter2#end",
    "https://api.example/v1?key=hunter2",
    "https://blob.example/x?sv=1&sig=hunter2",
    "https://s3.example/x?X-Amz-Credential=a/hunter2&X-Amz-Signature=hunter2",
    "https://login.example/?next=https%3A%2F%2Fapi.example%2F%3Ftoken%3Dhunter2",
    "Command '['curl', '--token', 'hunter2']' returned non-zero exit status 1.",
    "mysql --password=hunter2 --user ada",
    "tool --api-key hunter2",
    '{"db_password": "hunter2", "n": 1}',
    "{'client_secret': 'my hunter2', 'n': 1}",
    r"{\"token\": \"hunter2\"}",
    "host=db password=hunter2 dbname=shop",
    "Authorization: Bearer hunter2",
    "{'Authorization': 'Basic aHVudGVyMg== hunter2'}",
    "X-Api-Key: hunter2",
    "Cookie: session=hunter2",
    "AWS_SECRET_ACCESS_KEY=hunter2",
    "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", WITH_A_SECRET)
def test_a_secret_is_recognised_by_where_it_stands(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8080/@ada",
        "https://registry.example/@scope/package",
        "The SMTP server refused the recipient: 550 5.1.1 No such recipient here",
        "Invalid password: it must have 8 characters",
        "Basic information is missing",
        "The model answered with max_tokens=500",
        "[event] Job started: 550e8400... (type=email, attempt=1)",
        "Sending to ada@example.com...",
    ],
)
def test_a_text_without_secrets_is_left_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["://", "://a:", "password", "password=", "--", '"', "'token':\\", "a", "eyJ", "%25"])
def test_no_text_takes_long_to_search(piece: str) -> None:
    # Would not come back within the suite's time limit if a pattern were quadratic in more than its bounds.
    redact(piece * 20_000)


def test_values_of_secret_settings_are_hidden_wherever_they_stand_and_however_they_are_spelled() -> None:
    program = """
from gql_jobs.logs import hide_values, redact
from gql_jobs.settings import Settings
hide_values(Settings().secrets)
print(redact("it says p#w/1 and p%23w%2F1 and p%23w/1, then mail-pass, then shop&pass"))
"""
    environment = {
        "GQL_JOBS_NATS_URL": "nats://ada:p%23w%2F1@127.0.0.1:4222",
        "GQL_JOBS_SMTP_PASSWORD": "mail-pass",
        "GQL_JOBS_SALES_SOURCE": "postgresql://ada:shop&pass@db/shop",
    }
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "it says *** and *** and ***, then ***, then ***\n"


def test_the_secrets_of_settings_are_passwords_and_those_of_urls() -> None:
    settings = Settings(
        nats_url="nats://ada:one@h1:4222,nats://two@h2:4222",
        nats_password="three",  # noqa: S106
        sales_source="postgresql://u:fo@ur@db/shop",
    )
    assert set(settings.secrets) == {"one", "two", "three", "fo@ur"}
    assert Settings().secrets == ()


def test_a_url_without_credentials_has_no_secrets() -> None:
    assert url_secrets("nats://127.0.0.1:4222,tls://nats.example") == []


def test_a_command_that_cannot_start_shows_no_password_of_its_settings() -> None:
    environment = {"GQL_JOBS_NATS_URL": "nats://ada:hunter2#x@127.0.0.1"}
    command = [sys.executable, "-m", "gql_jobs", "doctor"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "hunter2" not in ran.stdout + ran.stderr
