"""The doctor finds each fault that was planted, says it in a sentence, and finds nothing in a sound system."""

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gql_jobs.doctor.examination import as_text, examine
from gql_jobs.doctor.installation import Finding
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.messages import DeadLetter, Receipt, Started
from gql_jobs.jobs.model import Job, JobPriority, new_job_id
from gql_jobs.jobs.pause import FAR
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.viewer import ANYBODY
from gql_jobs.log import codec
from gql_jobs.log.artifacts import BUCKET
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deliveries import PullConsumer
from gql_jobs.log.job_log import JobLog, Write, job_events
from gql_jobs.log.paused_consumers import PauseCommands, pause_consumers
from gql_jobs.log.streams import jobs_stream
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.by_hand import report, say
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES, PYTHON_PATH
from tests.stories import noted, request
from tests.viewers import viewer

needs_worker = pytest.mark.usefixtures("worker")


async def _examined(settings: Settings) -> list[Finding]:
    return await examine(settings, load_job_types(JOB_TYPES))


async def _only(settings: Settings, check: str) -> Finding:
    """The one finding there is, which that check has made."""
    (finding,) = await _examined(settings)
    assert finding.check == check, finding
    return finding


async def _stories(runtime: Runtime) -> list[Job]:
    payloads = [ProbePayload(steps=2), ProbePayload(permanent=True), ProbePayload(fail_attempts=1)]
    jobs = [(await runtime.commands.create(request(payload, tags=("t",)))).job for payload in payloads]
    for job in jobs:
        async for _ in await runtime.watch.job(job.id, ANYBODY):
            pass
    return jobs


@needs_worker
async def test_of_a_sound_system_in_use_there_is_nothing_to_say(runtime: Runtime, settings: Settings) -> None:
    await _stories(runtime)
    await runtime.commands.create(request(run_at=datetime.now(UTC) + timedelta(hours=1)))
    for tenant in ("red", "blue", "red"):
        await runtime.commands.create(request(), viewer("ada", tenant))
    assert await _examined(settings) == []
    assert "as it should be" in as_text([])


async def test_a_stream_that_was_changed_or_is_missing(connection: Connection, settings: Settings) -> None:
    config = {**jobs_stream(1), "max_age": 3_600_000_000_000}
    await connection.api(f"STREAM.UPDATE.{codec.JOBS_STREAM}", config)
    finding = await _only(settings, "streams")
    assert finding.problem == "The stream JOBS has max_age 3600000000000, not 0."
    for stream in (codec.JOBS_STREAM, codec.DEAD_LETTERS_STREAM):
        await connection.api(f"STREAM.DELETE.{stream}")
    findings = await _examined(settings)
    assert [finding.problem for finding in findings] == [
        "The stream JOBS cannot be had: stream not found.",
        "The stream jobs-dlq cannot be had: stream not found.",
    ]


async def test_a_consumer_that_is_missing(connection: Connection, settings: Settings) -> None:
    name = codec.consumer_name("default", JobPriority.HIGH)
    await connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{name}")
    assert f"The consumer {name} is missing" in (await _only(settings, "consumers")).problem


async def test_processes_that_do_not_agree_on_the_lease(connection: Connection, settings: Settings) -> None:
    assert connection.connected
    findings = await _examined(settings.model_copy(update={"ack_wait": 45.0}))
    assert {"ack_wait" in finding.problem for finding in findings} == {True}


async def test_jobs_that_no_worker_asks_for(job_log: JobLog, settings: Settings) -> None:
    await JobCommands(job_log, settings).create_many([request() for _ in range(3)])
    finding = await _only(settings, "consumers")
    assert "has 3 jobs to give, and no worker asks for one" in finding.problem
    assert (finding.count, "Start workers that serve default" in finding.advice) == (3, True)


