"""Every test has a real nats-server, with streams that no other test has: an account of one, or one of its own.

A test that names ``nats``, or whose module has another fixture of that name, has that server for itself, and may stop
it, freeze it and look at its files. All others have an account each that no test has had before.

What is the same for all of them and slow to make is made once for each process that runs tests: the default settings,
and the GraphQL types of the registered jobs.
"""

import copy
import gc
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gql_jobs import clock, logs
from gql_jobs.graphql import schema
from gql_jobs.graphql.engine.budget import OperationLimits
from gql_jobs.graphql.engine.strawberry_internals import core_schema
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
from tests.fresh_accounts import FreshAccounts
from tests.library import Library, open_library
from tests.running import JOB_TYPES, RunningWorker, running_worker

# What a shell starts in the background ignores Ctrl-C, as do the programs that it starts. Tests interrupt some of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
_schemas: dict[int, schema.JobsSchema] = {}


class _SchemaMadeOnce(schema.JobsSchema):
    """The schema of types that are made once: its definition is the same for all servers, and nothing else is."""

    def __init__(self, registered: RegisteredTypes, limits: OperationLimits | None, **how: Any) -> None:
        known = _schemas.get(id(registered.objects))
        if known is None:
            super().__init__(registered, limits, **how)
            # It holds the types, so that no others get the same id.
            _schemas[id(registered.objects)] = self
        else:
            vars(self).update(vars(known), _schema=copy.copy(core_schema(known)))
            # What ``Info.schema`` reads.
            vars(self._schema)["_strawberry_schema"] = self
            self._operate(registered, limits, **how)


vars(schema)["JobsSchema"] = _SchemaMadeOnce


def pytest_collection_finish() -> None:
    """Have the collector look at none of what was imported, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(autouse=True)
def _forgotten_secrets() -> Iterator[None]:
    """What this process hides in texts by then: the secrets of one test are not hidden in what others read.

    Nor is each text searched for the passwords of all tests before.
    """
    names = ("_values", "_known", "_of_running", "_of_ended")
    before = {name: getattr(logs, name) for name in names}
    logs._values = set(logs._values)  # noqa: SLF001
    yield
    vars(logs).update(before)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fresh_accounts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FreshAccounts]:
    """Those of the servers that the tests of this process share, one after the other."""
    accounts = FreshAccounts(tmp_path_factory.mktemp("nats"))
    yield accounts
    await accounts.end()


@pytest_asyncio.fixture(loop_scope="session")
async def nats_account(fresh_accounts: FreshAccounts) -> str:
    """The URL of an account of a nats-server, with nothing in it."""
    return await fresh_accounts.take()


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server with an empty store, for this test alone."""
    async with embedded_server(tmp_path / "store", max_store_bytes=1 << 30) as server:
        yield server


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings that point at the server of the test, with retries in tenths of a second."""
    has_own = "nats" in request.fixturenames or "nats" in vars(request.module)
    url = request.getfixturevalue("nats").url if has_own else request.getfixturevalue("nats_account")
    own = {"nats_url": url, "data_dir": tmp_path / "data", "base_retry_delay": 0.1, "shutdown_grace": 5.0}
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
def movable_clock() -> Iterator[None]:
    """Have the clock of this process be movable; it shows the machine's time again in the end."""
    clock.make_movable()
    yield
    clock.make_fixed()


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
