"""One server for all tests of a module: they are about what is on the wire, not about the jobs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from gql_jobs.jetstream.server import embedded_server
from gql_jobs.settings import Settings
from tests.serving import ServedApi, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedApi]:
    """The API, without a worker: jobs stay as they were created until they are cancelled."""
    folder = tmp_path_factory.mktemp("wire")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded_server(folder / "store", max_store_bytes=1 << 30))
        yield await stack.enter_async_context(serving(Settings(nats_url=server.url, data_dir=folder / "data")))
