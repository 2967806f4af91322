"""What the project's own processes write to their log."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging
from gql_jobs.logs import configure_logging
from gql_jobs.settings import Settings
configure_logging(Settings().log_level)
logging.getLogger("gql_jobs.events").info("a step\\nforged")
logging.getLogger("gql_jobs.events").warning("a warning")
"""


@pytest.mark.parametrize(("level", "shown"), [("INFO", 2), ("WARNING", 1), ("ERROR", 0)])
def test_the_log_has_a_line_for_what_is_at_least_of_its_level(level: str, shown: int) -> None:
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, env={"GQL_JOBS_LOG_LEVEL": level}, capture_output=True, text=True, check=True)
    lines = ran.stderr.splitlines()
    assert len(lines) == shown, lines
    if level == "INFO":
        assert lines[0].endswith("INFO    gql_jobs.events: a step\\nforged")
