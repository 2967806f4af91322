"""Settings as people write them into the environment."""

from pathlib import Path

import annotated_types
import pytest
from pydantic import ValidationError

from gql_jobs.jobs.model import MAX_RETRIES, MAX_TIMEOUT, MIN_TIMEOUT
from gql_jobs.settings import NatsServer, Settings, nats_servers, setting_problems

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


@pytest.mark.parametrize("name", ["GQL_JOBS_NUM_WORKER", "gql_jobs_num_worker", "Gql_Jobs_Num_Worker"])
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "9")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert setting_problems(refused.value) == [f"{name} is no setting; did you mean GQL_JOBS_NUM_WORKERS?"]


def test_a_name_like_no_setting_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GQL_JOBS_XYZZY", "1")
    with pytest.raises(ValidationError, match=r"GQL_JOBS_XYZZY is no setting; docs/settings.md lists all"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GQL_JOBS_SERVICE_HOST", "10.0.0.1"),
        ("GQL_JOBS_SERVICE_PORT", "80"),
        ("GQL_JOBS_SERVICE_PORT_HTTP", "80"),
        ("GQL_JOBS_PORT", "tcp://10.0.0.1:80"),
        ("GQL_JOBS_API_PORT", "tcp://10.0.0.1:80"),
        ("GQL_JOBS_PORT_80_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert Settings()


@pytest.mark.parametrize("name", ["GQL_JOBS_METRIC_PORT", "GQL_JOBS_PORT"])
def test_a_port_that_is_no_setting_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "9100")
    with pytest.raises(ValidationError, match=f"{name} is no setting; did you mean GQL_JOBS_"):
        Settings()


def test_a_setting_may_be_written_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("gql_jobs_num_workers", "9")
    assert Settings().num_workers == 9


def test_a_file_called_env_is_read_below_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("GQL_JOBS_NUM_WORKERS=7\nGQL_JOBS_MAX_RETRIES=1\nOTHER_PROGRAM=1\n")
    monkeypatch.setenv("GQL_JOBS_MAX_RETRIES", "2")
    assert (Settings().num_workers, Settings().max_retries) == (7, 2)
    (tmp_path / ".env").write_text("GQL_JOBS_NUM_WORKER=7\n")
    with pytest.raises(ValidationError, match="did you mean GQL_JOBS_NUM_WORKERS"):
        Settings()


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("nats://h:4222", None, None),
        ("nats://token@h:4222", "token", None),
        ("nats://user:p%23a%2Fs%40s%3F%25%20w%2C@h:4222", "user", "p#a/s@s?% w,"),
        ("nats://us%40er:word@h:4222", "us@er", "word"),
        ("nats://user:p#a/s@s?% w:@h:4222", "user", "p#a/s@s?% w:"),
        ("tls://user:@h:4222", "user", ""),
    ],
)
def test_credentials_of_a_url_are_decoded_and_may_be_written_as_they_are(
    text: str, user: str | None, password: str | None
) -> None:
    (server,) = nats_servers(text)
    assert server == NatsServer(f"{text.partition(':')[0]}://h:4222", user, password)
    assert password is None or not password or password not in repr(server)


@pytest.mark.parametrize(
    "url", ["user:secret@h", "nats://u:secret@", "nats://u:secret@h:0", "nats://u:secret@h h", "nats://u:se,cret@h"]
)
def test_a_refused_url_of_nats_is_shown_nowhere(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(nats_url=url)
    for shown in str(refused.value), repr(refused.value), *setting_problems(refused.value):
        assert "cret" not in shown
    assert "secret" not in repr(Settings(nats_url="nats://u:secret@h"))


@pytest.mark.parametrize("name", ["sales_source", "smtp_password", "nats_password"])
def test_a_refused_secret_is_shown_nowhere(name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({name: ["secret"]})
    assert "secret" not in f"{refused.value}{refused.value!r}{setting_problems(refused.value)}"


@pytest.mark.parametrize("name", ["smtp_port", "smtp_tls", "smtp_timeout", "nats_creds"])
@pytest.mark.parametrize("password", ["hunter2", "20041231"])
def test_a_password_given_in_place_of_a_setting_beside_it_is_shown_nowhere(name: str, password: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({name: password})
    (problem,) = setting_problems(refused.value)
    assert problem.startswith(f"GQL_JOBS_{name.upper()}: ")
    assert password not in problem


def test_a_refused_value_is_shown_in_part() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(num_workers="9" * 5000 + "x")
    (problem,) = setting_problems(refused.value)
    assert problem.startswith("GQL_JOBS_NUM_WORKERS: ")
    assert len(problem) < 300
