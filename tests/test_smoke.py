"""One job through everything but HTTP."""

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.viewer import ANYBODY, EVERYTHING
from gql_jobs.web.runtime import Runtime
from tests.job_types.probe_jobs import ProbePayload
from tests.running import RunningWorker
from tests.stories import accepted


async def test_a_job_is_created_run_watched_and_found(runtime: Runtime, worker: RunningWorker) -> None:
    assert worker.task is not None
    probe = runtime.registry.get("probe")
    assert probe is not None
    created = await runtime.commands.create(JobRequest.of(probe, accepted(ProbePayload(fail_attempts=1, steps=2))))
    kinds = [event.kind async for event in await runtime.watch.job(created.job.id, ANYBODY)]
    assert kinds[-1] is Kind.COMPLETED
    found = await runtime.job(created.job.id, EVERYTHING)
    assert found is not None
    assert found.progress == 100
    history = [event.kind for event in runtime.index.events(created.job.id) if event.kind is not Kind.PROGRESS]
    assert history == [Kind.QUEUED, Kind.STARTED, Kind.FAILED, Kind.STARTED, Kind.COMPLETED]
