"""The demo's client of the API: its operations, over HTTP and one WebSocket, through a GraphQL client library."""

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

_CREATE = """
mutation Create($input: CreateJobInput!) {
  createJob(input: $input) { deduplicated job { id status priority } }
}"""
_WATCH = """
subscription Watch($id: ID!) {
  jobProgress(id: $id) {
    __typename
    job { status progress progressMessage attempt error { message } nextAttemptAt }
  }
}"""
_LIST = """
query List($filter: JobFilter!) {
  jobs(filter: $filter, first: 500, orderBy: { field: CREATED_AT, direction: ASC }) {
    totalCount
    nodes { id status attempt retryCount durationMs error { message } artifacts { name url contentType sizeBytes } }
  }
}"""
_SERVED = """
query Served {
  jobTypes { name queue }
  workers { queues }
}"""
_RETRY = """
mutation Retry($id: ID!) { retryJob(id: $id) { job { id status attempt } } }"""

_Session = AsyncClientSession | ReconnectingAsyncClientSession


class Api:
    """The operations of the demo.

    :param queries: the session of queries and mutations.
    :param live: the session of subscriptions.
    :param files: the HTTP client for files, whose base URL is the server's.
    """

    def __init__(self, queries: _Session, live: _Session, files: httpx.AsyncClient) -> None:
        self._queries = queries
        self._live = live
        self._files = files

    async def create(self, job_input: dict[str, Any]) -> dict[str, Any]:
        """Create a job; return the payload of ``createJob``, once the job is durable."""
        return await self._ask(_CREATE, "createJob", input=job_input)

    async def watch(self, job_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the job's events, from its latest one to its terminal one."""
        request = GraphQLRequest(_WATCH, variable_values={"id": job_id})
        async for result in self._live.subscribe(request):
            yield result["jobProgress"]

    async def jobs(self, tag: str, status: str) -> dict[str, Any]:
        """Return the jobs with that tag in that state, as ``jobs`` lists them."""
        return await self._ask(_LIST, "jobs", filter={"tags": [tag], "status": [status]})

    async def retry(self, job_id: str) -> dict[str, Any]:
        """Run a dead letter again; return the payload of ``retryJob``."""
        return await self._ask(_RETRY, "retryJob", id=job_id)

    async def fetch(self, url: str) -> bytes:
        """Return the content of a job's file, by its path on the server.

        :raises httpx.HTTPError: if it cannot be fetched.
        """
        return (await self._files.get(url)).raise_for_status().content

    async def unserved(self, types: list[str]) -> set[str]:
        """Return the queues of these types (by their names in payloads) that no worker serves at the moment.

        :raises Broken: if the server has no such type.
        """
        answer = await self._queries.execute(GraphQLRequest(_SERVED))
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
    """Connect to the API at that GraphQL endpoint until the block ends."""
    ws = WebsocketsTransport(url=url.replace("http", "ws", 1), subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL])
    async with (
        Client(transport=HTTPXAsyncTransport(url=url)) as queries,
        Client(transport=ws) as live,
        httpx.AsyncClient(base_url=url.removesuffix("/graphql")) as files,
    ):
        yield Api(queries, live, files)
