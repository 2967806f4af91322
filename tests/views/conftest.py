"""What tests of the read side need that do without a server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.library import Library, open_library


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    """An empty index, its reader and its bus."""
    async with open_library(tmp_path / "index.sqlite") as opened:
        yield opened
