"""pgqueuer on PostgreSQL: acknowledged after the work; what ran is kept in its log table."""

import json
import time
from datetime import timedelta

import asyncpg
import driver
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

BULK = 1000
clock = driver.Clock()


def _encoded(sent: float) -> bytes:
    return json.dumps({**driver.PAYLOAD, "sent": sent}).encode()


async def fill(queries: Queries) -> None:
    began = time.monotonic()
    for start in range(0, driver.JOBS, BULK):
        number = min(BULK, driver.JOBS - start)
        await queries.enqueue(["noop"] * number, [_encoded(0.0)] * number, [0] * number)
    driver.say(time.monotonic() - began)


async def main() -> None:
    async with asyncpg.create_pool(driver.URL, min_size=4, max_size=8) as pool:
        connection = AsyncpgPoolDriver(pool)
        queries = Queries(connection)
        if driver.COMMAND == "install":
            await queries.install()
        elif driver.COMMAND == "fill":
            await fill(queries)
        elif driver.COMMAND == "send":
            await driver.send(lambda payload: queries.enqueue("noop", json.dumps(payload).encode(), 0))
        else:
            await work(connection)


async def work(connection: AsyncpgPoolDriver) -> None:
    pgq = PgQueuer(connection)

    @pgq.entrypoint("noop")
    async def noop(job: Job) -> None:
        clock.ran(json.loads(job.payload or b"{}")["sent"])

    driver.say("ready")
    await pgq.run(batch_size=driver.SETTINGS["batch"], dequeue_timeout=timedelta(seconds=5))


uvloop.run(main())
