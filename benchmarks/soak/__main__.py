"""``python -m benchmarks.soak --minutes 30``: a steady load with subscriptions that come and go, and no faults.

Jobs expire after two minutes, so that what is kept is the same all the time. Prints what each process held in the
second and in the last third of the time: memory, open files, threads, asyncio's tasks, the stream's consumers. Exit 1
if any of them grew. Starts and stops everything by itself, on loopback.
"""

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import uvloop
from nats.errors import Error as NatsError

from benchmarks.chaos import stream
from benchmarks.chaos.client import Client, http_pools
from benchmarks.chaos.creation import LANES
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.load import Amount, Load
from benchmarks.chaos.subscriptions import Subscriptions
from benchmarks.chaos.system import Shape, System, log_progress, running
from benchmarks.soak.samples import Samples

log = logging.getLogger(__name__)

_EVERY = 5.0
"""Seconds between two samples."""
_RETENTION = 120.0
_WATCHED = 0.2
"""Share of the jobs with a subscription of their own."""
_VISIT = (2.0, 40.0)
"""Seconds that a subscription to all jobs, or to one tag, stays."""
_VISITORS = 20


def main() -> None:
    """Parse the arguments, run, print, and exit with 1 if anything grew."""
    options = _parser().parse_args()
    log_progress()
    samples, ledger = Samples(), Ledger()
    with tempfile.TemporaryDirectory(prefix="gql-jobs-soak-") as folder:
        uvloop.run(_soak(options, Path(folder), samples, ledger))
    grown = samples.grown(len(ledger.acknowledged) / 3)
    if options.json:
        medians = {f"{process} {measure}": values for (process, measure), values in samples.thirds().items()}
        sys.stdout.write(json.dumps({"jobs": len(ledger.acknowledged), "grown": grown, "medians": medians}) + "\n")
    else:
        resumes = sum(observation.resumes for observation in ledger.observations)
        sys.stdout.write(
            f"{options.minutes:g} minutes, {len(ledger.acknowledged)} jobs at {options.rate:g} a second, "
            f"{len(ledger.observations)} subscriptions, {resumes} resumed\n\n{samples.table()}\n"
        )
        sys.stdout.writelines(f"GREW: {line}\n" for line in grown)
    sys.exit(1 if grown else 0)


async def _soak(options: argparse.Namespace, folder: Path, samples: Samples, ledger: Ledger) -> None:
    shape = Shape(
        apis=options.apis,
        workers=options.workers,
        imports=("benchmarks.soak.probe",),
        settings={"GQL_JOBS_RETENTION": str(_RETENTION)},
    )
    seconds = options.minutes * 60
    async with (
        asyncio.timeout(seconds + 600),
        http_pools() as pools,
        running(shape, folder) as system,
    ):
        urls = [api.url for api in system.apis]
        client = Client(urls, pools)
        await system.ready(client.http)
        subscriptions = Subscriptions(urls, ledger)
        chance = random.Random(options.seed)  # noqa: S311

        def created(job_id: str, _: object) -> None:
            if chance.random() < _WATCHED:
                subscriptions.open(job_id=job_id)

        amount = Amount(options.seed, round(options.rate * seconds), options.rate)
        load = Load(client, ledger, amount, created)
        try:
            async with asyncio.TaskGroup() as group:
                sampling = group.create_task(_sample(system, samples))
                visiting = group.create_task(_visit(subscriptions, chance))
                # What a busy machine has not come to by then is left out: the time is what counts.
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await load.run()
                sampling.cancel()
                visiting.cancel()
            await load.settled()
        finally:
            await subscriptions.close()


async def _sample(system: System, samples: Samples) -> None:
    connection = await stream.connected(system.nats_url)
    said_at = began = time.monotonic()
    try:
        while True:
            await asyncio.sleep(_EVERY)
            for program in system.programs:
                samples.take(program, system.runs)
            with suppress(NatsError):
                info = await connection.jetstream(timeout=2).stream_info(stream.STREAM)
                samples.add("stream", "consumers", info.state.consumer_count)
            if time.monotonic() - said_at > 60:  # noqa: PLR2004
                said_at = time.monotonic()
                log.info("%.0f minutes: %s", (said_at - began) / 60, _newest(samples))
    finally:
        await connection.close()


def _newest(samples: Samples) -> str:
    """Memory, and tasks where they are known, of each process."""
    shown = []
    for (process, measure), values in samples.values.items():
        if measure == "rss_mib":
            tasks = samples.values.get((process, "tasks"))
            shown.append(f"{process} {values[-1]:.0f} MiB" + (f" {tasks[-1]:.0f} tasks" if tasks else ""))
    return ", ".join(shown)


async def _visit(subscriptions: Subscriptions, chance: random.Random) -> None:
    """Subscriptions to all jobs or to a share of them, which come and go."""

    async def visitor() -> None:
        while True:
            tag = f"lane-{chance.randrange(LANES)}" if chance.random() < 0.9 else None  # noqa: PLR2004
            await subscriptions.visit(chance.uniform(*_VISIT), tag=tag)

    async with asyncio.TaskGroup() as group:
        for _ in range(_VISITORS):
            group.create_task(visitor())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="creations a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--apis", type=int, default=2, help="API processes")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
