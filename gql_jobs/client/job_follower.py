"""Which jobs have a new message: one ordered consumer tells all who wait, however many they are.

It brings the subjects of messages and nothing of what is in them, so that whoever waits for one job is not sent the
results of all others. Whoever is told then reads what is new of the job from the stream's leader. The consumer is there
while somebody waits and shortly afterwards; after an outage it goes on where it was.
"""

import asyncio
import logging
from collections.abc import Container, Iterator
from contextlib import aclosing, contextmanager, suppress

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer, StreamMessage
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Job
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog, read_history
from gql_jobs.log.streams import StreamInfo, stream_info

log = logging.getLogger(__name__)

KEPT_IDLE = 10.0
"""Seconds for which the consumer stays when nobody waits any more: most callers wait for another job soon."""
COMPARED_EVERY = 5.0
"""Seconds between two looks whether the stream is still the same one, while somebody waits."""


class JobWatch:
    """Somebody who waits for a job to move."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._moved = asyncio.Event()
        self._begins_anew = False
        self._has_ended = False

    def wake(self, *, anew: bool = False) -> None:
        """Say that there may be something new of the job.

        :param anew: what was known of it may not count any more.
        """
        self._begins_anew = self._begins_anew or anew
        self._moved.set()

    def end(self) -> None:
        """Say that nobody will be told any more."""
        self._has_ended = True
        self._moved.set()

    async def moved(self) -> bool:
        """Wait until there may be something new of the job since this returned last, or since the watch began.

        :returns: whether the stream is another one than before, so that the job has to be read anew.
        :raises RuntimeError: if the client is closed.
        """
        await self._moved.wait()
        if self._has_ended:
            raise RuntimeError("The client was closed.")
        self._moved.clear()
        anew, self._begins_anew = self._begins_anew, False
        return anew


class JobFollower:
    """Wakes those who watch a job at each of its messages; ``run`` has to run meanwhile.

    :param subjects: the pattern of the subjects that are followed, of all jobs.
    :param last_tokens: the last tokens of the subjects that count; None for all.
    """

    def __init__(self, connection: Connection, subjects: str, last_tokens: Container[str] | None = None) -> None:
        self._connection = connection
        self._subjects = subjects
        self._last_tokens = last_tokens
        self._watches: dict[str, set[JobWatch]] = {}
        self._wanted = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._stream: StreamInfo | None = None
        """The stream as it was when following it began; None while it is not followed."""
        self._consumer: OrderedConsumer | None = None

    @contextmanager
    def watch(self, job_id: str) -> Iterator[JobWatch]:
        """Yield a watch, which whatever is stored of the job after ``begin`` wakes."""
        watch = JobWatch(job_id)
        self._watches.setdefault(job_id, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[job_id]
            watches.discard(watch)
            if not watches:
                del self._watches[job_id]

    async def begin(self) -> None:
        """Begin to follow the stream, if it is not followed; to be called within a watch, before the job is read.

        :raises QueueUnavailable: if the leader does not answer.
        """
        async with self._beginning:
            if self._stream is None:
                self._stream = await self._present()
                self._wanted.set()

    async def run(self) -> None:
        """Follow the stream whenever somebody watches; never ends by itself."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._follow()
        finally:
            for watch in self._all():
                watch.end()

    async def _follow(self) -> None:
        """Wake watches until nobody has been one for some time."""
        assert self._stream is not None
        clock = asyncio.get_running_loop().time
        start = self._stream.state.last_seq + 1
        consumer = self._consumer = OrderedConsumer(
            self._connection, codec.JOBS_STREAM, (self._subjects,), start, headers_only=True
        )
        checking = asyncio.create_task(self._check())
        unwatched_since = clock()
        try:
            async with aclosing(consumer.batches()) as batches:
                # It also brings an empty batch every two seconds.
                async for batch in batches:
                    for message in batch:
                        self._tell(message)
                    if self._watches:
                        unwatched_since = clock()
                    elif clock() - unwatched_since > KEPT_IDLE:
                        # From here on a new watch begins anew, and waits only for what follows.
                        self._stream = self._consumer = None
                        break
        finally:
            checking.cancel()
            with suppress(asyncio.CancelledError):
                await checking

    def _tell(self, message: StreamMessage) -> None:
        watches = self._watches.get(codec.job_of_subject(message.subject))
        if watches is None:
            return
        if self._last_tokens is None or message.subject.rsplit(".", 1)[-1] in self._last_tokens:
            for watch in watches:
                watch.wake()

    async def _check(self) -> None:
        """Begin anew where another stream is in the place of the one that is followed; never ends by itself.

        An operator may have deleted it, or its server has lost its store: the numbers of the new one begin at 1.
        """
        while True:
            await asyncio.sleep(COMPARED_EVERY)
            try:
                present = await self._present()
            except QueueUnavailable as error:
                log.debug("whether the stream is the same cannot be known: %s", error)
                continue
            if self._stream is None or self._consumer is None or present.created == self._stream.created:
                continue
            log.warning("the stream %s was made anew: jobs that are waited for may be gone", codec.JOBS_STREAM)
            self._stream = present
            self._consumer.rewind(present.state.last_seq + 1)
            for watch in self._all():
                watch.wake(anew=True)

    async def _present(self) -> StreamInfo:
        try:
            return await stream_info(self._connection)
        except ApiError as error:
            raise QueueUnavailable(f"The stream {codec.JOBS_STREAM} cannot be had: {error.description}.") from error

    def _all(self) -> list[JobWatch]:
        return [watch for watches in self._watches.values() for watch in watches]


class FollowedJob:
    """A job and its events, read on from the leader as its messages come.

    ``job`` is None if there is none, or not any more. ``events``: those that were read last. ``position``: the sequence
    of the last message that was read.
    """

    def __init__(self, job_log: JobLog, job_id: str) -> None:
        self._log = job_log
        self._job_id = job_id
        self.job: Job | None = None
        self.events: list[Event] = []
        self.position = 0

    async def read_on(self) -> list[Event]:
        """Return the events that have come since this was called last; those before the job expired are left out.

        :raises QueueUnavailable: if the leader does not answer; nothing is lost then.
        """
        new = await self._log.history(self._job_id, self.position + 1)
        self.job, self.events, _, _ = read_history(new, self.job)
        if new:
            self.position = new[-1].seq
        return self.events

    def forget(self) -> None:
        """Read all of it again next time."""
        self.job, self.position = None, 0
