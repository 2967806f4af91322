"""What a client accepts, and what it is answered with."""

import pytest
from graphql import OperationType

from gql_jobs.web.graphql_request import EVENT_STREAM, GRAPHQL_RESPONSE, JSON, MULTIPART, negotiate

QUERY, MUTATION, SUBSCRIPTION = OperationType.QUERY, OperationType.MUTATION, OperationType.SUBSCRIPTION
URQL = f"{GRAPHQL_RESPONSE}, application/graphql+json, {JSON}, {EVENT_STREAM}, {MULTIPART}"
URQL_SUBSCRIPTION = f"{EVENT_STREAM}, {MULTIPART}"
APOLLO = f"{GRAPHQL_RESPONSE},{JSON};q=0.9"
APOLLO_SUBSCRIPTION = f"{MULTIPART};boundary=graphql;subscriptionSpec=1.0,{APOLLO}"


@pytest.mark.parametrize(
    ("accept", "operation", "answer"),
    [
        ("", QUERY, JSON),
        ("*/*", QUERY, JSON),
        ("application/*", QUERY, JSON),
        (JSON, MUTATION, JSON),
        (GRAPHQL_RESPONSE, QUERY, GRAPHQL_RESPONSE),
        (f"{GRAPHQL_RESPONSE}, */*", QUERY, GRAPHQL_RESPONSE),
        (f"*/*, {GRAPHQL_RESPONSE};q=0.9", QUERY, JSON),
        (f"{JSON}, {GRAPHQL_RESPONSE}", QUERY, JSON),
        (f"{GRAPHQL_RESPONSE}, {JSON}", QUERY, GRAPHQL_RESPONSE),
        (f"{JSON};q=0.5, {GRAPHQL_RESPONSE};q=0.8", QUERY, GRAPHQL_RESPONSE),
        (f"{JSON};q=0, */*", QUERY, GRAPHQL_RESPONSE),
        (f"{JSON.upper()}; charset=utf-8", QUERY, JSON),
        (f"{JSON};q=many", QUERY, None),
        ("text/html, application/xhtml+xml, */*;q=0.8", QUERY, JSON),
        ("text/csv", QUERY, None),
        # A stream is for a query only where nothing else is accepted.
        (f"{EVENT_STREAM}, {JSON};q=0.1", QUERY, JSON),
        (EVENT_STREAM, MUTATION, EVENT_STREAM),
        (EVENT_STREAM, None, EVENT_STREAM),
        (URQL, QUERY, GRAPHQL_RESPONSE),
        (URQL_SUBSCRIPTION, SUBSCRIPTION, EVENT_STREAM),
        (APOLLO, QUERY, GRAPHQL_RESPONSE),
        (APOLLO_SUBSCRIPTION, SUBSCRIPTION, MULTIPART),
        (f"{EVENT_STREAM};q=0.5, {MULTIPART}", SUBSCRIPTION, MULTIPART),
        (f"{MULTIPART};q=0.5, {EVENT_STREAM};q=0.5", SUBSCRIPTION, MULTIPART),
        (f'{MULTIPART};boundary="a,b";subscriptionSpec="1.0"', SUBSCRIPTION, MULTIPART),
        (f"{MULTIPART};subscriptionSpec=2.0", SUBSCRIPTION, None),
        (f"{MULTIPART};deferSpec=20220824, {JSON}", SUBSCRIPTION, None),
        # A stream has to be named.
        ("", SUBSCRIPTION, None),
        ("*/*", SUBSCRIPTION, None),
        (JSON, SUBSCRIPTION, None),
    ],
)
def test_the_accept_header_and_the_operation_decide(
    accept: str, operation: OperationType | None, answer: str | None
) -> None:
    assert negotiate(accept, operation) == answer
