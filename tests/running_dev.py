"""``gql-jobs dev`` in tests, as a user runs it."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import psutil

from tests.child_processes import all_ended, tree
from tests.deadline import until

_LABELS = ("Dashboard", "GraphiQL", "API", "Mailbox", "NATS", "Monitoring")


class Dev:
    """A running ``dev``: its process, and what it has printed."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def out(self) -> str:
        """Its stdout so far."""
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        """Its stderr so far."""
        return (self._folder / "err").read_text()

    def urls(self) -> dict[str, str]:
        """The printed addresses by label."""
        return dict(re.findall(rf"^({'|'.join(_LABELS)}) +(\S+)$", self.out, re.MULTILINE))

    async def ready(self) -> dict[str, str]:
        """Wait until everything is printed."""

        def printed() -> dict[str, str]:
            assert self.process.returncode is None, self.err
            urls = self.urls()
            return urls if "Monitoring" in urls else {}

        return await until(printed, "dev has printed where everything is", within=60)

    async def api_is_back(self) -> None:
        """Wait until an API process that was killed has been replaced by one that is ready."""

        async def is_ready() -> bool:
            try:
                return (await http.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        async with httpx.AsyncClient(base_url=self.urls()["API"].removesuffix("/graphql"), trust_env=False) as http:
            await until(is_ready, "the API is back", within=30)

    def child(self, part: str) -> psutil.Process | None:
        """The process of the tree that is nats-server, or ``python -m <part>``; None where it has ended."""
        for process in tree(self.process.pid)[1:]:
            # Killed, and not yet collected by its parent.
            with suppress(psutil.NoSuchProcess):
                if process.name() == part or f" -m {part} " in f"{' '.join(process.cmdline())} ":
                    return process
        return None


@asynccontextmanager
async def running_dev(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Dev]:
    """``gql-jobs dev`` on free ports, with its data below the folder; killed when the block ends, if it still runs."""
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gql_jobs", "dev", "--port", "0", "--monitor-port", "0"),
            *("--data-dir", str(folder / "data"), *arguments),
            cwd=folder,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    running: list[psutil.Process] = []
    try:
        yield Dev(process, folder)
    except BaseException:
        print((folder / "err").read_text())  # noqa: T201
        raise
    finally:
        if process.returncode is None:
            running = tree(process.pid)
            process.kill()
        await process.wait()
        await all_ended(running, within=20)
