"""Accounts of a nats-server, each for one test alone: none has had its streams and subjects before, none gets them.

What one server costs, in its start and its end, is so shared by many tests. It is a real one on a free port, whose
store is thrown away with it.
"""

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from gql_jobs.jetstream.server import EmbeddedServer, embedded_server

PER_SERVER = 64
"""Accounts of one server: what a test has stored there stays until the last of them has been used."""
_STORE_BYTES = 100 << 30


class FreshAccounts:
    """Accounts, one after the other; whenever those of a server are used up, another server takes its place.

    Its methods are for one event loop.

    :param folder: for the stores of the servers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unused: list[str] = []
        self._server: EmbeddedServer | None = None
        self._running = AsyncExitStack()
        self._servers = 0

    async def take(self) -> str:
        """Return the URL of an account that nobody has had, with its user and password.

        The account before it may be gone from then on.

        :raises EmbeddedServerError: if nats-server is missing or does not start.
        """
        if not self._unused or self._server is None or self._server.returncode is not None:
            await self.end()
            names = [f"test-{number}" for number in range(PER_SERVER)]
            self._servers += 1
            server = embedded_server(self._folder / str(self._servers), max_store_bytes=_STORE_BYTES, accounts=names)
            self._server, self._unused = await self._running.enter_async_context(server), names
        return self._server.url_of(self._unused.pop())

    async def end(self) -> None:
        """End the server."""
        if self._server is not None and self._server.returncode is None:
            # In an orderly way it takes ten seconds to leave a store behind that nobody opens again.
            os.kill(self._server.pid, signal.SIGKILL)
            await self._server.wait()
        await self._running.aclose()
        self._server = None
