"""The request of GraphQL over HTTP and of ``subscribe``: what to run, with which variables."""

from typing import Any

from gql_jobs.graphql.operations import OperationRequest


class MalformedRequest(Exception):
    """A part of the request is missing or of the wrong type; the message says which."""


def operation_request(value: Any) -> OperationRequest:
    """The request that a JSON value makes.

    :raises MalformedRequest: if it makes none.
    """
    if not isinstance(value, dict):
        raise MalformedRequest("The request must be a JSON object.")
    query = value.get("query")
    if not isinstance(query, str):
        raise MalformedRequest("`query` must be a string: the GraphQL document.")
    name = value.get("operationName")
    if not isinstance(name, str | None):
        raise MalformedRequest("`operationName` must be a string or null.")
    return OperationRequest(query, optional_object(value, "variables"), name, optional_object(value, "extensions"))


def optional_object(value: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A part that may be left out or null.

    :raises MalformedRequest: if it is no object.
    """
    part = value.get(name)
    if not isinstance(part, dict | None):
        raise MalformedRequest(f"`{name}` must be an object or null.")
    return part
