"""The parts of one API process, opened in the order in which they need each other.

``open_runtime`` opens the parts once, with NATS connected; ``RuntimeOpener`` does so in an application that answers
requests already, and tries again until NATS can be reached.
"""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from msgspec import Struct

from gql_jobs.access.authentication import Authentication, open_authentication
from gql_jobs.access.store import STALE_AFTER
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.index.index import Index, UnusableIndex, open_index
from gql_jobs.index.reader import Reader, open_reader
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.errors import ApiError, StreamReplaced
from gql_jobs.jobs.coded_schedules import coded_schedules
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import NOBODYS_ID, Artifact, Cursor, Job, parse_job_id
from gql_jobs.jobs.payload_codec import StoredPayloads, load_codec
from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.jobs.viewer import Visibility
from gql_jobs.live.bulk_runs import BulkRuns, open_bulk_runs
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import Feed, FeedCounters, run_feed
from gql_jobs.live.gate import GateHolder
from gql_jobs.live.losses import Losses
from gql_jobs.live.polled import PolledFiguresByKind
from gql_jobs.live.queue_pauses import QueuePauses
from gql_jobs.live.steering import Steering
from gql_jobs.live.store_reach import StoreReach
from gql_jobs.live.tally import Tally
from gql_jobs.live.ticks import Ticks
from gql_jobs.live.watch import Watch
from gql_jobs.live.windows import Windows, open_windows
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deletion import JobDeletions
from gql_jobs.log.heartbeats import Presence, watch_workers
from gql_jobs.log.job_log import open_job_log
from gql_jobs.log.retention import EXPIRED_EVENT_TTL
from gql_jobs.log.schedules import ScheduleCommands
from gql_jobs.log.stored_limits import store_type_limits
from gql_jobs.log.streams import (
    UnsuitableServer,
    ensure_consumers,
    ensure_streams,
    missing_consumers,
    stream_info,
    unsuitable_streams,
)
from gql_jobs.maintenance import Maintenance
from gql_jobs.processes.event_loop import in_background
from gql_jobs.processes.lock import FolderInUse, FolderLock
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

_CHECK_TIMEOUT = 1.0
"""Seconds that a readiness check may take."""
_NOT_RUN = (
    "The application does not run yet: the server, or the host that it is mounted in, has to run its lifespan "
    "(app.router.lifespan_context(app))."
)
_NOT_REACHED = "NATS has not been reached yet; the log of this process says what it tries"
"""Of trouble with NATS, whoever may ask for readiness is told neither addresses nor what a server has answered."""
_MOST_PROCESSES = 64
"""API processes that may share a data folder."""
_RETRY_DELAY = 1.0
"""Seconds between two attempts to open the runtime."""
_OPENS_WITHIN = 3.0
"""Seconds from the start of a process in which its runtime commonly opens, where NATS is there."""
_PERMANENT = (UnsuitableServer, FolderInUse, OSError)
"""Failures that another attempt would repeat; their messages are sentences."""


class Check(Struct, frozen=True):
    """One check of the readiness report: whether it holds, and a message about it."""

    ok: bool
    message: str


