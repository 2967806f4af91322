"""An HTTP transport that connects to allowed addresses only: it resolves a name once, and checks every address.

The connection is made to a checked address, so that the DNS, which could answer differently, is never asked again.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import httpx

from gql_jobs.jobs.errors import PermanentError, TransientError
from gql_jobs_worker.images.addresses import AllowedNetworks

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
