"""Maintenance: what an API process does now and then for all jobs.

It expires jobs past their retention, fires overdue schedules, and takes out dead letters that a retry has left behind.
Every process may do it at the same time: each step is fenced, so only one of them succeeds.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from gql_jobs.doctor.inspection import subjects_of
from gql_jobs.index.index import Index
from gql_jobs.index.reader import Reader
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import GqlJobsError
from gql_jobs.jobs.model import JobStatus
from gql_jobs.live.feed import Feed
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.dead_letters import remove_left_over
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import Ended, delete_remains, expire_ended, fire_overdue
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

FIRE_AFTER = timedelta(seconds=5)
"""How late a schedule must be before it is fired from here."""
REMAINS_AFTER = timedelta(minutes=5)
"""When an expired job is looked at once more, for what the index did not know of and what a dead process has left."""
SWEEP_PAUSE = 5.0
"""Seconds between two sweeps."""
APPLIED_WITHIN = 5.0
"""Seconds that the index has to apply what was expired before it is asked for more."""
DEAD_LETTERS_EVERY = 300.0
"""Seconds between two looks at all dead letters, of which there may be many."""
COPIED_AGO = timedelta(minutes=1)
"""A younger copy is left to whoever moves the job: the index may not have applied that yet."""
_BATCH = 2000
_AT_A_TIME = 100


class Maintenance:
    """The sweeps of one process, each over all jobs."""

    def __init__(
        self, job_log: JobLog, artifacts: ArtifactStore, index: Index, reader: Reader, feed: Feed, *, settings: Settings
    ) -> None:
        self._log = job_log
        self._artifacts = artifacts
        self._index = index
        self._reader = reader
        self._feed = feed
        self._retention = timedelta(seconds=settings.retention)
        self._dead_letters_at = 0.0

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            if not await self.sweep():
                await asyncio.sleep(SWEEP_PAUSE)

    async def sweep(self) -> bool:
        """Do all of it once; whether there is more to do than one sweep takes.

        Nothing that fails in it keeps it from the rest. Expiry comes first: where the store is full it makes the room
        that everything else needs.
        """
        more = False
        for part in (self._expire, self._fire, self._clear, self._remove_dead_letters):
            try:
                more |= await part(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001  # whatever it was, the next sweep tries again
                _log_failure(error)
        return more

    async def _expire(self, now: datetime) -> bool:
        before = now - self._retention
        found = await self._reader.finished(before, _BATCH)
        # Other processes sweep as well: in another order, and by now they may have expired some of these.
        random.shuffle(found)
        newest = 0
        for job_ids in _chunks(found):
            ended = [job for job_id in job_ids if (job := self._ended(job_id, before)) is not None]
            outcomes = await expire_ended(self._log, self._artifacts, ended, before)
            newest = max([newest, *(outcome for outcome in outcomes if isinstance(outcome, int))])
            _log_first(outcomes)
        await self._feed.wait_for(newest, APPLIED_WITHIN)
        return len(found) == _BATCH and newest > 0

    def _ended(self, job_id: str, before: datetime) -> Ended | None:
        job = self._index.job(job_id)
        # Since it was found it may have been retried, and ended again.
        if job is None or job.finished_at is None or job.finished_at >= before:
            return None
        has_artifacts = bool(self._index.artifacts(job_id))
        return Ended(job_id, job.finished_at, job.last_seq, has_artifacts, self._index.messages(job_id))

    async def _fire(self, now: datetime) -> bool:
        before = now - FIRE_AFTER
        for job_ids in _chunks(await self._reader.overdue(before)):
            firings = (fire_overdue(self._log, job_id, before) for job_id in job_ids)
            _log_first(await asyncio.gather(*firings, return_exceptions=True))
        return False

    async def _clear(self, now: datetime) -> bool:
        found = self._index.expired_before(now - REMAINS_AFTER, _BATCH)
        some = False
        for job_ids in _chunks(found):
            deletions = (delete_remains(self._log, self._artifacts, job_id) for job_id in job_ids)
            outcomes = await asyncio.gather(*deletions, return_exceptions=True)
            cleared = [job_id for job_id, outcome in zip(job_ids, outcomes, strict=True) if outcome is None]
            self._index.forget_expired(cleared)
            some = some or bool(cleared)
            _log_first(outcomes)
        return len(found) == _BATCH and some

    async def _remove_dead_letters(self, now: datetime) -> bool:
        """Remove copies in jobs-dlq of jobs that, by the index, are no dead letters; the leader has the last word."""
        clock = asyncio.get_running_loop().time()
        if clock < self._dead_letters_at or not self._feed.caught_up:
            return False
        self._dead_letters_at = clock + DEAD_LETTERS_EVERY
        found: list[str] = []
        copies = subjects_of(self._log.connection, codec.DEAD_LETTERS_STREAM, codec.ALL_DEAD_LETTERS)
        async for subject, number in copies:
            job_id = codec.job_of_subject(subject)
            job = self._index.job(job_id)
            if number > 1 or job is None or job.status is not JobStatus.DEAD_LETTER:
                found.append(job_id)
            # A page of them is long, and others want the loop.
            await asyncio.sleep(0)
        for job_ids in _chunks(found):
            removals = (remove_left_over(self._log, job_id, now - COPIED_AGO) for job_id in job_ids)
            _log_first(await asyncio.gather(*removals, return_exceptions=True))
        return False


def _chunks(job_ids: Sequence[str]) -> list[Sequence[str]]:
    return [job_ids[start : start + _AT_A_TIME] for start in range(0, len(job_ids), _AT_A_TIME)]


def _log_first(outcomes: Sequence[object]) -> None:
    """Log one line for many jobs: what fails for one of them mostly fails for all."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if failures:
        _log_failure(failures[0])


def _log_failure(error: BaseException) -> None:
    if isinstance(error, GqlJobsError | ApiError):
        log.info("the sweep was interrupted: %s", error)
    else:
        log.error("the sweep failed", exc_info=error)
