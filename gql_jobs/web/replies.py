"""Refusals that come before GraphQL: shaped like any GraphQL error, so that clients need no second parser."""

from typing import Any

from starlette.responses import Response

from gql_jobs.web.json_codec import encode


def refusal(status: int, message: str, code: str, **extensions: Any) -> Response:
    """A GraphQL error as an HTTP response with a status of its own."""
    body = {"errors": [{"message": message, "extensions": {"code": code, **extensions}}]}
    headers = {"Allow": "GET, POST"} if status == 405 else None  # noqa: PLR2004
    return Response(encode(body), status_code=status, media_type="application/json", headers=headers)
