"""Several API processes over one server: what one has made the others find at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Cursor, JobStatus
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import ANYBODY, EVERYTHING
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.deadline import until
from tests.running import JOB_TYPES
from tests.stories import request


@pytest.fixture
async def other(runtime: Runtime, settings: Settings, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A second API process with an index of its own."""
    assert runtime.connection.connected
    async with open_runtime(settings.model_copy(update={"data_dir": tmp_path / "other"}), JOB_TYPES) as opened:
        yield opened


async def test_a_job_made_elsewhere_is_found_watched_and_decided_on_at_once(runtime: Runtime, other: Runtime) -> None:
    for _ in range(20):
        job = (await runtime.commands.create(request())).job
        assert await other.job(job.id, EVERYTHING) is not None
        job = (await runtime.commands.create(request())).job
        watching = await other.watch.job(job.id, ANYBODY)
        assert (await anext(watching)).kind is Kind.QUEUED
        assert (await runtime.commands.cancel(job.id)).status is JobStatus.CANCELLED
        assert [event.kind async for event in watching] == [Kind.CANCELLED]
        assert (await other.commands.retry(job.id)).status is JobStatus.QUEUED
        assert (await runtime.commands.cancel(job.id)).status is JobStatus.CANCELLED


async def test_a_cursor_given_out_elsewhere_is_waited_for(runtime: Runtime, other: Runtime) -> None:
    first = (await runtime.commands.create(request())).job
    cursor = Cursor((await runtime.commands.create_many([request() for _ in range(200)]))[-1].job.last_seq)
    opening = asyncio.ensure_future(other.watch.all(JobFilter(), ANYBODY, cursor))
    cancelled = await runtime.commands.cancel(first.id)
    async with await opening as resumed:
        event = await asyncio.wait_for(anext(resumed), 5)
    assert (event.kind, event.cursor) == (Kind.CANCELLED, Cursor(cancelled.last_seq))


async def test_a_process_that_came_after_a_cancelled_schedule_tells_its_end_too(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    """Of a job cancelled before its time only the cancellation is left, which then makes two events."""
    run_at = datetime.now(UTC) + timedelta(hours=1)
    job = (await runtime.commands.create(request(run_at=run_at))).job
    cancelled = await runtime.feed.read_back(await runtime.commands.cancel(job.id))
    late = settings.model_copy(update={"data_dir": tmp_path / "late"})
    async with open_runtime(late, JOB_TYPES) as other:
        assert await other.feed.wait_for(cancelled.last_seq, 5)
        events = other.index.events(job.id)
        assert [event.kind for event in events] == [Kind.SCHEDULED, Kind.CANCELLED]
        assert events[-1].cursor == runtime.index.events(job.id)[-1].cursor
        for number, event in enumerate(events):
            resumed = [later async for later in await other.watch.job(job.id, ANYBODY, event.cursor)]
            assert resumed == events[number + 1 :]


async def test_both_indexes_come_to_the_same(runtime: Runtime, other: Runtime) -> None:
    outcomes = await asyncio.gather(*(side.commands.create(request()) for _ in range(50) for side in (runtime, other)))
    last = max(outcome.job.last_seq for outcome in outcomes)
    await until(lambda: min(runtime.feed.position, other.feed.position) >= last, "both have applied everything")
    for outcome in outcomes:
        mine, theirs = runtime.index.job(outcome.job.id), other.index.job(outcome.job.id)
        assert mine is not None
        assert theirs is not None
        assert (mine.last_seq, mine.status) == (theirs.last_seq, theirs.status)
    assert await runtime.reader.count(JobFilter()) == await other.reader.count(JobFilter()) == 100


async def test_what_a_mutation_returned_is_in_its_own_index_once_settled(runtime: Runtime) -> None:
    for _ in range(20):
        job = await runtime.feed.read_back((await runtime.commands.create(request())).job)
        assert runtime.index.job(job.id) is not None
        cancelled = await runtime.feed.read_back(await runtime.commands.cancel(job.id))
        found = runtime.index.job(job.id)
        assert found is not None
        assert found.status is cancelled.status is JobStatus.CANCELLED
