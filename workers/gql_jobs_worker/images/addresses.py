"""The IP addresses that a download may connect to. Resolves nothing, connects to nothing.

The lists are spelled out after IANA's special-purpose registries: what ``ipaddress`` calls global differs between the
patch releases of Python.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

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
