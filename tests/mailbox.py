"""The development mailbox as a real process."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.child_processes import running_process


@dataclass(frozen=True)
class RunningMailbox:
    """Where it listens."""

    smtp_port: int
    http_port: int

    async def get(self, path: str, **params: str) -> httpx.Response:
        """An HTTP request to its page."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.http_port}") as client:
            return await client.get(path, params=params)

    async def mails(self, **params: str) -> list[dict[str, Any]]:
        """What ``/messages`` lists."""
        listed: list[dict[str, Any]] = (await self.get("/messages", **params)).raise_for_status().json()
        return listed


@asynccontextmanager
async def running_mailbox(data_dir: Path) -> AsyncIterator[RunningMailbox]:
    """A mailbox that keeps its mails under ``data_dir``."""
    command = (sys.executable, "-m", "gql_jobs.dev.mailbox", "--data-dir", str(data_dir))
    async with running_process(*command, stdout=PIPE) as process:
        assert process.stdout is not None
        ports = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        yield RunningMailbox(**ports)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
