"""The runtime being opened, while the process answers already: that it lives, and what it waits for."""

import asyncio
import logging
from collections.abc import Callable

from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.lock import FolderInUse
from gql_jobs.log.topology import UnsuitableServer
from gql_jobs.settings import Settings
from gql_jobs.views.feed import FeedCounters
from gql_jobs.web.runtime import Check, Runtime, open_runtime

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds between two tries."""
_HOPELESS = (UnsuitableServer, FolderInUse, OSError)
"""Failures that another try would only repeat; their messages are sentences."""


class Opening:
    """Opens the runtime of one process, however long NATS takes to be there."""

    def __init__(self, settings: Settings, imports: tuple[str, ...], on_open: Callable[[Runtime], None]) -> None:
        self._settings = settings
        self._imports = imports
        self._on_open = on_open
        self._runtime: Runtime | None = None
        self._trouble = "NATS has not been reached yet"
        self.failed = asyncio.Event()
        """Set when a part that all answers depend on has failed, or cannot be had."""
        self.refusal: Exception | None = None
        """Why it cannot be had, in a sentence."""

    @property
    def runtime(self) -> Runtime:
        """The runtime.

        :raises QueueUnavailable: while it is not open yet.
        """
        if self._runtime is None:
            raise QueueUnavailable("The server is still starting: it has not reached NATS yet.")
        return self._runtime

    @property
    def opened(self) -> Runtime | None:
        """The runtime, once it is open."""
        return self._runtime

    async def checks(self) -> dict[str, Check]:
        """What has to hold before this process should be sent requests."""
        return {"nats": Check(False, self._trouble)} if self._runtime is None else await self._runtime.checks()

    @property
    def feed(self) -> FeedCounters | None:
        """How far the feed is; None before it has begun."""
        return None if self._runtime is None else self._runtime.feed.counters

    async def run(self) -> None:
        """Open it and keep it open until cancelled; a failure is told by ``failed``."""
        try:
            while True:
                await self._keep_open()
                await asyncio.sleep(_PAUSE)
        except Exception as error:
            first = _first(error)
            if self._runtime is None and isinstance(first, _HOPELESS):
                self.refusal = first
            else:
                # Without its feed the process would go on to answer, from an index that stands still.
                log.critical("the API cannot go on", exc_info=error)
            self.failed.set()

    async def _keep_open(self) -> None:
        """Returns if the server did not answer."""
        try:
            async with open_runtime(self._settings, self._imports, self._wait_for) as runtime:
                self._runtime = runtime
                self._on_open(runtime)
                await asyncio.get_running_loop().create_future()
        except* QueueUnavailable as refusals:
            if self._runtime is not None:
                raise
            self._wait_for(str(_first(refusals)).rstrip("."))
            log.warning("the API cannot start yet: %s", self._trouble)

    def _wait_for(self, trouble: str) -> None:
        self._trouble = trouble


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
