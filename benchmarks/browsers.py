"""Many browsers at once: what API processes at one port carry, and what that costs.

``python -m benchmarks.browsers [--browsers 10000] [--processes 2] [--seconds 60] [--json]``: four of five browsers
watch a job of their own, which starts at some moment of those seconds and reports its progress four times, half a
second apart. The others watch one list: every event of a job type of which one job a second is created. Everything runs
on this machine, the load included. Exit 1 if a browser missed an event of a job's life or had one twice.
"""

import argparse
import asyncio
import re
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import uvloop

from benchmarks import stack
from benchmarks.figures import show
from benchmarks.machine import raise_file_limit
from benchmarks.measures.pushes import latency
from benchmarks.processes import cpu_seconds, resident_mib
from benchmarks.socket_load import OnText, Sockets, subscriptions
from benchmarks.stack import CREATE_MANY, EMAIL, Stack

OWN = """subscription ($id: ID!) {
  jobProgress(id: $id) { __typename cursor job { status progress progressMessage } }
}"""
LIST = "subscription ($type: [String!]) { jobEvents(filter: {type: $type}) { __typename cursor job { id status } } }"
TICKS = {"reports": 4, "pause": 0.5, "first": 0.0}
OPENING = 120.0
"""Seconds until the first job starts, at most: all sockets are open by then."""
_KIND = re.compile(rb'"__typename":"(Job\w+)","cursor":"([^"]+)"')
_LIFE = [b"JobQueued", b"JobStarted", b"JobCompleted"]


@dataclass
class Seen:
    """What the browsers have been told."""

    latencies: list[float] = field(default_factory=list)
    """Seconds between a handler's report and the frame."""
    lives: list[list[bytes]] = field(default_factory=list)
    """For each browser with a job of its own, the events of its life."""
    lists: list[list[bytes]] = field(default_factory=list)
    """For each browser with the list, the cursors of its events."""

    def own(self) -> OnText:
        """Hears one browser's job."""
        life: list[bytes] = []
        self.lives.append(life)

        def hear(data: bytes, start: int, end: int) -> None:
            if (seconds := latency(data, start, end)) is not None:
                self.latencies.append(seconds)
            elif kind := _KIND.search(data, start, end):
                life.append(kind[1])

        return hear

    def list(self) -> OnText:
        """Hears one browser's list."""
        cursors: list[bytes] = []
        self.lists.append(cursors)

        def hear(data: bytes, start: int, end: int) -> None:
            if kind := _KIND.search(data, start, end):
                cursors.append(kind[2])

        return hear

    def gaps(self) -> int:
        """Browsers that missed an event of a job's life, or had one twice."""
        wrong = sum([kind for kind in life if kind in _LIFE] != _LIFE for life in self.lives)
        return wrong + sum(cursors != self.lists[0] for cursors in self.lists)


async def measured(browsers: int, processes: int, seconds: float) -> dict[str, Any]:
    """The figures of one run."""
    listing, seen = browsers // 5, Seen()
    async with (
        stack.running(workers=1, concurrency=1000, api_processes=processes) as system,
        AsyncExitStack() as exits,
    ):
        apis = await _apis(system, processes)
        idle = resident_mib([api.pid for api in apis])
        began = time.monotonic()
        first = datetime.now(UTC) + timedelta(seconds=min(OPENING, 10 + browsers / 100))
        ids = await _scheduled(system, browsers - listing, first, seconds)
        own = await exits.enter_async_context(subscriptions(system.port, OWN, [{"id": job_id} for job_id in ids]))
        own.on_each(seen.own)
        lists = await exits.enter_async_context(subscriptions(system.port, LIST, [{"type": "noop"}] * listing))
        lists.on_each(seen.list)
        opened = time.monotonic() - began
        connections = [_connections(api, system.port) for api in apis]
        memory = resident_mib([api.pid for api in apis])
        left = (first - datetime.now(UTC)).total_seconds()
        if left < 0:
            raise RuntimeError(f"opening took {opened:.0f} s, longer than until the first job started")
        await asyncio.sleep(left)
        frames, used, began = own.frames + lists.frames, _used(system, apis), time.monotonic()
        await _live(system, seconds, len(ids))
        elapsed = time.monotonic() - began
        await _told(own, lists)
        used = {name: round((now - used[name]) / elapsed, 2) for name, now in _used(system, apis).items()}
        cuts = statistics.quantiles(seen.latencies, n=100)
        return {
            "browsers": browsers,
            "opening_seconds": round(opened, 1),
            "sockets": connections,
            "api_mib_idle": round(idle),
            "api_mib_with_browsers": round(memory),
            "seconds": round(elapsed, 1),
            "deliveries_per_second": round((own.frames + lists.frames - frames) / elapsed),
            "progress_latency_p50_ms": round(1000 * cuts[49], 1),
            "progress_latency_p99_ms": round(1000 * cuts[98], 1),
            "cores": used,
            "gaps": seen.gaps(),
        }


async def _apis(system: Stack, processes: int) -> list[psutil.Process]:
    """The API processes, all of them listening."""
    parent = psutil.Process(system.api.pid)
    if processes == 1:
        return [parent]
    async with asyncio.timeout(60):
        while True:
            children = [child for child in parent.children() if _connections(child, system.port, psutil.CONN_LISTEN)]
            if len(children) == processes:
                return children
            await asyncio.sleep(0.1)


def _connections(process: psutil.Process, port: int, status: str = psutil.CONN_ESTABLISHED) -> int:
    return sum(c.status == status and c.laddr.port == port for c in process.net_connections("tcp"))


async def _scheduled(system: Stack, jobs: int, first: datetime, seconds: float) -> list[str]:
    """Jobs that start one after another over so many seconds."""
    ids: list[str] = []
    for start in range(0, jobs, 1000):
        inputs = [
            {"payload": {"ticker": TICKS}, "runAt": (first + timedelta(seconds=seconds * n / jobs)).isoformat()}
            for n in range(start, min(start + 1000, jobs))
        ]
        created = await system.asker.ask(CREATE_MANY, {"inputs": inputs})
        ids += [job["id"] for job in created["createJobs"]["jobs"]]
    return ids


async def _live(system: Stack, seconds: float, jobs: int) -> None:
    """Create a job a second for the lists, until every job has ended."""
    created, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        await system.fill("noop", [EMAIL])
        created += 1
        await asyncio.sleep(1)
    await system.completed(jobs + created, within=120)


async def _told(own: Sockets, lists: Sockets) -> None:
    """Wait until nothing more comes."""
    before = -1
    while (now := own.frames + lists.frames) != before:
        before = now
        await asyncio.sleep(1)
    own.check()
    lists.check()


def _used(system: Stack, apis: list[psutil.Process]) -> dict[str, float]:
    """CPU seconds so far, by process."""
    figures = {f"api {number}": cpu_seconds([api.pid]) for number, api in enumerate(apis, 1)}
    figures |= {"worker": cpu_seconds([worker.pid for worker in system.workers])}
    return figures | {"nats": cpu_seconds([system.nats.pid]), "browsers": time.process_time()}


def main() -> int:
    """Measure and print; exit code 1 if a browser has a gap."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.browsers", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--browsers", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2, help="API processes at one port")
    parser.add_argument("--seconds", type=float, default=60.0, help="over which the jobs start")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    raise_file_limit()
    figures = uvloop.run(measured(options.browsers, options.processes, options.seconds))
    show(figures, as_json=options.json)
    return int(figures["gaps"] > 0)


if __name__ == "__main__":
    sys.exit(main())
