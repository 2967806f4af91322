"""Cursors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gql_jobs.jobs.model import Cursor


@settings(deadline=None)
@given(st.integers(0, 10**18 - 1), st.integers(0, 999))
def test_what_was_given_out_is_read_back(seq: int, nth: int) -> None:
    assert Cursor.parse(str(Cursor(seq, nth))) == Cursor(seq, nth)


def test_cursors_compare_as_positions_do() -> None:
    assert Cursor(9) < Cursor(10) < Cursor(10, 1) < Cursor(11)
    assert (str(Cursor(10)), str(Cursor(10, 1))) == ("10", "10.1")


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "1.", ".1", "1.2.3", "1e3", " 1", "1\n", "0x1", "\u0661", "9" * 19, "1.9999", "1,5", "+1"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not one this API has given out"):
        Cursor.parse(text)
