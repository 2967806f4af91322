"""Jobs that are created, found and followed from Python, by a real API and worker."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gql_jobs.client.async_client import AsyncClient, AsyncJobHandle
from gql_jobs.client.errors import (
    ClientError,
    IdempotencyConflict,
    InvalidArgument,
    InvalidPayload,
    InvalidState,
    JobCancelled,
    JobFailed,
    NotFound,
    PartlyCreated,
    PayloadTooLarge,
    ResultTimeout,
    UnreadableResult,
)
from gql_jobs.client.http_transport import HttpTransport
from gql_jobs.client.job_ends import MOST_STREAMS
from gql_jobs.client.transport import (
    CompletedEvent,
    FailedEvent,
    JobEvent,
    JobSnapshot,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
)
from gql_jobs.jobs.model import JobPriority, JobStatus
from tests.api.operations import UNKNOWN_ID, create_many, history
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.job_types.typed_jobs import CountedMessage, MessagePayload, PingPayload
from tests.serving import HOST, ServedApi

needs_worker = pytest.mark.usefixtures("worker")
with_types = pytest.mark.usefixtures("typed", "worker")


async def _create(client: AsyncClient, fields: dict[str, Any] | None = None, **options: Any) -> AsyncJobHandle[Any]:
    return await client.create(ProbePayload(**fields or {}), type="probe", **options)


@with_types
async def test_what_comes_of_a_job_is_read_by_the_result_model_that_its_payload_names(client: AsyncClient) -> None:
    payload = MessagePayload(to="Ada", password=SecretStr("secret"))
    payload.words.append("changed since")
    job = await client.create(payload)
    result = await job.result(timeout=20)
    # What was drawn for this object is what the handler gets, and a secret it gets in clear.
    assert result == CountedMessage(sent_to="Ada", length=13, number=payload.number, note="6")
    ping = await client.create(PingPayload())
    outcomes: list[object] = [await client.job(ping.id).result(timeout=20)]
    assert outcomes == [None]


@with_types
async def test_a_payload_that_is_built_again_for_a_repetition_asks_for_the_same(client: AsyncClient) -> None:
    first = await client.create(MessagePayload(to="Ada"), key="welcome")
    again = await client.create(MessagePayload(to="Ada"), key="welcome")
    assert (first.id, first.deduplicated) == (again.id, False)
    assert again.deduplicated
    with pytest.raises(IdempotencyConflict) as refused:
        await client.create(MessagePayload(to="Bob"), key="welcome")
    assert refused.value.extensions["existingJobId"] == first.id
    unkeyed = {(await client.create(PingPayload())).id for _ in range(2)}
    assert len(unkeyed) == 2


async def test_every_option_reaches_the_job(client: AsyncClient) -> None:
    origin = await _create(client)
    later = datetime.now(UTC) + timedelta(hours=1)
    job = await _create(
        client,
        key="one",
        priority="high",
        run_at=later,
        max_retries=7,
        timeout=timedelta(minutes=2),
        tags=["a", "b"],
        origin=origin.id,
    )
    state = await job.state()
    assert (state.id, state.type, state.queue) == (job.id, "probe", "default")
    assert (state.status, state.priority, state.run_at) == (JobStatus.SCHEDULED, JobPriority.HIGH, later)
    assert (state.max_retries, state.timeout, state.tags) == (7, 120.0, ("a", "b"))
    assert (state.progress, state.attempts, state.result, state.error, state.errors) == (0, 0, None, None, ())
    assert abs(state.created_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("payload", "options", "error", "field"),
    [
        (ProbePayload.model_construct(steps="many"), {}, InvalidPayload, "payload.steps"),  # type: ignore[arg-type]
        (ProbePayload(), {"tags": ["a", ""]}, InvalidArgument, "tags.1"),
        (ProbePayload(), {"tags": "a"}, InvalidArgument, "tags"),
        (ProbePayload(), {"key": ""}, InvalidArgument, "key"),
        (ProbePayload(), {"max_retries": 101}, InvalidArgument, "max_retries"),
        (ProbePayload(), {"timeout": 0}, InvalidArgument, "timeout"),
        (ProbePayload(), {"priority": "urgent"}, InvalidArgument, "priority"),
        (ProbePayload(), {"origin": UNKNOWN_ID}, InvalidArgument, "origin"),
        (ProbePayload(), {"run_at": datetime(2999, 1, 1, tzinfo=UTC)}, InvalidArgument, "run_at"),
        (ProbePayload(trace="x" * 1_000_000), {}, PayloadTooLarge, None),
    ],
    ids=lambda given: "payload" if isinstance(given, ProbePayload) else str(given)[:30],
)
async def test_what_is_refused_says_which_field_is_at_fault(
    client: AsyncClient, payload: ProbePayload, options: dict[str, Any], error: type[ClientError], field: str | None
) -> None:
    with pytest.raises(error) as refused:
        await client.create(payload, type="probe", **options)
    assert type(refused.value) is error
    assert refused.value.field == field
    assert refused.value.code is not None
    assert [job async for job in client.jobs()] == []


async def test_what_no_job_can_be_made_of_is_refused_before_anything_is_sent() -> None:
    async with AsyncClient(f"http://{HOST}:9", patience=0) as client:
        with pytest.raises(LookupError, match="say which is meant of 'probe', 'probe_cpu', 'probe_thread'"):
            await client.create(ProbePayload())
        with pytest.raises(LookupError, match="is that of no registered job type: import the module"):
            await client.create(ProbeResult(attempt=1))
        with pytest.raises(TypeError, match="There is no option 'priorty' of a job; there are after,"):
            await client.create(ProbePayload(), priorty="low")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="A payload is an object of the payload model of its job type, not dict"):
            await client.create({"steps": 1})  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="no URL such as http://127"):
        AsyncClient("ftp://127.0.0.1")
    with pytest.raises(ValueError, match="characters that no key"):
        AsyncClient("http://127.0.0.1", "two words")


@needs_worker
async def test_a_job_that_fails_for_good_says_why_and_what_went_wrong_in_each_attempt(client: AsyncClient) -> None:
    job = await _create(client, {"fail_attempts": 9}, max_retries=2)
    with pytest.raises(JobFailed, match="in attempt 3: TransientError: Attempt 3 fails") as failed:
        await job.result(timeout=20)
    assert failed.value.error is not None
    assert (failed.value.error.attempt, failed.value.error.retryable) == (3, True)
    assert [one.message for one in failed.value.attempts] == [f"Attempt {number} fails." for number in (1, 2, 3)]
    assert failed.value.job.status is JobStatus.DEAD_LETTER
    assert (await job.retry()).finished_at is None
    with pytest.raises(JobFailed) as failed:
        await job.result(timeout=20)
    assert [one.attempt for one in failed.value.attempts] == [1, 2, 3], "those since the retry by hand"


async def test_a_cancelled_job_has_no_result_until_it_is_retried(client: AsyncClient) -> None:
    job = await _create(client)
    assert (await job.cancel()).status is JobStatus.CANCELLED
    with pytest.raises(JobCancelled) as cancelled:
        await job.result(timeout=20)
    assert cancelled.value.job.id == job.id
    with pytest.raises(InvalidState) as refused:
        await job.cancel()
    assert refused.value.extensions["status"] == "CANCELLED"
    assert (await job.retry()).status is JobStatus.QUEUED
    with pytest.raises(InvalidState):
        await job.retry()
    with pytest.raises(ResultTimeout, match=r"has not ended within 0\.2 s"):
        await job.result(timeout=0.2)
    with pytest.raises(TimeoutError):
        await job.result(timeout=timedelta())


@needs_worker
async def test_events_tell_all_that_happens_once_and_go_on_behind_a_cursor(client: AsyncClient, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = await _create(client, {"fail_attempts": 1, "steps": 2, "seconds": 0.4, "gate": str(gate)})
    seen: list[JobEvent] = []
    async for event in job.events():
        seen.append(event)
        gate.touch()
    kinds = [type(event) for event in seen if not isinstance(event, ProgressEvent)]
    assert kinds == [QueuedEvent, StartedEvent, FailedEvent, StartedEvent, CompletedEvent][-len(kinds) :]
    assert kinds[-3:] == [FailedEvent, StartedEvent, CompletedEvent]
    failed = next(event for event in seen if isinstance(event, FailedEvent))
    assert (failed.error.message, failed.job.attempts) == ("Attempt 1 fails.", 1)
    # By the clock of the worker that failed, which then had to store it.
    assert failed.next_attempt_at > failed.job.created_at
    ended = seen[-1]
    assert isinstance(ended, CompletedEvent)
    assert ended.duration >= timedelta(seconds=0.3)
    assert (ended.job.status, ended.job.result) == (JobStatus.COMPLETED, None)
    reports = [event for event in seen if isinstance(event, ProgressEvent)]
    assert [(one.progress, one.message) for one in reports] == [(50, "step 1"), (100, "step 2")]
    after = [event async for event in job.events(after=failed.cursor)]
    # Of the reports the index keeps the newest.
    assert [type(event) for event in after if not isinstance(event, ProgressEvent)] == [StartedEvent, CompletedEvent]
    assert [event async for event in job.events(after=ended.cursor)] == []
    with pytest.raises(InvalidArgument) as refused:
        await anext(aiter(job.events(after="x")))
    assert refused.value.field == "after"


async def test_a_job_that_there_is_not_is_not_found_whatever_is_asked_of_it(client: AsyncClient) -> None:
    for unknown in (UNKNOWN_ID, "no id"):
        job = client.job(unknown)
        asked = (
            *(job.state(), job.result(), job.cancel(), job.retry(), job.artifacts()),
            anext(aiter(job.events())),
        )
        for one in asked:
            with pytest.raises(NotFound) as refused:
                await one
            assert refused.value.code == "NOT_FOUND"


@needs_worker
async def test_a_result_is_read_by_the_model_that_is_given_or_its_types_own(client: AsyncClient) -> None:
    made = await _create(client, {"saves": [1 << 60], "fail_attempts": 1})
    result = await made.result(timeout=20)
    assert result == ProbeResult(attempt=2, saved=[1 << 60])
    assert await client.job(made.id).result() == result
    with pytest.raises(UnreadableResult) as unreadable:
        await client.job(made.id, CountedMessage).result()
    assert {fault["path"] for fault in unreadable.value.fields} >= {"sentTo", "length", "number"}
    assert b'"attempt":2' in unreadable.value.result
    foreign = AsyncJobHandle[Any](client, made.id, Any)
    state = await made.state()
    unknown = JobSnapshot(**{**{name: getattr(state, name) for name in state.__struct_fields__}, "type": "unknown"})
    assert foreign._read(unknown)["saved"] == [1 << 60]  # noqa: SLF001


async def test_jobs_are_listed_page_by_page_and_filtered(api: ServedApi, client: AsyncClient) -> None:
    ids = await create_many(api, [{"payload": {"probe": {}}, "tags": ["many"]} for _ in range(1000)])
    ids += [(await _create(client, tags=["many", "last"], priority="low")).id]
    listed = [job.id async for job in client.jobs(tags="many")]
    assert listed == ids[::-1]
    assert [job.id async for job in client.jobs(first=501)] == ids[:-502:-1]
    (last,) = [job async for job in client.jobs(tags=["last"], status=["queued", JobStatus.SCHEDULED], type="probe")]
    assert (last.id, last.priority) == (ids[-1], JobPriority.LOW)
    assert [job.id async for job in client.jobs(priority=[JobPriority.LOW, "critical"], queue="default")] == [last.id]
    assert [job.id async for job in client.jobs(ids=ids[:2], created_before=last.created_at)] == ids[1::-1]
    assert [job async for job in client.jobs(created_after=last.created_at)] == []
    assert [job async for job in client.jobs(first=0)] == []
    assert await client.job(last).cancel()
    assert [job.id async for job in client.jobs(ids=last.id)] == [last.id]
    assert [job async for job in client.jobs(parent=last.id)] == []
    conditions: list[dict[str, Any]] = [
        {"status": "done"},
        {"first": -1},
        {"created_after": "x"},
        {"created_before": 1},
    ]
    for condition in conditions:
        with pytest.raises(InvalidArgument) as refused:
            await anext(aiter(client.jobs(**condition)))
        assert refused.value.field in condition
    with pytest.raises(InvalidArgument, match="timeout is a number of seconds"):
        await client.job(last).result(timeout="3")  # type: ignore[arg-type]


async def test_many_jobs_are_created_in_order_in_batches_within_the_limits(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    create = HttpTransport.create

    async def noting(self: HttpTransport, creations: Any) -> Any:
        sizes.append(len(creations))
        return await create(self, creations)

    monkeypatch.setattr(HttpTransport, "create", noting)
    monkeypatch.setattr(HttpTransport, "largest_batch", 10)
    monkeypatch.setattr(HttpTransport, "largest_batch_bytes", 1000)
    payloads = [(ProbePayload(trace="x" * (1500 if at == 15 else 10)), {"type": "probe"}) for at in range(24)]
    handles = await client.create_many(payloads)  # type: ignore[arg-type]
    assert sizes == [10, 5, 1, 8]
    created = [job.id async for job in client.jobs()]
    assert [handle.id for handle in handles] == created[::-1]
    assert await client.create_many([]) == []


async def test_of_many_the_place_of_the_one_at_fault_is_told_and_which_were_stored(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(number: int, **options: Any) -> Any:
        return ProbePayload(steps=number), {"type": "probe", **options}

    with pytest.raises(InvalidArgument) as refused:
        await client.create_many([asked(1), asked(2, tags=[""])])
    assert (refused.value.field, refused.value.extensions["input"]) == ("tags.0", 1)
    assert [job async for job in client.jobs()] == []
    taken = await client.create(ProbePayload(), type="probe", key="taken")
    with pytest.raises(PartlyCreated, match="2 of 3 jobs were stored") as partly:
        await client.create_many([asked(1), asked(2, key="taken"), asked(3)])
    first, second, third = partly.value.created
    assert second is None
    assert partly.value.uncertain == []
    assert isinstance(partly.value.__cause__, IdempotencyConflict | PartlyCreated)
    assert first is not None
    assert third is not None
    assert {first.id, third.id, taken.id} == {job.id async for job in client.jobs()}
    monkeypatch.setattr(HttpTransport, "largest_batch", 2)
    with pytest.raises(PartlyCreated) as partly:
        await client.create_many([asked(4), asked(5), asked(6, key="taken"), asked(7)])
    assert [one is not None for one in partly.value.created] == [True, True, False, True]
    wrong: Any = "x"
    with pytest.raises(PartlyCreated, match="2 jobs were stored, and then: The payload cannot be stored") as partly:
        await client.create_many([asked(8), asked(9), (ProbePayload.model_construct(steps=wrong), {"type": "probe"})])
    assert len(partly.value.created) == 2
    cause = partly.value.__cause__
    assert isinstance(cause, InvalidPayload)
    assert cause.extensions["input"] == 2


@needs_worker
async def test_files_of_a_job_are_read_and_saved(client: AsyncClient, tmp_path: Path) -> None:
    job = await _create(client, {"artifact": "out/zeros.csv", "artifact_bytes": 300_000})
    await job.result(timeout=20)
    (file,) = await job.artifacts()
    assert (file.name, file.size_bytes, file.content_type) == ("out/zeros.csv", 300_000, "text/csv")
    assert file.created_at <= datetime.now(UTC) + timedelta(seconds=5)
    assert await file.read() == bytes(300_000)
    target = tmp_path / "zeros.csv"
    target.write_text("older")
    before = len(os.listdir(tmp_path))  # noqa: PTH208
    assert await file.save(target) == target
    assert target.read_bytes() == bytes(300_000)
    assert len(os.listdir(tmp_path)) == before  # noqa: PTH208
    with pytest.raises(OSError, match="No such file"):
        await file.save(tmp_path / "none" / "zeros.csv")
    assert repr(file) == "<AsyncJobArtifact 'out/zeros.csv', 300000 bytes>"
    assert (await job.artifact("out/zeros.csv")).sha256 == file.sha256
    with pytest.raises(NotFound, match=f"The job {job.id} has no file 'zeros.csv'") as missing:
        await job.artifact("zeros.csv")
    assert missing.value.extensions["jobId"] == job.id


@pytest.mark.timeout(120)
async def test_a_thousand_handles_wait_over_a_few_streams(api: ServedApi, client: AsyncClient) -> None:
    payloads = [(ProbePayload(), {"type": "probe"}) for _ in range(1000)]
    handles = await client.create_many(payloads)  # type: ignore[arg-type]
    waiting = [asyncio.create_task(handle.result()) for handle in handles[:500]]
    await api.subscribers(1)
    for handle in handles[500:]:
        # One after the other, as by a thousand requests to a web server.
        waiting.append(asyncio.create_task(handle.result()))
        await asyncio.sleep(0)
    waiting[0].cancel()
    for start in range(0, 1000, 100):
        chunk = handles[start : start + 100]
        await asyncio.gather(*(api.runtime.commands.cancel(handle.id) for handle in chunk))
        assert api.runtime.bus.subscribers <= MOST_STREAMS
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {JobCancelled, asyncio.CancelledError}
    await api.subscribers(0)


async def test_a_client_belongs_to_one_event_loop_and_ends_what_waits_when_it_is_closed(
    api: ServedApi, client: AsyncClient
) -> None:
    job = await _create(client)

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="belongs to the event loop that has used it first"):
            asyncio.run(_state(job))

    await asyncio.to_thread(elsewhere)
    waiting = asyncio.create_task(job.result())
    await api.subscribers(1)
    await client.close()
    with pytest.raises(RuntimeError, match="The client was closed"):
        await waiting
    with pytest.raises(RuntimeError, match="The client is closed"):
        await job.state()
    await client.close()


async def _state(job: AsyncJobHandle[Any]) -> JobSnapshot:
    return await job.state()


@needs_worker
async def test_the_history_over_graphql_is_what_the_events_have_told(api: ServedApi, client: AsyncClient) -> None:
    job = await _create(client, {"fail_attempts": 1})
    cursors = [event.cursor async for event in job.events()]
    told = [event["cursor"] for event in await history(api, job.id)]
    assert cursors == told[len(told) - len(cursors) :]


async def test_what_is_left_in_the_middle_ends_with_the_client(
    api: ServedApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> list[JobEvent]:
        async with AsyncClient(f"http://{HOST}:{api.port}") as client:
            events = (await _create(client)).events()
            await anext(aiter(events))
        # Kept until the loop ends, and so not collected before.
        return [event async for event in events]

    assert await asyncio.to_thread(lambda: asyncio.run(leave())) == []
    await api.subscribers(0)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_job_that_was_found_has_its_payload_and_one_of_a_list_has_not(client: AsyncClient) -> None:
    job = await _create(client, {"steps": 2})
    assert json.loads((await job.state()).payload or b"") == {"steps": 2}
    assert [listed.payload async for listed in client.jobs()] == [None]
