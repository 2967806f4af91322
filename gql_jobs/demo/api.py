"""The demo's side of the API: its operations, over HTTP and one WebSocket, through a GraphQL client library."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession, ReconnectingAsyncClientSession
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from pydantic.alias_generators import to_camel

from gql_jobs.demo.promises import Broken

CREATE = """
mutation Create($input: CreateJobInput!) {
  createJob(input: $input) { deduplicated job { id status priority } }
}"""
WATCH = """
subscription Watch($id: ID!) {
  jobProgress(id: $id) {
    __typename
    job { status progress progressMessage attempt error { message } nextAttemptAt }
  }
}"""
LIST = """
query List($filter: JobFilter!) {
  jobs(filter: $filter, first: 500, orderBy: { field: CREATED_AT, direction: ASC }) {
    totalCount
    nodes { id status attempt retryCount durationMs error { message } artifacts { name url contentType sizeBytes } }
  }
}"""
SERVED = """
query Served {
  jobTypes { name queue }
  workers { queues }
}"""
RETRY = """
mutation Retry($id: ID!) { retryJob(id: $id) { job { id status attempt } } }"""

Session = AsyncClientSession | ReconnectingAsyncClientSession


class Api:
    """What the demo asks of the server."""

    def __init__(self, queries: Session, live: Session, files: httpx.AsyncClient) -> None:
        self._queries = queries
        self._live = live
        self._files = files

    async def create(self, job_input: dict[str, Any]) -> dict[str, Any]:
        """Create a job; returns when it is durable."""
        return await self._ask(CREATE, "createJob", input=job_input)

    async def watch(self, job_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """The job's events, from its present state to its end."""
        request = GraphQLRequest(WATCH, variable_values={"id": job_id})
        async for result in self._live.subscribe(request):
            yield result["jobProgress"]

    async def jobs(self, tag: str, status: str) -> dict[str, Any]:
        """The jobs with that tag in that state."""
        return await self._ask(LIST, "jobs", filter={"tags": [tag], "status": [status]})

    async def retry(self, job_id: str) -> dict[str, Any]:
        """Run a dead letter again."""
        return await self._ask(RETRY, "retryJob", id=job_id)

    async def fetch(self, url: str) -> bytes:
        """A job's file."""
        return (await self._files.get(url)).raise_for_status().content

    async def unserved(self, types: list[str]) -> set[str]:
        """The queues of these types (by their names in payloads) that no worker serves at the moment."""
        answer = await self._queries.execute(GraphQLRequest(SERVED))
        queues = {to_camel(kind["name"]): kind["queue"] for kind in answer["jobTypes"]}
        missing = set(types) - queues.keys()
        if missing:
            raise Broken(f"The server has no job type {', '.join(sorted(missing))}.")
        served = {queue for worker in answer["workers"] for queue in worker["queues"]}
        return {queues[name] for name in types} - served

    async def _ask(self, document: str, root: str, **variables: Any) -> dict[str, Any]:
        answer = await self._queries.execute(GraphQLRequest(document, variable_values=variables))
        found: dict[str, Any] = answer[root]
        return found


@asynccontextmanager
async def open_api(url: str) -> AsyncIterator[Api]:
    """The API at that GraphQL endpoint."""
    ws = WebsocketsTransport(url=url.replace("http", "ws", 1), subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL])
    async with (
        Client(transport=HTTPXAsyncTransport(url=url)) as queries,
        Client(transport=ws) as live,
        httpx.AsyncClient(base_url=url.removesuffix("/graphql")) as files,
    ):
        yield Api(queries, live, files)
