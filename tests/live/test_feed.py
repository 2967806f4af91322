"""The feed: the stream applied to the index, live or from the beginning with the same outcome."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gql_jobs.index.index import DamagedIndex, Index, open_index
from gql_jobs.index.reader import open_reader
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Completed, DeadLetter, Failed, Released, Started
from gql_jobs.jobs.model import Job, JobPriority, JobStatus
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import Feed, run_feed
from gql_jobs.live.tally import UNKNOWN, Tally
from gql_jobs.log import codec
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, folded
from gql_jobs.log.streams import consumers, ensure_streams, stream_info
from gql_jobs.settings import Settings
from tests.by_hand import report, say
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.rows import counted, rows
from tests.stories import JOB, error, request

Rows = dict[str, list[tuple[Any, ...]]]


@asynccontextmanager
async def _fed(connection: Connection, path: Path) -> AsyncIterator[tuple[Feed, Index]]:
    """A feed into the index of that file, caught up."""
    stream = await stream_info(connection)
    with open_index(path, stream.created, stream.state.last_seq, 86_400) as index:
        async with open_reader(index) as reader:
            bus = EventBus(reader.events_after, index.position)
            async with run_feed(connection, index, bus, Tally((), 0)) as feed:
                await until(lambda: feed.caught_up, "the feed has caught up")
                yield feed, index


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    return JobCommands(job_log, settings)


async def _lives(job_log: JobLog, commands: JobCommands) -> list[Job]:
    """Jobs in every state, by every way but a schedule's; returns them as created."""
    created = await commands.create_many([request(ProbePayload(steps=n), tags=("t", str(n))) for n in range(9)])
    jobs = [outcome.job for outcome in created]
    _queued, running, retrying, done, dead, cancelled, retried, released, succeeded = jobs
    for job in (running, retrying, done, dead, retried, released, succeeded):
        await say(job_log, job, Started)
        await report(job_log, job, 10, "begun")
        await report(job_log, job, 20, "going")
    for job in (retrying, done, dead):
        await say(job_log, job, Failed, errors=(error(1),), progress=20)
    await say(job_log, done, Started, 2, errors=(error(1),))
    await say(job_log, done, Completed, 2)
    await say(job_log, dead, Started, 2)
    await say(job_log, dead, DeadLetter, 2, errors=(error(1), error(2)))
    await commands.cancel(cancelled.id)
    await say(job_log, retried, DeadLetter)
    await commands.retry(retried.id)
    await say(job_log, released, Released)
    await say(job_log, succeeded, Started, 2, supersedes=1)
    return jobs


def _comparable(path: Path) -> Rows:
    """What a live index and a rebuilt one have in common; the notebook of expiries only the live one keeps."""
    found = rows(path)
    found.pop("expired")
    return found


async def test_a_live_index_and_one_built_from_the_beginning_have_the_same_rows_and_are_the_fold_of_the_log(
    job_log: JobLog, commands: JobCommands, connection: Connection, tmp_path: Path
) -> None:
    async with _fed(connection, tmp_path / "live") as (feed, index):
        jobs = await _lives(job_log, commands)
        last = (await stream_info(connection)).state.last_seq
        assert await feed.wait_for(last, 5)
        for job in jobs:
            assert _plain(index.job(job.id)) == _plain(folded(await job_log.history(job.id)))
    async with _fed(connection, tmp_path / "rebuilt") as (feed, index):
        assert await feed.wait_for(last, 5)
    assert _comparable(tmp_path / "rebuilt") == _comparable(tmp_path / "live")
    assert len(rows(tmp_path / "live")["jobs"]) == 9
    assert counted(tmp_path / "live")[0] == counted(tmp_path / "live")[1]


def _plain(job: Job | None) -> Any:
    """A job to compare; raw JSON has no equality of its own."""
    return msgspec.json.decode(msgspec.json.encode(job))


async def test_of_a_job_whose_schedule_is_gone_a_rebuilt_index_tells_the_same_story(
    job_log: JobLog, commands: JobCommands, connection: Connection, tmp_path: Path
) -> None:
    stories: list[list[Any]] = []
    async with _fed(connection, tmp_path / "live") as (feed, index):
        now = datetime.now(UTC)
        fired = (await commands.create(request(run_at=now + timedelta(seconds=0.2)))).job
        cancelled = (await commands.create(request(run_at=now + timedelta(hours=1)))).job
        await commands.cancel(cancelled.id)
        await until(lambda: job_log.last(codec.submission_subjects(fired.id)), "the job is queued")
        await say(job_log, fired, Started)
        last = await say(job_log, fired, Completed)
        assert await feed.wait_for(last, 5)
        stories.append(_stories(index, fired, cancelled))
    async with _fed(connection, tmp_path / "rebuilt") as (feed, index):
        assert await feed.wait_for(last, 5)
        stories.append(_stories(index, fired, cancelled))
    assert stories[0] == stories[1]


