"""An API and a worker that run on the event loop of a test, as their own processes would run them."""

import asyncio
from collections.abc import Callable

from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.processes.listening import listen
from gql_jobs.settings import Settings
from gql_jobs.web.app import app_schema
from gql_jobs.web.runtime import Runtime
from gql_jobs.web.server import http_server
from gql_jobs_worker.pool import Pool, run_pool

_HOST = "127.0.0.1"
_READY_WITHIN = 60.0
"""Seconds that a part has to be ready."""
_POLL = 0.002
"""Seconds between two looks at what nobody tells of."""


class ServedApi:
    """An API that is served at a free port of this machine; it begins to start at once."""

    def __init__(self, settings: Settings, imports: tuple[str, ...]) -> None:
        self._server = http_server(settings, imports, _schema_for(settings, imports))
        listeners = listen(_HOST, 0)
        self.url = f"http://{_HOST}:{listeners[0].getsockname()[1]}"
        """Where it answers."""
        self._running = asyncio.create_task(self._server.serve_beside(listeners), name="api of a test")

    @property
    def runtime(self) -> Runtime:
        """Its parts, once it is ready."""
        runtime: Runtime = self._server.app.state.opener.runtime
        return runtime

    async def ready(self) -> None:
        """Wait until it answers.

        :raises RuntimeError: if it cannot start; the cause says why.
        """
        opener = self._server.app.state.opener

        def is_ready() -> bool:
            if opener.failed.is_set() or self._running.done():
                raise RuntimeError("The API of the test cannot start.") from opener.startup_error
            return self._server.started and opener.current is not None

        await until(is_ready, "The API of the test is not ready")

    async def stop(self) -> None:
        """End it at once: whoever is connected is cut off."""
        self._running.cancel()
        await asyncio.wait({self._running})


_built: dict[tuple[object, ...], JobsSchema] = {}
"""The schema of the last API, by what it was made of: most of the time that an API takes to start goes into it."""


def _schema_for(settings: Settings, imports: tuple[str, ...]) -> JobsSchema:
    if settings.codec is not None:
        return app_schema(settings, imports)  # it holds the codec, which may have been loaded anew
    others = settings.model_copy(update={"nats_url": None, "data_dir": None})
    # The schema holds the types, so that no other one gets the same id.
    made_of = (*map(id, load_job_types(imports, settings.types)), repr(others))
    if made_of not in _built:
        _built.clear()
        _built[made_of] = app_schema(settings, imports)
    return _built[made_of]


class RunningWorker:
    """A worker that serves the queues of all job types; it begins to start at once.

    :param queues: what it serves instead, if there are any.
    """

    def __init__(self, settings: Settings, registry: Registry, queues: tuple[str, ...]) -> None:
        self._stop_fetching, self._hand_back, self._started = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._pool: Pool | None = None
        pool = run_pool(
            settings,
            registry,
            queues,
            stop_fetching=self._stop_fetching,
            hand_back=self._hand_back,
            started=self._started,
            opened=self._note,
        )
        self._running = asyncio.create_task(pool, name="worker of a test")

    def _note(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def is_connected(self) -> bool:
        """Whether it is connected to NATS."""
        return self._pool is not None and self._pool.connected

    async def ready(self) -> None:
        """Wait until it takes jobs.

        :raises Exception: what keeps it from that.
        """
        starting = asyncio.create_task(self._started.wait())
        try:
            await asyncio.wait({starting, self._running}, timeout=_READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        finally:
            starting.cancel()
        if not self._started.is_set():
            if self._running.done():
                self._running.result()
            raise RuntimeError(f"The worker of the test is not ready within {_READY_WITHIN:g} s.")

    async def stop(self) -> None:
        """End it as at a shutdown without grace: jobs that run are handed back."""
        if not self._started.is_set():
            self._running.cancel()
        self._stop_fetching.set()
        self._hand_back.set()
        await asyncio.wait({self._running})

    async def kill(self, beside: Connection) -> None:
        """End it as if its process were killed, and have the server deliver again at once what it had in hand.

        :param beside: another connection to the namespace. By it the deliveries are given back whose leases would run
            out in time.
        """
        replies = await self._pool.vanish() if self._pool is not None else []
        self._running.cancel()
        await asyncio.wait({self._running})
        for reply in replies:
            await beside.publish(reply, b"-NAK")


async def until(condition: Callable[[], bool], else_told: str) -> None:
    """Wait until something holds that nobody tells of.

    :raises RuntimeError: if it does not within a minute.
    """
    try:
        async with asyncio.timeout(_READY_WITHIN):
            while not condition():  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise RuntimeError(f"{else_told} within {_READY_WITHIN:g} s.") from None
