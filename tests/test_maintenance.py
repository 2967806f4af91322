"""The sweeps: whatever fails in one, the next one goes on; what they remove is removed from every index."""

import asyncio
import copy
import logging
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import maintenance
from gql_jobs.index.index import Index, UnusableIndex, open_index
from gql_jobs.index.reader import Reader, open_reader
from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import Completed, DeadLetter, Kind, Started
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import Feed, run_feed
from gql_jobs.live.tally import Tally
from gql_jobs.log import codec
from gql_jobs.log import commands as commands_module
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.edits import edited_event
from gql_jobs.log.job_log import JobLog, Write, job_events
from gql_jobs.log.streams import stream_info
from gql_jobs.maintenance import Maintenance
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.by_hand import bring_to, say
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.rows import rows
from tests.stories import attempt_body, request

STORE = 6 << 20
LARGE = ProbePayload(gate="x" * 150_000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps that follow each other at once, and a capacity that is asked for each time."""
    monkeypatch.setattr(maintenance, "SWEEP_INTERVAL", 0.05)
    monkeypatch.setattr(maintenance, "FIRE_AFTER", timedelta(seconds=0.05))
    monkeypatch.setattr(commands_module, "STORE_USE_KEPT", 0.0)


@pytest.fixture
async def nats(tmp_path: Path) -> Any:
    """A server with a small store."""
    async with embedded_server(tmp_path / "store", max_store_bytes=STORE) as server:
        yield server


@pytest.fixture
def settings(nats: EmbeddedServer, tmp_path: Path) -> Settings:
    """New jobs are refused at half of the store."""
    return Settings(
        nats_url=nats.url, data_dir=tmp_path / "data", max_store_bytes=STORE, queue_full_ratio=0.5, ack_wait=5
    )


@pytest.fixture
def sweeper(runtime: Runtime, job_log: JobLog, settings: Settings) -> Maintenance:
    """Sweeps for which every job that has ended has been kept long enough."""
    return Maintenance(
        job_log,
        runtime.artifacts,
        runtime.index,
        runtime.reader,
        runtime.feed,
        settings=settings.model_copy(update={"retention": 0.001}),
    )


async def _applied(runtime: Runtime) -> None:
    last = await last_message(runtime.connection, codec.JOBS_STREAM, codec.ALL_EVENTS)
    assert last is not None
    assert await runtime.feed.wait_for(last.seq, 10)


async def _gone(runtime: Runtime, job_id: str) -> bool:
    return await runtime.commands.find(job_id) is None and runtime.index.job(job_id) is None


async def _rows_of(runtime: Runtime, path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What an index of that file holds once it has caught up, but for the notes of what has expired."""
    stream = await stream_info(runtime.connection)
    with open_index(path, stream.created, stream.state.last_seq, 86_400) as index:
        async with open_reader(index) as reader, _feed(runtime, index, reader) as feed:
            await until(lambda: feed.caught_up, "the index has caught up")
    found = rows(path)
    return {table: found[table] for table in ("jobs", "tags", "counts", "events", "progress", "artifacts")}


def _feed(runtime: Runtime, index: Index, reader: Reader) -> AbstractAsyncContextManager[Feed]:
    return run_feed(runtime.connection, index, EventBus(reader.events_after, index.position), Tally((), 0))


async def test_an_edit_that_was_cut_short_is_completed_by_any_process_after_a_while(
    runtime: Runtime, sweeper: Maintenance, job_log: JobLog
) -> None:
    job = (await runtime.commands.create(request(run_at=datetime.now(UTC) + timedelta(hours=1)))).job
    spec, changed = JobChanges.of(run_at=None).applied(job, StoredPayloads(), datetime.now(UTC))
    # As a process that is killed between its two writes.
    await job_log.append(edited_event(job, spec, changed, None, await job_log.history(job.id)))
    async with in_background(sweeper.run()), in_background(sweeper.run()):
        await until(
            lambda: (now := runtime.index.job(job.id)) is not None and now.status is JobStatus.QUEUED,
            "the job is queued",
        )
    assert [message.kind for message in await job_log.history(job.id)] == [Kind.EDITED, Kind.QUEUED]


async def test_a_schedule_that_a_late_firing_has_ended_is_made_up_for_once_it_is_due(
    runtime: Runtime, sweeper: Maintenance, job_log: JobLog
) -> None:
    """What fires deletes whatever schedule the job has by then, also one that an edit has made since."""
    run_at = datetime.now(UTC) + timedelta(seconds=1)
    job = (await runtime.commands.create(request())).job
    edited = await runtime.commands.update(job.id, JobChanges.of(run_at=run_at))
    assert edited.status is JobStatus.SCHEDULED
    await runtime.feed.read_back(edited)
    await job_log.delete_one(edited.submission_seq)
    async with in_background(sweeper.run()):
        await until(
            lambda: (now := runtime.index.job(job.id)) is not None and now.status is JobStatus.QUEUED,
            "the job is queued",
        )
    last = await job_log.last(codec.submission_subjects(job.id))
    assert last is not None
    assert last.at >= run_at


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), RuntimeError("unheard of")])
async def test_a_sweep_that_fails_in_any_way_keeps_nothing_from_the_next(
    runtime: Runtime,
    sweeper: Maintenance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    job = (await runtime.commands.create(request())).job
    await runtime.commands.cancel(job.id)
    failed: list[bool] = []

    async def fail(*_: Any) -> Any:
        failed.append(True)
        raise error

    with monkeypatch.context() as broken:
        for name in ("finished", "overdue"):
            broken.setattr(runtime.reader, name, fail)
        broken.setattr(runtime.index, "with_remains", _raiser(error))
        async with in_background(sweeper.run()):
            await until(lambda: len(failed) > 4, "sweeps have failed")
            broken.undo()
            await until(lambda: _gone(runtime, job.id), "the job expires all the same")
    assert str(error) in caplog.text


async def test_what_interrupts_all_parts_of_a_sweep_is_said_once_and_the_end_of_the_index_not_at_all(
    runtime: Runtime, sweeper: Maintenance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, maintenance.__name__)
    # Its own: the runtime sweeps by itself as well.
    reader = copy.copy(runtime.reader)
    monkeypatch.setattr(sweeper, "_reader", reader)
    for part in ("finished", "overdue"):
        monkeypatch.setattr(reader, part, _raiser(QueueUnavailable("NATS does not answer.")))
    for _ in range(2):
        caplog.clear()
        await sweeper.sweep()
        assert caplog.messages == ["the sweep was interrupted: NATS does not answer."]
    caplog.clear()
    runtime.index.failure = UnusableIndex("its disk is full")
    try:
        await sweeper.sweep()
    finally:
        runtime.index.failure = None
    assert caplog.messages == []


def _raiser(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


async def test_a_job_that_cannot_be_expired_keeps_none_of_the_others(
    runtime: Runtime,
    sweeper: Maintenance,
    job_log: JobLog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = [created.job for created in await runtime.commands.create_many([request() for _ in range(3)])]
    for job in jobs:
        await runtime.commands.cancel(job.id)
    stuck = jobs[1].id
    # A note moves the fence, so that this job has to be read.
    last = await job_log.last(codec.event_subjects(stuck))
    assert last is not None
    await job_log.rollup(codec.note_subject(stuck), b"{}", job_events(stuck, last.seq))
    await _applied(runtime)
    with monkeypatch.context() as broken, caplog.at_level(logging.INFO):
        broken.setattr(job_log, "history", _raiser(ValueError("unreadable")))
        await sweeper.sweep()
    assert "unreadable" in caplog.text
    await _applied(runtime)
    assert [runtime.index.job(job.id) is None for job in jobs] == [True, False, True]
    await sweeper.sweep()
    assert await _gone(runtime, stuck)


async def test_a_job_that_was_retried_and_ended_again_since_it_was_found_is_kept(
    runtime: Runtime, job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bring_to(job_log, runtime.commands, (await runtime.commands.create(request())).job, JobStatus.COMPLETED)
    await _applied(runtime)

    async def found(*_: Any) -> list[str]:
        return [job.id]

    monkeypatch.setattr(runtime.reader, "finished", found)
    parts = (runtime.artifacts, runtime.index, runtime.reader, runtime.feed)
    await Maintenance(job_log, *parts, settings=settings).sweep()
    assert await runtime.commands.find(job.id) is not None


async def _fill(job_log: JobLog, commands: JobCommands) -> list[Job]:
    """Dead letters until the next job is refused."""
    letters: list[Job] = []
    while True:
        try:
            job = (await commands.create(request(LARGE))).job
        except QueueFull:
            return letters
        try:
            await say(job_log, job, Started)
            await say(job_log, job, DeadLetter, spec=job.spec)
        except QueueFull:
            return letters
        letters.append(job)


async def test_a_full_store_recovers_by_itself_when_jobs_expire(
    runtime: Runtime, sweeper: Maintenance, job_log: JobLog, settings: Settings, tmp_path: Path
) -> None:
    commands = runtime.commands
    running = [
        await bring_to(job_log, commands, (await commands.create(request())).job, JobStatus.PROCESSING)
        for _ in range(2)
    ]
    away = tmp_path / "away.sqlite"
    first = await bring_to(job_log, commands, (await commands.create(request())).job, JobStatus.DEAD_LETTER)
    dead_letter = codec.event_subject(first.id, Kind.DEAD_LETTER)
    copied = partial(last_message, runtime.connection, codec.DEAD_LETTERS_STREAM, dead_letter)
    await until(copied, "the server has begun to copy dead letters")
    # The store's limit is for all streams: dead letters are in it twice.
    letters = [first, *await _fill(job_log, commands)]
    with pytest.raises(QueueFull, match=f"of at most {STORE // 2} bytes"):
        await commands.create(request())
    assert (await stream_info(runtime.connection)).state.bytes < STORE // 2
    done = await bring_to(job_log, commands, running[0], JobStatus.COMPLETED)
    await _rows_of(runtime, away)

    greedy = JobCommands(job_log, settings.model_copy(update={"max_store_bytes": 1 << 40}))
    later = datetime.now(UTC) + timedelta(seconds=2)
    scheduled = (await greedy.create(request(run_at=later))).job
    letters += await _fill(job_log, greedy)
    body = attempt_body(Completed, 1, running[1].submission_seq)
    last = await job_log.last(codec.event_subjects(running[1].id))
    assert last is not None
    write = Write(
        running[1].id, codec.event_subject(running[1].id, Kind.COMPLETED), body, job_events(running[1].id, last.seq)
    )
    outcome = asyncio.create_task(job_log.append(write, timeout=None))
    await until(lambda: datetime.now(UTC) > later + timedelta(seconds=0.2), "the schedule is due")
    assert not outcome.done()
    assert await job_log.last(codec.submission_subjects(scheduled.id)) is None

    async with in_background(sweeper.run()):
        await outcome
        await until(lambda: job_log.last(codec.submission_subjects(scheduled.id)), "the schedule is fired")

        async def created() -> bool:
            try:
                return bool(await commands.create(request(idempotency_key="again")))
            except QueueFull:
                return False

        await until(created, "jobs can be created again")
        for job in (done, running[1], *letters):
            await until(partial(_gone, runtime, job.id), "the job has expired", within=20)
    await _applied(runtime)
    assert await _rows_of(runtime, away) == await _rows_of(runtime, tmp_path / "anew.sqlite")
