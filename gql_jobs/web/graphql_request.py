"""A request of GraphQL over HTTP: its body, its operation, the media type of its answer, and its rejection.

``decode_json``, ``operation_request`` and ``optional_object`` read the same values out of the messages of a WebSocket.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.request import parse_http_list

import msgspec
from graphql import OperationType
from msgspec.json import encode
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from gql_jobs.graphql.engine.documents import OperationRejected, OperationRequest
from gql_jobs.graphql.engine.operations import Operation
from gql_jobs.jobs.errors import ErrorCode, PayloadTooLarge, RateLimited
from gql_jobs.web.connections import ByteBudget, HeldBytes, client_of

JSON = "application/json"
GRAPHQL_RESPONSE = "application/graphql-response+json"
EVENT_STREAM = "text/event-stream"
MULTIPART = "multipart/mixed"
FOR_CACHES = {"Vary": "Accept", "Cache-Control": "no-store"}
"""Headers of every answer. Its form depends on ``Accept``, and what it says on who asks, which a URL does not tell."""
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # What is no page loads nothing and runs nothing, should a browser take it for one.
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
)
"""Headers of every answer that does not have them itself."""
KEPT_VARIABLES_BYTES = 1 << 16
"""Bytes that the variables of a subscription may have as JSON; they are kept for as long as it runs."""
KEPT_DOCUMENT_LENGTH = 1 << 14
"""Characters that the document of a subscription may have; it is kept likewise."""
UNCOUNTED_BYTES = 1 << 16
"""Bytes of a body that are not counted if they come in one piece."""
BUSY = "As many bytes of this address, or of all clients, are on the way as the server holds; try again later."
"""Why a request or a message is refused that does not fit into the byte budget."""
MOST_VALUES = 1_000_000
"""Commas and brackets that a body or a message may have; this many values are read in about a tenth of a second."""
_VALUE_BYTES = 64
"""Bytes that a value may take in memory beside its text in JSON: an empty list of three characters takes as many."""

_SINGLE = (JSON, GRAPHQL_RESPONSE)
_STREAMS = (EVENT_STREAM, MULTIPART)
_PARAMETER = re.compile(r';\s*([\w.+-]+)\s*=\s*("[^"]*"|[^;\s]*)')
_JSON_IN_URL = ("variables", "extensions")


def error_response(
    status: int, message: str, code: str, *, headers: Mapping[str, str] | None = None, **extensions: Any
) -> Response:
    """Return an HTTP response whose body is a GraphQL response with one error.

    :param code: ``extensions.code``.
    :param extensions: further extensions of the error.
    """
    body = {"errors": [{"message": message, "extensions": {"code": code, **extensions}}]}
    return Response(encode(body), status, headers, JSON)


class RequestRejected(Exception):
    """The request is answered with ``response``: an HTTP status of its own and one error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = ErrorCode.BAD_REQUEST.value,
        headers: Mapping[str, str] | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        allowed = {"Allow": allow} if allow else {}
        self.response = error_response(status, message, code, headers={**FOR_CACHES, **(headers or {}), **allowed})


class BodyRejected(Exception):
    """The body is too large, or does not come in time; the request is answered with ``response``."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class LimitedBody:
    """The body of one request, limited in size and time while it is received; nothing is buffered.

    What comes in one piece of at most ``UNCOUNTED_BYTES`` does not count in the budget: connections limit it already.

    :param receive: the ASGI callable of the request.
    :param scope: of the request.
    :param budget: counts what has been received, until it is released.
    :param limit: bytes that the body may have.
    :param timeout: seconds in which the whole body has to come.
    """

    __slots__ = ("_budget", "_deadline", "_held", "_left", "_limit", "_receive", "_scope", "_timeout")

    def __init__(self, receive: Receive, scope: Scope, budget: ByteBudget, *, limit: int, timeout: float) -> None:
        self._receive = receive
        self._scope = scope
        self._budget = budget
        self._held: HeldBytes | None = None
        self._limit = limit
        self._timeout = timeout
        self._left = limit
        self._deadline: float | None = asyncio.get_running_loop().time() + timeout

    async def receive(self) -> Message:
        """Return the next ASGI message of the request.

        :raises BodyRejected: with status 413 once more has come than the limit allows, with 408 after the timeout, and
            with 429 if the client has too many bytes on the way.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            text = f"The request body did not come within {self._timeout:g} s."
            # Closed, because later bytes would be the rest of this body and not the next request.
            headers = {"Connection": "close"}
            raise BodyRejected(error_response(408, text, ErrorCode.TIMEOUT.value, headers=headers)) from None
        if not message.get("more_body"):
            # After the body, only the client's disconnect is waited for, without a timeout.
            self._deadline = None
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._left -= size
            if self._left < 0:
                raise BodyRejected(body_too_large(self._limit))
            is_counted = self._held is not None or size > UNCOUNTED_BYTES or message.get("more_body")
            if is_counted and not self.held.resize(self.held.size + size):
                raise BodyRejected(too_often(too_busy()))
        return message

    @property
    def held(self) -> HeldBytes:
        """Return what the request holds of the budget."""
        if self._held is None:
            self._held = HeldBytes(self._budget, client_of(self._scope))
        return self._held

    def release(self) -> None:
        """Hold nothing any more: the request has been answered."""
        if self._held is not None:
            self._held.release()


