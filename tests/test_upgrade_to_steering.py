"""An upgrade from the release before jobs were steered, with its real processes beside those of this one."""

from datetime import timedelta
from pathlib import Path

import pytest

from gql_jobs import clock
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.api.operations import create as create_by
from tests.by_hand import stored
from tests.job_types.probe_jobs import ProbePayload
from tests.recorded import store
from tests.release_before_steering import EARLIER_API, EARLIER_WORKER, earlier
from tests.running import JOB_TYPES, running_worker, worker_process
from tests.serving import api_process, free_port
from tests.stories import accepted, request
from tests.test_recorded_streams import STEERED
from tests.workers.stories import all_ended, create, create_many, done_with, ended, kinds, reached

__all__ = ["earlier"]


async def _all_are_queued(runtime: Runtime, job_ids: list[str]) -> None:
    for job_id in job_ids:
        assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]


@pytest.mark.timeout(180)
async def test_its_worker_starts_nothing_of_a_paused_queue_and_goes_on_after_the_resume(
    runtime: Runtime, settings: Settings, earlier: Path
) -> None:
    async with worker_process(settings, program=EARLIER_WORKER, root=earlier):
        assert (await ended(runtime, await create(runtime), within=60)).status is JobStatus.COMPLETED
        await runtime.pauses.pause("default", "the bank is closed", None, "ada")
        held = await create_many(runtime, 20)
        # Neither what ran before the pause nor what begins during it takes the pause away.
        own_folder = settings.model_copy(update={"data_dir": settings.data_dir / "earlier"})
        async with (
            worker_process(settings, program=EARLIER_WORKER, root=earlier),
            api_process(own_folder, free_port(), program=EARLIER_API, root=earlier),
        ):
            others = [await create(runtime, "probe_thread") for _ in range(20)]
            await all_ended(runtime, others, within=60)
            await _all_are_queued(runtime, held)
            assert runtime.pauses.of("default") is not None
            await runtime.pauses.resume("default", "ada")
            done = await all_ended(runtime, held, within=60)
    assert {(job.status, job.attempt) for job in done} == {(JobStatus.COMPLETED, 1)}


@pytest.mark.timeout(180)
async def test_its_worker_leaves_what_the_gate_has_released_to_a_newer_one(
    runtime: Runtime, settings: Settings, earlier: Path
) -> None:
    async with worker_process(settings, program=EARLIER_WORKER, root=earlier):
        assert (await ended(runtime, await create(runtime), within=60)).status is JobStatus.COMPLETED
        await _limit(runtime, Limits.of(concurrency=5, concurrency_per_key=1))
        limited = (await runtime.commands.create(request(concurrency_key="a"))).job.id
        await reached(runtime, limited, JobStatus.QUEUED)
        await _limit(runtime, Limits())
        needed = await create(runtime)
        after = (await runtime.commands.create(request(after=(needed,)))).job.id
        assert (await ended(runtime, needed)).status is JobStatus.COMPLETED
        await reached(runtime, after, JobStatus.QUEUED)
        # It takes each of them, and puts it back for others.
        await all_ended(runtime, await create_many(runtime, 10))
        for left in (limited, after):
            assert await kinds(runtime.connection, left) == [Kind.WAITING, Kind.QUEUED]
        async with running_worker(settings):
            done = await all_ended(runtime, [limited, after], within=60)
    assert {(job.status, job.attempt) for job in done} == {(JobStatus.COMPLETED, 1)}


async def _limit(runtime: Runtime, limits: Limits) -> None:
    await runtime.feed.wait_for(await runtime.commands.set_queue_limits("default", limits), 5)


