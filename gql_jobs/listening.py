"""Listening: a port is taken before anything else begins, so that a refusal is one sentence; and where it is found."""

import errno
import socket
from contextlib import ExitStack

_NOT_HERE = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""``localhost`` may stand for an IPv6 address on a machine that has no IPv6."""

_PORT_REFUSED = frozenset({errno.EADDRINUSE, errno.EACCES})


class CannotListen(RuntimeError):
    """The port is taken, or the host is none of this machine's."""


def listen(host: str, port: int, option: str = "--port") -> list[socket.socket]:
    """A listening socket for each address that ``host`` stands for; with port 0 all have the same free port.

    :param option: what chooses another port.
    :raises CannotListen: if there is none, or another program has the port.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
        with ExitStack() as opened:
            listeners: list[socket.socket] = []
            for nth, (family, address) in enumerate(addresses, 1):
                try:
                    listener = opened.enter_context(_listener(family, address, port))
                except OSError as error:
                    if error.errno in _NOT_HERE and (listeners or nth < len(addresses)):
                        continue
                    raise
                listeners.append(listener)
                port = listener.getsockname()[1]
            opened.pop_all()
            return listeners
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        advice = f"; choose another with {option}" if error.errno in _PORT_REFUSED else ""
        raise CannotListen(f"Cannot listen on {host}:{port} ({reason}){advice}.") from error


def _listener(family: int, address: str, port: int) -> socket.socket:
    created = socket.create_server((address, port), family=family, backlog=2048)
    created.setblocking(False)
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=created.detach())


def reachable(host: str) -> str:
    """A wildcard address can be listened on, not connected to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds it."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
