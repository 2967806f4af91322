"""Which connections count as one client's, and what is refused."""

from contextlib import ExitStack

import pytest
from starlette.types import Scope

from gql_jobs.web.connections import Admission


def _from(host: str | None) -> Scope:
    return {"type": "websocket", "client": None if host is None else (host, 5000)}


def test_there_are_no_more_connections_than_allowed_in_all() -> None:
    admission = Admission(2, 2)
    with ExitStack() as held:
        for host in "10.0.0.1", "10.0.0.2":
            assert admission.rejection(_from(host)) is None
            held.enter_context(admission.admitted(_from(host)))
        assert "as many connections as it can hold" in (admission.rejection(_from("10.0.0.3")) or "")
    assert admission.rejection(_from("10.0.0.3")) is None


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        (None, None, True),
    ],
)
def test_what_counts_as_one_client(first: str | None, second: str | None, *, is_one: bool) -> None:
    admission = Admission(10, 1)
    with admission.admitted(_from(first)):
        assert (admission.rejection(_from(second)) is not None) is is_one
    assert admission.rejection(_from(second)) is None
