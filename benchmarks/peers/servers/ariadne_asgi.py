"""Ariadne's ASGI application, parsing and validation cached by text."""

from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ariadne import (
    MutationType,
    ObjectType,
    QueryType,
    SubscriptionType,
    make_executable_schema,
)
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLTransportWSHandler
from graphql import DocumentNode, GraphQLError, GraphQLSchema, parse, validate
from store import StoredEvent, StoredJob, store

query, mutation, subscription, job = QueryType(), MutationType(), SubscriptionType(), ObjectType("Job")


@query.field("jobs")
def jobs(*_: Any, filter: dict[str, Any] | None = None, first: int = 50) -> dict[str, Any]:  # noqa: A002
    given = filter or {}
    return {"nodes": store.page(given.get("status"), given.get("type"), first)}


@mutation.field("createJob")
def create_job(*_: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002
    return {"job": store.create(input["payload"]["email"]), "deduplicated": False}


@mutation.field("createJobs")
def create_jobs(*_: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"jobs": [store.create(given["payload"]["email"]) for given in inputs]}


@mutation.field("tick")
def tick(*_: Any) -> int:
    return store.tick()


@subscription.source("jobEvents")
async def job_events(*_: Any) -> AsyncIterator[StoredEvent]:
    async for event in store.watch(""):
        yield event


@subscription.source("jobProgress")
async def job_progress(*_: Any, id: str) -> AsyncIterator[StoredEvent]:  # noqa: A002
    yield StoredEvent("0", store.by_id[id])
    async for event in store.watch(id):
        yield event


@subscription.field("jobEvents")
@subscription.field("jobProgress")
def event(source: StoredEvent, *_: Any, **__: Any) -> StoredEvent:
    return source


@job.field("createdAt")
def created_at(source: StoredJob, _: Any) -> str:
    return source.created_at.isoformat()


@job.field("finishedAt")
def finished_at(source: StoredJob, _: Any) -> str | None:
    return source.finished_at.isoformat() if source.finished_at else None


@job.field("durationMs")
def duration_ms(source: StoredJob, _: Any) -> int | None:
    return source.duration_ms


@lru_cache(maxsize=256)
def _parsed(text: str) -> DocumentNode:
    return parse(text)


def parsed(_context: Any, data: dict[str, Any]) -> DocumentNode:
    return _parsed(data["query"])


# A parsed document is kept for as long as its validation, so that its id stays its own.
_validated: dict[int, tuple[DocumentNode, list[GraphQLError]]] = {}


def validated(schema: GraphQLSchema, document: DocumentNode, **rules: Any) -> list[GraphQLError]:
    if id(document) not in _validated:
        _validated[id(document)] = (document, validate(schema, document, **rules))
    return _validated[id(document)][1]


schema = make_executable_schema(
    Path(__file__).with_name("schema.graphql").read_text(), query, mutation, subscription, job
)
app = GraphQL(
    schema,
    query_parser=parsed,
    query_validator=validated,
    websocket_handler=GraphQLTransportWSHandler(),
)
