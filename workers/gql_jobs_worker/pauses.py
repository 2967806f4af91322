"""The pauses of queues, followed in the stream: a worker starts nothing of a queue that is paused.

The server's consumers of such a queue are paused as well. This does not rely on that: a pause is in effect here as soon
as its message is stored, also if whoever wrote that was killed before the consumers were paused.
"""

import asyncio
import logging
from datetime import datetime, timedelta

from gql_jobs import clock
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer, StreamMessage
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.pause import pause_of
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog
from gql_jobs_worker.intake import Intake

log = logging.getLogger(__name__)

AFTER_THE_END = 0.05
"""Seconds after which a pause has surely ended at the server, too, so that pulls are not opened before that."""
LONGEST_WAIT = 3600.0
"""Seconds until it is looked again whether a pause has ended by itself, at most."""


class FollowedPauses:
    """The pauses that one worker knows of, and what it does about them: it tells its intake."""

    def __init__(self, job_log: JobLog, intake: Intake) -> None:
        self._log = job_log
        self._intake = intake
        self._ends: dict[str, asyncio.Task[None]] = {}
        self.known = asyncio.Event()
        """Set once all queues that were paused at the start are known."""

    async def follow(self) -> None:
        """Follow the stream from its beginning, in which there is one message for each queue at most; never return.

        With a consumer of its own: one that has other subjects, too, would cost the server a look at every subject of
        the stream each time that it is made anew (docs/decisions.md).
        """
        filters = (codec.steering_subjects(codec.PAUSES),)
        try:
            async for batch in OrderedConsumer(self._log.connection, codec.JOBS_STREAM, filters, 1).batches():
                for message in batch:
                    await self._apply(message)
                if not batch or batch[-1].pending == 0:
                    self.known.set()
        finally:
            for end in self._ends.values():
                end.cancel()

    async def forget(self) -> None:
        """Resume all queues: the stream is another one."""
        for queue in list(self._intake.paused):
            await self._end(queue, "the stream of jobs is another one")

    async def _apply(self, message: StreamMessage) -> None:
        try:
            steering = codec.read_steering(message)
        except codec.Unreadable as error:
            # The server's consumers are paused whatever this release can read.
            log.warning("message %d on %s is set aside: %s", message.seq, message.subject, error)
            return
        if steering is None:
            return
        pause = pause_of(steering.value)
        if pause is None:
            await self._end(steering.name, "somebody has resumed it")
            return
        if not self._intake.is_paused(steering.name):
            log.info("the queue %s %s", steering.name, pause.described())
        await self._intake.pause(steering.name)
        self._stop_waiting(steering.name)
        if pause.until is not None:
            ahead = await self._ahead()
            self._ends[steering.name] = asyncio.create_task(self._end_in_time(steering.name, pause.until - ahead))

    async def _ahead(self) -> timedelta:
        """Return by how much the server's clock, by which a pause ends, is ahead of this machine's."""
        try:
            return await self._log.server_time() - clock.now()
        except QueueUnavailable:
            # An API process removes the pause in time, whatever this clock shows.
            return timedelta(0)

    async def _end_in_time(self, queue: str, at: datetime) -> None:
        while (left := (at - clock.now()).total_seconds() + AFTER_THE_END) > 0:  # noqa: ASYNC110 - the clock may be moved
            await asyncio.sleep(min(clock.delay_at_server(left), LONGEST_WAIT))
        await self._end(queue, "its time is over")

    async def _end(self, queue: str, why: str) -> None:
        self._stop_waiting(queue)
        if self._intake.is_paused(queue):
            log.info("the queue %s goes on: %s", queue, why)
            await self._intake.resume(queue)

    def _stop_waiting(self, queue: str) -> None:
        end = self._ends.pop(queue, None)
        if end is not None and end is not asyncio.current_task():
            end.cancel()