async def test_deliveries_that_nobody_answers_for_and_the_job_that_its_worker_has_left(
    job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("streams", "jobs"):
        monkeypatch.setattr(f"gql_jobs.doctor.{module}.LEASES", 0)
    job = (await JobCommands(job_log, settings).create(request())).job
    await say(job_log, job, Started)
    consumer = PullConsumer(job_log.connection, "default", JobPriority.NORMAL, ack_wait=30, deliver=lambda *_: None)
    assert await consumer.poll(1)
    await consumer.close()
    stuck, abandoned = await _examined(settings)
    assert "has given out 1 jobs" in stuck.problem
    assert abandoned.problem == "1 jobs are said to be run by workers that nobody hears of."
    assert abandoned.examples == (job.id,)


async def test_a_queue_that_is_paused_and_consumers_that_are_not_as_the_pauses_say(
    job_log: JobLog, settings: Settings
) -> None:
    await JobCommands(job_log, settings).create(request())
    await PauseCommands(job_log).pause("default", "the bank is closed", None, "ada")
    paused = await _only(settings, "pauses")
    assert paused.problem.startswith("The queue default is paused by ada: the bank is closed, since 20")
    assert paused.problem.endswith("; 1 of its deliveries wait.")
    assert paused.advice == "If that is not meant any more: gql-jobs resume default."
    await pause_consumers(job_log.connection, "threads", FAR)
    found = await _examined(settings)
    assert [finding.problem for finding in found[1:]] == [
        f"The consumer {codec.consumer_name('threads', priority)} is paused, and its queue is not."
        for priority in sorted(JobPriority, key=str)
    ]


async def test_a_schedule_that_should_have_fired(
    job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.doctor.jobs.OVERDUE", timedelta(hours=-2))
    job = (await JobCommands(job_log, settings).create(request(run_at=datetime.now(UTC) + timedelta(hours=1)))).job
    assert (await _only(settings, "jobs")).examples == (job.id,)


async def test_dead_letters_progress_and_checkpoints_of_jobs_that_are_gone(job_log: JobLog, settings: Settings) -> None:
    connection = job_log.connection
    job = (await JobCommands(job_log, settings).create(request())).job
    await say(job_log, job, Started)
    await report(job_log, job, 5)
    await say(job_log, job, DeadLetter)

    async def copied() -> bool:
        return await last_message(connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS) is not None

    await until(copied, "the dead letter is copied")
    for subject in (codec.submission_subjects(job.id), codec.event_subjects(job.id)):
        await connection.purge(codec.JOBS_STREAM, subject)
    await connection.request(codec.checkpoint_subject(job.id), b"{}")
    dead, remains = await _examined(settings)
    assert dead.examples == (f"jobs.{job.id}.event.dead_letter",)
    assert "dead letters in jobs-dlq are of jobs that are none" in dead.problem
    assert remains.examples == (codec.checkpoint_subject(job.id), codec.progress_subject(job.id))


async def test_uploads_that_died_and_files_that_no_job_speaks_of(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.doctor.jobs.UPLOAD_DEAD_AFTER", timedelta(0))
    bucket = await connection.object_store(BUCKET, 1)
    name = f"{new_job_id()}/ab/a.txt"
    await bucket.put(name, b"text")
    await connection.request(f"$O.{BUCKET}.C.DIED", b"half of it")
    upload, file = await _examined(settings)
    assert (upload.examples, file.examples) == (("DIED",), (name,))
    assert "never finished" in upload.problem


TAMPERING = {
    "a state": "UPDATE jobs SET status = 'queued'",
    "a job less": "DELETE FROM jobs WHERE number = 1",
    "an event less": "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)",
    "a tag less": "DELETE FROM tags",
    "a receipt less": "DELETE FROM notes",
    "another receipt": "UPDATE notes SET receipt = 'ignored'",
    "a counter": "UPDATE counts SET n = n + 1",
}


@needs_worker
async def test_an_index_that_does_not_tell_what_the_stream_tells(
    runtime: Runtime, settings: Settings, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.doctor.indexes.RECHECK_INTERVAL", 0)
    await _stories(runtime)
    await _receipted(runtime, job_log)
    path = runtime.index.path
    for sql in TAMPERING.values():
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("BEGIN")
            tables = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in _TABLES}  # noqa: S608
            database.execute(sql)
            database.execute("COMMIT")
            finding = await _only(settings, "indexes")
            assert str(path) in finding.problem, sql
            assert "delete the file" in finding.advice
            for name, rows in tables.items():
                database.execute(f"DELETE FROM {name}")  # noqa: S608
                marks = ", ".join("?" * len(rows[0]))
                database.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)  # noqa: S608
    assert await _examined(settings) == []


_TABLES = ("jobs", "events", "tags", "counts", "notes")


async def _receipted(runtime: Runtime, job_log: JobLog) -> None:
    """A job that was cancelled, with the receipt of its worker."""
    later = datetime.now(UTC) + timedelta(hours=1)
    job = await runtime.commands.cancel((await runtime.commands.create(request(run_at=later))).job.id)
    note = noted(0, Receipt.STOPPED, job.event_seq, job.id).body
    seq = await job_log.append(Write(job.id, codec.note_subject(job.id), note, job_events(job.id, job.event_seq)))
    assert await runtime.feed.wait_for(seq, 10)
    assert len(runtime.index.notes(job.id, job.event_seq)) == 1


async def test_an_index_file_that_is_damaged(runtime: Runtime, settings: Settings) -> None:
    await runtime.feed.read_back(
        (await runtime.commands.create(request(run_at=datetime.now(UTC) + timedelta(hours=1)))).job
    )
    # Of another process: ours would mend its own as soon as it met the damage.
    path = runtime.index.path.with_name("index-1.sqlite")
    path.write_bytes(os.urandom(8 * 4096))
    assert "cannot be read" in (await _only(settings, "indexes")).problem


async def _command(settings: Settings, folder: Path, *arguments: str) -> tuple[int | None, str]:
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH, "GQL_JOBS_NATS_URL": settings.nats_url or ""}
    command = (
        sys.executable,
        "-m",
        "gql_jobs",
        "doctor",
        "--import",
        *JOB_TYPES,
        "--data-dir",
        str(folder),
        *arguments,
    )
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_command_says_it_in_sentences_or_json_and_exits_with_one_if_anything_is_wrong(
    connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    code, said = await _command(settings, tmp_path)
    assert (code, said.splitlines()[0]) == (0, "Everything is as it should be.")
    assert "sync_interval" in said
    name = codec.consumer_name("default", JobPriority.LOW)
    await connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{name}")
    code, said = await _command(settings, tmp_path, "--json")
    (finding,) = json.loads(said)["findings"]
    assert (code, finding["check"], name in finding["problem"]) == (1, "consumers", True)
