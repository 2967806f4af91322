"""The download of one file over HTTP, within limits: bytes, seconds, redirects, and the networks it may come from.

Decides which failures are retried: the statuses 408, 425, 429 and 5xx and all failures of the network; no others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import BinaryIO

import httpx

from gql_jobs.jobs.errors import HandlerError, PermanentError, TransientError
from gql_jobs_worker.images.transport import AllowedNetworks, CheckedTransport, Resolve, resolve

LONGEST_RETRY_AFTER = 3600.0
"""Seconds that ``Retry-After`` is capped at."""
_CONNECT_WITHIN = 10.0
"""Seconds per address of a host."""
_LAST_PORT = 65535
_REDIRECTS = {301, 302, 303, 307, 308}
_MAY_GO_AWAY = {408, 425, 429, *range(500, 600)}
_HEADERS = {"User-Agent": "gql-jobs", "Accept": "image/*,*/*;q=0.8", "Accept-Encoding": "identity"}

ReportReceived = Callable[[int, int | None], None]
"""Called with the bytes received so far, and the length of the whole file or None if the server does not say it."""


@dataclass(frozen=True)
class DownloadLimits:
    """The limits of one download; ``seconds`` is the time for all of it, redirects included."""

    bytes: int
    seconds: float
    redirects: int
    networks: AllowedNetworks


async def download(
    url: str, target: BinaryIO, limits: DownloadLimits, report: ReportReceived, *, resolve: Resolve = resolve
) -> int:
    """Write the file at ``url`` into ``target`` and return its length in bytes.

    :param report: called after each chunk.
    :raises PermanentError: if the file is too large, or its address, scheme or the server's status rule it out.
    :raises TransientError: if the server or the network failed, with ``retry_after`` where the server sent it.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            transport = CheckedTransport(limits.networks, resolve=resolve)
            timeout = httpx.Timeout(limits.seconds, connect=min(_CONNECT_WITHIN, limits.seconds))
            async with (
                httpx.AsyncClient(transport=transport, timeout=timeout, headers=_HEADERS, trust_env=False) as client,
                _answer(client, url, limits.redirects) as response,
            ):
                return await _receive(response, target, limits.bytes, report)
    except httpx.ConnectTimeout as error:
        raise TransientError("The server did not answer the connection in time.") from error
    except (TimeoutError, httpx.TimeoutException) as error:
        raise TransientError(f"The download was not complete after {limits.seconds:g} s.") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise PermanentError(f"The URL cannot be fetched: {error}") from error
    except httpx.HTTPError as error:
        raise TransientError(f"The download failed: {error or type(error).__name__}") from error


@asynccontextmanager
async def _answer(client: httpx.AsyncClient, url: str, redirects: int) -> AsyncIterator[httpx.Response]:
    """Yield the response at the end of all redirects; the URL of each redirect is checked like the first one."""
    target = _checked(httpx.URL(url))
    for _ in range(redirects + 1):
        async with client.stream("GET", target) as response:
            if response.status_code not in _REDIRECTS:
                if not response.is_success:
                    raise _refusal(response)
                yield response
                return
            if "Location" not in response.headers:
                raise PermanentError(f"The server {target.host!r} redirects to nowhere.")
            target = _checked(target.join(response.headers["Location"]))
    raise PermanentError(f"The URL redirects more than {redirects} times.")


def _checked(url: httpx.URL) -> httpx.URL:
    if url.scheme not in {"http", "https"} or not url.host:
        raise PermanentError(f"{str(url)[:200]!r} is no http or https URL with a host, and is not fetched.")
    if (url.port or 0) > _LAST_PORT:
        raise PermanentError(f"There is no port {url.port}; the URL is not fetched.")
    if url.userinfo:
        raise PermanentError(f"The URL of {url.host!r} contains credentials, and is not fetched.")
    return url


async def _receive(response: httpx.Response, target: BinaryIO, limit: int, report: ReportReceived) -> int:
    # No compression is accepted: a body could unpack to many times its size before it is counted.
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise PermanentError(f"The server sends the file packed as {encoding!r}, which it was asked not to do.")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if total is not None and total > limit:
        raise PermanentError(f"The file has {total} bytes; the limit is {limit}.")
    received = 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        if received > limit:
            raise PermanentError(f"The file has more than {limit} bytes, which is the limit.")
        target.write(chunk)
        report(received, total)
    return received


def _refusal(response: httpx.Response) -> HandlerError:
    status = response.status_code
    known = next((known.phrase for known in HTTPStatus if known == status), "")
    message = f"The server {response.url.host!r} answered {status} {known}".rstrip()
    if status not in _MAY_GO_AWAY:
        return PermanentError(f"{message}.")
    return TransientError(f"{message}.", retry_after=retry_after(response.headers.get("Retry-After")))


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, as a number or a date; at most an hour."""
    header = (header or "").strip()
    if header.isascii() and header.isdecimal():
        # Python refuses to read integers of thousands of digits.
        return LONGEST_RETRY_AFTER if len(header) > 9 else min(float(header), LONGEST_RETRY_AFTER)  # noqa: PLR2004
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
