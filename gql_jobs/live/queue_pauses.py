"""The pauses of queues as one API process has them: begun and ended for clients, and kept in effect at the server.

That a queue is paused is a message in the stream, so it is in effect at a place among the messages of jobs, and every
process knows it. The server's consumers are paused after it, by whoever wrote it; any API process repairs what is left
of that by one that was killed in between, and removes a pause whose time is over.
"""

import asyncio
import logging
from datetime import datetime, timedelta

from msgspec import Raw

from gql_jobs import clock
from gql_jobs.jetstream.errors import ApiError, Unavailable
from gql_jobs.jobs.errors import GqlJobsError
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.pause import Pause, pause_of
from gql_jobs.live.feed import READ_BACK_TIMEOUT, Feed
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.paused_consumers import (
    PauseCommands,
    consumer_pause,
    is_paused_as,
    pause_consumer,
    stored_pause,
)
from gql_jobs.log.steering import SteeringLog
from gql_jobs.log.streams import consumers, queue_of_consumer, stored_queues

log = logging.getLogger(__name__)

REPAIR_INTERVAL = 2.0
"""Seconds between two looks at the consumers while a queue is paused."""
IDLE_INTERVAL = 30.0
"""Seconds between two of them while none is, and when this process last knew of a change."""


class QueuePauses:
    """Which queues are paused, for the event loop's thread. ``run`` keeps that in effect."""

    def __init__(self, job_log: JobLog, feed: Feed) -> None:
        self._log = job_log
        self._commands = PauseCommands(job_log)
        self._steering_log = SteeringLog(job_log)
        self._feed = feed
        self._ahead = timedelta(0)
        """By how much the server's clock, by which pauses end, is ahead of this machine's."""
        self._changed = asyncio.Event()
        self._changed.set()
        feed.steering.on_change.append(self._note_change)

    def now(self) -> dict[str, Pause]:
        """Return the pauses that are in effect, by the names of the queues."""
        return self._feed.steering.pauses(self._server_time())

    def of(self, queue: str) -> Pause | None:
        """Return the pause of a queue; None if it is not paused."""
        return self._feed.steering.pause_of(queue, self._server_time())

    async def is_stored(self, queue: str) -> bool:
        """Return whether the server knows a queue: it has consumers, or a job was submitted to it.

        :raises QueueUnavailable: if the server does not answer.
        """
        return bool(await stored_queues(self._log.connection, [queue]))

    async def pause(self, queue: str, reason: str | None, until: datetime | None, actor: str | None) -> None:
        """Pause a queue as ``PauseCommands.pause`` does; return once this process knows, or after a second.

        :raises InvalidArgument: | QueueUnavailable: | QueueFull: as that does.
        """
        _, seq = await self._commands.pause(queue, reason, until, actor)
        await self._feed.wait_for(seq, READ_BACK_TIMEOUT)

    async def resume(self, queue: str, actor: str | None) -> None:
        """Resume a queue as ``PauseCommands.resume`` does; return once this process knows, or after a second.

        :raises QueueUnavailable: | QueueFull: as that does.
        """
        await self._feed.wait_for(await self._commands.resume(queue, actor), READ_BACK_TIMEOUT)

    async def run(self) -> None:
        """Keep the server's consumers as the pauses say, and remove those that are over; never end by itself."""
        while True:
            self._changed.clear()
            try:
                pauses = await self.repair()
            except (GqlJobsError, ApiError, Unavailable) as error:
                log.debug("the pauses of queues could not be looked at: %s", error)
                pause = REPAIR_INTERVAL
            else:
                pause = self._interval(pauses)
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def repair(self) -> dict[str, Pause]:
        """Remove pauses that are over, and pause and resume the consumers that are not as the others say.

        What is so is read from the stream's leader: an index that lags would undo what others have just done.

        :returns: the pauses that are in effect.
        :raises ApiError: if the server refuses.
        :raises QueueUnavailable: if it does not answer.
        """
        present = await consumers(self._log.connection)
        now = await self._log.server_time()
        self._ahead = now - clock.now()
        pauses: dict[str, Pause] = {}
        for message in await self._steering_log.all(codec.PAUSES):
            pause = pause_of(message.value)
            if pause is not None and not pause.is_over(now):
                pauses[message.name] = pause
            elif pause is not None:
                await self._remove(message)
        for consumer in present:
            queue = queue_of_consumer(consumer.name)
            if queue is None:
                continue
            if not is_paused_as(consumer.paused, consumer.config, consumer_pause(pauses.get(queue))):
                await self._repair_one(consumer.name, queue, now)
        return pauses

    async def _repair_one(self, name: str, queue: str, now: datetime) -> None:
        # Read again: somebody may just have paused or resumed the queue, and its consumers after that.
        pause = await stored_pause(self._log.connection, queue)
        until = consumer_pause(pause if pause is not None and not pause.is_over(now) else None)
        log.debug("the consumer %s is %s", name, "resumed" if until is None else "paused")
        await pause_consumer(self._log.connection, name, until)

    async def _remove(self, over: SteeringMessage) -> None:
        """Remove a pause that is over, unless something has taken its place."""

        def decide(present: SteeringMessage | None) -> Raw | SteeringMessage | None:
            return present if present is None or present.seq != over.seq else None

        await self._steering_log.change(codec.PAUSES, over.name, decide)

    def _interval(self, pauses: dict[str, Pause]) -> float:
        now = self._server_time()
        ends = [(pause.until - now).total_seconds() for pause in pauses.values() if pause.until is not None]
        return max(min([REPAIR_INTERVAL if pauses else IDLE_INTERVAL, *ends]), 0.05)

    def _server_time(self) -> datetime:
        return clock.now() + self._ahead

    def _note_change(self, message: SteeringMessage) -> None:
        if message.what == codec.PAUSES:
            self._changed.set()
