"""gql-jobs as a user runs it: one nats-server, one API, worker processes; all promises on, default settings.

The file store is durable, every event is fenced and kept, the index follows. What differs from the defaults is in the
settings of the records; the log level does, because the other systems have no line for every job either.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.handlers import MARKS
from benchmarks.http_load import Asker
from benchmarks.machine import python
from benchmarks.processes import Program, cpu_seconds, disk_bytes, free_port, listening, program, resident_mib
from gql_jobs.jetstream.connection import connect
from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.log.streams import ensure_streams
from gql_jobs.settings import Settings

CREATE = """mutation ($input: CreateJobInput!) {
  createJob(input: $input) { job { id status createdAt } deduplicated }
}"""
CREATE_MANY = """mutation ($inputs: [CreateJobInput!]!) {
  createJobs(inputs: $inputs) { jobs { id status } }
}"""
COUNT = "query ($filter: JobFilter!) { jobs(filter: $filter, first: 0) { totalCount } }"
EMAIL = {
    "to": "ada@example.com",
    "subject": "Your report is ready",
    "body": "Hello Ada,\n\nthe report that you asked for is ready. It is kept for a week.\n\nYours,\nthe reports",
}
STORE_BYTES = 32 << 30
LOG_LEVEL = "WARNING"
SOCKETS = 20_000
"""All of them come from one address here."""


@dataclass
class Stack:
    """A running system. Ports are on loopback; ``marks`` is what its handlers have noted."""

    folder: Path
    nats: EmbeddedServer
    port: int
    api: Program
    asker: Asker
    start_seconds: float
    """How long the API took to be ready, its index up to date."""
    workers: list[Program] = field(default_factory=list)
    _processes: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def address(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    async def work(self, concurrency: int, number: int = 1) -> None:
        """Start worker processes."""
        for _ in range(number):
            worker = program(
                python(), "-m", "gql_jobs_worker", "--concurrency", str(concurrency),
                "--import", "benchmarks.job_types",
                environment={
                    "GQL_JOBS_NATS_URL": self.nats.url, "GQL_JOBS_LOG_LEVEL": LOG_LEVEL,
                    MARKS: str(self.folder / "marks"),
                },
            )  # fmt: skip
            self.workers.append(await self._processes.enter_async_context(worker))

    async def workers_ready(self, number: int = 1, within: float = 240.0) -> None:
        """Wait until so many workers have been heard of."""
        deadline = time.monotonic() + within
        while len((await self.asker.ask("{ workers { id } }"))["workers"]) < number:
            assert time.monotonic() < deadline, [worker.last_words() for worker in self.workers]
            await asyncio.sleep(0.02)

    async def count(self, **job_filter: Any) -> int:
        """How many jobs of the index match."""
        data = await self.asker.ask(COUNT, {"filter": job_filter})
        count: int = data["jobs"]["totalCount"]
        return count

    async def completed(self, jobs: int, within: float = 900.0) -> float:
        """Wait until the index has so many completed jobs; returns the monotonic time."""
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(within):
            while await self.count(status=["COMPLETED"]) < jobs:
                for worker in self.workers:
                    assert worker.running, worker.last_words()
                await asyncio.sleep(0.02)
        return clock()

    async def stop_workers(self) -> None:
        """Stop every worker process; what they run is finished first."""
        await self._processes.aclose()
        self.workers.clear()

    async def abandon_workers(self) -> None:
        """Kill every worker process, whatever it runs."""
        for worker in self.workers:
            worker.kill()
        await self.stop_workers()

    async def fill(self, job_type: str, payloads: list[dict[str, Any]]) -> list[str]:
        """Create jobs through the API; returns their ids."""
        ids: list[str] = []
        for start in range(0, len(payloads), 1000):
            inputs = [{"payload": {job_type: payload}} for payload in payloads[start : start + 1000]]
            created = await self.asker.ask(CREATE_MANY, {"inputs": inputs})
            ids += [job["id"] for job in created["createJobs"]["jobs"]]
        return ids

    def marks(self) -> list[float]:
        """What the handlers have noted so far."""
        path = self.folder / "marks"
        return [float(line) for line in path.read_text().splitlines()] if path.exists() else []

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by part."""
        return {name: cpu_seconds(pids) for name, pids in self._parts().items()}

    def memory(self) -> dict[str, float]:
        """Resident MiB, by part."""
        return {name: resident_mib(pids) for name, pids in self._parts().items()}

    def disk(self) -> int:
        """Bytes that log and index take."""
        return disk_bytes(self.folder)

    def _parts(self) -> dict[str, list[int]]:
        return {"api": [self.api.pid], "worker": [w.pid for w in self.workers], "nats": [self.nats.pid]}


@asynccontextmanager
async def running(
    *,
    workers: int = 0,
    concurrency: int = 100,
    sync_always: bool = False,
    prepare: Callable[[str], Awaitable[object]] | None = None,
    api_processes: int = 1,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """The system, ready for requests and its index up to date, until the block ends.

    :param environment: further settings of the API.
    :param api_processes: at one port; ``Stack.api`` is then their parent, and the first of them is ready.
    :param prepare: fills the stream before the API begins; called with the address of NATS.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gql-jobs-bench-")))
        server = embedded_server(folder, sync_always=sync_always, max_store_bytes=STORE_BYTES)
        nats = await stack.enter_async_context(server)
        if prepare is not None:
            settings = Settings(nats_url=nats.url)
            async with connect(settings, "benchmarks") as connection:
                await ensure_streams(connection, settings)
            await prepare(nats.url)
        began = time.monotonic()
        port, api = await stack.enter_async_context(api_process(nats.url, folder, environment, processes=api_processes))
        asker = await stack.enter_async_context(Asker(port))
        seconds = time.monotonic() - began
        processes = await stack.enter_async_context(AsyncExitStack())
        system = Stack(folder, nats, port, api, asker, seconds, _processes=processes)
        if workers:
            await system.work(concurrency, workers)
            await system.workers_ready(workers)
        yield system


@asynccontextmanager
async def api_process(
    nats_url: str, folder: Path, environment: Mapping[str, str] | None = None, *, processes: int = 1
) -> AsyncIterator[tuple[int, Program]]:
    """An API with an index of its own, ready for requests, until the block ends; yields its port and its process.

    :param folder: for the index.
    :param environment: further settings.
    :param processes: at one port; what is yielded is then their parent, and the first of them is ready.
    """
    port = free_port()
    settings = {
        "GQL_JOBS_NATS_URL": nats_url,
        "GQL_JOBS_DATA_DIR": str(folder),
        "GQL_JOBS_MAX_STORE_BYTES": str(STORE_BYTES),
        "GQL_JOBS_MAX_SOCKETS_PER_CLIENT": str(SOCKETS),
        "GQL_JOBS_LOG_LEVEL": LOG_LEVEL,
        **(environment or {}),
    }
    command = (
        *(python(), "-m", "gql_jobs", "api", "--port", str(port), "--processes", str(processes)),
        *("--import", "benchmarks.job_types"),
    )
    async with program(*command, environment=settings) as api:
        await listening(port, api)
        async with Asker(port) as asker:
            await _ready(asker)
        yield port, api


async def _ready(asker: Asker, within: float = 600.0) -> None:
    deadline = asyncio.get_running_loop().time() + within
    request = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    while asyncio.get_running_loop().time() < deadline:
        answer = await asker.any_status(request)
        if json.loads(answer[answer.index(b"\r\n\r\n") :])["status"] == "ready":
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the API did not become ready")
