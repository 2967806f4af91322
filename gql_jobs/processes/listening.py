"""Listening sockets and ports. Open them first, so that a port in use is reported in one sentence before other work.

``listen`` and ``claim`` take exactly the given port; ``first_free`` and ``listen_from`` take the next free one if it is
in use; ``port_to_use`` only checks it, for a child process that will listen.
"""

import errno
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

_T = TypeVar("_T")

_NOT_HERE = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""Errors of an address that this machine does not have: ``localhost`` may be an IPv6 address where there is no IPv6."""

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
"""The host names of this machine that a page of another site cannot have."""
_TRIED = 100
"""How many ports are tried after the given one."""
_LAST_PORT = 65535
_UNASSIGNED = range(20_000, 32_000)
"""Ports that neither Linux nor macOS nor Windows assigns by itself."""
_SAMPLED = 20
"""How many of them are tried."""
_PORT_REFUSED = frozenset({errno.EADDRINUSE, errno.EACCES})
"""Errors that another port may help against."""


class CannotListen(RuntimeError):
    """The port is in use, or the host is not an address of this machine; the message is a sentence."""


def listen(host: str, port: int, option: str = "--port", *, shared: bool = False) -> list[socket.socket]:
    """Return a listening socket for each address of ``host``; with port 0 all have the same free port.

    :param option: the command-line option that chooses another port, for the message of the error.
    :param shared: whether to share the port with other processes, for a port that the parent process has claimed.
    :raises CannotListen: if the host is not an address of this machine, or another program uses the port.
    """
    return _each_address(host, port, option, partial(_listener, shared=shared))


def claim(host: str, port: int, option: str = "--port") -> list[socket.socket]:
    """Return sockets for the addresses of ``host`` that only reserve the port, for child processes that share it.

    :raises CannotListen: if the host is not an address of this machine, or another program uses the port, even one
        that shares it.
    """
    return _each_address(host, port, option, _claimed)


def first_free(port: int, take: Callable[[int], _T]) -> _T:
    """Call ``take`` with the port or the next free one above it, and return its result.

    :param port: 0 is passed to ``take`` as it is.
    :param take: listens at a port; raises OSError if that is in use.
    :raises OSError: if none of a hundred ports is free.
    """
    last = min(port + _TRIED, _LAST_PORT) if port else 0
    while True:
        try:
            return take(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port >= last:
                raise
        port += 1


def listen_from(host: str, port: int) -> socket.socket:
    """Return a listening socket at this port or the next free one above it.

    :raises OSError: if none is free, or the host is not an address of this machine.
    """

    def take(number: int) -> socket.socket:
        family, _, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        return _listener(family, str(address[0]), number)

    return first_free(port, take)


def port_to_use(host: str, port: int) -> int:
    """Return ``port``, or a free one for 0, after a check that one can listen at it.

    Another program may still take it before the child process listens.

    :raises CannotListen: if one cannot.
    """
    if port == 0:
        # Not one that the system assigns: a connection could get it before the child process listens.
        for candidate in random.sample(_UNASSIGNED, k=_SAMPLED):
            with suppress(CannotListen):
                return port_to_use(host, candidate)
    listeners = listen(host, port)
    number: int = listeners[0].getsockname()[1]
    for listener in listeners:
        listener.close()
    return number


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
        # Connections of an earlier process in TIME_WAIT must not prevent this.
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            created.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        created.bind((address, port))
        # Only now that no other program has the port. Without SO_REUSEADDR, with which another one could take it while
        # no child process listens.
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        created.close()
        raise
    return created


def is_loopback(host: str) -> bool:
    """Return whether no other machine can reach what listens on a host; of an unknown host nothing can be reached."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return True
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def names_address(host: str) -> bool:
    """Return whether a header ``Host`` is an address or ``localhost``: no page of another site has such a name."""
    name, _, port = host.rpartition(":")
    # The address [::1] has colons, too.
    name = name if name and port.isdecimal() else host
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name.lower() == "localhost"
    return True


def local_hosts(host: str) -> tuple[str, ...]:
    """Return the hosts of URLs by which programs of this machine reach what listens on ``host``, without a port."""
    names = dict.fromkeys((*LOOPBACK_NAMES, reachable(host)))
    return tuple(f"[{name}]" if ":" in name else name for name in names)


def reachable(host: str) -> str:
    """Return the host to connect to: a wildcard address is replaced by a loopback address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def url(host: str, port: int) -> str:
    """Return the URL for a browser on this machine."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
