"""Which workers are alive: heartbeats over core NATS. They are not stored, because only the newest matters."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.jetstream.client import Received
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import Unavailable
from gql_jobs.jobs.model import Count, Moment
from gql_jobs.log import codec
from gql_jobs.log.job_log import queue_errors

log = logging.getLogger(__name__)

HEARTBEAT_EVERY = 5.0
"""Seconds between two heartbeats of a worker."""
_MIN_INTERVAL = 0.5
"""Seconds between two heartbeats at least, however often ``changed`` is set."""
ANSWERS_WITHIN = 1.5
"""Seconds in which a worker that is asked for a heartbeat sends one, however recent its last one is."""
MISSED_AFTER = HEARTBEAT_EVERY + 2.0
"""Seconds without a heartbeat after which one was missed; the rest is for one that is late."""
GONE_AFTER = 14.0
"""Seconds without a heartbeat after which a worker counts as gone: two may be lost and the third late."""


MAX_TYPE_NAME = 100
"""Characters of a type's name in ``unable``; names of types that nobody knows may be of any length."""


class LeftType(msgspec.Struct, frozen=True, rename="camel"):
    """A type of which a worker leaves jobs to others, because it cannot run them, with the ``reason`` of one job."""

    job_type: str
    reason: str


class Heartbeat(msgspec.Struct, frozen=True, rename="camel"):
    """A worker's own state. It runs ``running`` jobs of at most ``concurrency``, of ``job_types``.

    ``known_types``: all types that it can run, also those that are made for other queues than its own; ``unable``: of
    which it meets jobs that it cannot run. ``leaving``: the process ends, and this is its last heartbeat.
    """

    id: str
    hostname: str
    queues: tuple[str, ...]
    concurrency: Count
    running: Count
    started_at: Moment
    leaving: bool = False
    job_types: tuple[str, ...] = ()
    known_types: tuple[str, ...] = ()
    unable: tuple[LeftType, ...] = ()


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker as of its latest heartbeat, which came at ``last_seen_at``; ``stale``: it has missed the next one."""

    id: str
    hostname: str
    queues: tuple[str, ...]
    concurrency: int
    running: int
    started_at: datetime
    last_seen_at: datetime
    job_types: tuple[str, ...] = ()
    known_types: tuple[str, ...] = ()
    unable: tuple[LeftType, ...] = ()
    stale: bool = False

    def can_run(self, queue: str, job_type: str) -> bool:
        """Return whether it says of itself that it runs all jobs of that type from that queue."""
        known = self.known_types or self.job_types
        return (
            queue in self.queues
            and job_type in known
            and all(one.job_type != job_type[:MAX_TYPE_NAME] for one in self.unable)
        )


def unserved_types(queue: str, types: Iterable[str], workers: Iterable[WorkerSeen]) -> list[str]:
    """Return those of the types, sorted, of which none of the workers says that it runs all jobs from that queue."""
    serving = [worker for worker in workers if queue in worker.queues]
    return sorted(name for name in types if not any(worker.can_run(queue, name) for worker in serving))


_decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode


class Presence:
    """The workers that are alive: their last heartbeat is less than ``GONE_AFTER`` old.

    The time in which none could be heard, as ``note_reach`` was told, makes none of them older.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, WorkerSeen]] = {}
        self._deaf_since: float | None = None
        """When NATS was found to be away, by the event loop's clock."""

    def note_reach(self, reachable: bool) -> None:
        """Take note of whether heartbeats can come in: while NATS is away, silence says nothing of a worker."""
        now = asyncio.get_running_loop().time()
        if not reachable:
            self._deaf_since = now if self._deaf_since is None else self._deaf_since
        elif self._deaf_since is not None:
            away = now - self._deaf_since
            self._seen = {key: (min(now, heard + away), worker) for key, (heard, worker) in self._seen.items()}
            self._deaf_since = None

    def workers(self) -> list[WorkerSeen]:
        """Return the workers that are alive, the one that started first at the beginning."""
        now = asyncio.get_running_loop().time() if self._deaf_since is None else self._deaf_since
        self._seen = {key: seen for key, seen in self._seen.items() if seen[0] > now - GONE_AFTER}
        workers = [
            replace(worker, stale=True) if heard <= now - MISSED_AFTER else worker
            for heard, worker in self._seen.values()
        ]
        return sorted(workers, key=lambda worker: (worker.started_at, worker.id))

    def _on_heartbeat(self, message: Received) -> None:
        try:
            beat = _decode_heartbeat(message.data)
        except msgspec.MsgspecError:
            log.warning("a heartbeat on %s cannot be read", message.subject)
            return
        if beat.leaving:
            self._seen.pop(beat.id, None)
            return
        worker = WorkerSeen(
            id=beat.id,
            hostname=beat.hostname,
            queues=beat.queues,
            concurrency=beat.concurrency,
            running=beat.running,
            started_at=beat.started_at,
            last_seen_at=clock.now(),
            job_types=beat.job_types,
            known_types=beat.known_types,
            unable=beat.unable,
        )
        self._seen[beat.id] = (asyncio.get_running_loop().time(), worker)


@asynccontextmanager
async def watch_workers(connection: Connection) -> AsyncIterator[Presence]:
    """Receive heartbeats until the block ends; all workers are asked for one at the beginning.

    :raises QueueUnavailable: if the server is away.
    """
    presence = Presence()
    with queue_errors():
        subscription = await connection.receive(codec.ALL_HEARTBEATS, presence._on_heartbeat)  # noqa: SLF001
    try:
        with queue_errors():
            await connection.publish(codec.HEARTBEAT_REQUESTS, b"")
        yield presence
    finally:
        await connection.unsubscribe(subscription)


async def ask_workers(connection: Connection) -> list[WorkerSeen]:
    """Ask all workers for a heartbeat, and return those that have answered within ``ANSWERS_WITHIN`` seconds.

    :raises QueueUnavailable: if the server is away.
    """
    async with watch_workers(connection) as presence:
        await asyncio.sleep(ANSWERS_WITHIN)
        return presence.workers()


async def publish_heartbeats(
    connection: Connection, heartbeat: Callable[[], Heartbeat], changed: asyncio.Event
) -> None:
    """Publish heartbeats: at once, every ``HEARTBEAT_EVERY`` seconds, on request, and when ``changed`` is set.

    Never ends by itself.

    :param heartbeat: returns the present state of this worker.
    :raises QueueUnavailable: if the server is away at the beginning.
    """

    def requested(_: Received) -> None:
        changed.set()

    with queue_errors():
        subscription = await connection.receive(codec.HEARTBEAT_REQUESTS, requested)
    try:
        while True:
            changed.clear()
            await publish_heartbeat(connection, heartbeat())
            await asyncio.sleep(_MIN_INTERVAL)
            try:
                async with asyncio.timeout(HEARTBEAT_EVERY - _MIN_INTERVAL):
                    await changed.wait()
            except TimeoutError:
                continue
    finally:
        await connection.unsubscribe(subscription)


async def publish_heartbeat(connection: Connection, beat: Heartbeat) -> None:
    """Publish one heartbeat; while the server is away, do nothing."""
    try:
        await connection.publish(codec.heartbeat_subject(beat.id), msgspec.json.encode(beat))
    except Unavailable:
        log.debug("no heartbeat: NATS is away")
