"""Ports that several processes share."""

from contextlib import ExitStack

import pytest

from gql_jobs.processes.listening import CannotListen, claim, listen

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
