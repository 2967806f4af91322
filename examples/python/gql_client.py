"""gql: subscriptions on a WebSocket, everything else over HTTP. ``pip install 'gql[httpx,websockets]'``."""

import asyncio
import os
import random
import sys
from typing import Any

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

# A mail that the mailbox of `gql-jobs dev` refuses twice, so that there is something to watch.
CREATE = """
  mutation Create {
    createJob(
      input: { payload: { email: { to: "ada@greylist.example", subject: "Hello", body: "It works." } } }
    ) {
      job { id events { __typename cursor job { status } } }
    }
  }
"""
# Each event has a cursor; `after` goes on behind the last one seen.
WATCH = """
  subscription Watch($id: ID!, $after: String) {
    jobProgress(id: $id, after: $after) { __typename cursor job { status } }
  }
"""
HISTORY = """
  query History($id: ID!) {
    job(id: $id) { events { cursor } }
  }
"""
CUT_AFTER = 2


async def ask(url: str, document: str, **variables: Any) -> dict[str, Any]:
    """The data of a query or mutation."""
    async with Client(transport=HTTPXAsyncTransport(url)) as session:
        data: dict[str, Any] = await session.execute(GraphQLRequest(document, variable_values=variables))
        return data


async def watch(url: str, job_id: str, cursors: list[str]) -> None:
    """Watch a job to its end, whatever becomes of the connection; adds the cursor of each event."""
    before = len(cursors)
    while True:
        transport = WebsocketsTransport(url, subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL])
        try:
            async with Client(transport=transport) as session:
                variables = {"id": job_id, "after": cursors[-1]}
                async for result in session.subscribe(GraphQLRequest(WATCH, variable_values=variables)):
                    note(result["jobProgress"], cursors)
                    if len(cursors) == before + CUT_AFTER:
                        cut(transport)
                return
        except (TransportError, OSError) as error:
            print("--", error)
            # At random, so that the clients of a lost server do not come back as one.
            await asyncio.sleep(random.uniform(1, 3))


def note(event: dict[str, Any], cursors: list[str]) -> None:
    """Print an event and keep its cursor."""
    print(event["cursor"], event["__typename"], event["job"]["status"])
    cursors.append(event["cursor"])


def cut(transport: WebsocketsTransport) -> None:
    """Lose the connection, as by a fault of the network: nothing is said to the server."""
    print("-- the connection is cut")
    assert transport.adapter.websocket is not None
    transport.adapter.websocket.transport.abort()


async def main(url: str) -> bool:
    """Whether every event of the job's history was seen in its order, and none twice."""
    job = (await ask(url, CREATE))["createJob"]["job"]
    cursors: list[str] = []
    for event in job["events"]:
        note(event, cursors)
    await watch(url.replace("http", "ws", 1), job["id"], cursors)
    history = [event["cursor"] for event in (await ask(url, HISTORY, id=job["id"]))["job"]["events"]]
    is_whole = [c for c in cursors if c in history] == history and len(set(cursors)) == len(cursors)
    print("complete: no gap, no repetition" if is_whole else f"incomplete: the history is {history}")
    return is_whole


if __name__ == "__main__":
    given = [*sys.argv[1:], os.environ.get("GQL_JOBS_URL", "http://127.0.0.1:8000/graphql")]
    sys.exit(not asyncio.run(main(given[0])))
