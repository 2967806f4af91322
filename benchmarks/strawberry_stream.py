"""``python -m benchmarks.strawberry_stream``: what a delivery costs by our operations and by ``Schema.stream``.

Fifty subscribers of one document are given the same events, in this process and without a socket: what is compared is
the way from an event to the JSON of a result.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import strawberry

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.graphql.schema import build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.settings import Settings
from tests.graphql.sample_jobs import sample_context
from tests.running import JOB_TYPES

DOCUMENT = 'subscription { jobEvents(after: "0") { __typename cursor at job { id status progress } } }'
SUBSCRIBERS, EVENTS, REPETITIONS = 50, 14, 5


async def measure() -> None:
    """Print the best of some repetitions of each way, in microseconds of CPU for one delivery."""
    schema = build_schema(load_job_types(JOB_TYPES), Settings())
    with tempfile.TemporaryDirectory() as folder, sample_context(Path(folder) / "index.sqlite") as context:

        async def ours() -> Any:
            operation = schema.operations.operation(OperationRequest(DOCUMENT), Context(context.services))
            return schema.operations.results(operation)

        async def theirs() -> Any:
            return await strawberry.Schema.stream(schema, DOCUMENT, None, Context(context.services))

        for name, subscribe in (("gql-jobs", ours), ("Strawberry's Schema.stream", theirs)):
            best = min([await _one(subscribe) for _ in range(REPETITIONS)])
            print(f"{name:28} {best * 1e6:8.1f} us a delivery")


async def _one(subscribe: Callable[[], Awaitable[Any]]) -> float:
    streams = [await subscribe() for _ in range(SUBSCRIBERS)]
    for stream in streams:
        await anext(stream)
    gc.collect()
    began = time.process_time()
    for _ in range(EVENTS):
        for stream in streams:
            result = await anext(stream)
            assert result.payload if hasattr(result, "payload") else msgspec.json.encode({"data": result.data})
    took = (time.process_time() - began) / (SUBSCRIBERS * EVENTS)
    for stream in streams:
        await stream.aclose()
    return took


if __name__ == "__main__":
    asyncio.run(measure())
