"""Jobs in queues that no job type uses any more are found, served, and named where nobody serves them."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from msgspec.structs import replace

from gql_jobs.doctor.examination import examine
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.registry import JobType
from gql_jobs.log.streams import ensure_consumers
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import pool
from tests.deadline import until
from tests.running import running_worker, worker_process
from tests.serving import Data, serving
from tests.workers.stories import create, ended, lane_is, reached

Rename = Callable[[str, str], JobType]


@pytest.fixture
def rename(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Rename:
    """Have the code of this process give a type another queue from now on."""

    def renamed(type_name: str, queue: str) -> JobType:
        job_type = runtime.registry.get(type_name)
        assert job_type is not None
        monkeypatch.setitem(runtime.registry._types, type_name, replace(job_type, queue=queue))  # noqa: SLF001
        return job_type

    return renamed


async def _in_the_old_queue(runtime: Runtime, rename: Rename) -> str:
    """A job that waits in the queue ``mails``, which the code does not name any more."""
    rename("probe", "mails")
    await ensure_consumers(runtime.connection, ("mails",), runtime.settings.ack_wait)
    job_id = await create(runtime)
    rename("probe", "default")
    return job_id


async def test_a_worker_serves_a_queue_of_an_earlier_version_by_its_name(
    runtime: Runtime, settings: Settings, rename: Rename
) -> None:
    job_id = await _in_the_old_queue(runtime, rename)
    async with running_worker(settings, ("mails",)):
        job = await ended(runtime, job_id)
    assert (job.status, job.spec.queue, job.attempt) == (JobStatus.COMPLETED, "mails", 1)


async def test_a_queue_that_has_jobs_is_served_though_its_consumers_are_gone(
    runtime: Runtime, settings: Settings, rename: Rename
) -> None:
    rename("probe", "mails")
    job_id = await create(runtime)
    rename("probe", "default")
    async with running_worker(settings, ("mails",)):
        assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mials", "No job type uses the queue 'mials', and no job was ever in it; there are: "),
        ("a.b", "'a.b' is no name of a queue: those have 1 to 63 of the characters a-z, 0-9, _ and -."),
        ("*", "'*' is no name of a queue"),
    ],
)
async def test_a_name_that_never_was_a_queue_is_refused_in_a_sentence(
    runtime: Runtime, settings: Settings, rename: Rename, name: str, sentence: str
) -> None:
    await _in_the_old_queue(runtime, rename)
    async with worker_process(settings, "--queues", f"default,{name}", stderr=-1) as process:
        _, err = await process.communicate()
    assert process.returncode == 2
    assert sentence in err.decode()


async def test_a_worker_of_all_queues_takes_one_of_an_earlier_version_over_once_nobody_serves_it(
    runtime: Runtime, settings: Settings, rename: Rename, monkeypatch: pytest.MonkeyPatch, workers: AsyncExitStack
) -> None:
    monkeypatch.setattr(pool, "EARLIER_QUEUES_INTERVAL", 0.2)
    job_id = await _in_the_old_queue(runtime, rename)
    await workers.enter_async_context(running_worker(settings))
    assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED
    await until(lambda: "mails" in runtime.presence.workers()[0].queues, "it says so")


async def test_a_queue_whose_jobs_are_of_other_code_is_left_alone(
    runtime: Runtime, settings: Settings, rename: Rename, monkeypatch: pytest.MonkeyPatch, workers: AsyncExitStack
) -> None:
    monkeypatch.setattr(pool, "EARLIER_QUEUES_INTERVAL", 0.2)
    job_id = await _in_the_old_queue(runtime, rename)
    monkeypatch.delitem(runtime.registry._types, "probe")  # noqa: SLF001
    await workers.enter_async_context(running_worker(settings))
    await until(runtime.presence.workers, "it is there")
    assert await pool.abandoned_queues(runtime.connection, ("default",), ("email",)) == []
    assert await pool.abandoned_queues(runtime.connection, ("default",), ("probe",)) == ["mails"]
    assert (await reached(runtime, job_id, JobStatus.QUEUED)).attempt == 0
    assert runtime.presence.workers()[0].queues == tuple(runtime.registry.queues)


async def test_doctor_and_the_api_name_a_queue_that_nobody_serves_and_a_type_that_no_worker_knows(
    runtime: Runtime, settings: Settings, rename: Rename, monkeypatch: pytest.MonkeyPatch, workers: AsyncExitStack
) -> None:
    await _in_the_old_queue(runtime, rename)
    await create(runtime, "probe_thread")
    probe_thread = runtime.registry.get("probe_thread")
    assert probe_thread is not None
    with monkeypatch.context() as meanwhile:
        meanwhile.delitem(runtime.registry._types, "probe_thread")  # noqa: SLF001
        await workers.enter_async_context(running_worker(settings, ("default", "threads", "cpu")))
        await lane_is(runtime.connection, "it was offered", lambda lane: bool(lane.num_ack_pending), queue="threads")
        found = await examine(settings, runtime.registry)
        assert [(finding.check, finding.problem) for finding in found] == [
            ("workers", "1 jobs wait in the queue mails, which no worker serves and no job type uses any more."),
            (
                "workers",
                "1 jobs of type 'probe_thread' wait in the queue threads, and none of its 1 workers can run them all.",
            ),
        ]
        assert "Start a worker with --queues mails" in found[0].advice
        assert found[1].examples == ("No job type 'probe_thread' is registered here.",)
        async with serving(settings) as api:
            asked = "{ queues { name workers unservedTypes } workers { queues unable { jobType reason } } }"

            async def heard() -> Data | None:
                answer = await api.ask(asked)
                return answer if any(worker["unable"] for worker in answer["workers"]) else None

            answer = await until(heard, "the API has heard of the worker")
    queues = {queue["name"]: (queue["workers"], queue["unservedTypes"]) for queue in answer["queues"]}
    assert queues["mails"] == (0, ["probe"])
    assert queues["threads"] == (1, ["probe_thread"])
    assert queues["default"] == (1, [])
    (seen,) = answer["workers"]
    assert seen["unable"] == [{"jobType": "probe_thread", "reason": "No job type 'probe_thread' is registered here."}]
