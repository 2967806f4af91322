"""A queue is paused while four workers run its jobs: how long until nothing of it starts, and until it goes on.

Times are the stream's own: those of the message that a queue is paused, or resumed, and of the ``started`` events.
"""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from datetime import datetime

from benchmarks import stack
from benchmarks.measurement import OURS, Bench, Contender, Plan, Sample
from benchmarks.processes import Failed
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.log import codec
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings

WORKERS, CONCURRENCY = 4, 50
RUNS_FOR = 0.5
"""Seconds that jobs run between two pauses."""
PAUSED_FOR = 1.5
"""Seconds of each pause: more than it may take until it is in effect."""
GOES_ON_WITHIN = 10.0
"""Seconds within which a job starts after the resume."""
STARTED = "jobs.*.event.started"
QUEUE = "default"
PAUSE = 'mutation { pauseQueue(name: "default", reason: "measured") { queue { name } } }'
RESUME = 'mutation { resumeQueue(name: "default") { queue { name } } }'


async def _pause_ours(plan: Plan) -> list[Sample]:
    pauses = plan.size(5, 2)
    async with AsyncExitStack() as opened:
        system = await opened.enter_async_context(stack.running())
        connection = await opened.enter_async_context(connect(Settings(nats_url=system.nats.url), "benchmarks"))
        await system.fill("noop", [stack.EMAIL] * plan.size(200_000, 100_000))
        await system.work(CONCURRENCY, WORKERS)
        await system.workers_ready(WORKERS)
        starts: list[datetime] = []
        await opened.enter_async_context(in_background(_follow(connection, starts)))
        late, first, answers = [], [], []
        for _ in range(pauses):
            await asyncio.sleep(RUNS_FOR)
            began = time.monotonic()
            await system.asker.ask(PAUSE, {})
            answers.append((time.monotonic() - began) * 1000)
            paused = await _said_at(connection)
            await asyncio.sleep(PAUSED_FOR)
            late.append(max([(at - paused).total_seconds() * 1000 for at in starts if at > paused], default=0.0))
            seen = len(starts)
            await system.asker.ask(RESUME, {})
            resumed = await _said_at(connection)
            given_up = time.monotonic() + GOES_ON_WITHIN
            while len(starts) == seen and time.monotonic() < given_up:  # noqa: ASYNC110 - notes come in batches
                await asyncio.sleep(0.01)
            if len(starts) == seen:
                raise Failed("nothing started after the resume: the backlog was too small for this machine")
            first.append((starts[seen] - resumed).total_seconds() * 1000)
            starts.clear()
    return [
        Sample("pause", "last start after the pause, worst", max(late), "ms"),
        Sample("pause", "last start after the pause, median", statistics.median(late), "ms"),
        Sample("pause", "first start after the resume, worst", max(first), "ms"),
        Sample("pause", "pauseQueue, median", statistics.median(answers), "ms"),
    ]


async def _said_at(connection: Connection) -> datetime:
    """When the queue was paused or resumed last, by the stream."""
    stored = await last_message(connection, codec.JOBS_STREAM, codec.steering_subject(codec.PAUSES, QUEUE))
    assert stored is not None
    return stored.at


async def _follow(connection: Connection, starts: list[datetime]) -> None:
    """Note when each attempt starts from now on; never return."""
    last = await last_message(connection, codec.JOBS_STREAM, codec.ALL_JOBS)
    assert last is not None
    consumer = OrderedConsumer(connection, codec.JOBS_STREAM, (STARTED,), last.seq + 1, headers_only=True)
    async for batch in consumer.batches():
        starts += [message.at for message in batch]


BENCHES = (
    Bench(
        "pause",
        f"pauseQueue while {WORKERS} worker processes drain its jobs: until the last start, and from the resume on",
        (Contender(OURS, _pause_ours, {"workers": WORKERS, "concurrency": CONCURRENCY, "log_level": stack.LOG_LEVEL}),),
    ),
)
