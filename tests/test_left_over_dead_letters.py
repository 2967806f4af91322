"""Copies in jobs-dlq that a retry has left behind, because NATS went away between its two steps."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from gql_jobs import maintenance
from gql_jobs.doctor.examination import examine
from gql_jobs.doctor.installation import Finding
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jetstream.stored_messages import SOURCE_HEADER, StoredMessage, messages_of
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.log import codec
from gql_jobs.log import commands as commands_module
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import remove_dead_letter, remove_left_over
from gql_jobs.maintenance import Maintenance
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.by_hand import bring_to, frozen
from tests.deadline import until
from tests.running import JOB_TYPES
from tests.stories import request


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are looked at in every sweep of the tests' own, however young; the process makes none of its own."""
    monkeypatch.setattr(maintenance, "SWEEP_INTERVAL", 3600.0)
    monkeypatch.setattr(maintenance, "DEAD_LETTERS_INTERVAL", 0.0)
    monkeypatch.setattr(maintenance, "KEEP_COPIES_FOR", timedelta(0))


@pytest.fixture
def sweeper(runtime: Runtime, job_log: JobLog, settings: Settings) -> Maintenance:
    """The sweeps of that process."""
    return Maintenance(job_log, runtime.artifacts, runtime.index, runtime.reader, runtime.feed, settings=settings)


async def _copies(connection: Connection, job: Job) -> list[StoredMessage]:
    subject = codec.event_subject(job.id, Kind.DEAD_LETTER)
    return [copy async for copy in messages_of(connection, codec.DEAD_LETTERS_STREAM, subject)]


async def _letter(runtime: Runtime, job_log: JobLog, job: Job, *, copies: int = 1) -> Job:
    """Dead-letter a queued job and wait for so many copies in all."""
    dead = await bring_to(job_log, runtime.commands, job, JobStatus.DEAD_LETTER)

    async def copied() -> bool:
        return len(await _copies(job_log.connection, job)) == copies

    await until(copied, "the server has copied the dead letter")
    assert await runtime.feed.wait_for(dead.last_seq, 10)
    return dead


async def _retried_into_an_outage(
    runtime: Runtime, nats: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    """The retry is stored, and then the server answers nothing until the copy has been given up."""

    async def away(*arguments: Any, **named: Any) -> None:
        with frozen(nats):
            await remove_dead_letter(*arguments, **named)

    await _retried(runtime, monkeypatch, job, away)


async def _retried_by_a_dying_process(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """The retry is stored, and its process does not come to the copy."""

    async def nothing(*_: Any, **__: Any) -> None:
        return

    await _retried(runtime, monkeypatch, job, nothing)


async def _retried(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, job: Job, instead: Any) -> None:
    with monkeypatch.context() as fault:
        fault.setattr(commands_module, "remove_dead_letter", instead)
        retried = await runtime.commands.retry(job.id)
    assert await runtime.feed.wait_for(retried.last_seq, 10)


async def test_a_copy_that_an_outage_left_behind_is_named_by_doctor_and_removed_by_the_sweep(
    runtime: Runtime,
    job_log: JobLog,
    nats: EmbeddedServer,
    sweeper: Maintenance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, queued, again = [
        await _letter(runtime, job_log, (await runtime.commands.create(request())).job) for _ in range(3)
    ]
    await _retried_into_an_outage(runtime, nats, monkeypatch, queued)
    await _retried_by_a_dying_process(runtime, monkeypatch, again)
    newest = await _letter(runtime, job_log, again, copies=2)

    named = [(codec.event_subject(job.id, Kind.DEAD_LETTER),) for job in (queued, again)]
    assert [found.examples for found in await _orphans(runtime)] == named

    await sweeper.sweep()
    assert await _copies(job_log.connection, queued) == []
    assert len(await _copies(job_log.connection, kept)) == 1
    (left,) = await _copies(job_log.connection, again)
    assert str(newest.event_seq) in (left.header(SOURCE_HEADER) or "").split()
    assert await _orphans(runtime) == []


async def _orphans(runtime: Runtime) -> list[Finding]:
    findings = await examine(runtime.settings, load_job_types(JOB_TYPES))
    return [found for found in findings if found.check == "orphans"]


async def test_a_job_that_is_dead_lettered_meanwhile_keeps_its_copy_whatever_the_index_knows(
    runtime: Runtime, job_log: JobLog, sweeper: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await runtime.commands.create(request())).job
    running = await bring_to(job_log, runtime.commands, job, JobStatus.PROCESSING)
    dead = await _letter(runtime, job_log, job)
    for known in running, None:
        monkeypatch.setattr(runtime.index, "job", {job.id: known}.get)
        await sweeper.sweep()
        assert len(await _copies(job_log.connection, dead)) == 1


async def test_a_copy_that_is_young_or_of_which_the_history_proves_nothing_stays(
    runtime: Runtime, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = await _letter(runtime, job_log, (await runtime.commands.create(request())).job)
    now = datetime.now(UTC)
    await _retried_by_a_dying_process(runtime, monkeypatch, dead)
    assert await remove_left_over(job_log, dead.id, now - timedelta(minutes=1)) == 0
    history = await job_log.history(dead.id)
    for known in [], history[:-1]:
        with monkeypatch.context() as stale:
            stale.setattr(job_log, "history", partial(_same, known))
            assert await remove_left_over(job_log, dead.id, datetime.now(UTC)) == 0
    assert await remove_left_over(job_log, dead.id, datetime.now(UTC)) == 1


async def _same(history: list[JobMessage], _: str) -> list[JobMessage]:
    return history