@pytest.mark.timeout(180)
async def test_its_worker_runs_a_job_that_was_edited_once_and_as_it_was_changed(
    runtime: Runtime, settings: Settings, earlier: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    async with worker_process(settings, program=EARLIER_WORKER, root=earlier):
        assert (await ended(runtime, await create(runtime), within=60)).status is JobStatus.COMPLETED
        await runtime.pauses.pause("default", None, None, None)
        jobs = [await create(runtime, trace=runs, result_bytes=number) for number in range(10)]
        for job_id in jobs:
            changed = accepted(ProbePayload(trace=str(runs), result_bytes=100))
            await runtime.commands.update(job_id, JobChanges.of(payload=changed, tags=("edited",)))
        await runtime.pauses.resume("default", None)
        done = await all_ended(runtime, jobs, within=60)
        # All that was delivered is done with, also the submissions from before the changes.
        await done_with(runtime.connection)
    assert {(job.status, job.attempt, job.spec.tags) for job in done} == {(JobStatus.COMPLETED, 1, ("edited",))}
    assert all(b"x" * 100 in bytes(job.result or b"") for job in done)
    assert sorted(runs.read_text().splitlines()) == sorted(f"{job_id} 1" for job_id in jobs)


SHOWN = """query ($after: String) {
  jobs(first: 100, after: $after) { totalCount nodes { id status attempt events { __typename } } }
}"""
LEFT_ALONE = {
    **dict.fromkeys(("released and run", "released twice", "released", "tick", "failed and held back"), "SCHEDULED"),
    "retried with another payload": "DEAD_LETTER",
}
"""The jobs that it shows as they were before a message of this release, and does not decide on."""
SHOWN_AS_BEFORE = {
    **LEFT_ALONE,
    **dict.fromkeys(("cancelled and scheduled again", "retried and held back"), "CANCELLED"),
    "edited and not submitted": "QUEUED",
}
"""Those, and others of which it reads the rest: it knows no edits, and no retry that is not for at once."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("recording", STEERED)
async def test_its_api_reads_a_stream_in_which_jobs_are_steered_and_loses_nothing_of_it(
    job_log: JobLog, settings: Settings, earlier: Path, recording: str
) -> None:
    head = await store(job_log.connection, recording)
    before = await _kept(job_log.connection)
    async with api_process(settings, free_port(), program=EARLIER_API, root=earlier) as (older, process):
        page = (await older.ask(SHOWN))["jobs"]
        shown = {job["id"]: job["status"] for job in page["nodes"]}
        assert page["totalCount"] == len(shown)
        for name, job in head["jobs"].items():
            assert shown.get(job["id"]) == (job["job"]["status"].upper() if job["job"] else None), name
        for name, job in head["steered"].items():
            status = job["job"]["status"].upper().replace("WAITING", "SCHEDULED") if job["job"] else None
            assert shown.get(job["id"]) == SHOWN_AS_BEFORE.get(name, status), name
        for name in LEFT_ALONE:
            for move in ("retryJob", "cancelJob"):
                document = f"mutation ($id: ID!) {{ {move}(id: $id) {{ job {{ id }} }} }}"
                refusal = await older.refusal(document, id=head["steered"][name]["id"])
                assert refusal["extensions"]["code"] in {"QUEUE_UNAVAILABLE", "INVALID_STATE"}, name
        assert (await create_by(older))["id"]
        assert process.returncode is None
    kept = await _kept(job_log.connection)
    assert {seq: message for seq, message in kept.items() if seq in before} == before


async def _kept(connection: Connection) -> dict[int, tuple[str, bytes]]:
    """All messages of the stream by their sequences."""
    return {message.seq: (message.subject, message.data) for message in await stored(connection)}


@pytest.mark.timeout(180)
async def test_its_api_shows_a_job_that_is_held_back_as_scheduled_and_can_cancel_it(
    runtime: Runtime, settings: Settings, earlier: Path, tmp_path: Path
) -> None:
    needed = await create(runtime, run_at=clock.now() + timedelta(hours=1))
    waiting = (await runtime.commands.create(request(after=(needed,), tags=("a",), concurrency_key="k"))).job
    assert waiting.status is JobStatus.WAITING
    own_folder = settings.model_copy(update={"data_dir": tmp_path / "earlier"})
    async with api_process(own_folder, free_port(), program=EARLIER_API, root=earlier) as (older, _):
        found = await older.ask("query ($id: ID!) { job(id: $id) { status tags } }", id=waiting.id)
        assert found["job"] == {"status": "SCHEDULED", "tags": ["a"]}
        await older.ask("mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }", id=waiting.id)
    cancelled = await reached(runtime, waiting.id, JobStatus.CANCELLED)
    # What it does not know of the job is lost with the message that it deletes, in every index alike.
    assert (cancelled.spec.after, cancelled.spec.tags) == ((), ("a",))
    anew = settings.model_copy(update={"data_dir": tmp_path / "anew"})
    async with open_runtime(anew, JOB_TYPES) as other:
        assert await reached(other, waiting.id, JobStatus.CANCELLED) == cancelled
        assert (await other.commands.retry(waiting.id)).status is JobStatus.QUEUED
