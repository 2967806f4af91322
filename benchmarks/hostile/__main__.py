"""``python -m benchmarks.hostile``: attacks on an API process, one after the other, and what each costs everybody else.

Starts nats-server, a worker and one API process for each attack, on loopback; an innocent client in a process of its
own measures how long it waits. Ends everything by itself. Exit 1 if a wait or the growth of the API's memory was above
the limit.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import uvloop

from benchmarks.hostile.attacks import Target, attacks
from benchmarks.hostile.observer import Phase
from benchmarks.hostile.wire import words
from benchmarks.http_load import Asker
from benchmarks.machine import ROOT, python, raise_file_limit
from benchmarks.processes import Program, free_port, listening, program
from gql_jobs.jetstream.server import embedded_server

_WITHIN = 120.0
"""Seconds after which an attack is given up."""
_QUIET = 2.0
_AFTER = 2.0
"""Seconds that are looked at before and after an attack."""
_EVENTS_BY_HAND = 25
_DEAD_LETTERS = 10_000
_STORE_BYTES = 16 << 30
_IMPORTS = ("--import", "benchmarks.job_types", "--import", "benchmarks.chaos.probe_jobs")
_CREATE = "mutation ($i: [CreateJobInput!]!) { createJobs(inputs: $i) { jobs { id } } }"
_COUNT = "{ jobs(filter: { status: [DEAD_LETTER] }, first: 0) { totalCount } }"


@dataclass(frozen=True)
class Outcome:
    """What an attack cost. ``quiet`` is the innocent client's longest wait without it."""

    attack: str
    quiet_ms: float
    stall_ms: float
    growth_mib: float
    refused: int
    answers: str


def main() -> int:
    """Parse the arguments, attack, print a table."""
    options = _options()
    raise_file_limit()
    outcomes = uvloop.run(_run(options.names or list(attacks.by_name), options.seed))
    if options.json:
        print(json.dumps([vars(outcome) for outcome in outcomes], indent=1))
    else:
        print(_table(outcomes, options.seed))
    return int(any(_above(outcome, options.stall, options.growth) for outcome in outcomes))


def _above(outcome: Outcome, stall: float, growth: float) -> bool:
    return outcome.stall_ms > stall or outcome.growth_mib > growth or outcome.refused > 0


async def _run(names: list[str], seed: int) -> list[Outcome]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gql-jobs-hostile-")))
        nats = await stack.enter_async_context(embedded_server(folder, max_store_bytes=_STORE_BYTES))
        async with _api(folder, nats.url) as (port, _):
            history, ids = await _prepare(folder, nats.url, port, dead_letters="retries_without_copies" in names)
        outcomes = []
        for name in names:
            limit = attacks.descriptors.get(name)
            async with _api(folder, nats.url, descriptors=limit) as (port, pid):
                target = Target(port, nats.url, history, ids)
                outcomes.append(await _attacked(name, target, pid, seed))
                print(_row(outcomes[-1]), file=sys.stderr, flush=True)
        return outcomes


async def _attacked(name: str, target: Target, pid: int, seed: int) -> Outcome:
    command = (python(), "-m", "benchmarks.hostile.observer", str(target.port), str(pid), target.ids[0])
    observer = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    assert observer.stdin is not None
    assert observer.stdout is not None

    async def phase() -> Phase:
        assert observer.stdin is not None
        assert observer.stdout is not None
        observer.stdin.write(b"\n")
        async with asyncio.timeout(_WITHIN):
            return Phase(**json.loads(await observer.stdout.readline()))

    try:
        await asyncio.sleep(_QUIET)
        await phase()
        await asyncio.sleep(_QUIET)
        quiet = await phase()
        try:
            async with asyncio.timeout(_WITHIN):
                answers = words(await attacks.by_name[name](target, random.Random(f"{name} {seed}")))  # noqa: S311 - repeatable
        except TimeoutError:
            answers = "not over in time"
        await asyncio.sleep(_AFTER)
        seen = await phase()
    finally:
        observer.stdin.close()
        await observer.wait()
    return Outcome(name, quiet.worst_ms, seen.worst_ms, seen.most_mib - quiet.most_mib, seen.refused, answers)