class Runtime(Struct):
    """The parts of an API process, as resolvers, ``/readyz`` and ``/metrics`` use them."""

    settings: Settings
    registry: Registry
    connection: Connection
    commands: JobCommands
    schedules: ScheduleCommands
    ticks: Ticks
    deletions: JobDeletions
    maintenance: Maintenance
    index: Index
    reader: Reader
    feed: Feed
    bus: EventBus
    watch: Watch
    windows: Windows
    polled: PolledFiguresByKind
    bulk_runs: BulkRuns
    pauses: QueuePauses
    presence: Presence
    artifacts: ArtifactStore
    access: Authentication
    steering: Steering
    gate: GateHolder

    async def job(self, job_id: str, visibility: Visibility, budget: Budget | None = None) -> Job | None:
        """Return the job, from the index or else from the stream; None if it is unknown or the id is no UUID.

        :param visibility: a job that is not within it is as unknown as one that does not exist, and takes as long.
        :param budget: of which each message that the stream has of the job is taken; None where nobody counts.
        :raises OverBudget: if there is not so much left.
        :raises QueueUnavailable: if the index does not know the id and the stream cannot be read.
        """
        known = parse_job_id(job_id)
        if known is None:
            return None
        shown = self.index.shows(known, visibility)
        job = self.index.job(known) if shown else None
        if job is not None:
            return job
        counted = budget if budget is not None else Budget()
        job = await self.commands.find(NOBODYS_ID if shown is False else known, partial(counted.take, 1))
        return job if job is not None and visibility.shows(job) else None

    async def artifact(self, job_id: str, name: str, visibility: Visibility) -> Artifact | None:
        """Return the job's file of that name, from the index or else from the stream; None if it has none.

        :param visibility: a job that is not within it has no files.
        :raises QueueUnavailable: if the index does not know the job and the stream cannot be read.
        """
        if await self.job(job_id, visibility) is None:
            return None
        if self.index.job(job_id) is not None:
            return self.index.artifact(job_id, name)
        return await self.artifacts.find(job_id, name)

    async def events(self, job_id: str, after: Cursor, first: int, budget: Budget) -> list[Event]:
        """Return at most ``first`` of the job's events behind a cursor, oldest first, from the index or the stream.

        :param budget: of which each event is taken before it is read, and each message where the stream is read.
        :raises OverBudget: if there is not so much left.
        :raises QueueUnavailable: if the index does not know the job and the stream cannot be read.
        """
        found = await self.reader.history(job_id, after, first, partial(budget.take, 1))
        # Asked only where nothing was found: beside reads in threads each statement on the event loop waits for the
        # interpreter's lock, and a page asks this of all its jobs.
        if found or self.index.job(job_id) is not None:
            return found
        history = await self.commands.history(job_id, partial(budget.take, 1))
        return [event for event in history.events if event.cursor > after][:first]

    async def saved(self, job_id: str, budget: Budget) -> list[Artifact]:
        """Return the job's files, sorted by name, from the index or else from the stream.

        :param budget: of which each file is taken before it is read, and each message where the stream is read.
        :raises OverBudget: if there is not so much left.
        :raises QueueUnavailable: if the index does not know the job and the stream cannot be read.
        """
        found = await self.reader.artifacts(job_id, partial(budget.take, 1))
        if found is not None:
            return found
        return (await self.commands.history(job_id, partial(budget.take, 1))).artifacts

    async def checks(self) -> dict[str, Check]:
        """Return the readiness checks by name, all of which hold if the process can serve; takes a second at most."""
        checks = {
            "nats": self._reachable(),
            "streams": await self._streams(),
            "feed": self._feed(),
            "history": self._history(),
        }
        return {**checks, "credentials": self._credentials()} if self.access.required else checks

    async def reaches_store(self) -> bool:
        """Return whether NATS is connected and its JetStream has the stream of the jobs; waits for its answer."""
        if not self.connection.connected:
            return False
        try:
            await stream_info(self.connection)
        except (QueueUnavailable, ApiError):
            return False
        return True

    def _feed(self) -> Check:
        now = self.feed.counters
        if self.feed.caught_up:
            return Check(True, f"at {now.position}")
        behind = f"{now.lag} messages behind" if now.lag else "not yet at the stream's end"
        return Check(False, f"the index is {behind}, {now.percent:g} % done")

    def _history(self) -> Check:
        """Say whether the stream has lost jobs lately; that is past, so the process is ready all the same.

        Which and how many they were is for those who may read the log: anybody may ask for readiness.
        """
        if not self.index.losses:
            return Check(True, "whole")
        at = self.index.losses[-1].at
        return Check(
            True, f"jobs were lost, or files of them, noticed at {at:%Y-%m-%d %H:%M:%S} UTC; the log says which"
        )

    def _credentials(self) -> Check:
        """Say whether this process knows which keys and tokens are valid; without that nearly all are refused."""
        try:
            self.access.check_followed()
        except QueueUnavailable:
            return Check(False, f"nothing was heard of the bucket of keys for {STALE_AFTER:g} s, so all are refused")
        if not self.access.has_provider_keys:
            # Keys and view tokens do without it.
            return Check(True, "followed; the keys of the identity provider were never read, so its tokens are refused")
        return Check(True, "followed")

    def _reachable(self) -> Check:
        if self.connection.connected:
            return Check(True, f"connected to NATS {self.connection.server_version}")
        return Check(False, "NATS is not reachable")

    async def _streams(self) -> Check:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                wrong = await unsuitable_streams(self.connection, self.settings)
                if wrong is None and (gone := await missing_consumers(self.connection, self.registry.queues)):
                    wrong = f"consumers are missing and are being made anew: {', '.join(gone)}"
        except (QueueUnavailable, ApiError, TimeoutError):
            wrong = "JetStream does not answer"
        return Check(wrong is None, wrong or "in place")


