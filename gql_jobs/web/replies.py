"""Refusals that come before GraphQL: shaped like any GraphQL error, so that clients need no second parser."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from gql_jobs.web.json_codec import encode


def refusal(
    status: int, message: str, code: str, *, headers: Mapping[str, str] | None = None, **extensions: Any
) -> Response:
    """A GraphQL error as an HTTP response with a status of its own."""
    body = {"errors": [{"message": message, "extensions": {"code": code, **extensions}}]}
    return Response(encode(body), status, headers, "application/json")
