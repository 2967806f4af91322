"""A recorded stream: jobs of every state, as some version of this software stored them, and how they are stored again.

A recording is a file of JSON lines under ``tests/fixtures``. The first says what the jobs were when it was made; every
other is one message: stream, sequence, subject, header block and data (text, or base64).
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gql_jobs.index.index import Index
from gql_jobs.jetstream.connection import Connection, open_publisher
from gql_jobs.jetstream.stored_messages import delete_message, messages_of
from gql_jobs.jobs.fold import Event
from gql_jobs.log import codec
from gql_jobs.log.artifacts import BUCKET
from tests.running import ROOT

FOLDER = ROOT / "tests" / "fixtures"
OBJECTS = f"OBJ_{BUCKET}"
STREAMS = (codec.JOBS_STREAM, codec.DEAD_LETTERS_STREAM, OBJECTS)
_FILLER = "jobs.filler.note"


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
