"""What subscribers see: every lifecycle event once and in order, whenever they came."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gql_jobs.jobs.errors import InvalidArgument, NotFound
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Cursor, Job, JobStatus
from gql_jobs.jobs.requests import JobFilter, JobRequest
from gql_jobs.jobs.viewer import ANYBODY, EVERYTHING
from gql_jobs.live.bus import Subscriber
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import RunningWorker
from tests.stories import OTHER, request

needs_worker = pytest.mark.usefixtures("worker")


async def _create(runtime: Runtime, asked: JobRequest) -> Job:
    return await runtime.feed.read_back((await runtime.commands.create(asked)).job)


async def _finished(runtime: Runtime, payload: ProbePayload | None = None) -> Job:
    job = await _create(runtime, request(payload))
    async for event in await runtime.watch.job(job.id, ANYBODY):
        job = event.job
    return job


async def _collect(events: Subscriber) -> list[Event]:
    async with asyncio.timeout(20):
        return [event async for event in events]


async def _watched(runtime: Runtime, job_id: str) -> list[Event]:
    return await _collect(await runtime.watch.job(job_id, ANYBODY))


def _lifecycle(events: list[Event]) -> list[tuple[Cursor, Kind]]:
    return [(event.cursor, event.kind) for event in events if event.kind is not Kind.PROGRESS]


@needs_worker
async def test_whoever_comes_at_any_moment_sees_each_lifecycle_event_once_and_in_order(runtime: Runtime) -> None:
    """A new subscriber is attached at every event of every job while twenty jobs run."""
    watching: list[tuple[str, asyncio.Task[list[Event]]]] = []
    ended = 0

    def attach(job_id: str) -> None:
        watching.append((job_id, asyncio.create_task(_watched(runtime, job_id))))

    async with runtime.bus.subscribe_all() as every:
        for number in range(20):
            payload = ProbePayload(steps=3, seconds=0.03, fail_attempts=number % 2)
            attach((await runtime.commands.create(request(payload, max_retries=number % 3))).job.id)
        while ended < 20:
            event = await asyncio.wait_for(anext(every), 20)
            attach(event.job.id)
            await asyncio.sleep(0)
            attach(event.job.id)
            ended += event.is_terminal
    assert len(watching) > 150
    for job_id, task in watching:
        seen = await task
        history = _lifecycle(runtime.index.events(job_id))
        told = _lifecycle(seen)
        assert told == history[len(history) - len(told) :]
        assert seen[-1].is_terminal
        assert [event.cursor for event in seen] == sorted({event.cursor for event in seen})
    assert runtime.bus.subscribers == 0


@needs_worker
@pytest.mark.parametrize("payload", [ProbePayload(), ProbePayload(permanent=True)])
async def test_of_a_finished_job_the_terminal_event_alone_is_seen(runtime: Runtime, payload: ProbePayload) -> None:
    job = await _finished(runtime, payload)
    (only,) = await _collect(await runtime.watch.job(job.id, ANYBODY))
    assert only.is_terminal
    assert only.job == job


@needs_worker
async def test_a_cursor_resumes_exactly_behind_itself(runtime: Runtime) -> None:
    job = await _finished(runtime, ProbePayload(steps=2, fail_attempts=1))
    history = runtime.index.events(job.id)
    assert len(_lifecycle(history)) == 5
    for number, event in enumerate(history):
        assert await _collect(await runtime.watch.job(job.id, ANYBODY, event.cursor)) == history[number + 1 :]
    assert await _collect(await runtime.watch.job(job.id, ANYBODY, Cursor(0))) == history


async def test_a_job_that_is_running_is_resumed_from_the_index_and_then_live(
    runtime: Runtime, worker: RunningWorker, tmp_path: Path
) -> None:
    assert worker.task is not None
    gate = tmp_path / "gate"
    job = await _create(runtime, request(ProbePayload(gate=str(gate))))
    await until(lambda: _status(runtime, job) is JobStatus.PROCESSING, "the job runs")
    watching = await runtime.watch.job(job.id, ANYBODY, Cursor(job.last_seq))
    assert (await anext(watching)).kind is Kind.STARTED
    gate.touch()
    rest = await _collect(watching)
    assert [event.kind for event in rest if event.kind is not Kind.PROGRESS] == [Kind.COMPLETED]


def _status(runtime: Runtime, job: Job) -> JobStatus | None:
    found = runtime.index.job(job.id)
    return found.status if found is not None else None


@needs_worker
async def test_after_a_dead_letter_that_was_retried_it_goes_on_to_the_newest_end(runtime: Runtime) -> None:
    job = await _finished(runtime, ProbePayload(permanent=True))
    first = runtime.index.events(job.id)
    await runtime.feed.read_back(await runtime.commands.retry(job.id))
    (*_, last) = await _collect(await runtime.watch.job(job.id, ANYBODY))
    history = runtime.index.events(job.id)
    assert last == history[-1]
    assert last.cursor > first[-1].cursor
    for event in (first[0], first[-1]):
        resumed = await _collect(await runtime.watch.job(job.id, ANYBODY, event.cursor))
        assert resumed == [later for later in history if later.cursor > event.cursor]
        assert [e.kind for e in resumed][-3:] == [Kind.QUEUED, Kind.STARTED, Kind.DEAD_LETTER]


async def test_a_scheduled_job_that_is_cancelled_ends_for_its_watchers_too(runtime: Runtime) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    job = await _create(runtime, request(run_at=later))
    watching = await runtime.watch.job(job.id, ANYBODY)
    assert (await anext(watching)).kind is Kind.SCHEDULED
    await runtime.commands.cancel(job.id)
    assert [event.kind for event in await _collect(watching)] == [Kind.CANCELLED]
    for after, expected in ((Cursor(job.last_seq), [Kind.CANCELLED]), (_last(runtime, job), [])):
        assert [event.kind for event in await _collect(await runtime.watch.job(job.id, ANYBODY, after))] == expected


def _last(runtime: Runtime, job: Job) -> Cursor:
    return runtime.index.events(job.id)[-1].cursor


@pytest.mark.parametrize("job_id", ["", "*", ">", "*.event", "1", OTHER])
async def test_an_unknown_id_is_not_found(runtime: Runtime, job_id: str) -> None:
    await _create(runtime, request())
    for after in (None, Cursor(1)):
        with pytest.raises(NotFound):
            await _collect(await runtime.watch.job(job_id, ANYBODY, after))
    assert await runtime.job(job_id, EVERYTHING) is None
    assert runtime.bus.subscribers == 0


async def test_a_cursor_ahead_of_every_event_is_refused(runtime: Runtime) -> None:
    job = await _create(runtime, request())
    ahead = Cursor(job.last_seq + 1)
    with pytest.raises(InvalidArgument, match="ahead of every event"):
        await _collect(await runtime.watch.job(job.id, ANYBODY, ahead))
    with pytest.raises(InvalidArgument, match="ahead of every event"):
        await _collect(await runtime.watch.all(JobFilter(), ANYBODY, ahead))
    assert runtime.bus.subscribers == 0


async def test_a_cursor_older_than_the_events_that_are_kept_is_refused_and_the_oldest_named(runtime: Runtime) -> None:
    jobs = [await _create(runtime, request()) for _ in range(2)]
    runtime.index.horizon = jobs[1].last_seq
    with pytest.raises(InvalidArgument, match="older than the events") as refused:
        await _collect(await runtime.watch.job(jobs[1].id, ANYBODY, Cursor(jobs[0].last_seq)))
    oldest = Cursor.parse(refused.value.extensions["oldestCursor"])
    watching = await runtime.watch.all(JobFilter(), ANYBODY, oldest)
    more = await _create(runtime, request())
    assert (await asyncio.wait_for(anext(watching), 5)).job.id == more.id
    await watching.aclose()


async def test_an_old_job_that_lives_is_resumed_however_much_has_expired_since(runtime: Runtime) -> None:
    old = await _create(runtime, request())
    young = await _create(runtime, request())
    runtime.index.horizon = young.last_seq
    await runtime.feed.read_back(await runtime.commands.cancel(old.id))
    assert [event.kind for event in await _collect(await runtime.watch.job(old.id, ANYBODY, Cursor(old.last_seq)))] == [
        Kind.CANCELLED
    ]
    with pytest.raises(InvalidArgument, match="older than the events"):
        await runtime.watch.all(JobFilter(), ANYBODY, Cursor(old.last_seq))


@needs_worker
async def test_all_events_of_the_jobs_that_match_as_they_are_at_that_event(runtime: Runtime) -> None:
    wanted = JobFilter(tags=frozenset({"mine"}), status=frozenset({JobStatus.PROCESSING, JobStatus.COMPLETED}))
    begun = Cursor(runtime.feed.position)
    live = await runtime.watch.all(wanted, ANYBODY)
    first = asyncio.ensure_future(anext(live))
    await asyncio.sleep(0)
    jobs = [await _create(runtime, request(tags=(tag,))) for tag in ("mine", "other", "mine")]
    for job in jobs:
        await _collect(await runtime.watch.job(job.id, ANYBODY))
    seen = [await asyncio.wait_for(first, 5)]
    while sum(event.is_terminal for event in seen) < 2:
        seen.append(await asyncio.wait_for(anext(live), 5))
    await live.aclose()
    assert {event.job.id for event in seen} == {jobs[0].id, jobs[2].id}
    assert {event.kind for event in seen} - {Kind.PROGRESS} == {Kind.STARTED, Kind.COMPLETED}
    resumed = await runtime.watch.all(wanted, ANYBODY, begun)
    again = [await asyncio.wait_for(anext(resumed), 5) for _ in _lifecycle(seen)]
    await resumed.aclose()
    assert _lifecycle(again) == _lifecycle(seen)
    assert runtime.bus.subscribers == 0


async def test_whoever_waits_for_several_jobs_begins_with_the_latest_event_of_each(runtime: Runtime) -> None:
    """In the order of the history, and what happens meanwhile comes once."""
    jobs = [await _create(runtime, request()) for _ in range(4)]
    await runtime.feed.read_back(await runtime.commands.cancel(jobs[0].id))
    named = frozenset({jobs[0].id, jobs[1].id, jobs[2].id, OTHER})
    async with await runtime.watch.all(JobFilter(ids=named), ANYBODY, latest=True) as events:
        first = await anext(events)
        assert (first.job.id, first.kind) == (jobs[1].id, Kind.QUEUED)
        # It moves before its turn has come, so that it is told of that alone.
        await runtime.feed.read_back(await runtime.commands.cancel(jobs[2].id))
        await runtime.feed.read_back(await runtime.commands.cancel(jobs[3].id))
        following = [await anext(events) for _ in range(2)]
        assert [(event.job.id, event.kind) for event in following] == [
            (jobs[0].id, Kind.CANCELLED),
            (jobs[2].id, Kind.CANCELLED),
        ]
        await runtime.feed.read_back(await runtime.commands.cancel(jobs[1].id))
        assert (await anext(events)).job.id == jobs[1].id


async def test_of_the_latest_events_come_those_that_match_and_a_cursor_counts_more(runtime: Runtime) -> None:
    jobs = [await _create(runtime, request()) for _ in range(2)]
    cancelled = await runtime.feed.read_back(await runtime.commands.cancel(jobs[0].id))
    wanted = JobFilter(ids=frozenset(job.id for job in jobs), status=frozenset({JobStatus.CANCELLED}))
    async with await runtime.watch.all(wanted, ANYBODY, latest=True) as events:
        event = await anext(events)
        assert event.cursor == Cursor(cancelled.last_seq)
        await runtime.feed.read_back(await runtime.commands.cancel(jobs[1].id))
        assert (await anext(events)).job.id == jobs[1].id
    async with await runtime.watch.all(wanted, ANYBODY, event.cursor, latest=True) as events:
        assert (await anext(events)).job.id == jobs[1].id


async def test_after_a_step_back_the_latest_events_still_come_in_order(runtime: Runtime) -> None:
    jobs = [await _create(runtime, request()) for _ in range(3)]
    async with await runtime.watch.all(JobFilter(ids=frozenset(job.id for job in jobs)), ANYBODY, latest=True) as seen:
        assert (await anext(seen)).job.id == jobs[0].id
        seen.step_back()
        assert [(await anext(seen)).job.id for _ in jobs] == [job.id for job in jobs]
