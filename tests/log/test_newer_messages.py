"""A job that a newer release has written to: nothing is decided on it here, because what became of it is not known."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gql_jobs.jobs.errors import NotFound, QueueUnavailable
from gql_jobs.jobs.messages import NEWEST_VERSION, Submission
from gql_jobs.jobs.model import Job, JobPriority, JobStatus
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import expire, fire_overdue
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, stored
from tests.stories import request
from tests.viewers import viewer


async def _retried_by_a_newer_release(job_log: JobLog, job: Job) -> list[Any]:
    """Everything that the stream has then."""
    data = {**msgspec.json.decode(codec.encode_body(Submission(spec=job.spec, event_seq=job.event_seq)))}
    subject = codec.queued_subject(job.id, "default", JobPriority.NORMAL)
    await job_log.connection.request(subject, msgspec.json.encode({**data, "v": NEWEST_VERSION + 1}))
    return await stored(job_log.connection)


@pytest.mark.parametrize("status", [JobStatus.DEAD_LETTER, JobStatus.COMPLETED, JobStatus.QUEUED])
async def test_it_is_neither_cancelled_nor_retried_nor_made_anew_nor_expired(
    commands: JobCommands, job_log: JobLog, settings: Settings, status: JobStatus
) -> None:
    job = (await commands.create(request(idempotency_key="k"))).job
    job = await bring_to(job_log, commands, job, status)
    before = await _retried_by_a_newer_release(job_log, job)
    for asked in (
        commands.cancel(job.id),
        commands.retry(job.id),
        commands.create(request(idempotency_key="k")),
        commands.create_many([request(idempotency_key="k")]),
    ):
        with pytest.raises(QueueUnavailable, match="newer release"):
            await asked
    artifacts = ArtifactStore(job_log, settings)
    assert await expire(job_log, artifacts, job.id, datetime.now(UTC) + timedelta(days=1)) == 0
    assert await stored(job_log.connection) == before


async def test_what_a_newer_release_wrote_to_a_hidden_job_is_not_told(commands: JobCommands, job_log: JobLog) -> None:
    job = (await commands.create(request(), viewer("ada", "red"))).job
    await _retried_by_a_newer_release(job_log, await bring_to(job_log, commands, job, JobStatus.DEAD_LETTER))
    for stranger in viewer("bob", "blue"), viewer("eve", "red", types=["email"]), viewer("ada", None, Scope.CREATE):
        for asked in commands.cancel(job.id, stranger), commands.retry(job.id, stranger):
            with pytest.raises(NotFound):
                await asked
    with pytest.raises(QueueUnavailable, match="newer release"):
        await commands.cancel(job.id, viewer("bob", "red"))


async def test_a_key_whose_job_only_a_newer_release_can_read_makes_no_second_job(
    commands: JobCommands, job_log: JobLog
) -> None:
    made = request(idempotency_key="k")
    body = msgspec.json.decode(codec.encode_body(Submission(spec=made.spec(datetime.now(UTC), Settings()))))
    subject = codec.queued_subject(made.job_id(), "default", JobPriority.NORMAL)
    await job_log.connection.request(subject, msgspec.json.encode({**body, "v": NEWEST_VERSION + 1}))
    with pytest.raises(QueueUnavailable, match="newer release"):
        await commands.create(made)
    assert len(await stored(job_log.connection)) == 1


async def test_a_schedule_that_a_newer_release_has_changed_is_not_fired(commands: JobCommands, job_log: JobLog) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    job = (await commands.create(request(run_at=later))).job
    before = await _retried_by_a_newer_release(job_log, job)
    assert not await fire_overdue(job_log, job.id, later + timedelta(hours=1))
    assert await stored(job_log.connection) == before
