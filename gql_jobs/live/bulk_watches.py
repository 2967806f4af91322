"""Who watches runs of bulk actions: however many they are, a run is looked at once for all of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self

from msgspec.structs import replace

from gql_jobs.jobs.bulk import BulkRun, BulkState
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.viewer import Viewer

log = logging.getLogger(__name__)

_LOOKS = 0.25
"""Seconds between two looks at a run of this process; at others a fourth as often."""
_AFTER_OUTAGE = 3.0
"""Seconds in which a run says that it goes on, once NATS is there again."""


class RunState(NamedTuple):
    """A run as it stands, as an event of whoever watches it."""

    run: BulkRun
    key: str
    cursor: None = None


class _Watched:
    """A run that somebody watches."""

    def __init__(self, newest: BulkRun) -> None:
        self.newest = newest
        self.failure: QueueUnavailable | None = None
        """Why nothing more is known of it here."""
        self.changed = asyncio.Event()
        """Set when there is something new; it is another event from then on."""
        self.watchers = 0
        self.task: asyncio.Task[None] | None = None

    def tell(self, run: BulkRun | None, failure: QueueUnavailable | None = None) -> None:
        """Have all who watch take notice."""
        self.newest, self.failure = run or self.newest, failure
        self.changed.set()
        self.changed = asyncio.Event()


class RunWatches:
    """The watches of one process."""

    def __init__(self, look: Callable[[str], Awaitable[BulkRun | None]], is_here: Callable[[str], bool]) -> None:
        """:param look: returns a run by its id as it is now; raises QueueUnavailable if NATS does not answer.

        :param is_here: returns whether this process runs it.
        """
        self._look = look
        self._is_here = is_here
        self._watched: dict[str, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def open(self, run: BulkRun, viewer: Callable[[], Viewer]) -> "RunWatch":
        """Return the states of a run from this one to its end, which has to be closed.

        :param viewer: returns for whom at the moment.
        """
        watched = self._watched.get(run.id)
        if watched is None:
            watched = self._watched[run.id] = _Watched(run)
            watched.task = asyncio.create_task(self._follow(watched))
        elif watched.newest.state is BulkState.RUNNING:
            watched.tell(run)
        watched.watchers += 1
        return RunWatch(self, watched, viewer)

    def leave(self, watched: _Watched) -> None:
        """Watch a run for one less."""
        watched.watchers -= 1
        run_id = watched.newest.id
        if not watched.watchers and self._watched.get(run_id) is watched:
            del self._watched[run_id]
            if watched.task is not None:
                watched.task.cancel()

    def tell(self, run: BulkRun) -> None:
        """Tell those who watch a run how it has ended."""
        if run.id in self._watched:
            self._watched[run.id].tell(run)

    def close(self) -> None:
        """End all watches: nothing can be looked at any more."""
        for watched in self._watched.values():
            if watched.task is not None:
                watched.task.cancel()
            watched.tell(None, QueueUnavailable("This process of the server is ending; try again."))

    async def _follow(self, watched: _Watched) -> None:
        run_id, was_away = watched.newest.id, False
        while watched.newest.state is BulkState.RUNNING:
            await asyncio.sleep(_LOOKS if self._is_here(run_id) else 4 * _LOOKS)
            try:
                found = await self._look(run_id)
            except QueueUnavailable:
                # The run waits for NATS as well, and so do those who watch it.
                was_away = True
                continue
            except Exception:
                log.exception("bulk run %s could not be watched", run_id)
                watched.tell(None, QueueUnavailable("The run could not be read; try again."))
                return
            found = found or watched.newest.as_interrupted
            if was_away and found.state is BulkState.INTERRUPTED:
                was_away = False
                await asyncio.sleep(_AFTER_OUTAGE)
            elif found != watched.newest and watched.newest.state is BulkState.RUNNING:
                watched.tell(found)


class RunWatch:
    """An async iterator over the states of a run, which ends with the last of them, or when it is not shown any more.

    Iterating raises ``QueueUnavailable`` if nothing more will be known here.
    """

    def __init__(self, watches: RunWatches, watched: _Watched, viewer: Callable[[], Viewer]) -> None:
        self._watches = watches
        self._watched = watched
        self._viewer = viewer
        self._told: BulkRun | None = None
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunState:
        while not self._is_closed and (self._told is None or self._told.state is BulkState.RUNNING):
            found, changed = self._watched.newest, self._watched.changed
            if not found.is_shown_to(self._viewer()):
                break
            if self._told is None or replace(found, heard_at=self._told.heard_at) != self._told:
                self._told = found
                return RunState(found, f"{found.id}.{found.state}.{found.done}.{found.skipped}.{found.failed}")
            if self._watched.failure is not None:
                raise self._watched.failure
            await changed.wait()
        raise StopAsyncIteration

    def step_back(self) -> None:
        """Bring the last state once more."""
        self._told = None

    async def aclose(self) -> None:
        """Look at the run no longer."""
        if not self._is_closed:
            self._is_closed = True
            self._watches.leave(self._watched)
