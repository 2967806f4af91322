"""What tests of the log need beyond a connection."""

from collections.abc import AsyncIterator

import pytest

from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    """The decisions of one process."""
    return JobCommands(job_log, settings)


@pytest.fixture
def artifacts(job_log: JobLog, settings: Settings) -> ArtifactStore:
    """The files of the same server."""
    return ArtifactStore(job_log, settings)


@pytest.fixture
async def other_connection(connection: Connection, settings: Settings) -> AsyncIterator[Connection]:
    """A second process's connection to the same server."""
    assert connection.connected
    async with connect(settings, "other") as opened:
        yield opened
