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
