"""Where the time of gql-jobs goes: py-spy looks at a process while a bench keeps it busy.

``python -m benchmarks.hotspots create|bulk|page|fanout|own|drain``: prints the share of samples in which each function
is running itself, and in which it is anywhere on the stack. py-spy comes with ``make bench-setup``.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import uvloop

from benchmarks import stack
from benchmarks.http_load import graphql_request, hammering
from benchmarks.machine import raise_file_limit
from benchmarks.measures.pushes import EVENTS, own_progress
from benchmarks.measures.requests import FINISHED, PAGE, WARM_ANSWERS
from benchmarks.measures.target import CREATION
from benchmarks.processes import program
from benchmarks.queue_peers import PYTHON
from benchmarks.socket_load import subscriptions
from benchmarks.stack import CREATE, CREATE_MANY
from benchmarks.stock import finish, queue_up

PY_SPY = PYTHON.with_name("py-spy")
_RATE = 200
_SHOWN = 25


class Recorder:
    """Samples processes and prints what they did."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    async def look(self, name: str, pid: int) -> None:
        """Record one process, and print its functions."""
        with tempfile.NamedTemporaryFile(suffix=".raw") as file:
            options = ("--pid", str(pid), "--duration", str(self._seconds), "--rate", str(_RATE))
            record = program(PY_SPY, "record", *options, "--format", "raw", "--output", file.name, stop=False)
            async with record:
                pass
            print(f"\n{name}\n{summary(file.read().decode())}", flush=True)


def summary(raw: str) -> str:
    """The functions of a recording in py-spy's raw format, by the share of samples."""
    own: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    for line in raw.splitlines():
        frames, _, count = line.rpartition(" ")
        names = [frame.rpartition(":")[0] + ")" if ":" in frame else frame for frame in frames.split(";")]
        own[names[-1]] += int(count)
        for name in set(names):
            anywhere[name] += int(count)
    total = max(sum(own.values()), 1)
    lines = [f"{total} samples", "itself"]
    lines += [f"  {count / total:6.1%} {name}" for name, count in own.most_common(_SHOWN)]
    lines += ["on the stack"]
    lines += [f"  {count / total:6.1%} {name}" for name, count in anywhere.most_common(2 * _SHOWN)]
    return "\n".join(lines)


@asynccontextmanager
async def _hammered(system: stack.Stack, query: str, variables: dict[str, Any]) -> AsyncIterator[None]:
    async with hammering(system.port, graphql_request(system.port, query, variables), 50) as tally:
        async with asyncio.timeout(60):
            while tally.answers < WARM_ANSWERS:  # noqa: ASYNC110 - the tally wakes nobody
                await asyncio.sleep(0.1)
        yield


async def _create(recorder: Recorder) -> None:
    async with stack.running() as system, _hammered(system, CREATE, {"input": CREATION}):
        await recorder.look("API process, createJob on 50 connections", system.api.pid)


async def _bulk(recorder: Recorder) -> None:
    async with stack.running() as system:
        creating = asyncio.create_task(system.fill("noop", [stack.EMAIL] * 1_000_000))
        await recorder.look("API process, createJobs of 1 000", system.api.pid)
        creating.cancel()


async def _page(recorder: Recorder) -> None:
    prepare = partial(finish, jobs=10_000)
    async with stack.running(prepare=prepare) as system, _hammered(system, PAGE, FINISHED):
        await recorder.look("API process, pages of 50 jobs", system.api.pid)


async def _fanout(recorder: Recorder) -> None:
    async with stack.running() as system, subscriptions(system.port, EVENTS, [{}] * 500) as sockets:
        sockets.on_text(None)

        async def create() -> None:
            while True:
                before = sockets.frames
                await system.asker.ask(CREATE_MANY, {"inputs": [CREATION] * 10})
                await sockets.have(before + 1000)

        creating = asyncio.create_task(create())
        await recorder.look("API process, the same events to 500 sockets", system.api.pid)
        creating.cancel()


async def _own(recorder: Recorder) -> None:
    async with own_progress(1000) as (system, _):
        await asyncio.gather(
            recorder.look("worker process, 1 000 jobs that report their progress", system.workers[0].pid),
            recorder.look("API process, each job's progress to a socket of its own", system.api.pid),
        )


async def _drain(recorder: Recorder) -> None:
    async with stack.running(prepare=partial(queue_up, jobs=100_000)) as system:
        await system.work(100)
        await system.workers_ready()
        await asyncio.gather(
            recorder.look("worker process, no-op jobs", system.workers[0].pid),
            recorder.look("API process, the index following", system.api.pid),
        )
        await system.abandon_workers()


_PROFILES = {"create": _create, "bulk": _bulk, "page": _page, "fanout": _fanout, "own": _own, "drain": _drain}


def main() -> None:
    """Parse the arguments and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hotspots", description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="+", choices=_PROFILES)
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    if not PY_SPY.exists():
        sys.exit("py-spy is not installed: run make bench-setup")
    raise_file_limit()
    for name in options.names:
        uvloop.run(_PROFILES[name](Recorder(options.seconds)))


if __name__ == "__main__":
    main()
