"""Questions about the children of ``dev``: is a port free, does the API answer, where does the mailbox listen."""

import http.client
import json
import random
from contextlib import suppress
from pathlib import Path

from gql_jobs.processes.listening import CannotListen, listen, reachable

_UNASKED = range(20_000, 32_000)
"""Ports that neither Linux nor macOS nor Windows gives to who asks for any."""
_TRIES = 20


def port_to_use(host: str, port: int) -> int:
    """``port``, or a free one for 0.

    :raises CannotListen: if nobody can listen there. Somebody may still take it before our child does.
    """
    if port == 0:
        # Not one that the system would choose: from those, connections get theirs, and our child listens a while later.
        for candidate in random.sample(_UNASKED, k=_TRIES):
            with suppress(CannotListen):
                return port_to_use(host, candidate)
    listeners = listen(host, port)
    number: int = listeners[0].getsockname()[1]
    for listener in listeners:
        listener.close()
    return number


def answers_ready(host: str, port: int) -> bool:
    """Whether ``/readyz`` answers 200. Blocks for at most two seconds."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def read_ports(path: Path) -> dict[str, int] | None:
    """What the mailbox wrote into its ``--ports-file``, once it has."""
    try:
        ports: dict[str, int] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return ports
