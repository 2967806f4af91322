"""Reading the operation out of an HTTP request, and refusing what holds none."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from gql_jobs.graphql.enums import DocumentError
from gql_jobs.graphql.operations import OperationRequest
from gql_jobs.web.json_codec import decode
from gql_jobs.web.operation_request import MalformedRequest, operation_request

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
        return decode(text)
    except json.JSONDecodeError:
        raise Refused(400, f"{what} cannot be read as JSON.") from None
