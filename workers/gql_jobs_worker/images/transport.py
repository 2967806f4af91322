"""An HTTP transport that connects to allowed addresses only: it resolves a name once, and checks every address.

The connection is made to a checked address, so that the DNS, which could answer differently, is never asked again.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from gql_jobs.jobs.errors import PermanentError, TransientError

# Which addresses are allowed. The lists are spelled out after IANA's special-purpose registries: what ``ipaddress``
# calls global differs between the patch releases of Python.

Address = IPv4Address | IPv6Address

_THIS_HOST_4 = IPv4Network("127.0.0.0/8")
_THIS_HOST_6 = IPv6Address("::1")
_NEVER_4 = tuple(map(IPv4Network, ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")))
_NEVER_6 = (IPv6Network("::/128"), IPv6Network("ff00::/8"))
"""Unspecified (which connects to this very host), multicast, reserved and broadcast: never allowed."""
_PRIVATE_4 = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT
            "169.254.0.0/16",  # link-local; the metadata service of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
        ),
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")
_NOT_GLOBAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_CARRIES_4 = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96")))
"""Networks whose last 32 bits are an IPv4 address, which decides: compatible, mapped, translated (NAT64)."""


@dataclass(frozen=True)
class AllowedNetworks:
    """The networks beside the public internet that downloads may connect to. ``private`` includes loopback."""

    loopback: bool = False
    private: bool = False

    def refusal(self, address: str) -> str | None:
        """Return the kind of an address that is not allowed, such as ``a loopback address``, or None if it is allowed.

        :raises ValueError: if it is no IP address.
        """
        kind = network_kind(ip_address(address))
        allowed = {None, *(("loopback",) if self.loopback else ()), *(("loopback", "private") if self.private else ())}
        return None if kind in allowed else f"a {kind} address"


def network_kind(address: Address) -> str | None:
    """Return ``loopback``, ``private`` or ``reserved``, or None for an address of the public internet."""
    if isinstance(address, IPv6Address):
        return _kind_of_6(address)
    if address in _THIS_HOST_4:
        return "loopback"
    if any(address in network for network in _NEVER_4):
        return "reserved"
    return "private" if any(address in network for network in _PRIVATE_4) else None


def _kind_of_6(address: IPv6Address) -> str | None:
    plain = IPv6Address(int(address))  # a zone (fe80::1%eth0) changes nothing
    if plain == _THIS_HOST_6:
        return "loopback"
    if any(plain in network for network in _NEVER_6):
        return "reserved"
    if any(plain in network for network in _CARRIES_4):
        return network_kind(IPv4Address(int(plain) & 0xFFFF_FFFF))
    is_global = plain in _GLOBAL_6 and not any(plain in network for network in _NOT_GLOBAL_6)
    return None if is_global else "private"


# The connection to one of them.

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a host for a port."""


async def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, in the order the system prefers.

    Every spelling of a number that the system's own resolver would accept (``2130706433``, ``0x7f.1``) comes back as
    the address it stands for.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedTransport(httpx.AsyncBaseTransport):
    """An httpx transport for addresses in ``networks``, without proxies and without kept connections."""

    def __init__(self, networks: AllowedNetworks, *, resolve: Resolve = resolve) -> None:
        self._networks = networks
        self._resolve = resolve
        # Kept connections are pooled by address: another host there would get the first one's TLS.
        self._inner = httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first address of its host that can be connected to.

        :raises PermanentError: if the host has an address that is not allowed, or cannot be a host.
        :raises TransientError: if the name cannot be resolved.
        """
        failure: httpx.TransportError | None = None
        for address in await self._checked(request.url):
            try:
                return await self._inner.handle_async_request(_at(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError("The host has no address.")

    async def aclose(self) -> None:
        """Close the transport's connections."""
        await self._inner.aclose()

    async def _checked(self, url: httpx.URL) -> list[str]:
        host = _ascii_host(url)
        try:
            addresses = await self._resolve(host, url.port or (443 if url.scheme == "https" else 80))
        except UnicodeError as error:
            raise PermanentError(f"{host!r} cannot be the name of a host.") from error
        except OSError as error:
            raise TransientError(f"The host {host!r} cannot be resolved: {error.strerror or error}") from error
        for address in addresses:
            # One forbidden address rules out the name: public hosts have none, and to skip it would help an attacker.
            refusal = self._networks.refusal(address)
            if refusal is not None:
                raise PermanentError(f"The host {host!r} is at {refusal}, where this server does not download from.")
        return addresses


def _ascii_host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


def _at(address: str, request: httpx.Request) -> httpx.Request:
    """Return the request to an IP address; the ``Host`` header and the name that TLS checks stay those of the URL."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": _ascii_host(request.url)},
    )