@asynccontextmanager
async def open_runtime(
    settings: Settings, imports: tuple[str, ...], stored: StoredPayloads | None = None
) -> AsyncIterator[Runtime]:
    """Open all parts and keep them running until the block ends; a part that fails ends the block with its error.

    :param stored: how payloads are stored; by default as the settings say.
    :raises FolderInUse, OSError: if the index cannot be kept in the data folder.
    :raises UnsuitableServer: if the NATS server is too old, or has no JetStream.
    :raises UnusableIndex: if the index cannot be written there, or not any more.
    :raises StreamReplaced: if the stream has lost what the index was made of; it can be opened again at once.
    :raises QueueUnavailable: if the NATS server does not answer any more.
    """
    registry = load_job_types(imports, settings.types)
    stored = stored or load_codec(settings.codec)
    async with AsyncExitStack() as stack:
        path = _own_index(stack, settings.data_dir)
        connection = await stack.enter_async_context(connect(settings, "gql-jobs api"))
        await ensure_streams(connection, settings)
        await ensure_consumers(connection, registry.queues, settings.ack_wait)
        access = await stack.enter_async_context(open_authentication(connection, settings))
        stored.hash_key = await access.hash_key()
        job_log = await stack.enter_async_context(open_job_log(connection))
        await store_type_limits(job_log, registry)
        stream = await stream_info(connection)
        index = stack.enter_context(open_index(path, stream.created, stream.state.last_seq, EXPIRED_EVENT_TTL))
        reader = await stack.enter_async_context(open_reader(index))
        bus = EventBus(reader.events_after, index.position)
        tally = Tally((kind.name for kind in registry), stream.state.last_seq)
        feed = await stack.enter_async_context(run_feed(connection, index, bus, tally))
        artifacts = ArtifactStore(job_log, settings)
        losses = Losses(
            job_log, index, reader, feed, bus, artifacts=artifacts, settings=settings, queues=registry.queues
        )
        await stack.enter_async_context(in_background(losses.run()))
        maintenance = Maintenance(job_log, artifacts, index, reader, feed, settings=settings)
        await stack.enter_async_context(in_background(maintenance.run()))
        pauses = QueuePauses(job_log, feed)
        await stack.enter_async_context(in_background(pauses.run()))
        commands = JobCommands(job_log, settings, index.first_seq, index.shows, stored, is_limited=feed.is_limited)
        schedules = ScheduleCommands(job_log, commands, registry, stored)
        presence = await stack.enter_async_context(watch_workers(connection))
        await schedules.synchronise(coded_schedules)
        ticks = Ticks(job_log, feed.steering, index, schedules)
        gate = GateHolder(job_log, commands, index, feed, presence, beside=[ticks])
        await stack.enter_async_context(in_background(gate.run()))
        deletions = JobDeletions(job_log, commands, artifacts)
        yield Runtime(
            settings=settings,
            registry=registry,
            connection=connection,
            commands=commands,
            schedules=schedules,
            ticks=ticks,
            deletions=deletions,
            maintenance=maintenance,
            index=index,
            reader=reader,
            feed=feed,
            bus=bus,
            watch=Watch(connection, index, feed, bus, commands),
            polled=PolledFiguresByKind(),
            bulk_runs=await stack.enter_async_context(open_bulk_runs(commands, deletions, reader, feed, access)),
            pauses=pauses,
            windows=stack.enter_context(open_windows(index, reader)),
            artifacts=artifacts,
            access=access,
            steering=feed.steering,
            presence=presence,
            gate=gate,
        )


def _own_index(stack: AsyncExitStack, data_dir: Path) -> Path:
    """Lock and return the first index file of the folder that no other process has.

    :raises FolderInUse: if there is none.
    """
    for number in range(_MOST_PROCESSES):
        path = data_dir / f"index-{number}.sqlite"
        try:
            stack.enter_context(FolderLock(path.with_suffix(".lock")))
        except FolderInUse:
            continue
        return path
    raise FolderInUse(f"{data_dir} has the indexes of {_MOST_PROCESSES} running processes; use another folder.")


