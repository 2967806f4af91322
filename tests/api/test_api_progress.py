"""jobProgress: from the present state to the end, for early, late and returning subscribers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.graphql.job_types import presented_event
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind, Progress, Started
from gql_jobs.jobs.model import Cursor, Job
from gql_jobs.settings import Settings
from tests.api.operations import (
    CANCEL,
    RETRY,
    WATCH,
    create,
    ended,
    history,
    kinds,
    lifecycle,
    reached,
    watched,
)
from tests.running import RunningWorker, running_worker
from tests.serving import Data, ServedApi, serving
from tests.stories import job_after, queued, said


async def test_a_subscriber_sees_the_job_from_its_present_state_to_its_end(
    api: ServedApi, worker: RunningWorker, tmp_path: Path
) -> None:
    assert worker.task is not None
    gate = tmp_path / "gate"
    job = await create(api, {"gate": str(gate), "steps": 4, "seconds": 0.5})
    await reached(api, job["id"], "PROCESSING")
    events = []
    async with aclosing(api.events(WATCH, id=job["id"])) as stream:
        async for event in stream:
            gate.touch()
            events.append(event)
    assert kinds(lifecycle(events)) == ["Started", "Completed"]
    assert events[0]["attempt"] == 1
    percents = [event["job"]["progress"] for event in events]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert len(percents) > 3
    assert events[-1]["job"]["status"] == "COMPLETED"
    assert events[-1]["durationMs"] >= 400
    await api.subscribers(0)


async def test_a_failed_attempt_is_seen_with_its_error(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    job = await create(api, {"failAttempts": 1})
    events = lifecycle(await watched(api, job["id"]))
    assert kinds(events)[-4:] == ["Started", "Failed", "Started", "Completed"]
    failed = events[-3]
    assert failed["error"]["message"] == "Attempt 1 fails."
    # By the clock of the worker that failed, which then had to store it.
    assert failed["nextAttemptAt"] > events[-4]["at"]
    assert [event["job"]["retryCount"] for event in events][-1] == 1


async def test_a_late_subscriber_is_told_the_end_alone(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    done = await create(api, {"steps": 2})
    await ended(api, done["id"])
    failed = await create(api, {"permanent": True})
    await ended(api, failed["id"], "DEAD_LETTER")
    assert kinds(await watched(api, done["id"])) == ["Completed"]
    (dead,) = await watched(api, failed["id"])
    assert dead["__typename"] == "JobDeadLetter"
    assert dead["error"] == {"message": "This can never work.", "retryable": False}


async def test_a_cancelled_job_ends_its_subscription(api: ServedApi) -> None:
    job = await create(api)
    async with aclosing(api.events(WATCH, id=job["id"])) as stream:
        assert (await anext(stream))["__typename"] == "JobQueued"
        await api.ask(CANCEL, id=job["id"])
        assert (await anext(stream))["__typename"] == "JobCancelled"
        assert await anext(stream, None) is None


async def test_after_resumes_without_a_gap_or_a_repetition(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    job = await create(api, {"failAttempts": 2, "steps": 2})
    await ended(api, job["id"])
    whole = await history(api, job["id"])
    assert kinds(whole) == ["Queued", "Started", "Failed", "Started", "Failed", "Started", "Completed"]
    for place, event in enumerate(whole):
        resumed = await watched(api, job["id"], after=event["cursor"])
        assert lifecycle(resumed) == whole[place + 1 :]
    assert lifecycle(await watched(api, job["id"], after="0")) == whole


async def test_after_resumes_over_a_restart_of_the_server(settings: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    seen = []
    async with running_worker(settings):
        async with serving(settings) as before:
            job = await create(before, {"gate": str(gate), "steps": 2, "failAttempts": 1})
            async with aclosing(before.events(WATCH, id=job["id"])) as stream:
                async for event in stream:
                    seen.append(event)
                    if event.get("attempt") == 2:
                        break
        gate.touch()
        async with serving(settings) as after:
            seen += await watched(after, job["id"], after=seen[-1]["cursor"])
            whole = await history(after, job["id"])
    assert lifecycle(seen) == whole[whole.index(seen[0]) :]
    assert kinds(seen)[-1] == "Completed"


async def test_a_retried_dead_letter_goes_on_to_its_newest_end(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    job = await create(api, {"failAttempts": 1}, maxRetries=0)
    begun = (await history(api, job["id"]))[0]["cursor"]
    await ended(api, job["id"], "DEAD_LETTER")
    await api.ask(RETRY, id=job["id"])
    await ended(api, job["id"], "DEAD_LETTER")
    resumed = lifecycle(await watched(api, job["id"], after=begun))
    assert kinds(resumed) == ["Started", "DeadLetter", "Queued", "Started", "DeadLetter"]


async def test_a_cursor_of_no_event_is_refused(api: ServedApi) -> None:
    job = await create(api)
    document = f'subscription {{ jobProgress(id: "{job["id"]}", after: "%s") {{ cursor }} }}'
    async with api.raw_socket() as opened:
        for number, cursor in enumerate(("soon", "-1", "1.x", "999999", "0" * 30)):
            refusal = await api.refused_on(opened, str(number), document % cursor)
            assert (refusal["extensions"]["code"], refusal["extensions"]["argument"]) == ("INVALID_ARGUMENT", "after")
    await api.subscribers(0)


async def test_few_reports_of_progress_come_to_who_wants_few_and_all_else_comes(
    api: ServedApi, worker: RunningWorker
) -> None:
    assert worker.task is not None
    watch = "subscription ($id: ID!) { jobProgress(id: $id, maxPerSecond: 0.1) { __typename cursor job { progress } } }"
    feed = "subscription { jobEvents(maxPerSecond: 0.1) { __typename cursor job { id } } }"
    async with aclosing(api.events(feed)) as every:
        following = asyncio.create_task(_until_completed(every, 2))
        await api.subscribers(1)
        jobs = [await create(api, {"steps": 20, "seconds": 0.5}) for _ in range(2)]
        for job in jobs:
            async with aclosing(api.events(watch, id=job["id"])) as stream:
                events = [event async for event in stream]
            assert kinds(lifecycle(events))[-1] == "Completed"
            assert kinds(events).count("Progress") <= 1
        seen = await following
    assert kinds(seen).count("Progress") <= 1
    for job in jobs:
        of_job = [event for event in lifecycle(seen) if event["job"]["id"] == job["id"]]
        expected = [event["cursor"] for event in await history(api, job["id"])]
        assert [event["cursor"] for event in of_job] == expected


async def _until_completed(stream: AsyncIterator[Data], jobs: int) -> list[Data]:
    seen: list[Data] = []
    async for event in stream:
        seen.append(event)
        if kinds(seen).count("Completed") == jobs:
            break
    return seen


def _unshown(_job: Job) -> Any:
    raise AssertionError("the job is not selected")


def test_results_of_two_reports_that_are_told_at_one_position_are_not_shared() -> None:
    started = (queued(1), said(2, Started))
    late = [job_after(*started, said(seq, Progress)) for seq in (3, 4)]
    shown = [presented_event(Event(Kind.PROGRESS, Cursor(5, 500), job), _unshown) for job in late]
    assert shown[0].cursor == shown[1].cursor == "5.500"
    assert shown[0].key != shown[1].key
    assert presented_event(Event(Kind.PROGRESS, Cursor(3), late[0]), _unshown).key == "3"


@pytest.mark.parametrize("field", ["jobProgress", "jobEvents"])
@pytest.mark.parametrize("rate", ["0.05", "10.5", "-1", "1e999"])
async def test_a_rate_of_progress_that_is_out_of_range_is_refused(api: ServedApi, field: str, rate: str) -> None:
    job = await create(api)
    asked = f'id: "{job["id"]}", ' if field == "jobProgress" else ""
    async with api.raw_socket() as opened:
        document = f"subscription {{ {field}({asked}maxPerSecond: {rate}) {{ cursor }} }}"
        refusal = await api.refused_on(opened, "1", document)
    if rate != "1e999":
        assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "maxPerSecond"}
    await api.subscribers(0)
