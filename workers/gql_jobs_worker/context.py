"""The context a handler works with: progress, checkpoints, log."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from gql_jobs.jetstream.errors import FenceRefused
from gql_jobs.jobs.claim import Start
from gql_jobs.jobs.errors import AttemptStoppedError, QueueUnavailable, TransientError
from gql_jobs.jobs.messages import Progress
from gql_jobs.jobs.model import Artifact, content_type_of
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import encode_body
from gql_jobs.log.job_log import JobLog
from gql_jobs_worker import telemetry as journal
from gql_jobs_worker.attempt import Attempt
from gql_jobs_worker.invocation import checkpoint_json, reported

T = TypeVar("T")

PROGRESS_PAUSE = 0.1
"""Seconds from one stored progress message of a job to the next, the time that storing takes included."""
STORE_TRIES = 20
"""How often a server that can be reached may fail to store something."""
STORE_PAUSE = 0.5


class AttemptContext:
    """A ``JobContext``. Progress is coalesced: a handler may report as often as it likes."""

    def __init__(self, log: JobLog, artifacts: ArtifactStore, attempt: Attempt, worker_id: str, start: Start) -> None:
        self._log = log
        self._artifacts = artifacts
        self._attempt = attempt
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._flusher: asyncio.Task[None] | None = None
        self._unsent = False
        self._closed = False
        self._stopping = False
        self.percent = start.progress
        self.message = start.message
        self.saved: Any = None

    @cached_property
    def log(self) -> "logging.LoggerAdapter[Any]":
        facts = {"job_id": self.job_id, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger(f"gql_jobs.jobs.{self._attempt.spec.type}"), facts)

    @property
    def job_id(self) -> str:
        return self._attempt.job_id

    @property
    def attempt(self) -> int:
        return self._attempt.number

    @property
    def idempotency_token(self) -> str:
        return self._attempt.job_id

    def progress(self, percent: float, message: str | None = None) -> None:
        whole, cut = reported(percent, message)
        if threading.get_ident() == self._loop_thread:
            self._report(whole, cut)
            return
        if self._stopping or self._closed:
            raise AttemptStoppedError("The attempt has been stopped.")
        self._loop.call_soon_threadsafe(self._report, whole, cut)

    async def checkpoint(self, data: Any) -> None:
        await self.store_checkpoint(checkpoint_json(data))

    async def store_checkpoint(self, body: bytes) -> None:
        """``checkpoint`` of what is JSON already."""
        await self._patiently(lambda: self._rollup(codec.checkpoint_subject(self.job_id), body))
        self.saved = msgspec.json.decode(body)

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        media_type = content_type or content_type_of(name)
        if isinstance(data, Path):
            with await asyncio.to_thread(data.open, "rb") as file:
                return await self._save(name, file, media_type)
        return await self._save(name, BytesIO(data) if isinstance(data, bytes) else data, media_type)

    def wait(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()

    async def restore(self) -> None:
        """Read what an earlier attempt saved.

        :raises QueueUnavailable: if the stream cannot be read.
        """
        stored = await self._log.last(codec.checkpoint_subject(self.job_id))
        if stored is not None:
            self.saved = msgspec.json.decode(stored.data)

    def stopping(self) -> None:
        """A handler in a thread shall end: it is told at its next report."""
        self._stopping = True

    async def close(self) -> None:
        """Nothing is reported any more. What was last reported travels with the event that follows."""
        self._closed = True
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.cancel()
            await asyncio.gather(flusher, return_exceptions=True)

    def _report(self, percent: int, message: str | None) -> None:
        if self._closed:
            return
        self.percent, self.message, self._unsent = percent, message, True
        if self._flusher is None or self._flusher.done():
            self._flusher = self._loop.create_task(self._flush())

    async def _flush(self) -> None:
        while self._unsent:
            self._unsent = False
            began = self._loop.time()
            body = Progress(
                submission=self._attempt.delivery.seq,
                attempt=self.attempt,
                worker_id=self._worker_id,
                progress=self.percent,
                message=self.message,
            )
            journal.event("progress", self.job_id, progress=f"{self.percent}%", message=self.message)
            try:
                # Fenced too: a zombie's progress would replace its successor's.
                await self._rollup(codec.progress_subject(self.job_id), encode_body(body))
            except AttemptStoppedError:
                return
            except QueueUnavailable as error:
                self.log.debug("progress was not stored: %s", error)
            await asyncio.sleep(PROGRESS_PAUSE - (self._loop.time() - began))

    async def _save(self, name: str, source: BinaryIO, media_type: str) -> Artifact:
        def save() -> Awaitable[Artifact]:
            return self._ours(self._artifacts.save(self.job_id, name, source, media_type, self._attempt.fence))

        def save_again() -> Awaitable[Artifact]:
            source.seek(begin)
            return save()

        if source.seekable():
            begin = source.tell()
            return await self._patiently(save_again)
        try:
            return await save()
        except QueueUnavailable as error:
            raise TransientError(error.message) from error

    async def _rollup(self, subject: str, body: bytes) -> None:
        await self._ours(self._log.rollup(subject, body, self._attempt.fence))

    async def _ours(self, write: Awaitable[T]) -> T:
        """The answer of a fenced write; a refused one tells that the job has been lost."""
        try:
            return await write
        except FenceRefused:
            if await self._attempt.confirm(self._log):
                raise QueueUnavailable("The stream has no settled leader.") from None
            raise AttemptStoppedError("Another worker has this job now.") from None

    async def _patiently(self, write: Callable[[], Awaitable[T]]) -> T:
        """Try again while NATS is away: the attempt's own timeout is the limit. What it refuses is given up."""
        tries = STORE_TRIES
        while True:
            try:
                return await write()
            except QueueUnavailable as error:
                tries -= self._log.connection.connected
                if tries <= 0:
                    raise TransientError(error.message) from error
            await asyncio.sleep(STORE_PAUSE)
