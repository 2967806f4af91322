"""docs/guarantees.md names a test for each promise, and only tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "guarantees.md").read_text()
PROMISES = TEXT.split("<!-- promises -->\n")[1].split("<!-- /promises -->")[0]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_named_there_exists() -> None:
    named = set(_NAMED.findall(TEXT))
    assert len(named) == TEXT.count("::test_")
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{test}"


def test_each_promise_has_tests() -> None:
    promises = re.split(r"^\d+\. ", PROMISES, flags=re.MULTILINE)[1:]
    assert len(promises) >= 8
    assert [promise for promise in promises if not _NAMED.search(promise)] == []
