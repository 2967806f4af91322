"""What tests of the log need beyond a connection."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.by_hand import RestartingServer


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    """The decisions of one process."""
    return JobCommands(job_log, settings)


@pytest.fixture
async def other_connection(connection: Connection, settings: Settings) -> AsyncIterator[Connection]:
    """A second process's connection to the same server."""
    assert connection.connected
    async with connect(settings, "other") as opened:
        yield opened


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestartingServer]:
    """A server that can be taken away and come back."""
    server = RestartingServer(tmp_path / "store")
    try:
        yield server
    finally:
        await server.stop()
