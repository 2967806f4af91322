"""Every test has a nats-server of its own: a real one, on a free port, with its own store.

What is the same for all of them and slow to make is made once for each process that runs tests: the default settings,
and the GraphQL types of the registered jobs.
"""

import copy
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gql_jobs.graphql import schema
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.log.job_log import JobLog, open_job_log
from gql_jobs.log.streams import ensure_consumers, ensure_streams
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import RestartingServer
from tests.library import Library, open_library
from tests.running import JOB_TYPES, RunningWorker, running_worker

load_job_types(JOB_TYPES)
_DEFAULTS = Settings()
_types: dict[tuple[int, ...], RegisteredTypes] = {}


def _types_made_once(registry: Registry, stored: StoredPayloads | None = None) -> RegisteredTypes:
    """The types of a registry, the same for all servers that store payloads as they are."""
    if stored is not None and stored.encodes:
        return RegisteredTypes(registry, stored)
    kinds = tuple(id(job_type) for job_type in registry)
    if kinds not in _types:
        # It holds the job types, so that no other one gets the same id.
        _types[kinds] = RegisteredTypes(registry)
    types = copy.copy(_types[kinds])
    types._cached, types._cached_bytes, types._types = {}, 0, {}  # noqa: SLF001
    return types


vars(schema)["RegisteredTypes"] = _types_made_once


def pytest_collection_finish() -> None:
    """Have the collector look at none of what was imported, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server with an empty store."""
    async with embedded_server(tmp_path / "store", max_store_bytes=1 << 30) as server:
        yield server


@pytest.fixture
def settings(nats: EmbeddedServer, tmp_path: Path) -> Settings:
    """Settings that point at that server, with retries in tenths of a second."""
    own = {"nats_url": nats.url, "data_dir": tmp_path / "data", "base_retry_delay": 0.1, "shutdown_grace": 5.0}
    return _DEFAULTS.model_copy(update=own)


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    """A connection, with streams and the pull consumers of all job types in place."""
    async with connect(settings, "test") as opened:
        await ensure_streams(opened, settings)
        await ensure_consumers(opened, load_job_types(JOB_TYPES).queues, settings.ack_wait)
        yield opened


@pytest.fixture
async def job_log(connection: Connection) -> AsyncIterator[JobLog]:
    """The log over that connection."""
    async with open_job_log(connection) as opened:
        yield opened


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """What an API process consists of, without HTTP."""
    async with open_runtime(settings, JOB_TYPES) as opened:
        yield opened


@pytest.fixture
async def workers() -> AsyncIterator[AsyncExitStack]:
    """Workers of this process; enter ``running_worker(settings, …)`` into it."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def worker(settings: Settings, workers: AsyncExitStack) -> RunningWorker:
    """A worker pool in this process that serves every queue."""
    return await workers.enter_async_context(running_worker(settings))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestartingServer]:
    """A server that can be taken away and come back."""
    server = RestartingServer(tmp_path / "store")
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    """An empty index, its reader and its bus."""
    async with open_library(tmp_path / "index.sqlite") as opened:
        yield opened
