"""Clients that write into the log, and what they ask for."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gql_jobs.client.nats_transport import NatsTransport
from gql_jobs.client.transport import Creation
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.registry import JobType, load_job_types
from gql_jobs.log import codec
from gql_jobs.settings import Settings
from tests.running import JOB_TYPES


def _job_type(name: str) -> JobType:
    return next(job_type for job_type in load_job_types(JOB_TYPES) if job_type.name == name)


PROBE_TYPE = _job_type("probe")


def creation(key: str | None = None, *, type_name: str = "probe", **asked: Any) -> Creation:
    """A creation of a job whose handler does what it is told; options beside the fields of its payload."""
    options = {name: asked.pop(name) for name in list(asked) if name in Creation.__struct_fields__}
    job_type = _job_type(type_name)
    payload = job_type.payload.model_validate(asked).model_dump_json(by_alias=True, exclude_unset=True)
    return Creation(job_type, payload.encode(), key, **options)


@asynccontextmanager
async def client_of(settings: Settings, **options: Any) -> AsyncIterator[NatsTransport]:
    """A client with these settings, closed when the block ends."""
    transport = NatsTransport(settings, **options)
    try:
        yield transport
    finally:
        await transport.close()


async def created_one(client: NatsTransport, *arguments: Any, **asked: Any) -> str:
    """The id of a new job, asked for as ``creation`` is."""
    (made,) = await client.create([creation(*arguments, **asked)])
    return made.id


async def followers(connection: Connection) -> list[str]:
    """The consumers of those who follow the stream."""
    consumers = json.loads(await connection.api(f"CONSUMER.NAMES.{codec.JOBS_STREAM}"))["consumers"] or []
    return [name for name in consumers if not name.startswith("queue-")]


async def is_unfollowed(connection: Connection) -> bool:
    """Whether nobody follows the stream."""
    return not await followers(connection)
