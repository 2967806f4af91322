"""What schedules cost the process that holds the gate, as a share of a core.

``python -m benchmarks.schedules [--schedules 10000] [--seconds 60] [--every 600]``: starts a nats-server on loopback
and an API process without HTTP in this process, defines that many schedules, half of them nightly in a zone and half
every so many seconds, waits until all is made ahead, and says how much CPU time this process takes from then on: idle
first, with all schedules paused, then with their ticks. The jobs are left in their queue.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from gql_jobs import job_type
from gql_jobs.jetstream.server import embedded_server
from gql_jobs.jobs.model import OverlapPolicy
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.recurrence import Recurrence
from gql_jobs.jobs.registry import JobType, Model
from gql_jobs.jobs.schedules import SCHEDULE_STATE, ScheduleState
from gql_jobs.log.schedules import ScheduleDefinition
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime

AT_A_TIME = 200


class TickPayload(Model):
    """The payload of the jobs."""

    number: int


def definition(tick: JobType, number: int, every: int) -> ScheduleDefinition:
    """Schedule ``number``: spread, so that not all are due in one second."""
    nightly = Recurrence(cron="0 3 * * *", time_zone="Europe/Berlin")
    return ScheduleDefinition(
        name=f"schedule-{number}",
        job_type=tick,
        payload=accept(TickPayload, {"number": number}),
        recurrence=nightly if number % 2 else Recurrence(every_seconds=every),
        overlap=OverlapPolicy.ALLOW,
        spread_seconds=3600 if number % 2 else every - 1,
    )


async def share(seconds: float) -> float:
    """The share of a core that this process takes for so long."""
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.monotonic() - began)


def made(runtime: Runtime) -> int:
    """How many ticks have been made ahead and are not known to have run."""
    return sum(len(state.ahead) for state in runtime.steering.values(SCHEDULE_STATE, ScheduleState).values())


async def measure(schedules: int, seconds: float, every: int) -> None:
    """Print the shares."""
    tick = job_type("bench_tick", payload=TickPayload, result=None, handler="benchmarks.handlers:none", queue="ticks")
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder) / "store", max_store_bytes=4 << 30) as server:
            settings = Settings(nats_url=server.url, data_dir=Path(folder) / "data")
            async with open_runtime(settings, ()) as runtime:
                idle = await share(min(seconds, 20))
                print(f"without schedules: {idle:.2%} of a core")
                began, cpu = time.monotonic(), time.process_time()
                for start in range(0, schedules, AT_A_TIME):
                    numbers = range(start, min(start + AT_A_TIME, schedules))
                    await asyncio.gather(*(runtime.schedules.upsert(definition(tick, n, every)) for n in numbers))
                while made(runtime) < schedules:  # noqa: ASYNC110 - what is counted tells nobody
                    await asyncio.sleep(0.5)
                spent = time.process_time() - cpu
                print(f"{schedules} defined and made ahead in {time.monotonic() - began:.0f} s, {spent:.0f} s of CPU")
                await asyncio.sleep(5)
                before = runtime.index.position
                with_ticks = await share(seconds)
                rate = schedules / 2 / every
                print(
                    f"with {schedules} schedules, {rate:.1f} ticks/s: {with_ticks:.2%} of a core, "
                    f"{with_ticks - idle:.2%} more; {runtime.index.position - before} messages"
                )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=int, default=600)
    given = parser.parse_args()
    asyncio.run(measure(given.schedules, given.seconds, given.every))


if __name__ == "__main__":
    main()
