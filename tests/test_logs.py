"""What the project's own processes write to their log."""

import json
import logging
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from gql_jobs.logs import MAX_LINE, MAX_TRACEBACK, JobLogger, job_fields
from gql_jobs.settings import Settings
from tests.forked import run_program
from tests.running import ROOT

PROGRAM = """
import logging
from gql_jobs.logs import configure_logging
from gql_jobs.settings import Settings
configure_logging(Settings().log_level)
logging.getLogger("gql_jobs.events").info("a step\\nforged")
logging.getLogger("gql_jobs.events").warning("a warning")
"""
BEGIN = """
import logging
from gql_jobs.logs import JobLogger, configure_logging, job_fields
from gql_jobs.settings import Settings
settings = Settings()
configure_logging(settings.log_level, settings.log_format, settings.secrets)
log = logging.getLogger("gql_jobs.events")
fields = job_fields(job_id="550e8400", attempt=2, type="email", worker="host-1-ab")
"""
FIELDS = {"job_id": "550e8400", "attempt": 2, "type": "email", "worker": "host-1-ab"}


def test_no_program_of_the_project_logs_as_main() -> None:
    modules = [path for folder in ("gql_jobs", "workers") for path in (ROOT / folder).rglob("*.py")]
    programs = [path for path in modules if path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text()]
    assert len(programs) >= 4
    assert [str(path) for path in programs if re.search(r"getLogger\(__name__\)", path.read_text())] == []


def _written(statements: str, **environment: str) -> list[str]:
    """The lines that a process writes; the end of the last one is left out."""
    ran = run_program(BEGIN + statements, environment)
    assert ran.code == 0, ran.err
    return ran.err.removesuffix("\n").split("\n")


def _objects(statements: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _written(statements, GQL_JOBS_LOG_FORMAT="json")]


@pytest.mark.parametrize(("level", "shown"), [("INFO", 2), ("WARNING", 1), ("ERROR", 0)])
def test_the_log_has_a_line_for_what_is_at_least_of_its_level(level: str, shown: int) -> None:
    lines = run_program(PROGRAM, {"GQL_JOBS_LOG_LEVEL": level}).err.splitlines()
    assert len(lines) == shown, lines
    if level == "INFO":
        assert lines[0].endswith("INFO    gql_jobs.events: a step\\nforged")


@pytest.mark.parametrize("environment", [{}, {"GQL_JOBS_LOG_FORMAT": "text"}], ids=["default", "text"])
def test_text_lines_show_time_level_logger_job_and_message_and_no_other_fields(environment: dict[str, str]) -> None:
    line, about_none = _written(
        'log.warning("job %s", "x", extra=fields); log.info("ready", extra={"n": 1})', **environment
    )
    time, rest = line[:12], line[12:]
    assert datetime.strptime(time, "%H:%M:%S.%f")  # noqa: DTZ007 - a time of day
    assert rest == " WARNING gql_jobs.events: [job 550e8400 attempt 2 type email] job x"
    assert about_none[12:] == " INFO    gql_jobs.events: ready"


def test_text_shows_a_traceback_below_its_line_and_each_line_of_it_says_of_which_job() -> None:
    lines = _written('try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception("failed", extra=fields)')
    assert lines[0].endswith(" ERROR   gql_jobs.events: [job 550e8400 attempt 2 type email] failed")
    begin = "| [job 550e8400 attempt 2 type email] "
    assert all(line.startswith(begin) for line in lines[1:])
    assert lines[1] == f"{begin}Traceback (most recent call last):"
    assert lines[-1] == f"{begin}ZeroDivisionError: division by zero"


BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029"]
UNPRINTABLE = [
    *BREAKS,
    "\x00",
    "\x1b[2K",
    "\x7f",
    "\x9b",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\ud800",
    "\U000e0041",
]


@pytest.mark.parametrize(
    "where", ["log.warning(text)", "log.info('%s', text)", "log.info('x', extra={**fields, 'type': text})"]
)
def test_whatever_a_message_holds_text_is_one_line_that_prints(where: str) -> None:
    texts = [f"a{odd}12:00:00.000 INFO    gql_jobs.events: forged" for odd in UNPRINTABLE]
    lines = _written(f"for text in {texts!r}:\n    {where}", PYTHONIOENCODING="utf-8")
    assert len(lines) == len(texts)
    assert all(line.isprintable() and len(line.splitlines()) == 1 for line in lines)


def test_the_text_of_an_exception_forges_no_line() -> None:
    texts = [f"a{odd}12:00:00.000 INFO    gql_jobs.events: forged" for odd in UNPRINTABLE]
    program = f"for text in {texts!r}:\n    try:\n        raise ValueError(text)\n    except ValueError:\n        "
    lines = _written(program + "log.exception('failed', extra=fields)", PYTHONIOENCODING="utf-8")
    assert all(line.isprintable() for line in lines)
    assert sum(not line.startswith("| ") for line in lines) == len(texts)
    assert not [line for line in lines if line.startswith("12:00:00.000")]


