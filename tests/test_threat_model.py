"""SECURITY.md is the threat model: each threat has a defence and tests that exist."""

import re

import pytest

from tests.running import ROOT

DOCUMENT = (ROOT / "SECURITY.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.split("<!-- threats -->\n")[1].split("<!-- /threats -->")[0].splitlines()[2:]
]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_threat_has_a_defence_and_tests_that_exist(row: list[str]) -> None:
    threat, defence, tests = row
    assert threat
    assert defence
    named = re.findall(r"`(test_\w+)`", tests)
    assert named
    assert set(named) <= TESTS


def test_every_kind_of_attack_has_a_row() -> None:
    threats = " ".join(f"{threat} {defence}" for threat, defence, _ in ROWS)
    kinds = "CORS CSRF CSWSH SSRF XSS rebinding tenant ticket signature revocation header log TLS codec inbox memory"
    assert [kind for kind in kinds.split() if kind.lower() not in threats.lower()] == []


def test_places_that_the_document_names_exist() -> None:
    for place in re.findall(r"\]\(([\w/.]+)\)", DOCUMENT):
        assert (ROOT / place).exists(), place


def test_what_is_accepted_and_how_to_report_are_said() -> None:
    accepted = DOCUMENT.partition("## What is accepted")[2]
    for word in "Nats-Rollup", "cursors", "each API process", "METRICS_PORT", "handlers raise":
        assert word in accepted
    assert "## How to report" in DOCUMENT
