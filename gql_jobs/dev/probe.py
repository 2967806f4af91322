"""Questions about the children of ``dev``: is a port free, does the API answer, where does the mailbox listen."""

import http.client
import json
from pathlib import Path

from gql_jobs.listening import listen, reachable


def port_to_use(host: str, port: int) -> int:
    """``port``, or a free one for 0.

    :raises CannotListen: if nobody can listen there. Somebody may still take it before our child does.
    """
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
