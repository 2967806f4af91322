"""One server for all tests of a module, which are about what is on the wire; and tokens that end at a test's word."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from gql_jobs.jetstream.server import embedded_server
from gql_jobs.settings import Settings
from tests.guarded import TokenTime
from tests.serving import ServedApi, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedApi]:
    """The API, without a worker: jobs stay as they were created until they are cancelled."""
    folder = tmp_path_factory.mktemp("wire")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded_server(folder / "store", max_store_bytes=1 << 30))
        yield await stack.enter_async_context(serving(Settings(nats_url=server.url, data_dir=folder / "data")))


@pytest.fixture
def token_time(movable_clock: None, monkeypatch: pytest.MonkeyPatch) -> TokenTime:  # noqa: ARG001 - it is moved
    """The time by which tokens and keys end."""
    return TokenTime(monkeypatch)
