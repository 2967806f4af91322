"""cancelJob, retryJob, retryJobs: from every state that allows them, with the history kept."""

from pathlib import Path

import pytest
from gql.transport.exceptions import TransportQueryError

from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.messages import Kind
from gql_jobs.log import codec
from gql_jobs.log.streams import stream_info
from gql_jobs.settings import Settings
from tests.api.operations import (
    CANCEL,
    RETRY,
    RETRY_MANY,
    ahead,
    create,
    ended,
    example,
    find,
    history,
    kinds,
    page,
    reached,
)
from tests.deadline import until
from tests.running import RunningWorker, running_worker
from tests.serving import Data, ServedApi


async def _cancel(api: ServedApi, job: Data) -> Data:
    cancelled: Data = (await api.ask(CANCEL, id=job["id"]))["cancelJob"]["job"]
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["finishedAt"]
    assert await find(api, job["id"]) == cancelled
    return cancelled


async def test_a_queued_job_is_cancelled(api: ServedApi, settings: Settings) -> None:
    job = await create(api)
    cancelled = await _cancel(api, job)
    assert (cancelled["attempt"], cancelled["durationMs"]) == (0, None)
    async with running_worker(settings):
        await ended(api, (await create(api))["id"])
    assert kinds(await history(api, job["id"])) == ["Queued", "Cancelled"]


async def test_a_scheduled_job_is_cancelled_and_its_time_passes_unnoticed(
    api: ServedApi, worker: RunningWorker
) -> None:
    assert worker.task is not None
    job = await create(api, runAt=ahead(seconds=1.5))
    await _cancel(api, job)
    later = await create(api, runAt=ahead(seconds=1.6))
    await ended(api, later["id"])
    assert kinds(await history(api, job["id"])) == ["Scheduled", "Cancelled"]
    assert (await find(api, job["id"]))["status"] == "CANCELLED"


async def test_a_running_job_s_cancellation_shows_what_became_of_it(
    api: ServedApi, worker: RunningWorker, tmp_path: Path
) -> None:
    assert worker.task is not None
    job = await create(api, {"gate": str(tmp_path / "never")})
    running = await reached(api, job["id"], "PROCESSING")
    await _cancel(api, job)

    async def receipted() -> Data | None:
        told: Data = (await api.ask(example("job"), id=job["id"]))["job"]["cancellation"]
        return told if told["outcome"] is not None else None

    told = await until(receipted, "the end of the handler is receipted")
    assert (told["outcome"], told["workerId"]) == ("STOPPED", running["workerId"])
    assert told["requestedAt"] <= told["deliveredAt"] <= told["endedAt"]
    untouched = await create(api)
    assert (await api.ask(example("job"), id=untouched["id"]))["job"]["cancellation"] is None


async def test_a_job_that_waits_for_its_retry_is_cancelled(api: ServedApi, settings: Settings) -> None:
    async with running_worker(settings.model_copy(update={"base_retry_delay": 0.4})):
        job = await create(api, {"failAttempts": 1})
        waiting = await reached(api, job["id"], "RETRYING")
        assert waiting["nextAttemptAt"] > waiting["updatedAt"]
        assert waiting["error"]["message"] == "Attempt 1 fails."
        cancelled = await _cancel(api, job)
        assert cancelled["nextAttemptAt"] is None
        other = await create(api, {"failAttempts": 1})
        await ended(api, other["id"])
    assert kinds(await history(api, job["id"])) == ["Queued", "Started", "Failed", "Cancelled"]


async def test_a_running_job_is_cancelled_and_its_slot_is_free_at_once(
    api: ServedApi, settings: Settings, tmp_path: Path
) -> None:
    async with running_worker(settings.model_copy(update={"num_workers": 1})):
        job = await create(api, {"gate": str(tmp_path / "never")})
        await reached(api, job["id"], "PROCESSING")
        await _cancel(api, job)
        await ended(api, (await create(api))["id"])
    assert kinds(await history(api, job["id"])) == ["Queued", "Started", "Cancelled"]


@pytest.mark.parametrize("payload", [{"permanent": True}, {"failAttempts": 2}], ids=["permanent", "used up"])
async def test_a_dead_letter_is_retried_with_a_fresh_budget_and_leaves_the_dead_letters(
    api: ServedApi, worker: RunningWorker, payload: Data
) -> None:
    assert worker.task is not None
    connection = api.runtime.connection
    job = await create(api, payload, maxRetries=1)
    dead = await ended(api, job["id"], "DEAD_LETTER")
    attempts = 1 if "permanent" in payload else 2
    assert (dead["attempt"], dead["retryCount"]) == (attempts, attempts - 1)
    assert dead["error"]["retryable"] is (attempts == 2)

    async def dead_letter() -> object:
        return await last_message(
            connection, codec.DEAD_LETTERS_STREAM, codec.event_subject(job["id"], Kind.DEAD_LETTER)
        )

    await until(dead_letter, "the server copies the dead letter")
    await worker.stop()
    retried = (await api.ask(RETRY, id=job["id"]))["retryJob"]["job"]
    assert (retried["status"], retried["attempt"], retried["retryCount"]) == ("QUEUED", 0, 0)
    assert (retried["error"], retried["finishedAt"], retried["progress"]) == (None, None, 0)
    assert retried["createdAt"] == job["createdAt"]
    assert (await stream_info(connection, codec.DEAD_LETTERS_STREAM)).state.messages == 0
    assert kinds(await history(api, job["id"]))[-2:] == ["DeadLetter", "Queued"]


