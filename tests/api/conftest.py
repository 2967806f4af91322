"""An API server that runs while a test does."""

from collections.abc import AsyncIterator

import pytest

from gql_jobs.settings import Settings
from tests.serving import ServedApi, serving


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """The API on the test's nats-server."""
    async with serving(settings) as served:
        yield served
