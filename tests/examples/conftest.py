"""What the examples are written for. Only where they have been installed: it takes a while to run them."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.running import ROOT
from tests.running_dev import Dev, running_dev


@pytest.fixture(scope="module")
def installed() -> None:
    """Skips where the examples cannot run."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    if not (ROOT / "examples" / "javascript" / "node_modules").is_dir():
        pytest.skip("the npm packages of the examples are not installed: make examples")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dev(installed: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:  # noqa: ARG001
    """``gql-jobs dev``, with its mailbox that refuses a mail twice."""
    async with running_dev(tmp_path_factory.mktemp("dev")) as running:
        await running.ready()
        yield running
