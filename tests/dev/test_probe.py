"""Ports that are chosen now and listened on later, by a child."""

import pytest

from gql_jobs.dev.probe import port_to_use
from gql_jobs.processes.listening import CannotListen, listen


def test_a_free_port_is_none_that_a_connection_could_be_given_meanwhile() -> None:
    ports = {port_to_use("127.0.0.1", 0) for _ in range(20)}
    assert max(ports) < 32_000 and len(ports) > 1  # noqa: PT018
    for listener in listen("127.0.0.1", ports.pop()):
        listener.close()


def test_a_taken_port_is_refused() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener, pytest.raises(CannotListen):
        port_to_use("127.0.0.1", listener.getsockname()[1])
