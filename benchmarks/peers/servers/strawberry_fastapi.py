"""Strawberry as a router of FastAPI."""

from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter
from strawberry_schema import schema

app = FastAPI(openapi_url=None)
app.include_router(
    GraphQLRouter(schema, graphql_ide=None, subscription_protocols=["graphql-transport-ws"]), prefix="/graphql"
)
