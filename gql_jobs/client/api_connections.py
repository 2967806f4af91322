"""Connections to one API: requests with one answer each, streams of events, and downloads.

What passes by itself is tried again here, as long as the caller's patience lasts and it can do no harm.
"""

import asyncio
import inspect
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from gql_jobs.client.address import checked_token, endpoint_of
from gql_jobs.client.api_documents import GraphQLAnswer, foreign_answer, read_answer, read_field
from gql_jobs.client.errors import ClientError, InvalidArgument, Unauthenticated, Unreachable, leaves_doubt, refusal
from gql_jobs.client.event_stream import (
    ANSWER_BEGINS_WITHIN,
    CONNECT_WITHIN,
    LONGEST_NAMED_WAIT,
    PASSING,
    SILENT_FOR,
    ConnectionBackoff,
    EventStream,
)
from gql_jobs.client.transport import Token
from gql_jobs.processes.listening import LOOPBACK_NAMES

_T = TypeVar("_T")
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 5.0
"""Seconds until the first and until any other try, at most, unless the server names a longer time."""
_MOST_REQUESTS = 64
"""Connections for requests; more wait for one of them."""
_MOST_STREAMS = 256
"""Connections for events and files; whoever wants another one waits until one ends."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FIRST_OF_SERVERS, _UNAVAILABLE = 500, 503
_AWAY = frozenset({429, 502, _UNAVAILABLE, 504})
"""Statuses of proxies that have found no process of the API, or let nothing more through for now."""


class CutOff(Exception):
    """A stream or a download was lost, or could not be had now.

    ``error`` says why; ``retry``: seconds until it may be asked for again, as the API has said, 0 where it has not;
    ``has_stood``: whether it had begun.
    """

    def __init__(self, error: ClientError, retry: float = 0.0, *, has_stood: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry = retry
        self.has_stood = has_stood


class Outage:
    """How long something is tried again: for ``patience`` seconds since the last success, or without end."""

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._backoff = ConnectionBackoff(_FIRST_WAIT, _LONGEST_WAIT)
        self._since = time.monotonic()

    def is_over(self) -> None:
        """Note a success."""
        self._backoff.is_over()
        self._since = time.monotonic()

    async def wait(self, error: ClientError, named: float = 0.0) -> None:
        """Wait until the next try.

        :param named: seconds that the API has named besides those of the error.
        :raises ClientError: ``error``, if there is no patience for another try.
        """
        wait = self._backoff.wait(min(max(error.retry_after, named), LONGEST_NAMED_WAIT))
        if self._patience is not None and time.monotonic() + wait > self._since + self._patience:
            raise error
        await asyncio.sleep(wait)


class _Pool(NamedTuple):
    """Connections of one kind. ``room``: where it is waited for one, since httpx looks through all who wait in it."""

    http: httpx.AsyncClient
    room: asyncio.Semaphore


class ApiConnections:
    """The connections to the API at one address, opened when they are needed.

    :param address: of the API; its path is ``/graphql`` where it has none.
    :param patience: seconds for which a request is tried again.
    :raises BadAddress: if the address or the token can be none.
    """

    def __init__(self, address: str, token: Token, patience: float, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint_of(address)
        self._token = checked_token(token) if isinstance(token, str) else token
        self._patience = patience
        self._has_answered = False
        self._is_closed = False
        parts = urlsplit(self._endpoint)
        # Reading all authorities takes longer than a request, and plain HTTP needs none.
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        verify = tls or (ssl.create_default_context() if parts.scheme == "https" else plain)
        # No proxy stands between this machine and itself.
        trust_env = parts.hostname not in LOOPBACK_NAMES

        def pool(connections: int, silent: float) -> _Pool:
            http = httpx.AsyncClient(
                timeout=httpx.Timeout(silent, connect=CONNECT_WITHIN, pool=None),
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                verify=verify,
                trust_env=trust_env,
            )
            return _Pool(http, asyncio.Semaphore(connections))

        self._requests = pool(_MOST_REQUESTS, ANSWER_BEGINS_WITHIN)
        self._streams = pool(_MOST_STREAMS, SILENT_FOR)

    def outage(self, *, of_stream: bool = False) -> Outage:
        """Return how long something is tried again; a stream without end, once the API has answered anything."""
        return Outage(None if of_stream and self._has_answered else self._patience)

    async def close(self) -> None:
        """Close all connections; may be called again."""
        self._is_closed = True
        await self._requests.http.aclose()
        await self._streams.http.aclose()

    # Requests.

    async def ask(self, document: str, variables: dict[str, Any], kind: type[_T], **how: Any) -> _T:
        """Return the value of the one root field of an operation, as ``ask_for`` does, where it is never null."""
        return _present(await self.ask_for(document, variables, kind, **how))

    async def ask_for(
        self,
        document: str,
        variables: dict[str, Any],
        kind: type[_T],
        *,
        repeatable: bool = True,
        lasting: bool = False,
        doubts: list[ClientError] | None = None,
    ) -> _T | None:
        """Return the value of the one root field of an operation; None where it is null.

        :param repeatable: whether it may be sent again although it may have been done.
        :param lasting: whether it is tried without end, as streams are.
        :param doubts: gets the errors of the tries that may have been done.
        :raises ClientError: if it is refused, or there is no answer for as long as patience has it.
        """
        outage, is_renewed, content = self.outage(of_stream=lasting), False, _body(document, variables)
        while True:
            try:
                return read_field(await self._answer(content), kind)
            except Unauthenticated:
                if is_renewed or not callable(self._token):
                    raise
                is_renewed = True
                continue
            except httpx.HTTPError as lost:
                error: ClientError = self._unreachable(lost)
            except ClientError as refused:
                if not _passes(refused):
                    raise
                error = refused
            if leaves_doubt(error):
                if not repeatable:
                    raise error
                if doubts is not None:
                    doubts.append(error)
            await outage.wait(error)

    async def _answer(self, content: bytes) -> GraphQLAnswer:
        headers = {"Accept": "application/json"}
        async with self._opened(self._requests, "POST", self._endpoint, headers, content) as response:
            return self._read(response.status_code, await response.aread())

    def _read(self, status: int, text: bytes) -> GraphQLAnswer:
        """Return an answer.

        :raises ClientError: if it has errors, or is none of this API.
        """
        answer = read_answer(text)
        if answer is None or (not answer.errors and status != httpx.codes.OK):
            said = f"{self._endpoint} answers {status}, and nothing of GraphQL"
            if status in _AWAY or self._has_answered:
                # Some proxies answer with a page of their own, such as 404, while no process of the API runs.
                raise Unreachable(f"{said}.", uncertain=status >= _FIRST_OF_SERVERS and status != _UNAVAILABLE)
            raise Unreachable(f"{said}: is it the API's address?", lasting=True)
        self._has_answered = True
        if answer.errors:
            first = answer.errors[0]
            extensions = first.get("extensions")
            raise refusal(str(first.get("message")), extensions if isinstance(extensions, dict) else {})
        return answer

    # Streams of events.

    async def events(
        self, document: str, variables: dict[str, Any], cursor: str | None, kind: type[_T]
    ) -> AsyncGenerator[_T, None]:
        """Yield the events of a subscription over one connection, until it completes.

        :param cursor: of the last event seen.
        :raises CutOff: if the connection is lost, or cannot be had now.
        :raises ClientError: if the API refuses it for a reason that does not pass.
        """
        stream, content, is_renewed = EventStream(), _body(document, variables), False
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": cursor} if cursor is not None else {})}
        has_stood = False
        while True:
            try:
                async with self._opened(self._streams, "POST", self._endpoint, headers, content) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    await self._check_is_stream(response)
                    has_stood = True
                    async for chunk in response.aiter_bytes():
                        for name, data in stream.feed(chunk):
                            if name == "complete":
                                return
                            yield _present(read_field(self._read(httpx.codes.OK, data), kind))
                error: ClientError = Unreachable("The stream has broken off.")
            except Unauthenticated as ended:
                if is_renewed or not callable(self._token):
                    raise
                is_renewed = True
                if not has_stood:
                    continue
                # The token has ended with the stream, and whoever reads it knows where.
                error = ended
            except (ClientError, httpx.HTTPError) as lost:
                error = self._passing(lost)
            raise CutOff(error, stream.retry, has_stood=has_stood)

    async def _check_is_stream(self, response: httpx.Response) -> None:
        """Check that a response is one of events.

        :raises ClientError: if it is a refusal instead, or nothing of this API.
        """
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            self._read(response.status_code, await response.aread())
            raise Unreachable(f"{self._endpoint} does not answer with events.", lasting=True)
        self._has_answered = True

    # Downloads.

    async def download(self, path: str, start: int, tag: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file from a position on, over one connection.

        :param path: where it is, below the address of the API.
        :param tag: its entity tag; of a file that has another one by now, nothing is yielded.
        :raises CutOff: if the connection is lost, or cannot be had now.
        :raises ClientError: if the API refuses it for a reason that does not pass.
        """
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        wanted = httpx.codes.PARTIAL_CONTENT if start else httpx.codes.OK
        has_stood = False
        try:
            async with self._opened(self._streams, "GET", urljoin(self._endpoint, path), headers) as response:
                if response.status_code == wanted and response.headers.get("etag") == tag:
                    has_stood = True
                    async for chunk in response.aiter_bytes():
                        yield chunk
                elif response.status_code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
                    self._read(response.status_code, await response.aread())
        except (ClientError, httpx.HTTPError) as lost:
            raise CutOff(self._passing(lost), has_stood=has_stood) from lost

    # What both have.

    @asynccontextmanager
    async def _opened(
        self, pool: _Pool, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Open a response, whose body is read in the block; say who asks, unless the URL is signed."""
        async with pool.room:
            if self._is_closed:
                raise RuntimeError("The client was closed.")
            sent = dict(headers)
            if content is not None:
                sent["Content-Type"] = "application/json"
            if "signature=" not in url and (token := await self._current_token()) is not None:
                sent["Authorization"] = f"Bearer {token}"
            async with pool.http.stream(method, url, content=content, headers=sent) as response:
                yield response

    async def _current_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        return checked_token(await token if inspect.isawaitable(token) else token)

    def _passing(self, lost: ClientError | httpx.HTTPError) -> ClientError:
        """Return the error of something that may be had again; raise it if it may not."""
        if isinstance(lost, httpx.HTTPError):
            return self._unreachable(lost)
        if not _passes(lost):
            raise lost
        return lost

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error).rstrip(".")
        said = f"The API at {self._endpoint} does not answer ({reason or type(error).__name__})."
        return Unreachable(said, uncertain=not isinstance(error, _NOT_SENT))


def _present(value: _T | None) -> _T:
    if value is None:
        raise foreign_answer()
    return value


def _passes(error: ClientError) -> bool:
    return error.code in PASSING or (isinstance(error, Unreachable) and not error.lasting)


def _body(document: str, variables: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode({"query": document, "variables": variables})
    except UnicodeEncodeError:
        raise InvalidArgument("A text has half of a surrogate pair, which UTF-8 cannot hold.") from None
