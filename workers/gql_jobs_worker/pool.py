"""The pool of one worker process: its slots, its heartbeats, and its shutdown in two stages.

Stage one stops pulling and lets running jobs finish within the grace period; stage two hands the rest back, which
costs them no attempt.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial

from gql_jobs import clock
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.errors import GqlJobsError
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.payload_codec import HashKey, StoredPayloads, load_codec
from gql_jobs.jobs.registry import Registry
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import Unreadable
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deliveries import Delivery
from gql_jobs.log.heartbeats import Heartbeat, ask_workers, publish_heartbeat, publish_heartbeats
from gql_jobs.log.job_log import JobLog, open_job_log, queue_errors
from gql_jobs.log.streams import (
    StreamInfo,
    ensure_consumers,
    ensure_streams,
    make_missing,
    stored_queues,
    stream_info,
    waiting_queues,
)
from gql_jobs.processes.event_loop import LoopLag, in_background
from gql_jobs.settings import Settings
from gql_jobs_worker.abilities import Abilities, open_abilities
from gql_jobs_worker.attempt import Attempts
from gql_jobs_worker.cancellations import Receipts, follow_cancellations
from gql_jobs_worker.claim import Claims, Takeovers
from gql_jobs_worker.execution import HandlerExecution, Stop, start_task
from gql_jobs_worker.intake import Intake, Leases, keep_leases
from gql_jobs_worker.metrics import serve_metrics
from gql_jobs_worker.pauses import FollowedPauses
from gql_jobs_worker.process_life import ProcessLife, import_handlers
from gql_jobs_worker.record import Records
from gql_jobs_worker.sandbox.processes import open_cpu_processes
from gql_jobs_worker.telemetry import Counts, show_progress

log = logging.getLogger(__name__)

LOOK_INTERVAL = 2.0
"""Seconds between two looks whether streams and consumers are still there."""
RELEASE_TIMEOUT = 15.0
"""Seconds that handlers get to stop, and their outcomes to be recorded, in stage two."""


EARLIER_QUEUES_INTERVAL = 30.0
"""Seconds between two looks for queues that no job type uses any more, and that nobody serves."""


class Pool:
    """Runs jobs of ``queues``, at most ``settings.num_workers`` at a time."""

    def __init__(
        self,
        job_log: JobLog,
        execution: HandlerExecution,
        abilities: Abilities,
        settings: Settings,
        queues: tuple[str, ...],
        *,
        serves_earlier_queues: bool,
        stop_fetching: asyncio.Event,
        hand_back: asyncio.Event,
    ) -> None:
        """Put the parts of a worker together.

        :param serves_earlier_queues: whether queues of earlier versions are served, too, if jobs wait there that no
            worker takes.
        :param stop_fetching: set to begin stage one of the shutdown.
        :param hand_back: set to begin stage two before the grace period is over.
        """
        # The id is one token of a subject, in which a dot would separate two.
        host = socket.gethostname().replace(".", "-")
        self.id = f"{host}-{os.getpid()}-{secrets.token_hex(2)}"
        self.counts = Counts()
        """What the pool has counted since its start, for metrics."""
        self._job_log = job_log
        self._connection = job_log.connection
        self._settings = settings
        self._queues = queues
        self._serves_earlier_queues = serves_earlier_queues
        self._abilities = abilities
        self._leases = Leases(self.id, self.counts)
        self._intake = Intake(self._connection, queues, settings.ack_wait, settings.num_workers, self._leases)
        self._pauses = FollowedPauses(job_log, self._intake)
        self._takeovers = Takeovers(job_log, self.id, self._leases)
        receipts = Receipts(job_log, self.id)
        self._attempts = Attempts(
            job_log,
            ArtifactStore(job_log, settings),
            JobCommands(job_log, settings, stored=_sealed_alone(execution.stored)),
            public_url=settings.public_url,
            leases=self._leases,
            claims=Claims(
                job_log,
                self.id,
                execution=execution,
                abilities=abilities,
                takeovers=self._takeovers,
                is_paused=self._intake.is_paused,
                counts=self.counts,
            ),
            execution=execution,
            records=Records(job_log, settings, self.id, receipts, self.counts),
            receipts=receipts,
        )
        self._slots = asyncio.Semaphore(settings.num_workers)
        self._jobs: set[asyncio.Task[None]] = set()
        self._started_at = clock.now()
        self._changed = asyncio.Event()
        self._stop_fetching = stop_fetching
        self._hand_back = hand_back

    @property
    def connected(self) -> bool:
        """Return whether NATS is connected."""
        return self._connection.connected

    @property
    def running(self) -> int:
        """Return how many jobs run now."""
        return len(self._leases)

    @property
    def capacity(self) -> int:
        """Return how many jobs may run at a time."""
        return self._settings.num_workers

    async def run(self, stream: StreamInfo) -> None:
        """Run jobs until both stages of the shutdown are over.

        :param stream: as it is now; cancellations behind its last message are followed.
        """
        leases, ack_wait = self._leases, self._settings.ack_wait
        async with self._takeovers.answering(), asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._follow_stream(stream)),
                group.create_task(publish_heartbeats(self._connection, self._heartbeat, self._changed)),
                group.create_task(keep_leases(self._job_log, leases, self._intake, ack_wait, busy=self._slots.locked)),
            ]
            if self._serves_earlier_queues:
                background.append(group.create_task(self._serve_earlier_queues()))
            fetching = group.create_task(self._fetch())
            await self._stop_fetching.wait()
            fetching.cancel()
            await asyncio.wait({fetching})
            await self._finish()
            for task in background:
                task.cancel()
        await publish_heartbeat(self._connection, self._heartbeat(leaving=True))

    async def vanish(self) -> list[str]:
        """Stop as a process does that is killed: nothing is written, acked or said any more; for tests of what follows.

        Handlers are cancelled, as far as this process can. ``run`` has to be cancelled next.

        :returns: the subjects on which the deliveries in hand would have been acked.
        """
        replies = [lease.delivery.reply for lease in self._leases] + [held.reply for held in self._intake.held]
        await self._connection.end()
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        return replies

    async def _follow_stream(self, stream: StreamInfo) -> None:
        """Follow cancellations and pauses in the stream, and in the next one if it is deleted or its store is wiped."""
        start = stream.state.last_seq + 1
        while True:
            async with (
                in_background(follow_cancellations(self._connection, start, self._leases)),
                in_background(self._pauses.follow()),
            ):
                created = await self._until_replaced(stream.created)
            log.error("the stream of jobs is another one since %s: what runs here is a job of no stream", created)
            for lease in self._leases:
                lease.stop(Stop.SUPERSEDED)
            self._intake.drop_held()
            await self._pauses.forget()
            stream, start = StreamInfo(created, stream.state), 1

    async def _until_replaced(self, created: str) -> str:
        """Make streams and consumers anew that vanish, until the stream is another one; return when that was created.

        :param created: when the present one was created, as the server writes it.
        """
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            try:
                stream = await make_missing(self._connection, self._settings, self._queues)
            except (GqlJobsError, ApiError) as error:
                log.debug("the streams could not be looked at: %s", error)
            else:
                if stream.created != created:
                    return stream.created

    async def _serve_earlier_queues(self) -> None:
        """Serve queues that no job type uses any more as soon as nobody else does; never return."""
        while True:
            try:
                for queue in await abandoned_queues(self._connection, self._queues, self._abilities.known_types()):
                    await ensure_consumers(self._connection, (queue,), self._settings.ack_wait)
                    self._queues = (*self._queues, queue)
                    self._intake.add_queue(queue)
                    self._changed.set()
                    log.info("jobs wait in the queue %s of an earlier version, which is served here from now on", queue)
            except (GqlJobsError, ApiError) as error:
                log.debug("queues of earlier versions cannot be looked for: %s", error)
            await asyncio.sleep(EARLIER_QUEUES_INTERVAL)

    async def _fetch(self) -> None:
        await self._pauses.known.wait()
        while True:
            await self._slots.acquire()
            try:
                delivery = await self._intake.next()
            except BaseException:
                self._slots.release()
                raise
            task = asyncio.create_task(self._run(delivery), name=f"delivery {delivery.job_id}")
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)
            self._changed.set()

    async def _run(self, delivery: Delivery) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await self._attempts.run(delivery)
        finally:
            self._slots.release()
            self._intake.note_duration(clock() - began)
            self._changed.set()

    async def _finish(self) -> None:
        """Go through both stages of the shutdown."""
        await self._intake.stop()
        if self._jobs:
            grace = self._settings.shutdown_grace
            log.info("stopping: %d jobs may finish within %g s", len(self._jobs), grace)
            skip_grace = asyncio.create_task(self._hand_back.wait())
            finished = asyncio.create_task(self._all_done())
            await asyncio.wait({skip_grace, finished}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            skip_grace.cancel()
            finished.cancel()
        if self._jobs:
            log.info("handing %d jobs back", len(self._jobs))
            for lease in self._leases:
                lease.stop(Stop.HANDED_BACK)
            _, late = await asyncio.wait(self._jobs, timeout=RELEASE_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d jobs could not be handed back; their leases will run out", len(late))
                await asyncio.wait(late)

    async def _all_done(self) -> None:
        while self._jobs:
            await asyncio.wait(self._jobs)

    def _heartbeat(self, *, leaving: bool = False) -> Heartbeat:
        return Heartbeat(
            id=self.id,
            hostname=socket.gethostname(),
            queues=self._queues,
            job_types=self._abilities.types(self._queues),
            known_types=self._abilities.known_types(),
            unable=self._abilities.unable(),
            concurrency=self.capacity,
            running=self.running,
            started_at=self._started_at,
            leaving=leaving,
        )


def _sealed_alone(stored: StoredPayloads) -> StoredPayloads:
    """Return how the payloads of children are stored: as all others, but hashed with a key that nobody else has.

    Workers cannot read the key of the API. Without any, who reads jobs in NATS could try out passwords on the hashes;
    with this one other processes tell repetitions by the payloads themselves.
    """
    alone = copy(stored)
    alone.hash_key = HashKey(secrets.token_hex(8), secrets.token_bytes(32))
    return alone


async def abandoned_queues(connection: Connection, served: tuple[str, ...], known_types: tuple[str, ...]) -> list[str]:
    """Return the queues, but for those ``served`` here, with jobs that wait, that no worker serves and that are ours.

    Ours are those whose newest job is of one of the types that are known here: an installation may have several codes.

    :raises QueueUnavailable: if the server does not answer.
    """
    candidates = await waiting_queues(connection) - set(served)
    if candidates:
        candidates -= {queue for worker in await ask_workers(connection) for queue in worker.queues}
    found: list[str] = []
    for queue in sorted(candidates):
        with queue_errors():
            newest = await last_message(connection, codec.JOBS_STREAM, codec.submissions_of_queue(queue))
        with suppress(Unreadable):
            submission = codec.decode_body(Kind.QUEUED, newest.data) if newest is not None else None
            if isinstance(submission, Submission) and submission.spec.type in known_types:
                found.append(queue)
    return found


async def run_pool(
    settings: Settings,
    registry: Registry,
    queues: tuple[str, ...],
    *,
    stop_fetching: asyncio.Event,
    hand_back: asyncio.Event,
    started: asyncio.Event,
    opened: Callable[[Pool], None] = lambda _: None,
) -> None:
    """Connect to NATS, run a pool until its shutdown is over, and close the connection.

    :param queues: what to serve; empty for the queues of all job types, and those of earlier versions that nobody
        serves.
    :param stop_fetching: set to begin stage one of the shutdown.
    :param hand_back: set to begin stage two at once.
    :param started: set here once the pool runs; before that, cancelling this coroutine is enough.
    :param opened: called with the pool then.
    :raises UnsuitableServer: if the NATS server is too old.
    :raises ImportError: if there is no such codec as the settings name.
    :raises HookFailed: if a function that ``worker_startup`` has marked fails; no job was taken then.
    :raises ValueError: for a queue that neither a job type uses nor the server knows.
    """
    served = queues or tuple(registry.queues)
    stored = load_codec(settings.codec)
    life = ProcessLife(settings.startup_timeout)
    import_handlers(registry, served)
    async with connect(settings, "gql-jobs worker") as connection:
        await ensure_streams(connection, settings)
        await _check_queues(connection, registry, queues)
        await ensure_consumers(connection, served, settings.ack_wait)
        stream = await stream_info(connection)
        async with (
            open_job_log(connection) as job_log,
            open_cpu_processes(settings) as processes,
            open_abilities(registry, processes, partial(ask_workers, connection), settings.unable_timeout) as abilities,
        ):
            show_progress(settings.log_progress)
            asyncio.get_running_loop().set_task_factory(start_task)
            await life.start()
            execution = HandlerExecution(registry, processes, stored, life)
            pool = Pool(
                job_log,
                execution,
                abilities,
                settings,
                served,
                serves_earlier_queues=not queues,
                stop_fetching=stop_fetching,
                hand_back=hand_back,
            )
            opened(pool)
            started.set()
            log.info("worker %s serves %s, %d jobs at a time", pool.id, ", ".join(served), settings.num_workers)
            lag = LoopLag()
            try:
                with serve_metrics(settings, pool, lag):
                    async with in_background(lag.run()):
                        await pool.run(stream)
            finally:
                # No handler runs any more, but for those that ignore their cancellation.
                await asyncio.gather(life.stop(), processes.finish())
            log.info("worker %s has stopped", pool.id)


async def _check_queues(connection: Connection, registry: Registry, queues: tuple[str, ...]) -> None:
    of_earlier_versions = [queue for queue in queues if queue not in registry.queues]
    if not of_earlier_versions:
        return
    stored = await stored_queues(connection, of_earlier_versions)
    for queue in of_earlier_versions:
        if queue not in stored:
            known = ", ".join(registry.queues)
            raise ValueError(f"No job type uses the queue {queue!r}, and no job was ever in it; there are: {known}.")
