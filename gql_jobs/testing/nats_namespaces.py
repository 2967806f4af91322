"""The nats-server of a process of tests, and its namespaces: accounts, made beforehand, whose streams nobody else sees.

It runs in a thread of its own, so that tests with and without an event loop share one. A namespace that is given back
is wiped while the next test has another one already: no test waits for that.
"""

import asyncio
import tempfile
from concurrent.futures import Future, wait
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from gql_jobs.jetstream.connection import connect
from gql_jobs.jetstream.errors import JetStreamError
from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.settings import Settings

NAMESPACES = 8
"""How many there are: that of the test that runs, and those that are being wiped."""
_FREE_WITHIN = 60.0
"""Seconds to wait for one, where all are in use or being wiped."""
_ENDED_WITHIN = 10.0
"""Seconds that those have at the end that are being wiped."""
_PAUSE = 0.2
"""Seconds between two tries to wipe one."""


class Namespace(NamedTuple):
    """What one environment has for itself; ``url`` is that of the server, with user and password."""

    name: str
    url: str


class _Names(msgspec.Struct):
    streams: list[str] | None = None


class NatsNamespaces:
    """A nats-server on a free port, with its store in a temporary folder; ``with`` starts and ends it.

    Its methods are for any thread, and block it: a coroutine calls them by ``asyncio.to_thread``.
    """

    def __init__(self) -> None:
        self._ended = ExitStack()
        self._stopped = ExitStack()
        self._names = tuple(f"test-{number}" for number in range(NAMESPACES))
        self._free: SimpleQueue[str] = SimpleQueue()
        for name in self._names:
            self._free.put(name)
        self._wiping: set[Future[None]] = set()
        self._server: EmbeddedServer | None = None
        self._port = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gql-jobs-tests-")))
            self._portal: BlockingPortal = stack.enter_context(start_blocking_portal())
            stack.callback(self.stop)
            self.start()
            self._ended = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            wait(self._wiping, _ENDED_WITHIN)
        # A server that has gone is waited for by whoever connects to it.
        for wiping in list(self._wiping):
            wiping.cancel()
        self._ended.close()

    def start(self) -> None:
        """Start the server with what it had stored, at the port that it had; do nothing if it runs.

        :raises EmbeddedServerError: if nats-server is missing or does not start.
        """
        if self._server is None:
            server = embedded_server(self._folder, port=self._port, accounts=self._names)
            self._server = self._stopped.enter_context(self._portal.wrap_async_context_manager(server))
            self._port = self._server.port

    def stop(self) -> None:
        """Stop the server, and keep what it has stored; do nothing if it does not run."""
        self._server = None
        self._stopped.close()

    def take(self) -> Namespace:
        """Return an empty namespace, which nobody else has until it is given back.

        :raises RuntimeError: if none becomes free, because too many environments are open.
        """
        self.start()
        assert self._server is not None
        try:
            name = self._free.get(timeout=_FREE_WITHIN)
        except Empty:
            raise RuntimeError(
                f"No namespace is free: {len(self._names)} environments are open at once in this process."
            ) from None
        return Namespace(name, self._server.url_of(name))

    def give_back(self, namespace: Namespace) -> None:
        """Have a namespace wiped, to be taken again; returns at once. Nothing may be connected to it any more."""
        wiping = self._portal.start_task_soon(self._wipe, namespace)
        self._wiping.add(wiping)
        wiping.add_done_callback(self._wiping.discard)

    async def _wipe(self, namespace: Namespace) -> None:
        async with connect(Settings(**settings_of(namespace)), "gql-jobs tests") as connection:
            while True:
                try:
                    names = msgspec.json.decode(await connection.api("STREAM.NAMES"), type=_Names).streams
                    if not names:
                        break
                    for name in names:
                        await connection.api(f"STREAM.DELETE.{name}")
                except JetStreamError:
                    await asyncio.sleep(_PAUSE)
        self._free.put(namespace.name)


def settings_of(namespace: Namespace) -> dict[str, Any]:
    """Return the settings that lead to a namespace and nowhere else, whatever the environment says of NATS."""
    others = ("nats_user", "nats_password", "nats_creds", "nats_ca", "nats_cert", "nats_key")
    return {"nats_url": namespace.url, "nats_inbox": "_INBOX", "replicas": 1, **dict.fromkeys(others)}
