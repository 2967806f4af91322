"""Questions about ports: is this one free, does the API answer on it."""

import http.client
import json
import socket
from pathlib import Path


class PortTaken(RuntimeError):
    """Something listens there already."""


def port_to_use(host: str, port: int) -> int:
    """``port``, or a free one for 0.

    :raises PortTaken: if nobody can listen there. Somebody may still take it before our child does.
    """
    try:
        with socket.create_server((host, port), family=_family(host)) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise PortTaken(f"Cannot listen on {host}:{port} ({reason}); choose another with --port.") from error


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


def reachable(host: str) -> str:
    """A wildcard address can be listened on, not connected to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds it."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def read_ports(path: Path) -> dict[str, int] | None:
    """What the mailbox wrote into its ``--ports-file``, once it has."""
    try:
        ports: dict[str, int] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return ports


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
