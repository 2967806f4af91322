"""The authentication of an API process that asks for it, on the server of the test."""

from collections.abc import AsyncIterator

import pytest

from gql_jobs.access.authentication import Authentication, open_authentication
from gql_jobs.jetstream.connection import connect
from gql_jobs.settings import Settings


@pytest.fixture
def required(settings: Settings) -> Settings:
    """Settings under which whoever asks needs a key or a token."""
    return settings.model_copy(update={"auth": "required"})


@pytest.fixture
async def access(required: Settings) -> AsyncIterator[Authentication]:
    """The authentication of such a process."""
    async with connect(required, "test") as connection, open_authentication(connection, required) as opened:
        yield opened


@pytest.fixture
async def other(required: Settings) -> AsyncIterator[Authentication]:
    """That of another process of the installation."""
    async with connect(required, "test") as connection, open_authentication(connection, required) as opened:
        yield opened
