"""Other GraphQL servers: the same small schema over jobs in memory, in ``peers/servers``. They keep nothing.

All run as one process with their fastest settings that were found by trying: uvloop and httptools for the Python ones,
caches of parsed and validated documents everywhere, compiled queries in Mercurius, no compression of sockets.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.http_load import Asker
from benchmarks.measurement import Contender, Plan, Sample
from benchmarks.processes import Program, free_port, listening, program
from benchmarks.queue_peers import NODE_MODULES, PEERS, PYTHON

UVICORN = (
    "--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "120",
    "--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio", "--ws-per-message-deflate", "false",
)  # fmt: skip


@dataclass
class Server:
    """A server that runs."""

    port: int
    process: Program
    asker: Asker


@dataclass(frozen=True)
class GraphqlPeer:
    """One system."""

    system: str
    script: str

    @property
    def node(self) -> bool:
        """Whether it is JavaScript."""
        return self.script.endswith(".mjs")

    def missing(self) -> str | None:
        """Why it cannot be measured here, if so."""
        return None if (NODE_MODULES / "graphql" if self.node else PYTHON).exists() else "run make bench-setup"

    @asynccontextmanager
    async def running(self, jobs: int = 0) -> AsyncIterator[Server]:
        """The server, with so many finished jobs in its list."""
        port = free_port()
        application = ("-m", "uvicorn", f"{self.script}:app", "--port", str(port), *UVICORN)
        command = ("node", self.script) if self.node else (PYTHON, *application)
        environment = {"PORT": str(port), "PEER_JOBS": str(jobs), "NODE_ENV": "production"}
        async with program(*command, environment=environment, cwd=PEERS / "servers") as process:
            await listening(port, process)
            async with Asker(port) as asker:
                yield Server(port, process, asker)

    def contender(self, measure: Callable[["GraphqlPeer", Plan], Any]) -> Contender:
        """This system in a bench."""

        async def measured(plan: Plan) -> list[Sample]:
            samples: list[Sample] = await measure(self, plan)
            return samples

        return Contender(self.system, measured, {"keeps": "jobs in its memory, nothing else"})


SERVERS = (
    GraphqlPeer("strawberry-fastapi", "strawberry_fastapi"),
    GraphqlPeer("strawberry-asgi", "strawberry_asgi"),
    GraphqlPeer("ariadne", "ariadne_asgi"),
    GraphqlPeer("graphql-yoga", "yoga.mjs"),
    GraphqlPeer("mercurius", "mercurius.mjs"),
)