def _stories(index: Index, *jobs: Job) -> list[Any]:
    """Kinds and states; the schedule's own place, which is gone with it, may differ, all others may not."""
    return [
        [(e.kind, e.job.status, e.cursor if number else None) for number, e in enumerate(index.events(job.id))]
        for job in jobs
    ]


async def test_it_resumes_where_it_stopped(commands: JobCommands, connection: Connection, tmp_path: Path) -> None:
    path = tmp_path / "index"
    first = (await commands.create(request())).job
    async with _fed(connection, path) as (feed, _):
        assert await feed.wait_for(first.last_seq, 5)
    missed = (await commands.create_many([request() for _ in range(3)]))[-1].job
    with open_index(path, (await stream_info(connection)).created, 99, 86_400) as index:
        assert index.position == first.last_seq
    async with _fed(connection, path) as (feed, index):
        assert await feed.wait_for(missed.last_seq, 5)
        assert index.job(first.id) is not None
        assert index.job(missed.id) is not None
    assert [row[0] for row in rows(path)["events"]] == [1, 2, 3, 4]


async def test_a_stream_that_came_after_another_is_followed_from_its_beginning(
    commands: JobCommands, connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    old = (await commands.create_many([request() for _ in range(5)]))[-1].job
    async with _fed(connection, path) as (feed, _):
        assert await feed.wait_for(old.last_seq, 5)
    for stream in (codec.JOBS_STREAM, codec.DEAD_LETTERS_STREAM):
        await connection.api(f"STREAM.DELETE.{stream}")
    await ensure_streams(connection, settings)
    new = (await commands.create_many([request() for _ in range(6)]))[-1].job
    async with _fed(connection, path) as (feed, index):
        assert await feed.wait_for(new.last_seq, 5)
        assert index.job(old.id) is None
    assert len(rows(path)["jobs"]) == 6


GARBAGE = {
    "no JSON": (codec.queued_subject(JOB, "default", JobPriority.NORMAL), b"\xff\x00"),
    "no submission": (codec.queued_subject(JOB, "default", JobPriority.NORMAL), b"{}"),
    "a newer version": (f"jobs.{JOB}.event.cancelled", b'{"v":4,"submission":1}'),
    "an unknown event": (f"jobs.{JOB}.event.paused", b"{}"),
    "no job id": ("jobs.me.scheduled", b"{}"),
    "no progress": (f"jobs.{JOB}.progress", b'{"progress":"half"}'),
}


async def test_messages_that_nobody_can_read_are_set_aside_counted_and_logged_and_the_feed_goes_on(
    commands: JobCommands, connection: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gql_jobs.live.feed")
    async with _fed(connection, tmp_path / "index") as (feed, index):
        for subject, data in GARBAGE.values():
            await connection.request(subject, data)
        job = (await commands.create(request())).job
        assert await feed.wait_for(job.last_seq, 5)
        assert index.job(job.id) is not None
        assert index.unreadable == len(GARBAGE)
        assert index.job(JOB) is None
    assert sum("is set aside" in record.message for record in caplog.records) == len(GARBAGE)
    assert [row[:2] for row in rows(tmp_path / "index")["unreadable"]] == [
        (seq, subject) for seq, (subject, _) in enumerate(GARBAGE.values(), 1)
    ]


async def test_it_names_no_subjects_to_the_server_and_passes_checkpoints_over(
    commands: JobCommands, connection: Connection, tmp_path: Path
) -> None:
    async with _fed(connection, tmp_path / "index") as (feed, index):
        # With several filters the server looks at every subject there is before it answers, however many.
        pushed = [one.config for one in await consumers(connection) if "deliver_subject" in one.config]
        assert len(pushed) == 1
        assert not {"filter_subject", "filter_subjects"} & pushed[0].keys()
        job = (await commands.create(request())).job
        await connection.request(codec.checkpoint_subject(job.id), b"anything")
        assert await feed.wait_for(job.last_seq + 1, 5)
        found = index.job(job.id)
        assert found is not None
        assert found.last_seq == job.last_seq
        assert index.unreadable == 0


async def test_whoever_finds_the_index_damaged_ends_the_feed_and_the_next_one_has_everything(
    commands: JobCommands, connection: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    damage = sqlite3.DatabaseError("file is not a database")
    damage.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    jobs = [(await commands.create(request())).job]

    async def feed_until_damaged() -> None:
        async with _fed(connection, path) as (feed, index):
            async with feed.applying:
                jobs.append((await commands.create(request())).job)
                await until(lambda: feed.applying._waiters, "the feed waits with the second job")  # noqa: SLF001
                assert isinstance(index.read_error(damage), QueueUnavailable)
            await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as failed:
        await feed_until_damaged()
    assert failed.group_contains(DamagedIndex, match="is damaged")
    async with _fed(connection, path) as (feed, index):
        assert await feed.wait_for(jobs[-1].last_seq, 5)
        assert all(index.job(job.id) is not None for job in jobs)
        assert feed.counters.rebuilt == 1


async def test_a_message_that_can_be_read_but_not_compared_does_not_stop_the_feed(
    commands: JobCommands, connection: Connection, tmp_path: Path
) -> None:
    model = (await commands.create(request())).job
    stored = json.loads((await _submission(connection, model)).decode())
    stored["spec"]["createdAt"] = "2026-01-31T12:00:00"
    async with _fed(connection, tmp_path / "index") as (feed, index):
        await connection.request(codec.queued_subject(JOB, "default", JobPriority.NORMAL), json.dumps(stored).encode())
        job = (await commands.create(request())).job
        assert await feed.wait_for(job.last_seq, 5)
        assert (index.unreadable, index.job(JOB)) == (1, None)


async def _submission(connection: Connection, job: Job) -> bytes:
    message = await last_message(connection, codec.JOBS_STREAM, codec.job_subjects(job.id))
    assert message is not None
    return message.data


async def test_whoever_waits_is_told_when_the_index_has_got_there_and_when_it_has_not(
    commands: JobCommands, connection: Connection, tmp_path: Path
) -> None:
    async with _fed(connection, tmp_path / "index") as (feed, _):
        waiting = [asyncio.create_task(feed.wait_for(seq, 5)) for seq in (3, 1, 2)]
        assert not await feed.wait_for(1, 0.01)
        await commands.create_many([request() for _ in range(3)])
        assert await asyncio.gather(*waiting) == [True, True, True]
        assert await feed.wait_for(1, 0)
        assert (feed.caught_up, feed.lag, feed.position) == (True, 0, 3)


async def test_while_what_is_applied_decides_what_comes_next_no_batch_is_gathered_for_long(
    commands: JobCommands, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wait in ("BATCH_WAIT_PER_MESSAGE", "BATCH_WAIT_WATCHED", "BATCH_WAIT_UNWATCHED"):
        monkeypatch.setattr(f"gql_jobs.live.feed.{wait}", 3600)
    async with _fed(connection, tmp_path / "index") as (feed, _):
        feed.is_followed = lambda: True
        for _ in range(2):
            # Some come together: after a lone message nothing is gathered anyway.
            created = await commands.create_many([request() for _ in range(20)])
            assert await feed.wait_for(created[-1].job.last_seq, 10)


async def test_every_event_that_was_applied_is_counted_once_however_many_have_come_since_somebody_looked(
    job_log: JobLog,
    commands: JobCommands,
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gql_jobs.live.feed._MAX_UNCOUNTED", 3)
    label = (UNKNOWN,)
    async with _fed(connection, tmp_path / "index") as (feed, _):
        for jobs in range(1, 8):
            job = (await commands.create(request())).job
            await say(job_log, job, Started)
            assert await feed.wait_for(await say(job_log, job, Completed), 5)
            if jobs % 3 == 0:
                assert (feed.tally.created[label], feed.tally.started[label]) == (jobs, jobs)
        assert feed.tally.created[label] == feed.tally.finished[UNKNOWN, "COMPLETED"] == 7


async def test_it_is_not_caught_up_while_it_has_fallen_far_behind_and_again_when_it_is_near(
    commands: JobCommands, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.live.feed.BATCH", 1)
    monkeypatch.setattr("gql_jobs.live.feed.CATCH_UP_BATCH", 1)
    monkeypatch.setattr("gql_jobs.live.feed.FALLEN_BEHIND", 20)
    monkeypatch.setattr("gql_jobs.live.feed.RECOVERED", 5)
    judged: list[tuple[int, bool]] = []
    async with _fed(connection, tmp_path / "index") as (feed, index):
        apply = index.apply

        def judge(*batch: Any) -> Any:
            judged.append((feed.lag, feed.caught_up))
            return apply(*batch)

        monkeypatch.setattr(index, "apply", judge)
        last = (await commands.create_many([request() for _ in range(300)]))[-1].job.last_seq
        assert await feed.wait_for(last, 10)
        await until(lambda: feed.caught_up, "it is near again")
        assert feed.counters.applied == feed.counters.position == 300
    assert {caught_up for lag, caught_up in judged if lag > 20} == {False}
    assert {caught_up for lag, caught_up in judged if lag <= 5} == {True}
    falling = judged.index(next(seen for seen in judged if seen[0] > 20))
    near = next(number for number in range(falling, len(judged)) if judged[number][0] <= 5)
    assert not any(caught_up for _, caught_up in judged[falling:near]), "between the two it stays as it was"


async def test_a_job_ends_in_the_index_whatever_its_events_were_told_by(
    job_log: JobLog, commands: JobCommands, connection: Connection, nats: EmbeddedServer, tmp_path: Path
) -> None:
    assert nats.returncode is None
    async with _fed(connection, tmp_path / "index") as (feed, index):
        job = (await commands.create(request())).job
        started = await say(job_log, job, Started)
        done = await say(job_log, job, Completed)
        assert await feed.wait_for(done, 5)
        found = index.job(job.id)
        assert found is not None
        assert (found.status, found.event_seq, found.submission_seq) == (JobStatus.COMPLETED, done, started - 1)
