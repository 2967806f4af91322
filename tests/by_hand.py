"""A worker's part played by a test: events written into the log without a worker, and outages of its server."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer
from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.jetstream.stored_messages import last_message, messages_of
from gql_jobs.jobs.messages import AttemptBody, Completed, DeadLetter, Failed, Receipt, Started
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage, encode_body
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, Write, folded, job_events
from tests.deadline import until
from tests.stories import KIND_OF, attempt_body, noted, request

_WORDS: dict[JobStatus, tuple[type[AttemptBody], ...]] = {
    JobStatus.QUEUED: (),
    JobStatus.PROCESSING: (Started,),
    JobStatus.RETRYING: (Started, Failed),
    JobStatus.COMPLETED: (Started, Completed),
    JobStatus.DEAD_LETTER: (Started, DeadLetter),
}


async def say(job_log: JobLog, job: Job, kind: type[AttemptBody], attempt: int = 1, **facts: Any) -> int:
    """Append a worker's event, expecting the job's last one; returns its sequence."""
    history = await job_log.history(job.id)
    now = folded(history)
    assert now is not None
    body = attempt_body(kind, attempt, now.submission_seq, **facts)
    last = max((message.seq for message in history if ".event." in message.subject), default=0)
    subject = codec.event_subject(job.id, KIND_OF[kind])
    return await job_log.append(Write(job.id, subject, body, job_events(job.id, last)))


async def report(job_log: JobLog, job: Job, percent: int, message: str | None = None) -> None:
    """A progress report of attempt 1, as a worker stores it."""
    body = attempt_body(AttemptBody, 1, job.submission_seq, progress=percent, message=message)
    events = [m.seq for m in await job_log.history(job.id) if ".event." in m.subject]
    await job_log.rollup(codec.progress_subject(job.id), encode_body(body), job_events(job.id, max(events, default=0)))


async def bring_to(job_log: JobLog, commands: JobCommands, job: Job, status: JobStatus) -> Job:
    """Move a queued job to a state, and return it as the leader has it."""
    if status is JobStatus.CANCELLED:
        await commands.cancel(job.id)
    for kind in _WORDS.get(status, ()):
        await say(job_log, job, kind)
    moved = await commands.find(job.id)
    assert moved is not None
    assert moved.status is status
    return moved


async def job_with_remains(job_log: JobLog, commands: JobCommands, status: JobStatus) -> Job:
    """A job in that state under the key k, with what a job in it may have beside its events."""
    run_at = datetime.now(UTC) + timedelta(days=1) if status is JobStatus.SCHEDULED else None
    job = (await commands.create(request(idempotency_key="k", run_at=run_at))).job
    await job_log.rollup(codec.checkpoint_subject(job.id), b"{}", job_events(job.id, 0))
    if status is JobStatus.SCHEDULED:
        return job
    await report(job_log, job, 10)
    moved = await bring_to(job_log, commands, job, status)
    if status.is_terminal:
        note = noted(0, Receipt.STOPPED, moved.event_seq, job.id).body
        await job_log.append(Write(job.id, codec.note_subject(job.id), note, job_events(job.id, moved.event_seq)))
    if status is JobStatus.DEAD_LETTER:
        copied = partial(last_message, job_log.connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS)
        await until(copied, "the dead letter is copied")
    return moved


async def stored(connection: Connection, subject_filter: str = codec.ALL_JOBS) -> list[JobMessage]:
    """Every message of the stream that matches."""
    found = messages_of(connection, codec.JOBS_STREAM, subject_filter)
    return [JobMessage.of(message) async for message in found]


async def tailed(connection: Connection, filters: tuple[str, ...] = (codec.ALL_JOBS,)) -> list[tuple[int, str]]:
    """Sequence and subject of every message that an ordered consumer brings until nothing is behind."""
    seen: list[tuple[int, str]] = []
    batches = OrderedConsumer(connection, codec.JOBS_STREAM, filters, 1).batches()
    async for batch in batches:
        seen += [(message.seq, message.subject) for message in batch]
        if not batch or batch[-1].pending == 0:
            break
    await batches.aclose()
    return seen


@contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """The server neither reads nor answers until the block ends; its connections stay open."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # A thread of it that runs right now goes on until the signal has reached its core.
        while psutil.Process(server.pid).status() != psutil.STATUS_STOPPED:
            pass
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@asynccontextmanager
async def plain_nats(folder: Path, *options: str) -> AsyncIterator[str]:
    """A nats-server with these options only, so without JetStream; gives its URL.

    :param folder: where it writes its ports.
    """
    program = Path(sys.executable).parent / "nats-server"
    where = ("--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(folder), "--log", str(folder / "log"))
    process = await asyncio.create_subprocess_exec(str(program), *where, *options)

    def listening() -> str | None:
        for path in folder.glob("*.ports"):
            text = path.read_text()
            if text.endswith("}"):
                urls: list[str] = json.loads(text)["nats"]
                return urls[0]
        return None

    try:
        yield await until(listening, "nats-server listens")
    finally:
        process.kill()
        await process.wait()


class RestartingServer:
    """A server that comes back on the port and the store it had."""

    def __init__(self, data_dir: Path, port: int = 0, **credentials: Any) -> None:
        self._data_dir = data_dir
        self._running = AsyncExitStack()
        self._port = port
        self._credentials = credentials
        self.url = ""

    async def start(self) -> EmbeddedServer:
        """Start it, for the first time or again."""
        server = await self._running.enter_async_context(
            embedded_server(self._data_dir, port=self._port, max_store_bytes=1 << 30, **self._credentials)
        )
        self._port, self.url = server.port, server.url
        return server

    async def stop(self) -> None:
        """Stop it; the store stays."""
        await self._running.aclose()
