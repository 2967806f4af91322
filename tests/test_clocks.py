"""Machines whose clocks differ: the order is the stream's, and no decision looks at another machine's time."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.by_hand import bring_to
from tests.stories import request


@pytest.fixture
def ahead(job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> JobCommands:
    """The decisions of a machine whose clock is an hour ahead."""
    return _shifted(job_log, settings, monkeypatch, timedelta(hours=1))


@pytest.fixture
def behind(job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> JobCommands:
    """The decisions of a machine whose clock is an hour behind."""
    return _shifted(job_log, settings, monkeypatch, -timedelta(hours=1))


def _shifted(job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> JobCommands:
    commands = JobCommands(job_log, settings)
    monkeypatch.setattr(commands, "_creation_time", lambda: datetime.now(UTC) + by)
    return commands


async def test_clocks_an_hour_apart_change_neither_the_order_of_events_nor_what_becomes_of_a_job(
    runtime: Runtime, job_log: JobLog, ahead: JobCommands, behind: JobCommands
) -> None:
    first = (await ahead.create(request(idempotency_key="k"))).job
    second = (await behind.create(request())).job
    assert first.spec.created_at > second.spec.created_at
    assert (await behind.create(request(idempotency_key="k"))).deduplicated
    await behind.cancel(first.id)
    await ahead.retry(first.id)
    done = await bring_to(job_log, behind, first, JobStatus.COMPLETED)
    await bring_to(job_log, ahead, second, JobStatus.DEAD_LETTER)
    again = await behind.retry(second.id)
    assert await runtime.feed.wait_for(again.last_seq, 10)
    told = {job.id: runtime.index.events(job.id) for job in (first, second)}
    assert [event.kind for event in told[first.id]] == [
        *(Kind.QUEUED, Kind.CANCELLED),
        *(Kind.QUEUED, Kind.STARTED, Kind.COMPLETED),
    ]
    assert [event.kind for event in told[second.id]] == [Kind.QUEUED, Kind.STARTED, Kind.DEAD_LETTER, Kind.QUEUED]
    for events in told.values():
        assert all(one.cursor < next_one.cursor for one, next_one in pairwise(events))
        # After its creation a job's times are those of the server.
        assert all(one.job.updated_at <= next_one.job.updated_at for one, next_one in pairwise(events[1:]))
    assert told[first.id][0].cursor < told[second.id][0].cursor
    found = runtime.index.job(first.id)
    assert found is not None
    assert (found.status, found.attempt, found.last_seq) == (JobStatus.COMPLETED, 1, done.last_seq)