@asynccontextmanager
async def _api(folder: Path, nats_url: str, *, descriptors: int | None = None) -> AsyncIterator[tuple[int, int]]:
    """An API process that is ready, as (port, pid)."""
    port = free_port()
    environment = {
        "GQL_JOBS_NATS_URL": nats_url,
        "GQL_JOBS_DATA_DIR": str(folder),
        "GQL_JOBS_LOG_LEVEL": "ERROR",
        "GQL_JOBS_MAX_STORE_BYTES": str(_STORE_BYTES),
    }
    command = (python(), "-m", "gql_jobs", "api", "--port", str(port), *_IMPORTS)
    # The hard limit, too: the process raises its own up to that.
    limited = ("prlimit", f"--nofile={descriptors}:{descriptors}") if descriptors else ()
    async with program(*limited, *command, environment=environment) as api:
        await listening(port, api)
        await _ready(port, api)
        yield port, api.pid


async def _ready(port: int, api: Program) -> None:
    request = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with Asker(port) as asker, asyncio.timeout(60):
        while not (await asker.any_status(request)).startswith(b"HTTP/1.1 200"):
            assert api.running, api.last_words()
            await asyncio.sleep(0.05)


async def _prepare(folder: Path, nats_url: str, port: int, *, dead_letters: bool) -> tuple[str, list[str]]:
    """Make the jobs that the attacks ask for: a long history, some that wait, and dead letters if they are wanted."""
    environment = {"GQL_JOBS_NATS_URL": nats_url, "GQL_JOBS_LOG_LEVEL": "ERROR", "GQL_JOBS_CHAOS_RUNS": str(folder)}
    command = (python(), "-m", "gql_jobs_worker", "--concurrency", "200", *_IMPORTS)
    async with Asker(port) as asker, asyncio.timeout(300):
        async with program(*command, environment=environment) as worker:
            failing = {"payload": {"chaos": {"token": "t", "permanent": True}}, "maxRetries": 0}
            history = (await asker.ask(_CREATE, {"i": [failing]}))["createJobs"]["jobs"][0]["id"]
            for _ in range(_EVENTS_BY_HAND):
                await _dead_letters(asker, 1, worker)
                await asker.ask('mutation { retryJob(id: "%s") { job { id } } }' % history)  # noqa: UP031 - braces
            await _dead_letters(asker, 1, worker)
            for _ in range(_DEAD_LETTERS // 1000 if dead_letters else 0):
                await asker.ask(_CREATE, {"i": [failing] * 1000})
            await _dead_letters(asker, 1 + _DEAD_LETTERS if dead_letters else 1, worker)
        letter = {"payload": {"noop": {"to": "ada@example.com", "subject": "Your report", "body": "It is ready."}}}
        waiting = (await asker.ask(_CREATE, {"i": [letter] * 500}))["createJobs"]["jobs"]
    return history, [job["id"] for job in waiting]


async def _dead_letters(asker: Asker, number: int, worker: Program) -> None:
    while (await asker.ask(_COUNT))["jobs"]["totalCount"] < number:
        assert worker.running, worker.last_words()
        await asyncio.sleep(0.02)


def _table(outcomes: list[Outcome], seed: int) -> str:
    worst, largest = max(one.stall_ms for one in outcomes), max(one.growth_mib for one in outcomes)
    rows = [
        f"seed {seed}: the worst stall {worst:.0f} ms, the largest growth {largest:.0f} MiB",
        f"{'attack':<26} {'quiet':>8} {'stall':>9} {'growth':>10} {'refused':>8}  answers",
        *map(_row, outcomes),
    ]
    return "\n".join(rows)


def _row(one: Outcome) -> str:
    times = f"{one.quiet_ms:>5.0f} ms {one.stall_ms:>6.0f} ms {one.growth_mib:>6.0f} MiB"
    return f"{one.attack:<26} {times} {one.refused:>8}  {one.answers}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(attacks.by_name)}")
    parser.add_argument("--seed", type=int, default=1, help="varies sizes and names")
    parser.add_argument("--stall", type=float, default=250.0, help="milliseconds that the innocent client may wait")
    parser.add_argument("--growth", type=float, default=128.0, help="MiB by which the API's memory may grow")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in attacks.by_name]
    if unknown:
        parser.error(f"there is no attack {unknown[0]!r}; there are {', '.join(attacks.by_name)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