class RuntimeOpener:
    """Opens the runtime of one process while it answers requests already, and tries again until NATS can be reached.

    :param on_open: called with the runtime, once.
    """

    def __init__(
        self,
        settings: Settings,
        imports: tuple[str, ...],
        on_open: Callable[[Runtime], None],
        stored: StoredPayloads | None = None,
    ) -> None:
        self._stored = stored
        self._settings = settings
        self._imports = imports
        self._on_open = on_open
        self.current: Runtime | None = None
        """The runtime while it is open, else None. A plain attribute, because each operation reads it."""
        self.store_reach = StoreReach(self._reaches_store, self._note_reach)
        """Whether this process reaches the store; its ``run`` keeps that up to date."""
        self._began: float | None = None
        """When ``run`` began, by the event loop's clock; None before."""
        self._opened = asyncio.Event()
        """Set once the runtime has been opened for the first time."""
        self._ending = asyncio.Event()
        self._was_opened = False
        self._replaced = False
        """Whether it is opened again because the stream has lost what the index was made of."""
        self.failed = asyncio.Event()
        """Set when the runtime cannot be opened or a part of it has failed: the process has to end."""
        self.startup_error: Exception | None = None
        """Why the runtime cannot be opened, if another attempt would fail alike; its message is a sentence."""

    @property
    def runtime(self) -> Runtime:
        """Return the runtime.

        :raises QueueUnavailable: while it is not open yet, and once it is being closed.
        """
        if self.current is None:
            raise self.unavailable()
        return self.current

    def unavailable(self) -> QueueUnavailable:
        """Return the error for an operation that needs the runtime while it is not open."""
        if self._was_opened:
            return QueueUnavailable("This process of the server is ending; try again.")
        if self._began is None:
            return QueueUnavailable(_NOT_RUN)
        if self.startup_error is not None:
            return QueueUnavailable("The server cannot start; its log says why.")
        if self._replaced:
            return QueueUnavailable("Jobs of this server were lost, and its index is being built anew; try again.")
        return QueueUnavailable("The server is still starting: it has not reached NATS yet.")

    async def opened_soon(self) -> None:
        """Wait for the runtime where the process has only just started; return whether it has opened or not.

        Clients that lost the process before come back at once, and some give up for good what is refused then.
        """
        if self._began is None or self._opened.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._began + _OPENS_WITHIN):
                await self._opened.wait()

    async def checks(self) -> dict[str, Check]:
        """Return the checks of the runtime; while it is not open, one that fails and says how far it is."""
        if self.current is not None:
            return await self.current.checks()
        if self._was_opened or self._replaced or self._began is None or self.startup_error is not None:
            return {"nats": Check(False, self.unavailable().message)}
        return {"nats": Check(False, _NOT_REACHED)}

    async def _reaches_store(self) -> bool:
        return self.current is not None and await self.current.reaches_store()

    def _note_reach(self, reachable: bool) -> None:
        if self.current is not None:
            self.current.presence.note_reach(reachable)

    @property
    def feed(self) -> FeedCounters | None:
        """Return the counters of the feed; None while the runtime is not open."""
        return None if self.current is None else self.current.feed.counters

    def end(self) -> None:
        """Say that no request is under way any more, nor comes; call it before ``run`` is cancelled."""
        self._ending.set()

    async def run(self) -> None:
        """Open the runtime and keep it open until cancelled.

        With an index that has failed it is kept open until ``end``, whatever cancels it.

        Raises nothing but its cancellation: a failure that waiting cannot mend sets ``failed`` and is logged or becomes
        the ``startup_error``.
        """
        self._began = asyncio.get_running_loop().time()
        try:
            while True:
                await self._keep_open()
                await asyncio.sleep(_RETRY_DELAY)
        except Exception as error:
            cause = _first_cause(error)
            if isinstance(cause, _PERMANENT) and not self._was_opened and not _is_full(cause):
                self.startup_error = cause
                log.debug("the API cannot start: %s", cause)
            elif isinstance(cause, UnusableIndex):
                self._fail(cause)
            elif isinstance(cause, OSError):
                log.critical("the API cannot go on: a file in %s takes no writes: %s", self._settings.data_dir, cause)
            else:
                # The process has to end: without its feed it would answer from an index that is never updated.
                log.critical("the API cannot go on", exc_info=error)
            self.failed.set()

    def _fail(self, cause: Exception) -> None:
        """Have the process end, and say why, once."""
        if not self.failed.is_set():
            log.critical("the API cannot go on: %s", cause)
            self.failed.set()

    async def _keep_open(self) -> None:
        """Open the runtime and keep it open; return only if it has to be opened again.

        That is, if NATS did not answer while it was being opened, or if the stream has lost what the index was made of.
        """
        try:
            async with open_runtime(self._settings, self._imports, self._stored) as runtime:
                self.current, self._was_opened = runtime, True
                self._opened.set()
                self._on_open(runtime)
                for callbacks in (runtime.connection.on_disconnect, runtime.connection.on_reconnect):
                    callbacks.append(self.store_reach.look_soon)
                self.store_reach.look_soon()
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    if (failure := runtime.index.failure) is not None:
                        self._fail(failure)
                        # Writes that are under way go on without the index; the server ends once they are answered.
                        # Each part that fails with the index cancels this.
                        while not self._ending.is_set():
                            with suppress(asyncio.CancelledError):
                                await self._ending.wait()
                    self.current = None
                    self.store_reach.look_soon()
        except* StreamReplaced:
            self._was_opened, self._replaced = False, True
        except* QueueUnavailable as refusals:
            if self._was_opened:
                raise
            log.warning("the API cannot start yet: %s", str(_first_cause(refusals)).rstrip("."))


def _is_full(error: Exception) -> bool:
    """Return whether an error passes once somebody has made room on a disk."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
