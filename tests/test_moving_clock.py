"""A clock that tests move forward: what the server dates is moved with it, and what waits there is asked for again."""

from datetime import UTC, datetime, timedelta
from functools import partial
from time import time

import pytest

from gql_jobs import clock
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import fire_overdue
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker
from tests.stories import request
from tests.workers.stories import reached

HOUR = timedelta(hours=1)
NEARLY = timedelta(seconds=5)


def test_where_it_cannot_be_moved_it_is_python_s_own() -> None:
    assert isinstance(clock.now, partial)
    assert (clock.now.func, clock.timestamp) == (datetime.now, time)
    assert clock.delay_at_server(3600) == 3600
    with pytest.raises(ValueError, match="cannot be moved"):
        clock.advance(HOUR)


@pytest.mark.usefixtures("movable_clock")
def test_it_goes_forward_only_and_is_the_machine_s_again_in_the_end() -> None:
    assert clock.now() - datetime.now(UTC) < NEARLY
    clock.advance(HOUR)
    clock.advance(HOUR)
    assert 2 * HOUR - NEARLY < clock.now() - datetime.now(UTC) <= 2 * HOUR
    assert 7195 < clock.timestamp() - time() <= 7200
    with pytest.raises(ValueError, match="forward only"):
        clock.advance(-HOUR)
    clock.make_fixed()
    assert clock.now() - datetime.now(UTC) < NEARLY


@pytest.mark.usefixtures("movable_clock")
def test_what_the_server_dated_keeps_its_order_however_often_the_clock_is_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin, second = datetime(2026, 1, 1, tzinfo=UTC), timedelta(seconds=1)
    for number in range(3):
        monkeypatch.setattr(clock, "_machine_now", partial(begin.__add__, number * second))
        clock.advance(HOUR)
    dated = [begin + (number - 0.5) * second for number in range(4)]
    told = [clock.told_by_server(moment) for moment in dated]
    assert [moment - at for moment, at in zip(told, dated, strict=True)] == [number * HOUR for number in range(4)]
    assert clock.told_by_server(clock.for_server(clock.now())) <= clock.now()
    assert clock.delay_at_server(3600) == clock.LONGEST_DELAY
    assert clock.delay_at_server(0.05) == 0.05


@pytest.mark.usefixtures("movable_clock")
async def test_a_retry_comes_when_the_clock_has_been_moved_to_it(runtime: Runtime, settings: Settings) -> None:
    job = (await runtime.commands.create(request(ProbePayload(fail_attempts=1)))).job
    async with running_worker(settings.model_copy(update={"base_retry_delay": 60.0, "retry_jitter": 0.0})):
        failed = await reached(runtime, job.id, JobStatus.RETRYING)
        assert failed.next_attempt_at is not None
        assert failed.next_attempt_at - clock.now() > timedelta(seconds=30)
        clock.advance(HOUR)
        done = await reached(runtime, job.id, JobStatus.COMPLETED)
    assert (done.attempt, done.spec.created_at < failed.updated_at < done.updated_at) == (2, True)
    assert done.updated_at - failed.updated_at >= HOUR


@pytest.mark.usefixtures("movable_clock")
async def test_a_schedule_is_due_by_the_clock_that_was_moved(runtime: Runtime, job_log: JobLog) -> None:
    later = (await runtime.commands.create(request(run_at=clock.now() + HOUR))).job
    assert not await fire_overdue(job_log, later.id, await job_log.server_time())
    clock.advance(HOUR)
    assert await fire_overdue(job_log, later.id, await job_log.server_time())
    # The server, whose own clock is an hour behind, fires what is due soon.
    soon = (await runtime.commands.create(request(run_at=clock.now() + timedelta(seconds=0.3)))).job
    assert soon.status is JobStatus.SCHEDULED

    def queued() -> bool:
        found = runtime.index.job(soon.id)
        return found is not None and found.status is JobStatus.QUEUED

    await until(queued, "the server has fired the schedule", within=4)
