"""Maintenance: what every API process does every few seconds for all jobs.

It expires jobs past their retention, fires overdue schedules, submits jobs whose edit was cut short, and removes dead
letters that a retry has left behind.
All processes may do it at the same time: each step is fenced, so that it succeeds in one of them only.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from gql_jobs.doctor.inspection import subjects_of
from gql_jobs.index.index import Index
from gql_jobs.index.reader import Reader
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import GqlJobsError
from gql_jobs.jobs.model import JobStatus
from gql_jobs.live.feed import Feed
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.edits import complete_edit
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.keys import KeptKey
from gql_jobs.log.retention import Ended, delete_remains, expire_ended, fire_overdue, remove_left_over
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

FIRE_AFTER = timedelta(seconds=5)
"""How late a schedule must be before maintenance fires it in place of the server, and how old an edit before it is
submitted in the place of the process that has made it."""
REMAINS_AFTER = timedelta(minutes=5)
"""How long after an expiry the messages are deleted that the index did not know, or that a killed process left.

What is left of a job that somebody has deleted is removed by the next sweep.
"""
SWEEP_INTERVAL = 5.0
"""Seconds between two sweeps, if there was not more to do than one sweep takes."""
APPLIED_WITHIN = 5.0
"""Seconds to wait, after expiries, for the index to apply them before it is asked for further jobs."""
DEAD_LETTERS_INTERVAL = 300.0
"""Seconds between two checks of all dead letters, of which there may be many."""
KEEP_COPIES_FOR = timedelta(minutes=1)
"""Younger copies of dead letters are kept: the command that has just moved the job removes them itself."""
_BATCH = 2000
"""Jobs that a sweep takes from the index at once."""
_CHUNK = 100
"""Jobs that are worked on at the same time."""


class Maintenance:
    """The sweeps of one process; each covers all jobs."""

    def __init__(
        self,
        job_log: JobLog,
        artifacts: ArtifactStore,
        index: Index,
        reader: Reader,
        feed: Feed,
        *,
        settings: Settings,
        fire_after: timedelta = FIRE_AFTER,
    ) -> None:
        """Sweep over what an index knows.

        :param fire_after: how late a schedule must be to be fired here, and how old an edit to be completed here.
        """
        self._fire_after = fire_after
        self._log = job_log
        self._artifacts = artifacts
        self._index = index
        self._reader = reader
        self._feed = feed
        self._retention = timedelta(seconds=settings.retention)
        self._dead_letters_at = 0.0
        self.on_cleared: list[Callable[[Sequence[str]], Awaitable[None]]] = []
        """Called with the ids of jobs of which nothing is left in the stream, nor files in the object store."""
        self._reported: set[str] = set()
        """What has interrupted the present sweep, once each."""

    async def run(self) -> None:
        """Run sweeps, with ``SWEEP_INTERVAL`` between them unless there is more to do; never end by itself."""
        while True:
            if not await self.sweep():
                await asyncio.sleep(SWEEP_INTERVAL)

    async def sweep(self) -> bool:
        """Do all of it once; return whether there is more to do than one sweep takes.

        A part that fails is logged and does not prevent the others. Expiry comes first, because in a full store it
        makes the room that the others need.
        """
        more = False
        self._reported.clear()
        try:
            # What is due is decided by one clock, the server's: this machine's may be wrong.
            now = await self._log.server_time()
        except GqlJobsError as error:
            self._report(error)
            return False
        for part in (self._expire, self._fire, self._complete_edits, self._delete_remains, self._remove_dead_letters):
            try:
                more |= await part(now)
            except Exception as error:  # noqa: BLE001  # the next sweep tries again
                self._report(error)
        return more

    async def _expire(self, now: datetime) -> bool:
        before = now - self._retention
        found = await self._reader.finished(before, _BATCH)
        # In random order, because other processes expire the same jobs at the same time.
        random.shuffle(found)
        newest = 0
        for job_ids in _chunks(found):
            ended = [job for job_id in job_ids if (job := self._ended(job_id, before)) is not None]
            outcomes = await expire_ended(self._log, self._artifacts, ended, before)
            newest = max([newest, *(outcome for outcome in outcomes if isinstance(outcome, int))])
            self._report_first(outcomes)
        await self._feed.wait_for(newest, APPLIED_WITHIN)
        return len(found) == _BATCH and newest > 0

    def _ended(self, job_id: str, before: datetime) -> Ended | None:
        job = self._index.job(job_id)
        # Since the index was asked it may have been retried, and ended again.
        if job is None or job.finished_at is None or job.finished_at >= before:
            return None
        if self._index.is_needed(job_id):
            # By a job that was created since the index was asked.
            return None
        has_artifacts = bool(self._index.artifacts(job_id))
        messages = self._index.messages(job_id)
        return Ended(job_id, job.finished_at, job.last_seq, has_artifacts, messages, KeptKey.of(job))

    async def _fire(self, now: datetime) -> bool:
        before = now - self._fire_after
        for job_ids in _chunks(await self._reader.overdue(before)):
            firings = (fire_overdue(self._log, job_id, before) for job_id in job_ids)
            self._report_first(await asyncio.gather(*firings, return_exceptions=True))
        return False

    async def _complete_edits(self, now: datetime) -> bool:
        for job_ids in _chunks(await self._reader.edited(now - self._fire_after)):
            completions = (complete_edit(self._log, job_id, self._index.first_seq(job_id)) for job_id in job_ids)
            self._report_first(await asyncio.gather(*completions, return_exceptions=True))
        return False

    async def _delete_remains(self, now: datetime) -> bool:
        position = self._index.position
        found = self._index.with_remains(now - REMAINS_AFTER, _BATCH)
        some = False
        for job_ids in _chunks(found):
            deletions = (delete_remains(self._log, self._artifacts, job_id) for job_id in job_ids)
            outcomes = await asyncio.gather(*deletions, return_exceptions=True)
            cleared = [job_id for job_id, outcome in zip(job_ids, outcomes, strict=True) if outcome is None]
            for told in self.on_cleared:
                await told(cleared)
            self._index.forget_expired(cleared, position, now)
            some = some or bool(cleared)
            self._report_first(outcomes)
        return len(found) >= _BATCH and some

    async def _remove_dead_letters(self, now: datetime) -> bool:
        """Remove copies in jobs-dlq whose job is no dead letter by the index, if the leader confirms it."""
        clock = asyncio.get_running_loop().time()
        if clock < self._dead_letters_at or not self._feed.caught_up:
            return False
        self._dead_letters_at = clock + DEAD_LETTERS_INTERVAL
        found: list[str] = []
        copies = subjects_of(self._log.connection, codec.DEAD_LETTERS_STREAM, codec.ALL_DEAD_LETTERS)
        async for subject, number in copies:
            job_id = codec.job_of_subject(subject)
            job = self._index.job(job_id)
            if number > 1 or job is None or job.status is not JobStatus.DEAD_LETTER:
                found.append(job_id)
            # The subjects come in long pages: let other tasks run in between.
            await asyncio.sleep(0)
        for job_ids in _chunks(found):
            removals = (remove_left_over(self._log, job_id, now - KEEP_COPIES_FOR) for job_id in job_ids)
            self._report_first(await asyncio.gather(*removals, return_exceptions=True))
        return False

    def _report_first(self, outcomes: Sequence[object]) -> None:
        """Report the first error only: it is mostly the same for all jobs."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            self._report(failures[0])

    def _report(self, error: BaseException) -> None:
        """Log what has interrupted this sweep, once for all its parts; the end of the index is said by others."""
        if self._index.failure is not None or str(error) in self._reported:
            return
        self._reported.add(str(error))
        if isinstance(error, GqlJobsError | ApiError):
            log.info("the sweep was interrupted: %s", error)
        else:
            log.error("the sweep failed", exc_info=error)


def _chunks(job_ids: Sequence[str]) -> list[Sequence[str]]:
    return [job_ids[start : start + _CHUNK] for start in range(0, len(job_ids), _CHUNK)]