async def test_a_retried_job_counts_its_attempts_anew(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    job = await create(api, {"failAttempts": 1, "steps": 2}, maxRetries=0)
    await ended(api, job["id"], "DEAD_LETTER")
    await api.ask(RETRY, id=job["id"])
    again = await ended(api, job["id"], "DEAD_LETTER")
    assert (again["attempt"], again["retryCount"]) == (1, 0)
    happened = await history(api, job["id"])
    assert kinds(happened) == ["Queued", "Started", "DeadLetter", "Queued", "Started", "DeadLetter"]
    assert [event["attempt"] for event in happened if "attempt" in event] == [1, 1]


async def test_a_cancelled_job_is_retried_and_completes(api: ServedApi, settings: Settings) -> None:
    job = await create(api, {"steps": 2})
    await _cancel(api, job)
    assert (await api.ask(RETRY, id=job["id"]))["retryJob"]["job"]["status"] == "QUEUED"
    async with running_worker(settings):
        done = await ended(api, job["id"])
    assert (done["progress"], done["attempt"]) == (100, 1)
    assert kinds(await history(api, job["id"])) == ["Queued", "Cancelled", "Queued", "Started", "Completed"]


async def test_all_that_match_are_retried_and_others_are_left_alone(api: ServedApi, settings: Settings) -> None:
    jobs = [await create(api, tags=["mine"] if number % 2 else []) for number in range(8)]
    for job in jobs[:6]:
        await _cancel(api, job)
    mine = {"filter": {"tags": ["mine"]}}
    assert (await api.ask(RETRY_MANY, filter={"tags": ["mine"], "status": ["DEAD_LETTER"]}))["retryJobs"] == {
        "retriedCount": 0
    }
    assert (await api.ask(RETRY_MANY, **mine))["retryJobs"]["retriedCount"] == 3
    # Applied before the answer: a count straight after it is right.
    assert (await page(api, filter={"status": ["QUEUED"]}))["totalCount"] == 5
    assert (await page(api, filter={"status": ["CANCELLED"]}))["totalCount"] == 3
    assert (await api.ask(RETRY_MANY, **mine))["retryJobs"]["retriedCount"] == 0
    async with running_worker(settings):
        for job in jobs[1::2]:
            await ended(api, job["id"])


async def test_the_history_holds_every_attempt_and_its_error(api: ServedApi, worker: RunningWorker) -> None:
    assert worker.task is not None
    job = await create(api, {"failAttempts": 2, "steps": 3})
    await ended(api, job["id"])
    happened = await history(api, job["id"], progress=True)
    assert kinds([event for event in happened if event["__typename"] != "JobProgress"]) == [
        *("Queued", "Started", "Failed", "Started", "Failed", "Started", "Completed")
    ]
    errors = [event["error"]["message"] for event in happened if event["__typename"] == "JobFailed"]
    assert errors == ["Attempt 1 fails.", "Attempt 2 fails."]
    assert [event["attempt"] for event in happened if event["__typename"] == "JobStarted"] == [1, 2, 3]
    moments = [event["at"] for event in happened]
    assert moments == sorted(moments)
    assert len({event["cursor"] for event in happened}) == len(happened)


async def test_of_a_cancellation_and_a_completion_that_cross_one_wins(
    api: ServedApi, worker: RunningWorker, tmp_path: Path
) -> None:
    assert worker.task is not None
    gate = tmp_path / "gate"
    jobs = [await create(api, {"gate": str(gate)}) for _ in range(3)]
    for job in jobs:
        await reached(api, job["id"], "PROCESSING")
    gate.touch()
    outcomes = []
    for job in jobs:
        try:
            outcomes.append((await api.ask(CANCEL, id=job["id"]))["cancelJob"]["job"]["status"])
        except TransportQueryError as refused:
            outcomes.append((refused.errors or [{}])[0]["extensions"]["status"])
    for job, outcome in zip(jobs, outcomes, strict=True):
        await ended(api, job["id"], outcome)
        assert kinds(await history(api, job["id"]))[:2] == ["Queued", "Started"]
        assert len(await history(api, job["id"])) == 3
