"""A type or payload that a worker cannot read is left QUEUED for one that can, and given up when nobody ever could."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import JobStatus, new_job_id
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.log import codec
from gql_jobs.log.heartbeats import WorkerSeen
from gql_jobs.log.job_log import JobLog, Write, whole_job
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import abilities
from gql_jobs_worker.abilities import Abilities
from tests.deadline import until
from tests.running import running_worker, worker_process
from tests.stories import spec
from tests.workers.stories import (
    assert_one_end,
    create,
    dead_letter,
    done_with,
    ended,
    kinds,
    lane_info,
    lane_is,
    reached,
    request,
)

UNREADABLE = {
    "a type that nobody has": {"type": "forgotten"},
    "a type whose name is none": {"type": "No such\ntype \x1b[0m" + 500 * "x"},
    "a wrong value": {"payload": Raw(b'{"steps":"many"}')},
    "a list": {"payload": Raw(b"[]")},
    "null": {"payload": Raw(b"null")},
}


class _NoProcesses:
    """Nothing is imported in them."""

    async def missing_import(self, handler: str) -> str | None:
        raise NotImplementedError


async def submitted(runtime: Runtime, job_log: JobLog, **changes: Any) -> str:
    """A job that this API would not have made, as another version of it may have."""
    asked = replace(request(runtime).spec(datetime.now(UTC), runtime.settings), **changes)
    job_id = new_job_id()
    subject = codec.queued_subject(job_id, asked.queue, asked.priority)
    await job_log.append(Write(job_id, subject, Submission(spec=asked), whole_job(job_id, 0)))
    return job_id


async def _offered(runtime: Runtime, times: int) -> None:
    await lane_is(runtime.connection, "it is offered again", lambda lane: lane.delivered.consumer_seq >= times)


@contextmanager
def _forgetting(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, type_name: str) -> Iterator[None]:
    """The worker of this process, which shares the registry of its API, does not know a type meanwhile."""
    with monkeypatch.context() as patched:
        patched.delitem(runtime.registry._types, type_name)  # noqa: SLF001
        yield


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("changes", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_job_that_a_worker_cannot_read_stays_queued_without_an_attempt_and_it_says_so_once(
    runtime: Runtime, job_log: JobLog, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    job_ids = [await submitted(runtime, job_log, **changes) for _ in range(2)]
    await _offered(runtime, 6)
    assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED
    for job_id in job_ids:
        job = await reached(runtime, job_id, JobStatus.QUEUED)
        assert (job.attempt, job.errors) == (0, ())
        assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]
    assert len([record for record in caplog.records if "are left to other workers" in record.getMessage()]) == 1
    await until(lambda: runtime.presence.workers()[0].unable, "its heartbeats say so")
    (unable,) = runtime.presence.workers()[0].unable
    assert unable.job_type == changes.get("type", "probe")[:100]
    assert unable.reason


async def test_an_able_worker_that_appears_gets_the_job_within_seconds(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await create(runtime, max_retries=0)
    with _forgetting(monkeypatch, runtime, "probe"):
        async with running_worker(settings, ("default",)):
            await _offered(runtime, 3)
            async with worker_process(settings):
                job = await ended(runtime, job_id, within=30)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
    assert abilities.MAX_DELAY <= 10


async def test_a_flood_of_an_unknown_type_stops_no_known_one_of_its_queue_and_is_lost_by_no_number_of_deliveries(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = 2_000
    requests = [request(runtime, "probe_thread") for _ in range(flood)]
    other = runtime.registry.get("probe_thread")
    assert other is not None
    in_default = [replace(one, job_type=replace(other, queue="default")) for one in requests]
    for start in range(0, flood, 500):
        await runtime.commands.create_many(in_default[start : start + 500])
    with _forgetting(monkeypatch, runtime, "probe_thread"):
        async with running_worker(settings, ("default",)):
            for _ in range(20):
                assert (await ended(runtime, await create(runtime), within=30)).status is JobStatus.COMPLETED
            await lane_is(runtime.connection, "all were offered", lambda lane: lane.num_pending == 0)
            assert (await ended(runtime, await create(runtime))).status is JobStatus.COMPLETED
            assert (await lane_info(runtime.connection)).num_ack_pending == flood


async def test_ten_thousand_jobs_that_cannot_be_run_come_back_one_after_the_other() -> None:
    async def nobody() -> list[WorkerSeen]:
        return []

    left = Abilities(load_job_types(), _NoProcesses(), nobody, 1.0)
    delays = [left.leave(spec(), None, deliveries=1) for _ in range(10_000)]
    assert delays[0] == abilities.FIRST_DELAY
    assert 9 < delays[-1] <= 10
    assert sum(delay < 5 for delay in delays) < 6_000
    assert left.leave(spec(), None, deliveries=1_000_000) <= 10.1


async def test_an_unable_worker_still_drops_what_was_cancelled_meanwhile(
    runtime: Runtime, settings: Settings, job_log: JobLog
) -> None:
    job_id = await submitted(runtime, job_log, type="forgotten")
    async with running_worker(settings, ("default",)):
        await _offered(runtime, 1)
        await runtime.commands.cancel(job_id)
        await done_with(runtime.connection)


@pytest.fixture
def impatient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Nobody waits longer than a second for an able worker."""
    monkeypatch.setattr(abilities, "MAX_DELAY", 0.3)
    return settings.model_copy(update={"unable_timeout": 1.0})