def test_an_error_that_nothing_can_catch_forges_no_line_and_shows_no_secret() -> None:
    program = """
class Resource:
    def __del__(self):
        raise ValueError("a\\n12:00:00.000 INFO gql_jobs.events: forged hunter2")
Resource()
"""
    environment = {"GQL_JOBS_SMTP_PASSWORD": "hunter2"}
    lines = _written(program, **environment)
    assert "ERROR" in lines[0]
    assert "Resource.__del__" in lines[0]
    assert all(line.startswith("| ") for line in lines[1:])
    assert "hunter2" not in lines[-1]


def test_no_library_says_of_another_job_what_happens_in_this_one() -> None:
    program = """
from gql_jobs.logs import current_job
current_job.set(fields)
logging.getLogger("a.library").info("x", extra={"job_id": "other", "type": "its own", "attempt": 9})
"""
    (line,) = _objects(program)
    assert line.items() >= FIELDS.items()


def test_values_that_do_not_fit_their_message_cost_no_line_and_forge_none() -> None:
    (line,) = _written('log.info("%d pages", "a\\nforged")')
    assert line.endswith("%d pages ('a\\nforged',)")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_and_a_traceback_are_no_longer_than_their_limits(log_format: str) -> None:
    program = "try:\n    raise ValueError('x' * 10_000_000)\nexcept ValueError:\n    log.exception('y' * 10_000_000)"
    lines = _written(program, GQL_JOBS_LOG_FORMAT=log_format, PYTHONIOENCODING="utf-8")
    assert sum(map(len, lines)) < MAX_LINE + MAX_TRACEBACK + 1000


def test_a_warning_that_clients_cause_again_and_again_is_written_once_then_counted_and_its_values_are_cut() -> None:
    program = """
web = logging.getLogger("gql_jobs.web.graphql_http")
for number in range(200):
    web.warning("refused a WebSocket from origin %r", str(number) * 8000)
"""
    lines = _written(program)
    assert len(lines) == 2
    assert lines[1].endswith("(199 more like this in a minute)")
    assert sum(map(len, lines)) < 1000


def test_other_warnings_about_no_job_are_written_a_few_times_before_they_are_counted() -> None:
    lines = _written('for number in range(50):\n    log.warning("NATS is away: %d", number)')
    assert [line.partition(": NATS is away: ")[2] for line in lines] == [*"01234", "49 (45 more like this in a minute)"]


def test_no_warning_about_a_job_and_no_line_below_a_warning_is_counted_instead_of_written() -> None:
    program = 'for number in range(50):\n    log.warning("%d", number, extra=fields)\n    log.info("%d", number)'
    assert len(_written(program)) == 100


def test_what_was_counted_is_written_when_the_minute_is_over() -> None:
    program = """
for number in range(7):
    log.warning("again %d", number)
record = logging.makeLogRecord({"name": "x", "msg": "later", "levelno": 20, "levelname": "INFO"})
record.created += 61
logging.getLogger().handle(record)
log.warning("again 7")
"""
    lines = _written(program)
    assert [line.rpartition(": ")[2] for line in lines[5:]] == [
        "again 6 (2 more like this in a minute)",
        "later",
        "again 7",
    ]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_in_no_line_wherever_they_stand(log_format: str) -> None:
    program = """
url = "https://ada:hunter2@api.example/v1?api_key=hunter2&page=2"
log.info("asking %s", url)
log.info("mail server says hunter2")
log.info("x", extra={"api_key": "hunter2", "nested": {"password": "hunter2"}, "list": [url]})
try:
    raise RuntimeError(url)
except RuntimeError:
    log.exception("failed", extra=fields)
"""
    text = "\n".join(_written(program, GQL_JOBS_LOG_FORMAT=log_format, GQL_JOBS_SMTP_PASSWORD="hunter2"))  # noqa: S106
    assert "hunter2" not in text.replace("url = ", "")
    assert "page=2" in text


def test_a_json_line_has_time_level_logger_message_and_the_fields_of_the_job() -> None:
    (line,) = _objects('log.warning("job %s", "x", extra=fields)')
    time = datetime.fromisoformat(line.pop("time"))
    assert time.utcoffset() == timedelta(0)
    assert line == {"level": "WARNING", "logger": "gql_jobs.events", "message": "job x", **FIELDS}


def test_a_json_line_that_is_about_no_job_has_no_fields_of_one() -> None:
    (line,) = _objects('log.info("ready")')
    assert set(line) == {"time", "level", "logger", "message"}


def test_json_has_an_exception_as_text_in_the_same_line() -> None:
    (line,) = _objects('try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception("failed", extra=fields)')
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("\nZeroDivisionError: division by zero")
    assert line["message"] == "failed"


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\r\nb",
        "a\x7fb",
        "a\x0bb\x0cc",
        "a\x85b",
        "a\u2028b\u2029c",
        "a\x00b",
        '"}\n{"',
        "ü😀",
        "lone \ud800 surrogate",
    ],
    ids=["LF", "CRLF", "DEL", "VT", "NEL", "separators", "NUL", "JSON", "letters", "surrogate"],
)
def test_whatever_a_message_or_a_field_holds_json_is_one_line_of_ascii(text: str) -> None:
    (raw,) = _written(f"log.info({text!r}, extra={{'note': {text!r}}})", GQL_JOBS_LOG_FORMAT="json")
    assert raw.isascii()
    assert len(raw.splitlines()) == 1
    line = json.loads(raw)
    assert (line["message"], line["note"]) == (text, text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("{'a': [1, None]}", {"a": [1, None]}),
        ("float('nan')", "nan"),
        ("{(1, 2): 3}", "{(1, 2): 3}"),
        ("b'x'", "b'x'"),
        ("0.5", 0.5),
    ],
)
def test_a_field_that_is_no_json_is_shown_as_text(value: str, shown: object) -> None:
    (line,) = _objects(f'log.info("x", extra={{"value": {value}}})')
    assert line["value"] == shown


def test_a_field_cannot_take_the_place_of_what_every_line_has() -> None:
    (line,) = _objects('log.info("x", extra={"time": 1, "level": 2, "logger": 3})')
    assert (line["level"], line["logger"]) == ("INFO", "gql_jobs.events")
    assert isinstance(line["time"], str)


def test_what_is_not_known_of_a_job_is_no_field() -> None:
    assert job_fields(job_id="550e8400", worker="host-1-ab") == {"job_id": "550e8400", "worker": "host-1-ab"}


def test_a_job_s_own_logger_adds_its_fields_to_those_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    log = JobLogger("email", FIELDS)
    with caplog.at_level(logging.INFO, "gql_jobs.jobs.email"):
        log.info("page %d", 3, extra={"page": 3, "attempt": 9})
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("gql_jobs.jobs.email", "page 3")
    assert vars(record).items() >= {**FIELDS, "page": 3}.items()


@pytest.mark.parametrize(
    "extra",
    [{"name": "x", "page": 3}, {"message": "x", "args": (), "page": 3}, {"asctime": "x", "taskName": "y", "page": 3}],
)
def test_a_field_named_like_what_every_record_has_fails_no_call_of_a_job_s_own_logger(
    extra: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    log = JobLogger("email", FIELDS)
    with caplog.at_level(logging.INFO, "gql_jobs.jobs.email"):
        log.info("page %d", 3, extra=extra)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("gql_jobs.jobs.email", "page 3")
    assert vars(record).items() >= {**FIELDS, "page": 3}.items()


@pytest.mark.parametrize("extra", [None, "text", ["a"], 5])
def test_an_extra_that_has_no_fields_fails_no_call_of_a_job_s_own_logger(
    extra: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log = JobLogger("email", FIELDS)
    with caplog.at_level(logging.INFO, "gql_jobs.jobs.email"):
        log.info("page", extra=extra)
    assert vars(caplog.records[0]).items() >= FIELDS.items()


def test_a_field_whose_text_cannot_be_made_costs_no_line() -> None:
    statements = """
class Broken:
    def __str__(self):
        raise RuntimeError("no text")
log.info("x", extra={"value": Broken()})
"""
    (line,) = _objects(statements)
    assert (line["message"], line["value"]) == ("x", "<Broken>")


def test_a_field_whose_name_is_no_text_leaves_the_line_json() -> None:
    (line,) = _objects('log.info("x", extra={1: 2})')
    assert line["1"] == 2


def test_a_format_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GQL_JOBS_LOG_FORMAT", "xml")
    with pytest.raises(ValidationError, match="log_format"):
        Settings()


def test_texts_of_jobs_that_run_or_ended_lately_are_hidden_in_every_line_and_forgotten_in_time() -> None:
    statements = """
import logging, time
from gql_jobs.logs import HiddenTexts, hidden_in_log
with hidden_in_log(["hunter2-ran"]):
    logging.error("while it runs %s", "hunter2-ran", extra={"given": ["hunter2-ran"]})
    with hidden_in_log(["hunter2-other", "12345"]):
        logging.error("both %s %s", "hunter2-ran", "hunter2-other", extra={"pin": 12345})
logging.error("later %s", "hunter2-ran")
many = HiddenTexts([f"secret {number} {'x' * 3000}" for number in range(1000)])
began = time.perf_counter()
with hidden_in_log(many):
    logging.error("much %s", "y" * 8000)
assert time.perf_counter() - began < 1.0
for number in range(32):
    with hidden_in_log([f"other {number}"]):
        pass
logging.error("at last %s", "hunter2-ran")
"""
    for log_format in ("text", "json"):
        *lines, last = _written(statements, GQL_JOBS_LOG_FORMAT=log_format)
        assert "hunter2" not in "".join(lines)
        assert "12345" not in "".join(lines)
        assert "hunter2-ran" in last
