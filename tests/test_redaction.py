"""Secrets are taken out of whatever is shown."""

import base64
import html
import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from gql_jobs import logs
from gql_jobs.logs import hide_values, redact, redact_beginning
from gql_jobs.settings import Settings, url_secrets
from tests.forked import run_command, run_program

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
    "{'password': b'hunter2'}",
    "{'token': ['hunter2']}",
    "Settings(smtp_password=SecretStr('hunter2'))",
    "[(b'x-api-key', b'hunter2')]",
    '{"pass": "hunter2"}',
    "DB_PASS=hunter2",
    "tool --pass hunter2",
    "password: hunter2",
    "the token := hunter2",
    "curl -u ada:hunter2 https://api.example",
    "Command '['curl', '-u', 'ada:hunter2']' returned non-zero exit status 1.",
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
        "The bypass=1 went by the compass: 12345678",
        "tokens: 3 of 5",
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
    assert run_program(program, environment).out == "it says *** and *** and ***, then ***, then ***\n"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret value that this process knows, with what code, JSON, HTML and URLs escape."""
    monkeypatch.setattr(logs, "_known", None)
    monkeypatch.setattr(logs, "_values", set())
    value = "hun#ter2é/x&\"'<q>"
    hide_values([value])
    return value


@pytest.mark.parametrize(
    "spell",
    [
        repr,
        json.dumps,
        partial(json.dumps, ensure_ascii=False),
        lambda value: json.dumps({"said": json.dumps(value)}),
        html.escape,
        shlex.quote,
        lambda value: repr(value.encode()),
        lambda value: quote(value, safe="").lower(),
        lambda value: quote(quote(value, safe="")),
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: base64.urlsafe_b64encode(f"\0ada\0{value}".encode()).decode(),
        lambda value: base64.b64encode(f"ada:{value}:more".encode()).decode(),
        lambda value: str(ExceptionGroup(value, [KeyError(value)])),
    ],
)
def test_a_known_secret_is_hidden_however_it_is_spelled(known: str, spell: Callable[[str], str]) -> None:
    shown = redact(f"before {spell(known)} after")
    assert "***" in shown
    assert "ter2" not in shown
    assert "VyM" not in shown  # of its base64


@pytest.mark.parametrize("secret", ["nats://ada:{}@host", "{}", 'password="{}"'])
@pytest.mark.parametrize("most", [100, 8192])
def test_no_cut_shows_a_part_of_a_secret(known: str, secret: str, most: int) -> None:
    value = known.replace('"', "")
    hide_values([value])
    for before in range(most - len(secret) - len(known), most + 1):
        text = "x" * before + " " + secret.format(value) + " more" * 3000
        shown = redact_beginning(text, most)
        assert len(shown) <= most
        assert "hu" not in shown


def test_the_secrets_of_settings_are_passwords_and_those_of_urls() -> None:
    settings = Settings(
        nats_url="nats://ada:one@h1:4222,nats://two@h2:4222",
        nats_password="three",  # noqa: S106
        sales_source="postgresql://u:fo@ur@db/shop",
    )
    assert set(settings.secrets) == {"one", "two", "three", "fo@ur"}
    assert Settings().secrets == ()
    assert url_secrets("postgresql:/ada:hunter2@db") == ["/ada:hunter2"]


def test_a_url_without_credentials_has_no_secrets() -> None:
    assert url_secrets("nats://127.0.0.1:4222,tls://nats.example") == []


def test_a_command_that_cannot_start_shows_no_password_of_its_settings(tmp_path: Path) -> None:
    ended = run_command("doctor", folder=tmp_path, environment={"GQL_JOBS_NATS_URL": "nats://ada:hunter2#x@127.0.0.1"})
    assert ended.code != 0
    assert "hunter2" not in ended.out + ended.err
