"""Pictures and reports over several worker processes, and how the API answers meanwhile.

``python -m benchmarks.mixed_load [--images 200] [--reports 50] [--workers 3]``: starts a nats-server, one API and the
workers on loopback, creates the jobs, asks for one of them all the while, and prints the latency of ``job(id)`` and the
memory of every process at the start and at the end. Stops everything by itself.
"""

import argparse
import asyncio
import io
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

from gql_jobs.jetstream.server import embedded_server

CREATE = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { id } } }"
ASK = "query ($id: ID!) { job(id: $id) { status progress attempt } }"
COUNT = "query { jobs(filter: { status: [COMPLETED, DEAD_LETTER] }, first: 0) { totalCount } }"
LEFT = "query { jobs(filter: { status: [DEAD_LETTER] }, first: 0) { totalCount } }"
PAUSE = 0.02
WITHIN = 1200.0


def picture() -> bytes:
    """A JPEG of 12 megapixels that is not all one colour."""
    noise = Image.effect_noise((500, 375), 60).resize((4000, 3000), Image.Resampling.BICUBIC)
    target = io.BytesIO()
    Image.merge("RGB", (noise, noise.rotate(180), noise)).save(target, "JPEG", quality=90)
    return target.getvalue()


@contextmanager
def picture_server() -> Iterator[str]:
    """The picture at every path."""
    body = picture()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/picture.jpg"
        server.shutdown()


@asynccontextmanager
async def program(environment: dict[str, str], *arguments: str) -> AsyncIterator[psutil.Process]:
    """One of our programs, stopped at the end."""
    log = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env={**os.environ, **environment}, stderr=log
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


def memory(processes: dict[str, psutil.Process]) -> dict[str, int]:
    """Resident MiB of each process and what it has started."""
    return {
        name: sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) >> 20
        for name, process in processes.items()
    }


async def ask(client: httpx.AsyncClient, query: str, **variables: Any) -> Any:
    """The data of a query."""
    answer = (await client.post("/graphql", json={"query": query, "variables": variables})).json()
    assert "errors" not in answer, answer
    return answer["data"]


async def ready(client: httpx.AsyncClient) -> None:
    """Wait for the API."""
    while True:
        try:
            if (await client.get("/readyz")).status_code == 200:  # noqa: PLR2004
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)


async def measure(client: httpx.AsyncClient, inputs: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Create the jobs and ask for one of them until all have ended: seconds in all, seconds of each answer."""
    ended = (await ask(client, COUNT))["jobs"]["totalCount"]
    began = time.monotonic()
    jobs = (await ask(client, CREATE, inputs=inputs))["createJobs"]["jobs"]
    latencies: list[float] = []
    number = 0
    while time.monotonic() - began < WITHIN:
        asked = time.monotonic()
        await ask(client, ASK, id=jobs[number % len(jobs)]["id"])
        latencies.append(time.monotonic() - asked)
        number += 1
        if number % 50 == 0 and (await ask(client, COUNT))["jobs"]["totalCount"] - ended == len(jobs):
            return time.monotonic() - began, latencies
        await asyncio.sleep(PAUSE)
    raise TimeoutError(f"the jobs had not ended after {WITHIN:g} s")


def inputs(images: int, reports: int, url: str) -> list[dict[str, Any]]:
    """What is created: pictures and reports, mixed."""
    operations = ["RESIZE", "WATERMARK", "GRAYSCALE"]
    image: dict[str, Any] = {"imageUrl": url, "operations": operations, "outputPath": "/out.jpg"}
    made: list[dict[str, Any]] = [{"payload": {"imageProcessing": image}} for _ in range(images)]
    period = {"start": "2023-01-01", "end": "2024-12-31"}
    for number in range(reports):
        kind = ("PDF", "CSV", "XLSX")[number % 3]
        report = {"reportType": "MONTHLY_SALES", "format": kind, "dateRange": period}
        made.insert(number * 5 % (len(made) + 1), {"payload": {"reportGeneration": report}})
    return made


async def main() -> None:
    """Parse the arguments and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--reports", type=int, default=50)
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gql-jobs-mixed-")))
        nats = await stack.enter_async_context(embedded_server(folder, max_store_bytes=8 << 30))
        url = stack.enter_context(picture_server())
        environment = {
            "GQL_JOBS_NATS_URL": nats.url,
            "GQL_JOBS_DATA_DIR": str(folder),
            "GQL_JOBS_DOWNLOAD_ALLOW_LOOPBACK": "true",
        }
        api = program(environment, "gql_jobs", "api", "--port", str(port))
        processes = {"api": await stack.enter_async_context(api)}
        for number in range(options.workers):
            worker = program(environment, "gql_jobs_worker", "--concurrency", "1")
            processes[f"worker {number + 1}"] = await stack.enter_async_context(worker)
        processes["nats"] = psutil.Process(nats.pid)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30))
        await ready(client)
        # The data set is made, and every process is warm, before anything is measured.
        await measure(client, inputs(options.workers * 4, 3, url))
        before = memory(processes)
        seconds, latencies = await measure(client, inputs(options.images, options.reports, url))
        dead = (await ask(client, LEFT))["jobs"]["totalCount"]
        print(f"{options.images} pictures and {options.reports} reports in {seconds:.1f} s, {dead} dead letters")
        report(latencies, before, memory(processes))


def report(latencies: list[float], before: dict[str, int], after: dict[str, int]) -> None:
    """Print a table."""
    cuts = statistics.quantiles(latencies, n=1000)
    shown = ", ".join(f"p{p / 10:g} {cuts[p - 1] * 1000:.1f} ms" for p in (500, 950, 990, 999))
    print(f"job(id) meanwhile, {len(latencies)} times: {shown}")
    for name, mebibytes in before.items():
        print(f"{name:<10} {mebibytes:>5} MiB before, {after[name]:>5} MiB after")


if __name__ == "__main__":
    asyncio.run(main())
