"""Ports that several processes share, and ports that are chosen now and listened on later, by a child."""

from contextlib import ExitStack

import pytest

from gql_jobs.processes.listening import CannotListen, claim, listen, port_to_use

HOST = "127.0.0.1"


def test_a_claimed_port_is_refused_to_all_but_those_who_share_it() -> None:
    with ExitStack() as opened:
        (claimed,) = claim(HOST, 0)
        opened.enter_context(claimed)
        port = claimed.getsockname()[1]
        for _ in range(2):
            (listener,) = listen(HOST, port, shared=True)
            opened.enter_context(listener)
        for others in (claim, listen):
            with pytest.raises(CannotListen, match="Address already in use"):
                others(HOST, port)


def test_a_claim_is_refused_while_somebody_listens_and_holds_while_nobody_does() -> None:
    (listener,) = listen(HOST, 0)
    port = listener.getsockname()[1]
    with listener, pytest.raises(CannotListen):
        claim(HOST, port)
    (claimed,) = claim(HOST, port)
    with claimed:
        for others in (claim, listen):
            with pytest.raises(CannotListen):
                others(HOST, port)


def test_a_free_port_is_none_that_a_connection_could_be_given_meanwhile() -> None:
    ports = {port_to_use("127.0.0.1", 0) for _ in range(20)}
    assert max(ports) < 32_000 and len(ports) > 1  # noqa: PT018
    for listener in listen("127.0.0.1", ports.pop()):
        listener.close()


def test_a_taken_port_is_refused() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener, pytest.raises(CannotListen):
        port_to_use("127.0.0.1", listener.getsockname()[1])
