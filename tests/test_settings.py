"""Settings as people write them into the environment."""

from pathlib import Path

import annotated_types
import pytest
from pydantic import ValidationError

from gql_jobs.environment import with_variables
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


@pytest.mark.parametrize("name", ["GQL_JOB_AUTH", "GQLJOBS_AUTH", "gql_jobs__auth", "GRAPHQL_JOBS_AUTH"])
def test_a_setting_under_a_misspelled_prefix_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "required")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert setting_problems(refused.value) == [f"{name} is no setting; did you mean GQL_JOBS_AUTH?"]


@pytest.mark.parametrize("name", ["GQL_JOB_COLOUR", "JOBS_AUTH", "GQL_JOBS"])
def test_variables_of_others_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert Settings()


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


def test_a_setting_may_be_in_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_bytes(b" open sesame \r\n")
    (tmp_path / "number").write_text("7")
    monkeypatch.setenv("GQL_JOBS_NATS_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("gql_jobs_num_workers_file", str(tmp_path / "number"))
    settings = Settings()
    assert settings.nats_password is not None
    assert settings.nats_password.get_secret_value() == " open sesame "
    assert settings.num_workers == 7
    assert Settings(num_workers=9).num_workers == 9, "an option of the command line counts more"


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_every_setting_may_be_in_a_file_and_then_shows_nothing_of_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GQL_JOBS_{name}_FILE", str(tmp_path / "missing"))
    assert _refused() == [f"GQL_JOBS_{name}_FILE: the file cannot be read: No such file or directory."]
    (tmp_path / "missing").write_text("root:secret [/\n")
    assert "secret" not in str(_problems())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xffsecret", "it is no text in UTF-8"),
        (b"secret\0", "it has a zero byte"),
        (b"secret" + 65536 * b"a", "it has more than 65536 bytes"),
        (None, "Is a directory"),
    ],
)
def test_a_file_that_is_no_value_is_refused_in_a_sentence_without_what_is_in_it(
    content: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    monkeypatch.setenv("GQL_JOBS_SMTP_PASSWORD_FILE", str(path))
    assert _refused() == [f"GQL_JOBS_SMTP_PASSWORD_FILE: the file cannot be read: {reason}."]


@pytest.mark.parametrize("below", [False, True])
def test_a_setting_that_is_given_in_both_ways_in_one_place_is_refused(
    below: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("secret")
    variable = "GQL_JOBS_NATS_PASSWORD"
    if below:
        (tmp_path / ".env").write_text(f"{variable}=secret\n{variable}_FILE=password\n")
    else:
        monkeypatch.setenv(variable, "secret")
        monkeypatch.setenv(f"{variable}_FILE", "password")
    assert _refused() == [f"{variable} and {variable}_FILE are both given; only one of them may be."]


@pytest.mark.parametrize(
    ("above", "below", "number"),
    [
        ("GQL_JOBS_NUM_WORKERS_FILE=seven", "GQL_JOBS_NUM_WORKERS=8", 7),
        ("GQL_JOBS_NUM_WORKERS=9", "GQL_JOBS_NUM_WORKERS_FILE=seven", 9),
        ("GQL_JOBS_NUM_WORKERS=9", "GQL_JOBS_NUM_WORKERS_FILE=missing", 9),
        ("GQL_JOBS_MAX_RETRIES=9", "GQL_JOBS_NUM_WORKERS_FILE=seven", 7),
    ],
)
def test_the_environment_counts_more_than_the_file_env_in_whichever_way_each_gives_a_setting(
    above: str, below: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seven").write_text("7\n")
    (tmp_path / ".env").write_text(f"{below}\n")
    monkeypatch.setenv(*above.split("=", 1))
    assert Settings().num_workers == number


def test_what_a_parent_says_counts_more_than_a_file_that_it_was_given() -> None:
    given = {"GQL_JOBS_SMTP_HOST_FILE": "/run/secrets/host", "gql_jobs_smtp_host_file": "h", "HOME": "/"}
    made = with_variables(given, {"GQL_JOBS_SMTP_HOST": "127.0.0.1", "OTHER": "1"})
    assert made == {"GQL_JOBS_SMTP_HOST": "127.0.0.1", "OTHER": "1", "HOME": "/"}


def _refused() -> list[str]:
    problems = _problems()
    assert "secret" not in str(problems)
    return problems


def _problems() -> list[str]:
    """What is wrong with the settings as they are, in sentences and as an exception shows it; nothing where it fits."""
    try:
        Settings()
    except ValidationError as error:
        refused = error
    else:
        return []
    assert "secret" not in f"{refused}{refused!r}"
    return setting_problems(refused)


@pytest.mark.parametrize("url", [None, "nats://h:4222", "tls://h:4222,nats://g:4222"])
def test_certificates_are_for_urls_that_ask_for_encryption(url: str | None, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ValidationError, match=r"are for a GQL_JOBS_NATS_URL of tls://"):
        Settings(nats_url=url, nats_ca=tmp_path / "ca.pem")


def test_a_file_without_certificates_and_half_of_a_pair_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(ValidationError, match="must be files of PEM"):
        Settings(nats_url="tls://h:4222", nats_ca=tmp_path / "ca.pem")
    with pytest.raises(ValidationError, match="belong together"):
        Settings(nats_url="tls://h:4222", nats_cert=tmp_path / "ca.pem")
