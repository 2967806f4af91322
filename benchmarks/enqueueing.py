"""A back end that creates jobs with ``gql_jobs.client``, as a process of its own.

``python -m benchmarks.enqueueing one|fifty|many|send N [RATE]`` creates N jobs at the address in ``PEER_URL``: one
after another, fifty at once, or in one call of ``create_many``, and prints the seconds that it took. ``send`` creates
RATE jobs a second, each with the time at which it was sent.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import AbstractAsyncContextManager

import uvloop

from benchmarks.job_types import Letter
from benchmarks.machine import python
from benchmarks.processes import Program, program
from benchmarks.stack import EMAIL, LOG_LEVEL
from gql_jobs.client.async_client import AsyncClient

AT_ONCE = 50


def back_end(address: str, *arguments: object) -> AbstractAsyncContextManager[Program]:
    """Such a process, at this address of the API or of NATS."""
    environment = {"PEER_URL": address, "GQL_JOBS_LOG_LEVEL": LOG_LEVEL}
    return program(python(), "-m", "benchmarks.enqueueing", *map(str, arguments), environment=environment)


async def seconds_to_enqueue(address: str, how: str, jobs: int) -> float:
    """How long such a process takes to create so many jobs."""
    async with back_end(address, how, jobs) as process:
        return float(await process.value(within=600))


async def _run(client: AsyncClient, how: str, jobs: int, rate: float) -> object:
    await client.create(Letter(**EMAIL), type="noop")
    began = time.monotonic()
    if how == "one":
        for _ in range(jobs):
            await client.create(Letter(**EMAIL), type="noop")
    elif how == "fifty":
        for start in range(0, jobs, AT_ONCE):
            together = min(AT_ONCE, jobs - start)
            await asyncio.gather(*(client.create(Letter(**EMAIL), type="noop") for _ in range(together)))
    elif how == "many":
        await client.create_many((Letter(**EMAIL), {"type": "noop"}) for _ in range(jobs))
    else:
        for number in range(jobs):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            await client.create(Letter(**{**EMAIL, "body": repr(time.monotonic())}), type="stamp")
    return time.monotonic() - began


async def main() -> None:
    """Connect, create, and say how long it took."""
    how, jobs, *rate = sys.argv[1:]
    async with AsyncClient(os.environ["PEER_URL"]) as client:
        print(json.dumps(await _run(client, how, int(jobs), float(rate[0]) if rate else 0.0)), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