def body_too_large(limit: int, size: int | None = None) -> Response:
    """Return the response with status 413 to a body of more than ``limit`` bytes.

    :param size: the bytes that the request declares; None where it does not.
    """
    error = PayloadTooLarge("The request body", size, limit)
    # Closed, because the rest of the body would have to be read before the next request.
    return error_response(413, error.message, headers={"Connection": "close"}, **error.extensions)


def too_busy() -> RateLimited:
    """Return the refusal of a request or a message that does not fit into the byte budget."""
    return RateLimited(BUSY, 1)


def too_often(refusal: RateLimited, status: int = 429, headers: Mapping[str, str] = FOR_CACHES) -> Response:
    """Return the response to somebody who asks too often; it says when to try again."""
    wait = {"Retry-After": str(refusal.retry_after)}
    return error_response(status, refusal.message, headers={**headers, **wait}, **refusal.extensions)


def keep_subscription(operation: Operation, held: HeldBytes, size: int = 0) -> bool:
    """Hold what a subscription keeps of its request while it runs; return whether it fits into the budget.

    :param size: bytes that are kept beside the document and the variables.
    :raises PayloadTooLarge: if the document or the variables are larger than a subscription may keep.
    """
    read = operation.read
    if isinstance(read, OperationRejected):
        return True
    if len(read.text) > KEPT_DOCUMENT_LENGTH:
        raise PayloadTooLarge("The document of a subscription", len(read.text), KEPT_DOCUMENT_LENGTH)
    variables = encode(read.variables)
    if len(variables) > KEPT_VARIABLES_BYTES:
        raise PayloadTooLarge("The variables of a subscription", len(variables), KEPT_VARIABLES_BYTES)
    return held.keep(read.text, memory_of(variables) + size)


def memory_of(text: bytes) -> int:
    """Return about how many bytes of memory the value of a JSON text takes."""
    return len(text) + _VALUE_BYTES * (text.count(b",") + text.count(b"[") + text.count(b"{"))


async def read_operation(request: Request) -> OperationRequest:
    """Return the operation of a GET (in the query string) or a POST (as JSON).

    :raises RequestRejected: if the request has none, or is not one of GraphQL over HTTP.
    :raises BodyRejected: as the body of the request raises it.
    :raises ClientDisconnect: if the client goes away while it sends its body.
    """
    if request.method not in {"GET", "POST"}:
        raise RequestRejected(405, "GraphQL is served by GET and POST.", allow="GET, POST")
    value = read_operation_of_url(request) if request.method == "GET" else await _of_body(request)
    try:
        operation = operation_request(value)
    except MalformedRequest as malformed:
        raise RequestRejected(400, str(malformed)) from None
    if not operation.query and operation.sha256 is None:
        raise RequestRejected(400, "`query` is empty.")
    return operation


def read_operation_of_url(request: Request) -> dict[str, Any]:
    """Return the parameters of a query string, as the body of a request would have them.

    :raises RequestRejected: if one that is JSON cannot be read.
    """
    value: dict[str, Any] = dict(request.query_params)
    for name in _JSON_IN_URL:
        text = value.pop(name, "")
        if text:
            value[name] = _json(text, f"`{name}`")
    return value


async def _of_body(request: Request) -> Any:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != JSON or not _is_utf8(parameters):
        raise RequestRejected(415, "The body must be JSON in UTF-8: Content-Type: application/json.")
    encoding = request.headers.get("content-encoding", "")
    # Proxies that take a coding off may leave the header empty.
    if encoding and {coding.strip().lower() for coding in encoding.split(",")} - {"", "identity"}:
        message = f"A body in the Content-Encoding {encoding[:100]!r} is not read; send it as it is."
        raise RequestRejected(415, message, headers={"Accept-Encoding": "identity"})
    body = await request.body()
    if body[:1] == b"[":
        raise RequestRejected(400, "The request must be one JSON object: batches are not served.")
    return _json(body, "The body")


def _is_utf8(parameters: str) -> bool:
    name, _, charset = parameters.partition("=")
    return name.strip().lower() != "charset" or charset.strip(' "').lower() in {"utf-8", "utf8", "us-ascii"}