@pytest.mark.parametrize("changes", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_job_that_nobody_could_read_for_the_time_allowed_is_a_dead_letter_that_says_why(
    runtime: Runtime, impatient: Settings, job_log: JobLog, changes: dict[str, Any]
) -> None:
    job_id = await submitted(runtime, job_log, **changes)
    async with running_worker(impatient, ("default",)):
        letter = await dead_letter(runtime.connection, job_id)
    (error,) = letter["errors"]
    assert error["type"] == ("UnknownJobType" if "type" in changes else "InvalidPayload")
    assert not error["retryable"]
    await assert_one_end(runtime.connection, job_id)
    since = await reached(runtime, job_id, JobStatus.DEAD_LETTER)
    assert since.finished_at is not None
    assert since.finished_at - since.spec.created_at >= timedelta(seconds=1)


async def test_the_time_goes_on_while_no_worker_runs_and_while_workers_are_restarted(
    runtime: Runtime, impatient: Settings, job_log: JobLog
) -> None:
    patient = impatient.model_copy(update={"unable_timeout": 3.0})
    job_id = await submitted(runtime, job_log, type="forgotten")
    for _ in range(2):
        async with running_worker(patient, ("default",)):
            await _offered(runtime, 1)
    assert (await reached(runtime, job_id, JobStatus.QUEUED)).attempt == 0
    async with running_worker(patient, ("default",)):
        job = await ended(runtime, job_id, within=30)
    assert job.status is JobStatus.DEAD_LETTER


async def test_a_job_is_not_given_up_while_a_worker_that_runs_it_is_alive_though_busy(
    runtime: Runtime, impatient: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(impatient.model_copy(update={"num_workers": 1})):
        busy = await create(runtime, gate=gate)
        await reached(runtime, busy, JobStatus.PROCESSING, within=30)
        job_id = await create(runtime)
        with _forgetting(monkeypatch, runtime, "probe"):
            async with running_worker(impatient, ("default",)):
                await _offered(runtime, 16)
                assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]
        gate.touch()
        assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED


async def test_a_dead_letter_that_nobody_could_read_runs_after_a_retry_by_hand_once_somebody_can(
    runtime: Runtime, impatient: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await create(runtime)
    with _forgetting(monkeypatch, runtime, "probe"):
        async with running_worker(impatient, ("default",)):
            assert (await ended(runtime, job_id, within=30)).status is JobStatus.DEAD_LETTER
    await runtime.feed.read_back(await runtime.commands.retry(job_id))
    async with running_worker(impatient, ("default",)):
        assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED
