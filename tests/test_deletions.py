"""Deletions through whole processes: gone from every index, finished by whoever is left, told to who watches."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import maintenance
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.errors import NotFound, QueueUnavailable
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import Cursor, Job, JobStatus
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import ANYBODY
from gql_jobs.log import codec
from gql_jobs.log.job_log import Fence, JobLog, Write
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import bring_to, stored
from tests.deadline import until
from tests.running import JOB_TYPES, running_worker
from tests.stories import request


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps that follow each other at once; what has expired, and was not deleted, is let alone."""
    monkeypatch.setattr(maintenance, "SWEEP_INTERVAL", 0.05)
    monkeypatch.setattr(maintenance, "REMAINS_AFTER", timedelta(days=1))


@pytest.fixture
async def other(settings: Settings, tmp_path: Path, runtime: Runtime) -> AsyncIterator[Runtime]:
    """A second API process, with an index of its own."""
    assert runtime.connection.connected
    async with open_runtime(settings.model_copy(update={"data_dir": tmp_path / "other"}), JOB_TYPES) as opened:
        yield opened


async def _created(runtime: Runtime, *others: Runtime, **options: Any) -> Job:
    """A job that all of them know."""
    created = await runtime.commands.create(request(**options))
    for one in (runtime, *others):
        assert await one.feed.wait_for(created.last_seq, 5)
    return created.job


async def _is_clean(runtime: Runtime) -> bool:
    return all(message.kind is Kind.EXPIRED for message in await stored(runtime.connection))


async def test_a_deleted_job_is_gone_from_the_index_of_every_process(runtime: Runtime, other: Runtime) -> None:
    job = await _created(runtime, other, tags=("a",))
    outcome = await other.deletions.delete(job.id)
    for one in (runtime, other):
        assert await one.feed.wait_for(outcome.seq, 5)
        assert one.index.job(job.id) is None
        assert one.index.jobs == 0
        assert await one.reader.count(JobFilter(tags=frozenset({"a"}))) == 0


async def test_what_a_killed_process_left_of_a_deleted_job_is_removed_by_any_other_at_once(
    runtime: Runtime, other: Runtime, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await _created(runtime, other)
    await bring_to(job_log, runtime.commands, job, JobStatus.DEAD_LETTER)
    copied = partial(last_message, runtime.connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS)
    await until(copied, "the dead letter is copied")

    async def die(*_: Any) -> None:
        raise QueueUnavailable("killed")

    monkeypatch.setattr(runtime.deletions, "_clear", die)
    with pytest.raises(QueueUnavailable):
        await runtime.deletions.delete(job.id)
    await until(lambda: _is_clean(other), "nothing is left of the job")
    await until(lambda: _has_no(other, codec.DEAD_LETTERS_STREAM), "nor of its dead letter")


async def _has_no(runtime: Runtime, stream: str) -> bool:
    return await last_message(runtime.connection, stream, codec.ALL_JOBS) is None


async def _cross(runtime: Runtime, job_log: JobLog, job: Job) -> None:
    """Store a release of a job that is deleted by now, as a holder of the gate has sent it before."""
    last = await job_log.last(codec.ALL_JOBS)
    assert last is not None
    subject = codec.queued_subject(job.id, job.spec.queue, job.spec.priority)
    body = Submission(spec=job.spec, release=True)
    seq = await job_log.append(Write(job.id, subject, body, Fence(codec.ALL_JOBS, last.seq)))
    assert await runtime.feed.wait_for(seq, 5)


async def test_a_release_that_crosses_a_deletion_makes_no_ghost_runs_nowhere_and_is_swept(
    runtime: Runtime, other: Runtime, job_log: JobLog, settings: Settings, tmp_path: Path
) -> None:
    job = await _created(runtime, other)
    await runtime.deletions.delete(job.id)
    await until(lambda: not other.index.with_remains(job.updated_at, 10), "the deletion is done with")
    await _cross(runtime, job_log, job)
    assert runtime.index.job(job.id) is None
    # One built now finds the event, and the ghost if it is quick.
    later = settings.model_copy(update={"data_dir": tmp_path / "later"})
    async with open_runtime(later, JOB_TYPES) as built, running_worker(settings):
        await until(lambda: built.feed.caught_up, "it has caught up")
        assert built.index.job(job.id) is None
        await until(lambda: _is_clean(runtime), "the ghost is swept")
        assert built.index.jobs == 0
    with pytest.raises(NotFound):
        await runtime.commands.cancel(job.id)


async def test_who_watches_a_job_is_told_that_it_was_deleted(runtime: Runtime) -> None:
    job, kept = await _created(runtime), await _created(runtime)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(await runtime.watch.job(job.id, ANYBODY))
        named = await stack.enter_async_context(
            await runtime.watch.all(JobFilter(ids=frozenset({job.id, kept.id})), ANYBODY)
        )
        others = await stack.enter_async_context(await runtime.watch.all(JobFilter(ids=frozenset({kept.id})), ANYBODY))
        assert (await anext(one)).kind is Kind.QUEUED
        waiting = [asyncio.create_task(anext(events)) for events in (one, named, others)]
        await runtime.deletions.delete(job.id)
        for task in waiting[:2]:
            with pytest.raises(QueueUnavailable, match="was deleted"):
                await task
        await runtime.commands.cancel(kept.id)
        assert (await waiting[2]).kind is Kind.CANCELLED


async def test_whoever_comes_back_goes_on_behind_a_cursor_of_before_a_deletion(runtime: Runtime) -> None:
    first = await _created(runtime)
    deleted, last = await _created(runtime), await _created(runtime)
    outcome = await runtime.deletions.delete(deleted.id)
    assert await runtime.feed.wait_for(outcome.seq, 5)
    async with await runtime.watch.all(JobFilter(), ANYBODY, Cursor(first.last_seq)) as events:
        assert (await anext(events)).job.id == last.id


async def test_a_job_that_others_wait_for_is_kept_past_its_retention(runtime: Runtime, job_log: JobLog) -> None:
    needed = await _created(runtime)
    done = await bring_to(job_log, runtime.commands, needed, JobStatus.COMPLETED)
    assert await runtime.feed.wait_for(done.last_seq, 5)
    assert await runtime.reader.finished(done.updated_at + timedelta(days=1), 10) == [needed.id]
