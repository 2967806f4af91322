"""How fast an index is built from an empty file: events a second, from the stream to the last commit.

``python -m benchmarks.rebuild [--jobs 100000] [--order mixed|backlog] [--repeat 3] [--page] [--profile FILE]``: starts
a nats-server on loopback, stores that many jobs of three messages each (queued, started, completed), pipelined, then
builds an index with the feed of an API process. ``mixed``: jobs run while others are created, 1 000 at a time;
``backlog``: all are created before the first one runs. ``--page`` times pages of the index that was built.
"""

import argparse
import asyncio
import cProfile
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw

from gql_jobs.index.index import open_index
from gql_jobs.index.reader import Reader, open_reader
from gql_jobs.jetstream.client import Publisher
from gql_jobs.jetstream.connection import Connection, connect, open_publisher
from gql_jobs.jetstream.server import embedded_server
from gql_jobs.jobs.messages import Body, Completed, Kind, Started, Submission
from gql_jobs.jobs.model import JobPriority, JobStatus, Spec
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import run_feed
from gql_jobs.live.tally import Tally
from gql_jobs.log import codec
from gql_jobs.log.codec import encode_body
from gql_jobs.log.streams import ensure_streams, stream_info
from gql_jobs.processes.event_loop import tune_memory
from gql_jobs.settings import Settings

ANSWER = 10.0
"""Seconds within which the server acknowledges a publication."""
WINDOW = 2_000
"""Publications that may wait for their acknowledgement."""
AT_A_TIME = 1_000
TYPES = ("email", "image_processing", "report_generation")
PAYLOAD = Raw(msgspec.json.encode({"to": "somebody@example.com", "subject": "Hello", "body": "x" * 100}))


def spec(number: int, began: datetime) -> Spec:
    """What job ``number`` was asked for."""
    return Spec(
        type=TYPES[number % 3],
        payload=PAYLOAD,
        payload_hash=f"{number:064x}",
        queue=("default", "images", "reports")[number % 3],
        priority=tuple(JobPriority)[number % 4],
        max_retries=5,
        timeout=300.0,
        created_at=began + timedelta(microseconds=number),
        tags=(f"customer-{number % 1000}",) if number % 10 == 0 else (),
    )


class Loader:
    """Stores the jobs' messages, a window of them at a time."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._sent: deque[tuple[int | None, asyncio.Future[int]]] = deque()
        self._submission: dict[int, int] = {}
        self._began = datetime.now(UTC)

    async def load(self, jobs: int, order: str) -> None:
        """All messages of that many jobs."""
        for number, step in _steps(jobs, order):
            await self._tell(number, step)
        await self._acknowledged(0)

    async def _tell(self, number: int, step: int) -> None:
        job_id = str(UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128), version=4))
        kind: Kind | None = (None, Kind.STARTED, Kind.COMPLETED)[step]
        if kind is None:
            asked = spec(number, self._began)
            await self._send(codec.queued_subject(job_id, asked.queue, asked.priority), Submission(spec=asked), number)
            return
        while number not in self._submission:
            await self._acknowledged(len(self._sent) - 1)
        facts: dict[str, Any] = {"submission": self._submission[number], "attempt": 1, "worker_id": "w1"}
        body = Started(**facts) if kind is Kind.STARTED else Completed(**facts, result=Raw(b'{"ok":true}'))
        await self._send(codec.event_subject(job_id, kind), body, None)

    async def _send(self, subject: str, body: Body, number: int | None) -> None:
        self._sent.append((number, await self._publisher.send(subject, encode_body(body), None, ANSWER)))
        if len(self._sent) >= WINDOW:
            await self._acknowledged(WINDOW // 2)

    async def _acknowledged(self, left: int) -> None:
        while len(self._sent) > left:
            number, sent = self._sent.popleft()
            seq = await sent
            if number is not None:
                self._submission[number] = seq


def _steps(jobs: int, order: str) -> Iterator[tuple[int, int]]:
    """(job, 0 to 2): which of its messages comes next."""
    at_a_time = jobs if order == "backlog" else AT_A_TIME
    for first in range(0, jobs, at_a_time):
        wave = range(first, min(first + at_a_time, jobs))
        yield from ((number, 0) for number in wave)
        for number in wave:
            yield number, 1
            yield number, 2


async def build(connection: Connection, path: Path, last_seq: int) -> float:
    """Seconds from an empty file to the stream's last message."""
    stream = await stream_info(connection)
    began = time.perf_counter()
    with open_index(path, stream.created, stream.state.last_seq, 86_400) as index:
        async with (
            open_reader(index) as reader,
            run_feed(connection, index, EventBus(reader.events_after, index.position), Tally((), last_seq)) as feed,
        ):
            assert await feed.wait_for(last_seq, 36_000)
            return time.perf_counter() - began


