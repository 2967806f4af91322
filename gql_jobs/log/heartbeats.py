"""Which workers are alive: heartbeats over core NATS, never stored, because only the newest of them means anything."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
from nats.aio.msg import Msg

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.log import subjects

log = logging.getLogger(__name__)

HEARTBEAT = 5.0
"""Seconds between two heartbeats of a worker."""
GONE_AFTER = 14.0
"""Seconds of silence after which a worker is gone: two heartbeats may be lost, a third may be late."""


class Heartbeat(msgspec.Struct, frozen=True, rename="camel"):
    """What a worker process says of itself. ``running`` jobs of at most ``concurrency``; ``leaving``: its last word.

    ``job_types``: those that it can run.
    """

    id: str
    hostname: str
    queues: tuple[str, ...]
    concurrency: int
    running: int
    started_at: datetime
    leaving: bool = False
    job_types: tuple[str, ...] = ()


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker as this process last heard of it."""

    id: str
    hostname: str
    queues: tuple[str, ...]
    concurrency: int
    running: int
    started_at: datetime
    last_seen_at: datetime
    job_types: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(Heartbeat).decode


class Presence:
    """The workers heard of lately."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, WorkerSeen]] = {}

    def workers(self) -> list[WorkerSeen]:
        """The workers that are alive, oldest first."""
        alive_since = asyncio.get_running_loop().time() - GONE_AFTER
        self._seen = {key: seen for key, seen in self._seen.items() if seen[0] > alive_since}
        return sorted((worker for _, worker in self._seen.values()), key=lambda w: (w.started_at, w.id))

    async def _on_heartbeat(self, message: Msg) -> None:
        try:
            beat = _decode(message.data)
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
            last_seen_at=datetime.now(UTC),
            job_types=beat.job_types,
        )
        self._seen[beat.id] = (asyncio.get_running_loop().time(), worker)


@asynccontextmanager
async def watch_workers(connection: Connection) -> AsyncIterator[Presence]:
    """Listen for heartbeats until the block ends; workers alive now are asked for one."""
    presence = Presence()
    subscription = await connection.subscribe(subjects.WORKERS, presence._on_heartbeat)  # noqa: SLF001
    try:
        await connection.publish(subjects.WORKERS_PING, b"")
        yield presence
    finally:
        await connection.unsubscribe(subscription)


async def beat_for_ever(connection: Connection, heartbeat: Callable[[], Heartbeat], changed: asyncio.Event) -> None:
    """Send heartbeats: at once, every few seconds, when asked, and when ``changed`` is set. Never ends by itself."""

    async def asked(_: Msg) -> None:
        changed.set()

    subscription = await connection.subscribe(subjects.WORKERS_PING, asked)
    try:
        while True:
            changed.clear()
            await say(connection, heartbeat())
            # Running counts may change thousands of times a second; nobody looks that often.
            await asyncio.sleep(0.5)
            try:
                async with asyncio.timeout(HEARTBEAT - 0.5):
                    await changed.wait()
            except TimeoutError:
                continue
    finally:
        await connection.unsubscribe(subscription)


async def say(connection: Connection, beat: Heartbeat) -> None:
    """Send one heartbeat; while the server is away nobody could hear it."""
    try:
        await connection.publish(subjects.worker(beat.id), msgspec.json.encode(beat))
    except QueueUnavailable:
        log.debug("no heartbeat: NATS is away")
