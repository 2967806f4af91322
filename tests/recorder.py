"""What records a stream: a system in which jobs are made by name, and brought to where they are to be recorded."""

from collections.abc import Callable
from typing import Any

from gql_jobs.jobs.model import Job
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import request


class Recorder:
    """The system that is recorded; ``ids`` are those of its jobs, by the names that the recording knows them by."""

    def __init__(self, runtime: Runtime, job_log: JobLog, settings: Settings) -> None:
        self._runtime = runtime
        self._log = job_log
        self._settings = settings
        self.ids: dict[str, str] = {}

    async def _created(self, name: str, asked: JobRequest | ProbePayload, **options: Any) -> Job:
        if isinstance(asked, ProbePayload):
            asked = request(asked, **options)
        job = (await self._runtime.commands.create(asked)).job
        self.ids[name] = job.id
        return job

    async def _ended(self, name: str, asked: JobRequest | ProbePayload, **options: Any) -> Job:
        job = await self._created(name, asked, **options)
        return await self._until(job.id, lambda job: job.status.is_terminal)

    async def _until(self, job_id: str, condition: Callable[[Job], bool]) -> Job:
        def job() -> Job | None:
            found = self._runtime.index.job(job_id)
            return found if found is not None and condition(found) else None

        return await until(job, f"job {job_id} is as far as it should be", within=30)
