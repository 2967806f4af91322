"""Waiting for the ends of many jobs over few streams.

Each stream is one subscription to the ends of up to 500 jobs, of those that have ended already at once, so that a job
that ends while a stream is opened, or while the connection is lost, is missed by nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from gql_jobs.client.errors import NotFound

JOBS_OF_A_STREAM = 500
"""What the filter of a subscription takes."""
MOST_STREAMS = 16
"""Streams that are open at a time; before there are more, those with fewest jobs become one."""
_OPENED_EVERY = 0.05
"""Seconds between two openings; those who begin to wait meanwhile are gathered, and after a pause nobody waits."""
_MOST_JOBS = JOBS_OF_A_STREAM * MOST_STREAMS
_CLOSED = "The client was closed."


class _Stream:
    """One subscription; ``jobs`` are those whose ends it brings and that somebody still waits for."""

    def __init__(self, jobs: set[str]) -> None:
        self.jobs = jobs
        self.task: asyncio.Task[None] | None = None


class JobEnds:
    """Those who wait for jobs to end, on one event loop. No more than 8 000 jobs are waited for at a time.

    :param subscribe: yields the ids of those of the jobs that have ended, over one connection, and ends without an
        error once that is lost and may be asked for again.
    :param missing: returns those of the jobs that there are no longer.
    """

    def __init__(
        self,
        subscribe: Callable[[list[str]], AsyncGenerator[str, None]],
        missing: Callable[[list[str]], Awaitable[list[str]]],
    ) -> None:
        self._subscribe = subscribe
        self._missing = missing
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._new: set[str] = set()
        self._streams: list[_Stream] = []
        self._room = asyncio.Semaphore(_MOST_JOBS)
        self._opening: asyncio.Handle | None = None
        self._opened_at = 0.0
        self._is_closed = False

    async def wait(self, job_id: str) -> None:
        """Wait until the job has ended.

        :raises NotFound: if there is no such job any more.
        :raises ClientError: if the API refuses to tell.
        :raises RuntimeError: once it is closed.
        """
        async with self._room:
            if self._is_closed:
                raise RuntimeError(_CLOSED)
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            waiting = self._waiting.setdefault(job_id, set())
            if not waiting:
                self._new.add(job_id)
                # In a later turn, once for all who begin to wait meanwhile.
                due = max(self._opened_at + _OPENED_EVERY, loop.time())
                self._opening = self._opening or loop.call_at(due, self._open)
            waiting.add(future)
            try:
                await future
            finally:
                waiting.discard(future)
                if not waiting and self._waiting.get(job_id) is waiting:
                    self._forget(job_id)

    async def close(self) -> None:
        """Close all streams; whoever waits gets a ``RuntimeError``."""
        self._is_closed = True
        tasks = [stream.task for stream in self._streams if stream.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job_id in list(self._waiting):
            self._settle(job_id, RuntimeError(_CLOSED))

    def _open(self) -> None:
        """Open streams for the jobs that are in none yet."""
        self._opening, self._opened_at = None, asyncio.get_running_loop().time()
        jobs, self._new = self._new & self._waiting.keys(), set()
        if self._is_closed:
            return
        needed = -(-len(jobs) // JOBS_OF_A_STREAM)
        while jobs and self._streams and len(self._streams) + needed > MOST_STREAMS:
            smallest = min(self._streams, key=lambda stream: len(stream.jobs))
            jobs |= smallest.jobs
            self._end(smallest)
            needed = -(-len(jobs) // JOBS_OF_A_STREAM)
        ordered = sorted(jobs)
        for start in range(0, len(ordered), JOBS_OF_A_STREAM):
            stream = _Stream(set(ordered[start : start + JOBS_OF_A_STREAM]))
            stream.task = asyncio.create_task(self._run(stream))
            self._streams.append(stream)

    async def _run(self, stream: _Stream) -> None:
        """Settle the jobs of a stream, over as many connections as it takes."""
        try:
            while stream.jobs:
                async with aclosing(self._subscribe(sorted(stream.jobs))) as ends:
                    async for job_id in ends:
                        stream.jobs.discard(job_id)
                        self._settle(job_id)
                        if not stream.jobs:
                            return
                for job_id in await self._missing(sorted(stream.jobs)):
                    stream.jobs.discard(job_id)
                    self._settle(job_id, NotFound(f"There is no job {job_id!r} any more."))
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody may wait for ever
            for job_id in list(stream.jobs):
                self._settle(job_id, error)
        finally:
            if stream in self._streams:
                self._streams.remove(stream)

    def _settle(self, job_id: str, error: Exception | None = None) -> None:
        for future in self._waiting.pop(job_id, set()):
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)

    def _forget(self, job_id: str) -> None:
        """Note that nobody waits for a job any more; a stream ends with its last one."""
        del self._waiting[job_id]
        self._new.discard(job_id)
        for stream in list(self._streams):
            if job_id in stream.jobs:
                stream.jobs.discard(job_id)
                if not stream.jobs:
                    self._end(stream)

    def _end(self, stream: _Stream) -> None:
        self._streams.remove(stream)
        if stream.task is not None:
            stream.task.cancel()
