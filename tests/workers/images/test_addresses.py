"""Which addresses are not allowed."""

import pytest

from gql_jobs_worker.images.transport import AllowedNetworks

LOOPBACK = ["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::1%lo"]
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd12:3456::1",
    "2001:db8::1",
    "2001::1",
    "2002:7f00:1::",
    "100::1",
    "64:ff9b:1::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::10.0.0.1",
    "64:ff9b::a00:1",
]
NEVER = [
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::ffff:0.0.0.0",
    "::ffff:255.255.255.255",
    "64:ff9b::e000:1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", [*LOOPBACK, *PRIVATE, *NEVER])
def test_what_is_not_public_is_refused_unless_it_is_allowed(address: str) -> None:
    assert AllowedNetworks().refusal(address) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_always_allowed(address: str) -> None:
    assert AllowedNetworks().refusal(address) is None


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_can_be_allowed_alone(address: str) -> None:
    assert AllowedNetworks().refusal(address) == "a loopback address"
    assert AllowedNetworks(loopback=True).refusal(address) is None
    assert AllowedNetworks(private=True).refusal(address) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_networks_take_a_permission_of_their_own(address: str) -> None:
    assert AllowedNetworks(loopback=True).refusal(address) == "a private address"
    assert AllowedNetworks(private=True).refusal(address) is None


@pytest.mark.parametrize("address", NEVER)
def test_nothing_allows_addresses_that_nobody_serves_from(address: str) -> None:
    assert AllowedNetworks(loopback=True, private=True).refusal(address) == "a reserved address"


def test_what_is_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="localhost"):
        AllowedNetworks().refusal("localhost")
