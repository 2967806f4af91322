"""The transport nats://: jobs are written into the log and followed from it, without an API process."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.client import errors, job_follower
from gql_jobs.client.address import BadAddress
from gql_jobs.client.async_client import AsyncClient
from gql_jobs.client.nats_transport import NatsTransport, nats_settings
from gql_jobs.client.transport import Creation, JobEvent, ProgressEvent
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jobs.messages import Completed, Started
from gql_jobs.jobs.model import JobPriority, JobStatus, job_id_for_key
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.log import codec
from gql_jobs.log.commands import HEADROOM, JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.streams import ensure_streams
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, report, say, stored
from tests.client.nats_clients import PROBE_TYPE, client_of, created_one, creation, followers, is_unfollowed
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.stories import JOB


@pytest.fixture
async def client(settings: Settings, connection: Connection) -> AsyncIterator[NatsTransport]:
    """A client of a server with streams and no API process."""
    assert connection.connected
    async with client_of(settings) as transport:
        yield transport


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    """What another process decides."""
    return JobCommands(job_log, settings)


async def test_a_creation_is_one_message_in_the_log(client: NatsTransport, connection: Connection) -> None:
    run_at = datetime.now(UTC) + timedelta(hours=1)
    options: dict[str, Any] = {"priority": JobPriority.HIGH, "tags": ("a", "b"), "max_retries": 2, "timeout": 5.0}
    (made,) = await client.create([creation("welcome", steps=3, run_at=run_at, **options)])
    assert (made.id, made.deduplicated) == (job_id_for_key("welcome"), False)
    (message,) = await stored(connection)
    assert message.subject == codec.scheduled_subject(made.id)
    job = await client.find(made.id.upper())
    assert job is not None
    assert (job.status, job.priority, job.tags, job.max_retries, job.timeout, job.run_at) == (
        JobStatus.SCHEDULED,
        JobPriority.HIGH,
        ("a", "b"),
        2,
        5.0,
        run_at,
    )
    assert await client.find(JOB) is None
    assert await client.find("no-id") is None


async def test_the_same_key_and_payload_mean_the_same_job_and_another_payload_is_a_conflict(
    client: NatsTransport, connection: Connection
) -> None:
    first, second, third = await client.create([creation("k", steps=3), creation(), creation("k", steps=3)])
    assert (first.deduplicated, second.deduplicated, third.deduplicated) == (False, False, True)
    assert first.id == third.id
    with pytest.raises(errors.IdempotencyConflict) as refused:
        await client.create([creation("k", steps=4)])
    assert refused.value.extensions["existingJobId"] == first.id
    with pytest.raises(errors.PartlyCreated) as partly:
        await client.create([creation(), creation("k", steps=4), creation()])
    assert [job is None for job in partly.value.created] == [False, True, False]
    assert isinstance(partly.value.__cause__, errors.IdempotencyConflict)
    assert partly.value.__cause__.extensions["input"] == 1
    assert len(await stored(connection)) == 4


async def test_what_is_outside_its_limits_is_refused_with_its_place_before_anything_is_stored(
    client: NatsTransport, connection: Connection
) -> None:
    too_large = "x" * (connection.max_payload - HEADROOM)
    for bad, refusal, field in (
        (Creation(PROBE_TYPE, b'{"steps": "many"}'), errors.InvalidPayload, "payload.steps"),
        (Creation(PROBE_TYPE, b"no JSON"), errors.InvalidPayload, "payload"),
        (creation(max_retries=101), errors.InvalidArgument, "max_retries"),
        (creation(tags=("good", "bad\n")), errors.InvalidArgument, "tags.1"),
        (creation("bad\n"), errors.InvalidArgument, "key"),
        (creation(origin="no-id"), errors.InvalidArgument, "origin"),
        (creation(origin=JOB), errors.InvalidArgument, "origin"),
        (creation(gate=too_large), errors.PayloadTooLarge, None),
    ):
        with pytest.raises(refusal) as refused:
            await client.create([creation(), bad])
        assert refused.value.field == field
        assert refused.value.extensions.get("input") == (1 if field is not None else None)
    assert await stored(connection) == []


@pytest.mark.usefixtures("connection")
async def test_a_full_store_refuses_creations_and_nothing_else(settings: Settings) -> None:
    tiny = settings.model_copy(update={"max_store_bytes": 1 << 20, "queue_full_ratio": 0.01})
    async with client_of(tiny, patience=0.5) as client:
        job_id = await created_one(client, gate="x" * 50_000)
    async with client_of(tiny, patience=0.5) as client:
        with pytest.raises(errors.QueueFull):
            await client.create([creation()])
        assert (await client.cancel(job_id)).status is JobStatus.CANCELLED


@pytest.mark.usefixtures("worker")
async def test_a_result_is_waited_for_whatever_becomes_of_the_job_meanwhile(client: NatsTransport) -> None:
    asked: list[dict[str, Any]] = [{"steps": 2}, {"fail_attempts": 1}, {"permanent": True}, {"run_at": _soon()}]
    ids = [await created_one(client, **each) for each in asked]
    endless = await created_one(client, seconds=600)
    waiting = asyncio.create_task(client.ended(endless))
    await until(lambda: _status(client, endless, JobStatus.PROCESSING), "it runs")
    await client.cancel(endless)
    found = [await client.ended(job_id) for job_id in ids]
    assert [job.status for job in found] == [
        JobStatus.COMPLETED,
        JobStatus.COMPLETED,
        JobStatus.DEAD_LETTER,
        JobStatus.COMPLETED,
    ]
    assert [json.loads(job.result)["attempt"] if job.result else None for job in found] == [1, 2, None, 1]
    assert [error.type for error in found[2].errors] == ["PermanentError"]
    assert (await waiting).status is JobStatus.CANCELLED


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


async def _status(client: NatsTransport, job_id: str, status: JobStatus) -> bool:
    job = await client.find(job_id)
    return job is not None and job.status is status


@pytest.mark.usefixtures("connection", "worker")
async def test_an_address_of_nats_is_all_that_a_client_is_told(settings: Settings) -> None:
    async with AsyncClient(settings.nats_url) as client:
        job = await client.create(ProbePayload(steps=2), type="probe", key="welcome")
        assert await job.result(timeout=20) == ProbeResult(attempt=1)
        handles = await client.create_many((ProbePayload(), {"type": "probe"}) for _ in range(2500))
        assert len({handle.id for handle in handles}) == 2500
        assert (await handles[-1].result(timeout=30)).attempt == 1
        with pytest.raises(errors.BadRequest, match="index of an API process"):
            await anext(client.jobs())
    with pytest.raises(BadAddress, match="no key or token"):
        AsyncClient(settings.nats_url, "gj_key")


async def test_a_thousand_who_wait_share_one_consumer_that_goes_when_nobody_waits(
    client: NatsTransport,
    connection: Connection,
    job_log: JobLog,
    commands: JobCommands,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_follower, "KEPT_IDLE", 0.1)
    made = await client.create([creation() for _ in range(1000)])
    waiting = [asyncio.create_task(client.ended(job.id)) for job in made]
    await until(lambda: followers(connection), "the stream is followed")
    for one in made[:3]:
        job = await commands.find(one.id)
        assert job is not None
        await bring_to(job_log, commands, job, JobStatus.COMPLETED)
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert len(await followers(connection)) == 1
    for task in waiting[3:]:
        task.cancel()
    assert [(await task).status for task in waiting[:3]] == [JobStatus.COMPLETED] * 3
    assert done
    await asyncio.wait(waiting)
    await until(lambda: is_unfollowed(connection), "nobody follows the stream any more")
    assert (await client.ended(made[0].id)).status is JobStatus.COMPLETED


async def test_events_come_each_once_from_the_latest_on_or_behind_a_cursor(
    client: NatsTransport, job_log: JobLog, commands: JobCommands
) -> None:
    job_id = await created_one(client, steps=3)
    job = await commands.find(job_id)
    assert job is not None
    told: list[JobEvent] = []

    async def follow() -> None:
        async for event in client.events(job_id, None):
            told.append(event)  # noqa: PERF401 - what has come so far is looked at meanwhile

    following = asyncio.create_task(follow())
    await until(lambda: told, "the first event")
    await say(job_log, job, Started)
    await report(job_log, job, 40, "half")
    await until(lambda: len(told) == 3, "progress")
    await say(job_log, job, Completed)
    await following
    assert [type(event).__name__ for event in told] == [
        "QueuedEvent",
        "StartedEvent",
        "ProgressEvent",
        "CompletedEvent",
    ]
    progress = told[2]
    assert isinstance(progress, ProgressEvent)
    assert (progress.progress, progress.message, progress.job.status) == (40, "half", JobStatus.PROCESSING)
    behind = [event async for event in client.events(job_id, told[1].cursor)]
    assert behind == told[2:]
    assert [event async for event in client.events(job_id, told[3].cursor)] == []
    assert [event async for event in client.events(job_id, None)] == told[3:]
    for cursor in ("1000", "no cursor"):
        with pytest.raises(errors.InvalidArgument):
            await anext(client.events(job_id, cursor))
    with pytest.raises(errors.NotFound):
        await anext(client.events(JOB, None))


async def test_a_job_that_does_not_exist_or_has_ended_is_refused_as_over_http(
    client: NatsTransport, job_log: JobLog, commands: JobCommands
) -> None:
    for missing in (JOB, "no-id"):
        for asked in (client.cancel, client.retry, client.ended, client.artifacts):
            with pytest.raises(errors.NotFound):
                await asked(missing)
    job_id = await created_one(client)
    with pytest.raises(errors.InvalidState) as refused:
        await client.retry(job_id)
    assert refused.value.extensions["status"] == "QUEUED"
    job = await commands.find(job_id)
    assert job is not None
    await bring_to(job_log, commands, job, JobStatus.DEAD_LETTER)
    with pytest.raises(errors.InvalidState):
        await client.cancel(job_id)
    assert (await client.retry(job_id)).status is JobStatus.QUEUED


@pytest.mark.usefixtures("worker")
async def test_files_come_whole(client: NatsTransport) -> None:
    job_id = await created_one(client, artifact="a/b.bin", artifact_bytes=700_000)
    await client.ended(job_id)
    (info,) = await client.artifacts(job_id)
    assert (info.name, info.size_bytes) == ("a/b.bin", 700_000)
    chunks = [chunk async for chunk in client.artifact(job_id, "a/b.bin")]
    assert len(chunks) > 1
    assert len(b"".join(chunks)) == 700_000
    with pytest.raises(errors.NotFound):
        await anext(client.artifact(job_id, "other"))


async def test_a_list_of_jobs_is_refused_in_words_that_say_who_has_one(client: NatsTransport) -> None:
    with pytest.raises(errors.BadRequest, match="index of an API process"):
        await client.jobs(JobFilter(), 10, None)


async def test_without_streams_it_says_so_and_makes_none(settings: Settings) -> None:
    async with client_of(settings, patience=0.5) as client:
        with pytest.raises(errors.Unreachable, match="streams are made by API processes"):
            await client.create([creation()])
        async with connect(settings, "api") as connection:
            assert json.loads(await connection.api("STREAM.NAMES"))["streams"] is None
            waiting = asyncio.create_task(created_one(client))
            await ensure_streams(connection, settings)
            assert await waiting


async def test_a_server_that_is_not_there_is_unreachable_after_patience_is_over(tmp_path: Path) -> None:
    settings = Settings(nats_url="nats://127.0.0.1:9", data_dir=tmp_path)
    async with client_of(settings, patience=0.3) as client:
        with pytest.raises(errors.Unreachable, match=r"NATS cannot be reached at nats://127\.0\.0\.1:9"):
            await client.find(JOB)


def test_an_address_is_read_with_the_other_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GQL_JOBS_NATS_URL", "nats://other:4222")
    monkeypatch.setenv("GQL_JOBS_NATS_USER", "client")
    settings = nats_settings("nats://one:4222,nats://two:4222")
    assert (settings.nats_url, settings.nats_user) == ("nats://one:4222,nats://two:4222", "client")
    with pytest.raises(ValueError, match="must be a NATS URL"):
        nats_settings("nats://")


async def test_what_waits_ends_when_the_client_is_closed(settings: Settings, connection: Connection) -> None:
    async with client_of(settings) as client:
        job_id = await created_one(client)
        waiting = asyncio.create_task(client.ended(job_id))
        await until(lambda: followers(connection), "the stream is followed")
    with pytest.raises(RuntimeError, match="was closed"):
        await waiting
    with pytest.raises(RuntimeError, match="was closed"):
        await client.find(job_id)
    await client.close()
    await until(lambda: is_unfollowed(connection), "the consumer is gone")
