"""Which connections count as one client's, and what is refused."""

from contextlib import ExitStack, nullcontext

import pytest
from starlette.types import Scope

from gql_jobs.jobs.errors import RateLimited
from gql_jobs.web.connections import Admission, PlainConnections


def _from(host: str | None) -> Scope:
    return {"type": "websocket", "client": None if host is None else (host, 5000)}


def test_there_are_no_more_connections_than_allowed_in_all() -> None:
    admission = Admission(2, 2)
    with ExitStack() as held:
        for host in "10.0.0.1", "10.0.0.2":
            admission.check(_from(host))
            held.enter_context(admission.admitted(_from(host)))
        with pytest.raises(RateLimited, match="as many connections as it can hold"):
            admission.check(_from("10.0.0.3"))
    admission.check(_from("10.0.0.3"))


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
    with admission.admitted(_from(first)), pytest.raises(RateLimited) if is_one else nullcontext():
        admission.check(_from(second))
    admission.check(_from(second))


class _Connection:
    """A connection that tells what it is doing, and when it was ended."""

    def __init__(self, plain: PlainConnections, client: str, *, idle: bool = True, unfinished: bool = False) -> None:
        self.is_idle = idle
        self.is_unfinished = unfinished
        self.is_open = True
        self._plain = plain
        self._client = client
        self.is_admitted = plain.admit(client, self)

    def give_way(self) -> None:
        self.is_open = False
        self._plain.ended(self._client, self)


def test_a_connection_above_the_limit_of_its_client_takes_the_place_of_an_idle_one() -> None:
    plain = PlainConnections(10, 2)
    busy, idle = _Connection(plain, "a", idle=False), _Connection(plain, "a")
    other = _Connection(plain, "b")
    new = _Connection(plain, "a", idle=False)
    assert new.is_admitted
    assert (busy.is_open, idle.is_open, other.is_open) == (True, False, True)
    assert not _Connection(plain, "a").is_admitted


def test_a_connection_above_the_limit_of_all_takes_the_place_of_one_of_the_client_that_has_most() -> None:
    plain = PlainConnections(4, 4)
    held = [_Connection(plain, "a") for _ in range(3)]
    other = _Connection(plain, "b")
    assert _Connection(plain, "c").is_admitted
    assert [connection.is_open for connection in held] == [False, True, True]
    assert other.is_open


def test_where_none_is_idle_one_gives_way_that_is_held_up_by_a_client_with_more() -> None:
    plain = PlainConnections(3, 3)
    busy = _Connection(plain, "a", idle=False)
    held_up = [_Connection(plain, "a", idle=False, unfinished=True) for _ in range(2)]
    assert _Connection(plain, "b", idle=False).is_admitted
    assert [connection.is_open for connection in (busy, *held_up)] == [True, False, True]
    assert not _Connection(plain, "b", idle=False).is_admitted
    assert held_up[1].is_open
