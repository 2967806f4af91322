"""An API that runs while a test does, clients of it, and what they create."""

from collections.abc import AsyncIterator, Iterator

import pytest

from gql_jobs.client.async_client import AsyncClient
from gql_jobs.jobs.registry import registry
from gql_jobs.settings import Settings
from tests.client.lossy_line import LossyLine
from tests.client.nats_clients import client_of
from tests.job_types.typed_jobs import TYPED
from tests.serving import HOST, ServedApi, serving


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """The API on the test's nats-server."""
    async with serving(settings) as served:
        yield served


@pytest.fixture
async def client(api: ServedApi) -> AsyncIterator[AsyncClient]:
    """A client of it."""
    async with AsyncClient(f"http://{HOST}:{api.port}", patience=10) as opened:
        yield opened


@pytest.fixture(params=["http", "nats"])
async def by_either(request: pytest.FixtureRequest, api: ServedApi, settings: Settings) -> AsyncIterator[AsyncClient]:
    """A client of it, or one beside the broker: what is tried with this has one outcome either way."""
    if request.param == "http":
        async with AsyncClient(f"http://{HOST}:{api.port}", patience=10) as by_http:
            yield by_http
    else:
        async with client_of(settings) as transport, AsyncClient(transport=transport) as by_nats:
            yield by_nats


@pytest.fixture
async def line(api: ServedApi) -> AsyncIterator[LossyLine]:
    """A line to it."""
    async with LossyLine(api.port).listening() as opened:
        yield opened


@pytest.fixture
async def by_line(line: LossyLine) -> AsyncIterator[AsyncClient]:
    """A client of it by that line."""
    async with AsyncClient(line.url, patience=10) as opened:
        yield opened


@pytest.fixture
def typed() -> Iterator[None]:
    """Types whose payloads name their results, registered until the test ends; to be used before the API."""
    for job_type in TYPED:
        registry.add(job_type)
    yield
    for job_type in TYPED:
        del registry._types[job_type.name]  # noqa: SLF001