PAGES: dict[str, tuple[JobFilter, JobOrder]] = {
    "newest": (JobFilter(), JobOrder()),
    "status + type": (JobFilter(status=frozenset({JobStatus.COMPLETED}), type=frozenset({"email"})), JobOrder()),
    "two statuses + type": (
        JobFilter(status=frozenset({JobStatus.COMPLETED, JobStatus.CANCELLED}), type=frozenset({"email"})),
        JobOrder(),
    ),
    "status": (JobFilter(status=frozenset({JobStatus.COMPLETED})), JobOrder()),
    "status without a job": (JobFilter(status=frozenset({JobStatus.DEAD_LETTER})), JobOrder()),
    "two statuses, one empty": (JobFilter(status=frozenset({JobStatus.DEAD_LETTER, JobStatus.QUEUED})), JobOrder()),
    "type": (JobFilter(type=frozenset({"email"})), JobOrder()),
    "queue": (JobFilter(queue=frozenset({"images"})), JobOrder()),
    "queue + status": (JobFilter(queue=frozenset({"images"}), status=frozenset({JobStatus.QUEUED})), JobOrder()),
    "queue without a job": (JobFilter(queue=frozenset({"none"})), JobOrder()),
    "priority": (JobFilter(priority=frozenset({JobPriority.HIGH})), JobOrder()),
    "priority + status": (
        JobFilter(priority=frozenset({JobPriority.HIGH}), status=frozenset({JobStatus.QUEUED})),
        JobOrder(),
    ),
    "tag": (JobFilter(tags=frozenset({"customer-10"})), JobOrder()),
    "tag without a job": (JobFilter(tags=frozenset({"none"})), JobOrder()),
    "tag + status": (JobFilter(tags=frozenset({"customer-10"}), status=frozenset({JobStatus.COMPLETED})), JobOrder()),
    "status by update": (JobFilter(status=frozenset({JobStatus.COMPLETED})), JobOrder(OrderField.UPDATED_AT)),
    "no job by update": (JobFilter(status=frozenset({JobStatus.DEAD_LETTER})), JobOrder(OrderField.UPDATED_AT)),
    "type by end": (JobFilter(type=frozenset({"email"})), JobOrder(OrderField.FINISHED_AT)),
    "by priority": (JobFilter(), JobOrder(OrderField.PRIORITY)),
    "status by priority": (JobFilter(status=frozenset({JobStatus.QUEUED})), JobOrder(OrderField.PRIORITY)),
    "dates": (JobFilter(created_after=datetime(2100, 1, 1, tzinfo=UTC)), JobOrder()),
    "status + dates": (
        JobFilter(status=frozenset({JobStatus.COMPLETED}), created_after=datetime(2020, 1, 1, tzinfo=UTC)),
        JobOrder(),
    ),
}


async def time_pages(reader: Reader) -> None:
    """Milliseconds of a page of 50 and of its total, median of 20."""
    for name, (job_filter, order) in PAGES.items():
        took: dict[str, list[float]] = {"page": [], "total": []}
        for _ in range(20):
            began = time.perf_counter()
            await reader.page(job_filter, order, first=50, after=None, offset=0)
            paged = time.perf_counter()
            await reader.count(job_filter)
            took["page"].append(paged - began)
            took["total"].append(time.perf_counter() - paged)
        print(f"{name:26}" + "".join(f"  {what} {1e3 * statistics.median(t):8.2f} ms" for what, t in took.items()))


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Load the stream, build the index some times, print what it took."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded_server(folder / "store", max_store_bytes=20 << 30))
        settings = Settings(nats_url=server.url)
        connection = await stack.enter_async_context(connect(settings, "rebuild"))
        await ensure_streams(connection, settings)
        began = time.perf_counter()
        async with open_publisher(connection) as publisher:
            await Loader(publisher).load(arguments.jobs, arguments.order)
        state = (await stream_info(connection)).state
        print(f"{state.messages} messages stored in {time.perf_counter() - began:.1f} s")
        rates = []
        tune_memory()
        for number in range(arguments.repeat):
            path = folder / f"index-{number}.sqlite"
            profile = cProfile.Profile() if arguments.profile else None
            if profile:
                profile.enable()
            used = time.process_time()
            took = await build(connection, path, state.last_seq)
            used = time.process_time() - used
            if profile:
                profile.disable()
                profile.dump_stats(arguments.profile)
            rates.append(state.messages / took)
            print(f"built in {took:.1f} s ({used:.1f} s of CPU): {rates[-1]:.0f} events/s")
            size = path.stat().st_size / arguments.jobs
            print(f"{state.messages / used:.0f} events per second of CPU, {size:.0f} bytes a job")
        print(f"median {statistics.median(rates):.0f} events/s [{min(rates):.0f}..{max(rates):.0f}]")
        if arguments.page:
            stream = await stream_info(connection)
            with open_index(path, stream.created, stream.state.last_seq, 86_400) as index:
                async with open_reader(index) as reader:
                    await time_pages(reader)


def main() -> None:
    """Read the options, measure, clean up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--order", choices=("mixed", "backlog"), default="mixed")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="time pages of the index too")
    parser.add_argument("--profile", help="write a cProfile of the building there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if sys.platform != "win32":
            import uvloop

            uvloop.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