class TooManyValues(Exception):
    """A JSON text has more values than are read: they would take far more memory and time than their text."""

    def __init__(self) -> None:
        super().__init__(f"has more than {MOST_VALUES} commas and brackets; send less at a time")


def _json(text: str | bytes, what: str) -> Any:
    try:
        return decode_json(text)
    except TooManyValues as error:
        raise RequestRejected(413, f"{what} {error}.", code=PayloadTooLarge.code.value) from None
    except json.JSONDecodeError:
        raise RequestRejected(400, f"{what} cannot be read as JSON.") from None


def decode_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    :raises TooManyValues: if it has more than ``MOST_VALUES``, by its commas and brackets, wherever they are.
    :raises json.JSONDecodeError: if the text is no JSON, no UTF-8, or nested too deeply.
    """
    if len(text) > MOST_VALUES:
        marks = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
        if sum(map(text.count, marks)) > MOST_VALUES:  # type: ignore[arg-type]  # they are of the text's type
            raise TooManyValues
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise json.JSONDecodeError(str(error) or "nested too deeply", "", 0) from None


class MalformedRequest(Exception):
    """A part of the operation is missing or of the wrong type; the message says which."""


def operation_request(value: Any) -> OperationRequest:
    """Return the operation that a JSON value describes: a body, a query string, or the payload of ``subscribe``.

    :raises MalformedRequest: if it does not describe one.
    """
    if not isinstance(value, dict):
        raise MalformedRequest("The request must be a JSON object.")
    extensions = optional_object(value, "extensions")
    sha256 = _persisted_digest((extensions or {}).get("persistedQuery"))
    query = value.get("query")
    if query is None and sha256 is not None:
        query = ""
    if not isinstance(query, str):
        raise MalformedRequest("`query` must be a string: the GraphQL document.")
    name = value.get("operationName")
    if not isinstance(name, str | None):
        raise MalformedRequest("`operationName` must be a string or null.")
    return OperationRequest(query, optional_object(value, "variables"), name, extensions, sha256)


def optional_object(value: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the object under ``name`` in a JSON object, or None if it is left out or null.

    :raises MalformedRequest: if it is anything else.
    """
    part = value.get(name)
    if not isinstance(part, dict | None):
        raise MalformedRequest(f"`{name}` must be an object or null.")
    return part


def _persisted_digest(persisted: Any) -> str | None:
    """Return the document's digest, by the protocol of Apollo's automatic persisted queries, version 1."""
    if persisted is None:
        return None
    sha256 = persisted.get("sha256Hash") if isinstance(persisted, dict) and persisted.get("version") == 1 else None
    if not isinstance(sha256, str):
        raise MalformedRequest("`extensions.persistedQuery` must have the `version` 1 and a string `sha256Hash`.")
    return sha256.lower()


class _Range(NamedTuple):
    """One entry of ``Accept``."""

    media_type: str
    parameters: dict[str, str]
    quality: float


@lru_cache(128)
def negotiate(accept: str, operation: OperationType | None) -> str | None:
    """Return the media type of the answer, or None if the client accepts none that is possible.

    The higher ``q`` wins, then the earlier entry. A stream must be named: clients that do not know streams send
    ``*/*``. Queries and mutations are answered as a stream only if nothing else is accepted.

    :param accept: the header.
    :param operation: None for an operation that was rejected when it was read, whose answer is an error.
    """
    ranges = [_range(entry) for entry in parse_http_list(accept)] or [_Range("*/*", {}, 1.0)]
    if operation is OperationType.SUBSCRIPTION:
        return _best(ranges, _STREAMS)
    return _best(ranges, _SINGLE) or _best(ranges, _STREAMS)


def _range(entry: str) -> _Range:
    parameters = {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(entry)}
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return _Range(entry.partition(";")[0].strip().lower(), parameters, quality)


def _best(ranges: list[_Range], available: tuple[str, ...]) -> str | None:
    ranked = []
    for preference, media_type in enumerate(available):
        match = _match(ranges, media_type)
        if match is not None and match[1].quality > 0:
            position, accepted = match
            ranked.append((-accepted.quality, position, preference, media_type))
    return min(ranked)[-1] if ranked else None


def _match(ranges: list[_Range], media_type: str) -> tuple[int, _Range] | None:
    """Return the most specific entry that covers the type, with its position."""
    wildcards = () if media_type in _STREAMS else (media_type.partition("/")[0] + "/*", "*/*")
    for wanted in (media_type, *wildcards):
        for position, entry in enumerate(ranges):
            if entry.media_type == wanted and (media_type != MULTIPART or _is_subscription(entry.parameters)):
                return position, entry
    return None


def _is_subscription(parameters: dict[str, str]) -> bool:
    """Return whether the multipart protocol is that of subscriptions; ``deferspec`` means incremental delivery."""
    return parameters.get("subscriptionspec", "1.0") == "1.0" and "deferspec" not in parameters
