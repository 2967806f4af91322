"""docs/limits.md is the one table of limits: complete, with the defaults as they are, and each row with its test."""

import re
from pathlib import Path

import pytest

from gql_jobs.settings import Settings

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "limits.md").read_text().split("<!-- limits -->\n")[1].split("<!-- /limits -->")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()[2:]]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}
SETTINGS = {f"GQL_JOBS_{name.upper()}": field.default for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_its_default_its_answer_and_its_test(row: list[str]) -> None:
    limit, default, answer, test = row
    assert limit
    assert answer
    assert set(test.replace("`", "").split(", ")) <= TESTS
    setting = re.fullmatch(r"`(\w+)`, (\S+)", default)
    if setting and setting[2] != "any":
        default_of = str(SETTINGS[setting[1]])
        assert setting[2] == default_of or float(setting[2]) == float(default_of)


def test_every_limit_of_the_api_that_can_be_set_has_a_row() -> None:
    limits = {
        name
        for name in SETTINGS
        if re.match(r"GQL_JOBS_(MAX_(BODY|DOCUMENT|OPERATION)|\w*SOCKET|QUERY|REQUEST|WRITE|ALLOWED|RATE)", name)
    }
    assert limits <= set(re.findall(r"GQL_JOBS_\w+", TABLE))
