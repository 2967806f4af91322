"""How fast finished jobs are removed while the system runs, and what createJob takes meanwhile.

``python -m benchmarks.retention [--jobs 100000] [--json]``: starts a nats-server on loopback and what an API process
consists of, fills the stream with jobs that have ended (three messages each), lets the index follow, and then sweeps
all of them while jobs are created at a steady rate. Stops everything by itself.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.figures import show
from benchmarks.stock import finish
from gql_jobs.jetstream.server import embedded_server
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.log.job_log import open_job_log
from gql_jobs.log.retention import EXPIRED_EVENT_TTL
from gql_jobs.log.streams import stream_info
from gql_jobs.maintenance import Maintenance
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime

RATE = 20.0
"""Jobs created a second while the sweeper runs."""
PAYLOAD = {"to": "ann@example.org", "subject": "Hello", "body": "x" * 100}


async def _create(runtime: Runtime, seconds: list[float], refused: list[str]) -> None:
    job_type = runtime.registry.get("email")
    assert job_type is not None
    payload = accept(job_type.payload, PAYLOAD)
    while True:
        began = time.perf_counter()
        try:
            await runtime.commands.create(JobRequest.of(job_type, payload))
        except QueueUnavailable as error:
            refused.append(str(error))
            print(f"{time.perf_counter():.0f} s: {error}", file=sys.stderr)
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(1 / RATE)


async def measured(number: int, folder: Path) -> dict[str, float]:
    """Figures: jobs a second, CPU a job, memory in MiB, latencies of createJob in milliseconds."""
    async with embedded_server(folder / "store", max_store_bytes=100 << 30) as server:
        settings = Settings(nats_url=server.url, data_dir=folder / "data", retention=EXPIRED_EVENT_TTL)
        async with open_runtime(settings, ()) as runtime, open_job_log(runtime.connection) as job_log:
            began = time.perf_counter()
            last = await finish(server.url, number)
            filled = time.perf_counter() - began
            while not await runtime.feed.wait_for(last, 60):
                print(f"the index is at {runtime.feed.position} of {last}", file=sys.stderr)
            sweeper = Maintenance(
                job_log,
                runtime.artifacts,
                runtime.index,
                runtime.reader,
                runtime.feed,
                settings=settings.model_copy(update={"retention": 0.001}),
            )
            this, nats = psutil.Process(), psutil.Process(server.pid)
            before = this.memory_info().rss, nats.memory_info().rss
            latencies: list[float] = []
            refused: list[str] = []
            began, cpu, nats_cpu = time.perf_counter(), sum(this.cpu_times()[:2]), sum(nats.cpu_times()[:2])
            async with in_background(_create(runtime, latencies, refused)):
                while await sweeper.sweep():
                    pass
            seconds = time.perf_counter() - began
            return {
                "jobs": number,
                "fill_seconds": round(filled, 1),
                "sweep_seconds": round(seconds, 1),
                "jobs_per_second": round(number / seconds),
                "api_cpu_ms_per_job": round((sum(this.cpu_times()[:2]) - cpu) / number * 1e3, 3),
                "nats_cpu_ms_per_job": round((sum(nats.cpu_times()[:2]) - nats_cpu) / number * 1e3, 3),
                "api_mib_before": before[0] >> 20,
                "api_mib_after": this.memory_info().rss >> 20,
                "nats_mib_before": before[1] >> 20,
                "nats_mib_after": nats.memory_info().rss >> 20,
                "create_median_ms": round(statistics.median(latencies) * 1e3, 1),
                "create_p99_ms": round(sorted(latencies)[int(len(latencies) * 0.99)] * 1e3, 1),
                "creates_refused": len(refused),
                "jobs_left": len(await runtime.reader.finished(datetime.now(UTC), number)),
                "stream_messages": (await stream_info(runtime.connection)).state.messages,
            }


def main() -> int:
    """Measure and print; exit code 1 if finished jobs are left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs that have ended")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measured(arguments.jobs, Path(folder)))
    show(figures, as_json=arguments.json)
    return int(figures["jobs_left"] > 0)


if __name__ == "__main__":
    sys.exit(main())
