"""An outbox in a database of either kind, and relays that write into the log of a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import Session

from gql_jobs import outbox
from gql_jobs.client.nats_transport import NatsTransport
from gql_jobs.client.transport import Transport
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.outbox.database import OutboxDatabase
from gql_jobs.outbox.relay import Relay
from gql_jobs.outbox.rows import OutboxRow
from gql_jobs.settings import Settings
from tests.job_types.probe_jobs import ProbePayload
from tests.workers.reports.postgres import Postgres, running_postgres


class Shop:
    """An application with an outbox: its database, and what it does to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        OutboxRow.metadata.create_all(self.engine)

    def create(self, *payloads: ProbePayload, **options: Any) -> list[str]:
        """Jobs in one transaction, and the ids that they will have."""
        with Session(self.engine) as session, session.begin():
            return [outbox.create(session, payload, type="probe", **options) for payload in payloads]

    def rows(self) -> list[OutboxRow]:
        """What is in the outbox, the oldest first."""
        with Session(self.engine, expire_on_commit=False) as session:
            return list(session.scalars(select(OutboxRow).order_by(OutboxRow.id)))

    def change(self, **values: Any) -> None:
        """Set columns of all rows: the time that a test does not wait for has passed, or something else has written."""
        with self.engine.begin() as connection:
            connection.execute(OutboxRow.__table__.update().values(**values))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the tests of a process."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """An application with an empty outbox, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        opened = Shop(f"sqlite:///{tmp_path}/shop.db")
    else:
        opened = Shop(request.getfixturevalue("postgres").url)
    yield opened
    with opened.engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS gql_jobs_outbox"))
    opened.engine.dispose()


@pytest.fixture
def database(shop: Shop) -> Iterator[OutboxDatabase]:
    """The database as a relay sees it."""
    opened = OutboxDatabase(shop.url)
    yield opened
    opened.close()


@pytest.fixture
async def transport(settings: Settings, connection: Connection) -> AsyncIterator[NatsTransport]:
    """A way into the log of a server with its streams; what fails is tried again for a tenth of a second."""
    assert connection.connected
    opened = NatsTransport(settings, patience=0.1)
    yield opened
    await opened.close()


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    """What is in the log."""
    return JobCommands(job_log, settings)


RelayOf = Callable[[Transport], Relay]


@pytest.fixture
def relay_of(database: OutboxDatabase, settings: Settings) -> RelayOf:
    """Makes a relay from that database."""
    return lambda transport: Relay(database, transport, load_job_types(), settings.retention)


@asynccontextmanager
async def moving(relay: Relay) -> AsyncIterator[None]:
    """A relay that runs until the block ends."""
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running
