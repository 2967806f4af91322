"""cancelJob, retryJob, retryJobs: from every state that allows them, with the history kept."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gql.transport.exceptions import TransportQueryError

from gql_jobs.graphql import mutations
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Kind
from gql_jobs.live import bulk_runs
from gql_jobs.log import codec, retention
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.streams import stream_info
from gql_jobs.settings import Settings
from tests.api.operations import (
    CANCEL,
    RETRY,
    RETRY_MANY,
    ahead,
    asked,
    create,
    create_many,
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
from tests.serving import Data, ServedApi, hear, say


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
    async with running_worker(settings.model_copy(update={"base_retry_delay": 2})):
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
        "retriedCount": 0,
        "remainingCount": 0,
    }
    assert (await api.ask(RETRY_MANY, **mine))["retryJobs"]["retriedCount"] == 3
    # Applied before the answer: a count straight after it is right.
    assert (await page(api, filter={"status": ["QUEUED"]}))["totalCount"] == 5
    assert (await page(api, filter={"status": ["CANCELLED"]}))["totalCount"] == 3
    assert (await api.ask(RETRY_MANY, **mine))["retryJobs"]["retriedCount"] == 0
    async with running_worker(settings):
        for job in jobs[1::2]:
            await ended(api, job["id"])


async def test_a_cancelled_job_that_was_for_later_is_held_until_then_once_more_when_it_is_retried(
    api: ServedApi, worker: RunningWorker
) -> None:
    assert worker.task is not None
    run_at = ahead(seconds=3)
    job = await create(api, runAt=run_at)
    assert (await _cancel(api, job))["runAt"] == run_at
    retried = (await api.ask(RETRY, id=job["id"]))["retryJob"]["job"]
    assert (retried["status"], retried["runAt"]) == ("SCHEDULED", run_at)
    done = await ended(api, job["id"])
    assert (done["runAt"], done["attempt"]) == (run_at, 1)
    assert done["startedAt"] >= run_at
    told = kinds(await history(api, job["id"]))
    assert told == ["Scheduled", "Cancelled", "Scheduled", "Queued", "Started", "Completed"]


async def test_a_dead_letter_whose_time_has_passed_runs_at_once_when_it_is_retried(
    api: ServedApi, settings: Settings
) -> None:
    job = await create(api, {"permanent": True}, runAt=ahead(seconds=2))
    assert job["status"] == "SCHEDULED"
    async with running_worker(settings):
        assert (await ended(api, job["id"], "DEAD_LETTER"))["runAt"] == job["runAt"]
    retried = (await api.ask(RETRY, id=job["id"]))["retryJob"]["job"]
    assert (retried["status"], retried["runAt"]) == ("QUEUED", job["runAt"])


async def _cancelled(api: ServedApi, number: int) -> list[Data]:
    """So many cancelled jobs."""
    ids = await create_many(api, [asked() for _ in range(number)])
    return [await _cancel(api, {"id": job_id}) for job_id in ids]


async def _come_to(api: ServedApi, jobs: list[Data], states: list[str]) -> None:
    """Wait until the index has the jobs in these states."""

    async def are_so() -> bool:
        return [(await find(api, job["id"]))["status"] for job in jobs] == states

    await until(are_so, f"the jobs are {states}")


async def test_a_bulk_retry_takes_so_many_jobs_the_oldest_first_and_says_how_many_are_left(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "MOST_RETRIES", 3)
    jobs = await _cancelled(api, 7)
    answers = [(await api.ask(RETRY_MANY, filter={}))["retryJobs"] for _ in range(2)]
    assert answers == [{"retriedCount": 3, "remainingCount": 4}, {"retriedCount": 3, "remainingCount": 1}]
    states = [(await find(api, job["id"]))["status"] for job in jobs]
    assert states == ["QUEUED"] * 6 + ["CANCELLED"]
    assert (await api.ask(RETRY_MANY, filter={}))["retryJobs"] == {"retriedCount": 1, "remainingCount": 0}
    assert (await api.ask(RETRY_MANY, filter={}))["retryJobs"] == {"retriedCount": 0, "remainingCount": 0}


async def test_a_bulk_retry_of_jobs_in_states_that_allow_none_does_nothing(api: ServedApi) -> None:
    await create(api)
    await _cancelled(api, 1)
    for status in (["QUEUED"], ["COMPLETED", "PROCESSING"]):
        answer = (await api.ask(RETRY_MANY, filter={"status": status}))["retryJobs"]
        assert answer == {"retriedCount": 0, "remainingCount": 0}
    assert (await page(api, filter={"status": ["CANCELLED"]}))["totalCount"] == 1


async def test_a_bulk_retry_leaves_alone_what_moves_before_its_turn_and_does_not_say_that_it_is_left(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await _cancelled(api, 3)
    retry = JobCommands.retry

    async def moved_first(commands: JobCommands, job_id: str, *arguments: Any, **options: Any) -> Any:
        if job_id == jobs[1]["id"]:
            await retry(commands, job_id)
            await commands.cancel(job_id)
        return await retry(commands, job_id, *arguments, **options)

    with monkeypatch.context() as moving:
        moving.setattr(JobCommands, "retry", moved_first)
        answer = (await api.ask(RETRY_MANY, filter={}))["retryJobs"]
    assert answer == {"retriedCount": 2, "remainingCount": 0}
    await _come_to(api, jobs, ["QUEUED", "CANCELLED", "QUEUED"])


async def test_a_bulk_retry_is_refused_once_nats_is_away_and_what_it_has_done_stays_done(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_runs, "_AT_A_TIME", 1)
    jobs = await _cancelled(api, 5)
    retry = JobCommands.retry
    tried: list[str] = []

    async def failing(commands: JobCommands, job_id: str, *arguments: Any, **options: Any) -> Any:
        tried.append(job_id)
        if len(tried) > 2:
            raise QueueUnavailable("NATS is not reachable.")
        return await retry(commands, job_id, *arguments, **options)

    with monkeypatch.context() as away:
        away.setattr(JobCommands, "retry", failing)
        assert (await api.refusal(RETRY_MANY, filter={}))["extensions"]["code"] == "QUEUE_UNAVAILABLE"
    assert len(tried) == 3, "it does not wait for NATS to come back"
    await _come_to(api, jobs, ["QUEUED"] * 2 + ["CANCELLED"] * 3)
    assert (await api.ask(RETRY_MANY, filter={}))["retryJobs"] == {"retriedCount": 3, "remainingCount": 0}


async def test_the_bulk_retries_of_one_operation_count_together(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "MOST_RETRIES", 3)
    await _cancelled(api, 5)
    again = "retryJobs(filter: {}) { retriedCount remainingCount }"
    answers = await api.ask(f"mutation {{ a: {again} b: {again} }}")
    assert answers == {"a": {"retriedCount": 3, "remainingCount": 2}, "b": {"retriedCount": 0, "remainingCount": 2}}
    await _cancelled(api, 1)
    with monkeypatch.context() as short:
        short.setattr(mutations, "RETRY_SECONDS", 0.0)
        answers = await api.ask(f"mutation {{ a: {again} b: {again} }}")
        assert [answer["retriedCount"] for answer in answers.values()] == [0, 0]
    assert (await api.ask(RETRY_MANY, filter={}))["retryJobs"] == {"retriedCount": 3, "remainingCount": 0}


async def test_a_bulk_retry_answers_what_it_has_done_when_its_time_is_over(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _cancelled(api, 3)
    with monkeypatch.context() as short:
        short.setattr(mutations, "RETRY_SECONDS", 0.0)
        assert (await api.ask(RETRY_MANY, filter={}))["retryJobs"] == {"retriedCount": 0, "remainingCount": 3}
    assert (await api.ask(RETRY_MANY, filter={}))["retryJobs"]["retriedCount"] == 3


class _Gated:
    """Retries that wait until they are let go on."""

    def __init__(self, api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
        self._retry = api.runtime.commands.retry
        self.begun = 0
        self.go_on = asyncio.Event()
        monkeypatch.setattr(bulk_runs, "_AT_A_TIME", 2)
        monkeypatch.setattr(JobCommands, "retry", lambda _commands, *given, **options: self._gated(*given, **options))

    async def _gated(self, job_id: str, *arguments: Any, **options: Any) -> Any:
        self.begun += 1
        await self.go_on.wait()
        return await self._retry(job_id, *arguments, **options)


@pytest.mark.parametrize("over", ["http", "socket", "completed operation"])
async def test_a_bulk_retry_stops_between_two_jobs_when_nobody_waits_for_it_any_more(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    jobs = await _cancelled(api, 8)
    gated = _Gated(api, monkeypatch)
    body = {"query": "mutation { retryJobs(filter: {}) { retriedCount } }"}
    if over == "http":
        asking = asyncio.create_task(api.http.post("/graphql", json=body))
        await until(lambda: gated.begun == 2, "two retries have begun")
        asking.cancel()
        await asyncio.wait([asking])
    else:
        async with api.raw_socket() as opened:
            await say(opened, id="1", type="subscribe", payload=body)
            await until(lambda: gated.begun == 2, "two retries have begun")
            if over == "completed operation":
                await say(opened, id="1", type="complete")
                await say(opened, type="ping")
                assert (await hear(opened))["type"] == "pong"
    if over != "completed operation":
        # The server has seen that the connection is closed once it has answered a later one.
        await api.ask("{ __typename }")
    gated.go_on.set()

    async def states() -> list[str]:
        return sorted([(await find(api, job["id"]))["status"] for job in jobs])

    async def two_are_queued() -> bool:
        return (await states()).count("QUEUED") == 2

    await until(two_are_queued, "what had begun is done")
    assert gated.begun == 2
    assert await states() == ["CANCELLED"] * 6 + ["QUEUED"] * 2


async def _purge_copies(api: ServedApi, number: int) -> None:
    """Purge the copies of dead letters once there are so many: the server makes them after the event."""
    connection = api.runtime.connection

    async def is_copied() -> bool:
        return (await stream_info(connection, codec.DEAD_LETTERS_STREAM)).state.messages == number

    await until(is_copied, "the server has copied all dead letters")
    await connection.api(f"STREAM.PURGE.{codec.DEAD_LETTERS_STREAM}")


async def test_a_bulk_retry_does_not_wait_for_copies_that_somebody_has_purged(
    api: ServedApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await create_many(api, [asked({"permanent": True}) for _ in range(5)])
    async with running_worker(settings):
        for job_id in ids:
            await ended(api, job_id, "DEAD_LETTER")
    await _purge_copies(api, len(ids))
    looks: list[str] = []

    async def counted(connection: Any, stream: str, subject: str) -> Any:
        looks.append(subject)
        return await last_message(connection, stream, subject)

    monkeypatch.setattr(retention, "last_message", counted)
    assert (await api.ask(RETRY_MANY, filter={}))["retryJobs"]["retriedCount"] == 5
    assert len(looks) == len(set(looks)) == 5


async def test_a_retry_waits_for_a_missing_copy_only_where_the_server_may_still_make_it(
    api: ServedApi, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker.task is not None
    job = await create(api, {"permanent": True})
    await ended(api, job["id"], "DEAD_LETTER")
    await _purge_copies(api, 1)
    looks: list[str] = []

    async def nothing(_connection: Any, _stream: str, subject: str) -> None:
        looks.append(subject)

    monkeypatch.setattr(retention, "last_message", nothing)
    monkeypatch.setattr(retention, "_COPIED_WITHIN", timedelta(0))
    await api.ask(RETRY, id=job["id"])
    assert len(looks) == 1


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
