"""Reading the operation out of an HTTP request, and refusing what holds none."""

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

from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.graphql.engine.errors import DocumentError

# Which media type answers a request: by what the client accepts, and by whether it runs a subscription.

JSON = "application/json"
GRAPHQL_RESPONSE = "application/graphql-response+json"
EVENT_STREAM = "text/event-stream"
MULTIPART = "multipart/mixed"

_SINGLE = (JSON, GRAPHQL_RESPONSE)
_STREAMS = (EVENT_STREAM, MULTIPART)
_PARAMETER = re.compile(r';\s*([\w.+-]+)\s*=\s*("[^"]*"|[^;\s]*)')


class _Range(NamedTuple):
    """One entry of ``Accept``."""

    media_type: str
    parameters: dict[str, str]
    quality: float


@lru_cache(128)
def negotiate(accept: str, operation: OperationType | None) -> str | None:
    """The media type to answer with, or None where the client accepts none that can.

    The higher ``q`` wins, then the earlier entry. A stream must be named: ``*/*`` is what clients send that do not know
    of streams. Queries and mutations are answered as a stream only where nothing else is accepted.

    :param operation: None where the request does not say, which is then an error to be answered.
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


def _best(ranges: list[_Range], offered: tuple[str, ...]) -> str | None:
    ranked = []
    for preference, media_type in enumerate(offered):
        match = _match(ranges, media_type)
        if match is not None and match[1].quality > 0:
            position, accepted = match
            ranked.append((-accepted.quality, position, preference, media_type))
    return min(ranked)[-1] if ranked else None


def _match(ranges: list[_Range], media_type: str) -> tuple[int, _Range] | None:
    """The most specific entry that covers the type, with its position."""
    wildcards = () if media_type in _STREAMS else (media_type.partition("/")[0] + "/*", "*/*")
    for wanted in (media_type, *wildcards):
        for position, entry in enumerate(ranges):
            if entry.media_type == wanted and (media_type != MULTIPART or _is_subscription(entry.parameters)):
                return position, entry
    return None


def _is_subscription(parameters: dict[str, str]) -> bool:
    """Apollo's clients say which protocol they mean; ``deferspec`` means incremental delivery, which is another."""
    return parameters.get("subscriptionspec", "1.0") == "1.0" and "deferspec" not in parameters


def decode_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    :raises json.JSONDecodeError: for anything that is none, is no UTF-8, or is nested too deeply.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise json.JSONDecodeError(str(error) or "nested too deeply", "", 0) from None


# The request of GraphQL over HTTP and of ``subscribe``: what to run, with which variables.


class MalformedRequest(Exception):
    """A part of the request is missing or of the wrong type; the message says which."""


def operation_request(value: Any) -> OperationRequest:
    """The request that a JSON value makes.

    :raises MalformedRequest: if it makes none.
    """
    if not isinstance(value, dict):
        raise MalformedRequest("The request must be a JSON object.")
    extensions = optional_object(value, "extensions")
    named = _digest((extensions or {}).get("persistedQuery"))
    query = value.get("query")
    if query is None and named is not None:
        query = ""
    if not isinstance(query, str):
        raise MalformedRequest("`query` must be a string: the GraphQL document.")
    name = value.get("operationName")
    if not isinstance(name, str | None):
        raise MalformedRequest("`operationName` must be a string or null.")
    return OperationRequest(query, optional_object(value, "variables"), name, extensions, named)


def _digest(persisted: Any) -> str | None:
    """The digest of the document, by the protocol of Apollo's automatic persisted queries, version 1."""
    if persisted is None:
        return None
    named = persisted.get("sha256Hash") if isinstance(persisted, dict) and persisted.get("version") == 1 else None
    if not isinstance(named, str):
        raise MalformedRequest("`extensions.persistedQuery` must have the `version` 1 and a string `sha256Hash`.")
    return named.lower()


def optional_object(value: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A part that may be left out or null.

    :raises MalformedRequest: if it is no object.
    """
    part = value.get(name)
    if not isinstance(part, dict | None):
        raise MalformedRequest(f"`{name}` must be an object or null.")
    return part


# Refusals that come before GraphQL: shaped like any GraphQL error, so that clients need no second parser.


def refusal(
    status: int, message: str, code: str, *, headers: Mapping[str, str] | None = None, **extensions: Any
) -> Response:
    """A GraphQL error as an HTTP response with a status of its own."""
    body = {"errors": [{"message": message, "extensions": {"code": code, **extensions}}]}
    return Response(encode(body), status, headers, "application/json")


_MEDIA_TYPE = "application/json"
_IN_URL = ("variables", "extensions")


class Refused(Exception):
    """The request is answered with that HTTP status and one error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = DocumentError.BAD_REQUEST.value,
        headers: Mapping[str, str] | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = {**(headers or {}), **({"Allow": allow} if allow else {})}


async def read_operation(request: Request) -> OperationRequest:
    """The operation of a GET (in the query string) or a POST (as JSON).

    :raises Refused: if the request holds none.
    :raises ClientDisconnect: if the client goes away while it sends its body.
    """
    if request.method not in {"GET", "POST"}:
        raise Refused(405, "GraphQL is served by GET and POST.", allow="GET, POST")
    value = _of_url(request) if request.method == "GET" else await _of_body(request)
    try:
        operation = operation_request(value)
    except MalformedRequest as malformed:
        raise Refused(400, str(malformed)) from None
    if not operation.query and operation.sha256 is None:
        raise Refused(400, "`query` is empty.")
    return operation


def _of_url(request: Request) -> dict[str, Any]:
    value: dict[str, Any] = dict(request.query_params)
    for name in _IN_URL:
        text = value.pop(name, "")
        if text:
            value[name] = _json(text, f"`{name}`")
    return value


async def _of_body(request: Request) -> Any:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != _MEDIA_TYPE or not _is_utf8(parameters):
        raise Refused(415, "The body must be JSON in UTF-8: Content-Type: application/json.")
    body = await request.body()
    if body[:1] == b"[":
        raise Refused(400, "The request must be one JSON object: batches are not served.")
    return _json(body, "The body")


def _is_utf8(parameters: str) -> bool:
    name, _, charset = parameters.partition("=")
    return name.strip().lower() != "charset" or charset.strip(' "').lower() in {"utf-8", "utf8", "us-ascii"}


def _json(text: str | bytes, what: str) -> Any:
    try:
        return decode_json(text)
    except json.JSONDecodeError:
        raise Refused(400, f"{what} cannot be read as JSON.") from None
