"""What an API process does now and then for all: fire overdue schedules, expire jobs past their retention.

Every process may do it at the same time: each step is fenced, so only one of them succeeds.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from gql_jobs.jobs.errors import GqlJobsError
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.connection import ApiError
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import delete_remains, expire
from gql_jobs.log.schedules import fire_overdue
from gql_jobs.settings import Settings
from gql_jobs.views.index import Index
from gql_jobs.views.reader import Reader

log = logging.getLogger(__name__)

OVERDUE = timedelta(seconds=5)
"""How late a schedule must be before it is fired from here."""
REMAINS_AFTER = timedelta(minutes=5)
"""When an expired job is looked at once more, in case whoever expired it died before it had deleted everything."""
SWEEP_PAUSE = 5.0
"""Seconds between two sweeps."""
_BATCH = 1000
_AT_A_TIME = 16


class Upkeep:
    """The sweeps of one process."""

    def __init__(
        self, job_log: JobLog, artifacts: ArtifactStore, index: Index, reader: Reader, settings: Settings
    ) -> None:
        self._log = job_log
        self._artifacts = artifacts
        self._index = index
        self._reader = reader
        self._retention = timedelta(seconds=settings.retention)

    async def run(self) -> None:
        """Sweep for ever; a failure is logged and tried again the next time."""
        while True:
            try:
                full = await self.sweep()
            except (GqlJobsError, ApiError) as error:
                log.info("the sweep was interrupted: %s", error)
                full = False
            if not full:
                await asyncio.sleep(SWEEP_PAUSE)

    async def sweep(self) -> bool:
        """One sweep; True if there was more to do than one sweep takes."""
        now = datetime.now(UTC)
        overdue = now - OVERDUE
        await self._each(await self._reader.overdue(overdue), partial(self._fire, overdue))
        finished = now - self._retention
        expired = await self._each(await self._reader.finished(finished, _BATCH), partial(self._expire, finished))
        remains = self._index.expired_before(now - REMAINS_AFTER, _BATCH)
        await self._each(remains, self._delete_remains)
        return sum(expired) == _BATCH or len(remains) == _BATCH

    async def _fire(self, before: datetime, job_id: str) -> bool:
        return await fire_overdue(self._log, job_id, before)

    async def _expire(self, before: datetime, job_id: str) -> bool:
        return await expire(self._log, self._artifacts, job_id, before)

    async def _delete_remains(self, job_id: str) -> bool:
        await delete_remains(self._log, self._artifacts, job_id)
        self._index.forget_expired(job_id)
        return True

    async def _each(self, job_ids: Sequence[str], step: Callable[[str], Awaitable[bool]]) -> list[bool]:
        done: list[bool] = []
        for start in range(0, len(job_ids), _AT_A_TIME):
            done += await asyncio.gather(*(step(job_id) for job_id in job_ids[start : start + _AT_A_TIME]))
        return done
