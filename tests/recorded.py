"""A recorded stream: jobs of every state, as some version of this software stored them, and how they are stored again.

A recording is a file of JSON lines under ``tests/fixtures``. The first says what the jobs were when it was made, and
what steered them, if that version had something that does; every other is one message: stream, sequence, subject,
header block and data (text, or base64).
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from gql_jobs.index.index import Index
from gql_jobs.jetstream.connection import Connection, open_publisher
from gql_jobs.jetstream.stored_messages import delete_message, messages_of
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.schedules import SCHEDULE, SCHEDULE_STATE, Schedule, ScheduleState
from gql_jobs.jobs.unique_keys import KeyHolder
from gql_jobs.log import codec
from gql_jobs.log.artifacts import BUCKET
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.steering import SteeringLog
from tests.running import ROOT

FOLDER = ROOT / "tests" / "fixtures"
OBJECTS = f"OBJ_{BUCKET}"
STREAMS = (codec.JOBS_STREAM, codec.DEAD_LETTERS_STREAM, OBJECTS)
_FILLER = "jobs.filler.note"
_STEERED = (
    *("queue", "priority", "tags", "run_at", "key", "concurrency_key", "after", "after_policy", "start_before"),
    *("schedule", "gate"),
)
"""The parts of a spec that say how a job is steered, or that an edit may change."""
_VALUES: dict[str, Any] = {
    codec.PAUSES: Pause,
    codec.QUEUE_LIMITS: Limits,
    codec.TYPE_LIMITS: Limits,
    codec.KEYS: KeyHolder,
    SCHEDULE: Schedule,
    SCHEDULE_STATE: ScheduleState,
}
"""What each kind of steering message holds."""


def recordings() -> list[Path]:
    """One file for each version that was recorded."""
    return sorted(FOLDER.glob("stream_*.jsonl"))


def seen(index: Index, job_ids: dict[str, str]) -> dict[str, Any]:
    """What an index knows of jobs, by their names: None if it does not know one."""
    found: dict[str, Any] = {}
    for name, job_id in job_ids.items():
        job = index.job(job_id)
        events = [_told(event) for event in index.events(job_id)]
        facts = {"status": job.status.value, "attempt": job.attempt, "errors": len(job.errors)} if job else None
        found[name] = {"id": job_id, "job": facts, "events": events}
    return found


def _told(event: Event) -> str:
    return event.kind.value


def steered_jobs(index: Index, job_ids: dict[str, str]) -> dict[str, Any]:
    """What an index knows of jobs that are steered, by their names: beside the rest what they were asked for."""
    found = seen(index, job_ids)
    for name, job_id in job_ids.items():
        if (job := index.job(job_id)) is not None:
            spec = {part: getattr(job.spec, part) for part in _STEERED}
            facts = {"payload": job.spec.payload, "cancelReason": job.cancel_reason, "again": job.again}
            found[name]["asked"] = json.loads(msgspec.json.encode(spec | facts))
            found[name]["changed"] = [event.job.changed for event in index.events(job_id) if event.kind is Kind.EDITED]
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(found))
    return decoded


async def steering_values(job_log: JobLog) -> dict[str, Any]:
    """The present values of what steers jobs, but for who holds the gate, as this version reads them."""
    steering_log, found = SteeringLog(job_log), dict[str, Any]()
    for what, kind in _VALUES.items():
        for message in await steering_log.all(what):
            value = None if message.value is None else msgspec.json.decode(message.value, type=kind)
            found[f"{what}.{message.name}"] = json.loads(msgspec.json.encode(value))
    return found


async def lines(connection: Connection) -> AsyncIterator[str]:
    """Every message of the streams, as lines of a recording."""
    for stream in STREAMS:
        async for message in messages_of(connection, stream, ">"):
            line: dict[str, Any] = {"stream": stream, "seq": message.seq, "subject": message.subject}
            if message.headers:
                line["headers"] = message.headers.decode()
            try:
                line["data"] = message.data.decode()
            except UnicodeDecodeError:
                line["base64"] = base64.b64encode(message.data).decode()
            yield json.dumps(line, ensure_ascii=False)


async def store(connection: Connection, recording: str) -> dict[str, Any]:
    """Store the text of a recording in empty streams, each message at its own sequence; returns what its jobs were.

    The copies in jobs-dlq are made by the server, as they were then.
    """
    first, *rest = recording.splitlines()
    await connection.object_store(BUCKET, 1)
    last = 0
    async with open_publisher(connection) as publisher:
        for line in map(json.loads, rest):
            data = base64.b64decode(line["base64"]) if "base64" in line else line["data"].encode()
            if line["stream"] == OBJECTS:
                await publisher.publish(line["subject"], data, _headers(line), timeout=5)
            if line["stream"] == codec.JOBS_STREAM:
                while last + 1 < line["seq"]:
                    last = await publisher.publish(_FILLER, b"", {}, timeout=5)
                    await delete_message(connection, codec.JOBS_STREAM, last)
                last = await publisher.publish(line["subject"], data, _kept_headers(line), timeout=5)
                assert last == line["seq"]
    expected: dict[str, Any] = json.loads(first)
    return expected


def _kept_headers(line: dict[str, Any]) -> dict[str, str]:
    """Fences and roll-ups did their work when it was recorded; what a firing carries only the server may say."""
    scheduled = line["subject"].endswith(".scheduled")
    done = ("Nats-Expected", "Nats-Rollup") if scheduled else ("Nats-Expected", "Nats-Rollup", "Nats-Schedule")
    return {name: value for name, value in _headers(line).items() if not name.startswith(done)}


def _headers(line: dict[str, Any]) -> dict[str, str]:
    block = line.get("headers", "").split("\r\n")[1:]
    return dict(header.split(": ", 1) for header in block if header)
