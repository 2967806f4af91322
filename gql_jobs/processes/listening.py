"""Listening: a port is taken before anything else begins, so that a refusal is one sentence; and where it is found."""

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_NOT_HERE = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""``localhost`` may stand for an IPv6 address on a machine that has no IPv6."""

_TRIED = 100
"""How many ports are tried, one after the other."""
_LAST = 65535
_PORT_REFUSED = frozenset({errno.EADDRINUSE, errno.EACCES})


class CannotListen(RuntimeError):
    """The port is taken, or the host is none of this machine's."""


def listen(host: str, port: int, option: str = "--port", *, shared: bool = False) -> list[socket.socket]:
    """A listening socket for each address that ``host`` stands for; with port 0 all have the same free port.

    :param option: what chooses another port.
    :param shared: listen beside the others who share a port that has been claimed.
    :raises CannotListen: if there is none, or another program has the port.
    """
    return _each_address(host, port, option, partial(_listener, shared=shared))


def claim(host: str, port: int, option: str = "--port") -> list[socket.socket]:
    """As ``listen``, but nobody is answered: the port is kept for those of our own processes who share it.

    :raises CannotListen: if there is none, or another program has the port, one that shares it included.
    """
    return _each_address(host, port, option, _claimed)


def first_free(port: int, take: Callable[[int], T]) -> T:
    """``take`` this port or the next free one above it, so that processes on one machine do not clash; 0 takes any.

    :raises OSError: if none is free.
    """
    last = min(port + _TRIED, _LAST) if port else 0
    while True:
        try:
            return take(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port >= last:
                raise
        port += 1


def listen_from(host: str, port: int) -> socket.socket:
    """A listening socket at this port or the next free one above it.

    :raises OSError: if none is free, or the host is none of this machine's.
    """

    def take(number: int) -> socket.socket:
        family, _, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        return _listener(family, str(address[0]), number)

    return first_free(port, take)


def _each_address(
    host: str, port: int, option: str, take: Callable[[int, str, int], socket.socket]
) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
        with ExitStack() as opened:
            listeners: list[socket.socket] = []
            for nth, (family, address) in enumerate(addresses, 1):
                try:
                    listener = opened.enter_context(take(family, address, port))
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


def _listener(family: int, address: str, port: int, *, shared: bool = False) -> socket.socket:
    created = socket.create_server((address, port), family=family, backlog=2048, reuse_port=shared)
    created.setblocking(False)
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=created.detach())


def _claimed(family: int, address: str, port: int) -> socket.socket:
    created = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier process that are still being forgotten must not keep us from the port.
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            created.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        created.bind((address, port))
        # Only now, when the port is ours alone; and nobody else may take it while no child listens.
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        created.close()
        raise
    return created


def reachable(host: str) -> str:
    """A wildcard address can be listened on, not connected to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds it."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
