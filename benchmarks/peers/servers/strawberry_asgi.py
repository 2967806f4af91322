"""Strawberry's own ASGI application."""

from strawberry.asgi import GraphQL
from strawberry_schema import schema

app = GraphQL(schema, graphql_ide=None, subscription_protocols=["graphql-transport-ws"])
