"""The context of a handler on the event loop or in a thread: its progress, checkpoints, artifacts and logger.

Whatever it stores is fenced by the attempt's ``started`` event. A write that is refused means that the job has been
lost: the handler is stopped. A handler in a process has ``sandbox.child.ChildContext``, which sends its requests here.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from gql_jobs.jetstream.errors import FenceRefused
from gql_jobs.jobs.errors import AttemptStoppedError, QueueUnavailable, RefusedValue, TransientError
from gql_jobs.jobs.messages import Progress
from gql_jobs.jobs.model import Artifact, artifact_name, content_type_of, media_type
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPart, StoredPayloads
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import JobMessage, encode_body
from gql_jobs.log.job_log import JobLog
from gql_jobs.logs import JobLogger
from gql_jobs_worker.claim import Claimed
from gql_jobs_worker.execution import MAX_CHECKPOINT, Reports, checkpoint_json, refuse_waiting_on_a_loop
from gql_jobs_worker.telemetry import log_event

_T = TypeVar("_T")

PROGRESS_PAUSE = 0.1
"""Seconds from one stored progress message of a job to the next, the time that storing takes included."""
STORE_TRIES = 20
"""Failures to store something, with NATS connected, after which it is given up."""
STORE_PAUSE = 0.5
"""Seconds between two tries to store or to read something."""


class AttemptContext:
    """The ``HandlerContext`` of one attempt. Stores only the latest progress, however often a handler reports."""

    def __init__(
        self, log: JobLog, artifacts: ArtifactStore, claimed: Claimed, worker_id: str, stored: StoredPayloads
    ) -> None:
        """Report on this attempt.

        :param stored: how checkpoints are stored.
        """
        self._stored = stored
        self._log = log
        self._artifacts = artifacts
        self._claimed = claimed
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._flusher: asyncio.Task[None] | None = None
        self._unsent = False
        self._closed = False
        self._stop_requested = False
        self.percent = claimed.progress
        self.message = claimed.message
        self.saved: Any = None
        self.hidden = claimed.hidden
        self._reports = Reports(self, claimed.progress, self.hidden)

    @cached_property
    def log(self) -> JobLogger:
        """Return the logger of the job's type, whose lines carry the attempt's fields."""
        return JobLogger(self._claimed.spec.type, self._claimed.fields)

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields of log lines about the attempt."""
        return self._claimed.fields

    @property
    def job_id(self) -> str:
        """Return the id of the job."""
        return self._claimed.job_id

    @property
    def attempt(self) -> int:
        """Return the number of the attempt, 1 for the first."""
        return self._claimed.attempt

    @property
    def idempotency_token(self) -> str:
        """Return the job's id, which is the same in every attempt."""
        return self._claimed.job_id

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report how far the work is; stored at most ten times a second, the last report in any case.

        :param percent: from 0 to 100; what is outside is brought to the nearer end, what is no number is logged.
        :raises AttemptStoppedError: in a thread, if the attempt has been stopped or has ended.
        """
        whole, cut = self._reports.stored(percent, message)
        if threading.get_ident() == self._loop_thread:
            self._report(whole, cut)
            return
        if self._stop_requested or self._closed:
            raise AttemptStoppedError("The attempt has been stopped.")
        self._loop.call_soon_threadsafe(self._report, whole, cut)

    async def checkpoint(self, data: Any) -> None:
        """Keep JSON data for the next attempt; see ``JobContext``."""
        await self._on_the_loop(self.store_checkpoint(checkpoint_json(data)))

    async def store_checkpoint(self, body: bytes) -> None:
        """Keep a checkpoint that is JSON already; raises what ``checkpoint`` raises."""
        stored, marks = body, {}
        # Of a job whose payload is not encoded, an older release may run the next attempt.
        if self._stored.encodes and self._claimed.spec.encoded:
            stored, marks = self._encoded(body), {codec.ENCODED_HEADER: "1"}
        await self._until_stored(lambda: self._rollup(codec.checkpoint_subject(self.job_id), stored, marks))
        self.saved = msgspec.json.decode(body)

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        """Keep a file with the job; see ``JobContext``."""
        try:
            kept_as = media_type(content_type or content_type_of(artifact_name(name)))
        except ValueError as error:
            raise RefusedValue(str(error)) from None
        if isinstance(data, Path):
            with await asyncio.to_thread(data.open, "rb") as file:
                return await self._on_the_loop(self._save(name, file, kept_as))
        source = BytesIO(data) if isinstance(data, bytes) else data
        return await self._on_the_loop(self._save(name, source, kept_as))

    def wait(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the event loop from a handler's thread; return its result or raise its error.

        :raises PermanentError: in a coroutine, where the step is awaited: the loop would wait for itself.
        """
        refuse_waiting_on_a_loop(step)
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()

    def _on_the_loop(self, step: Coroutine[Any, Any, _T]) -> Awaitable[_T]:
        """Return the step to be awaited; it runs on the worker's loop, also where a thread awaits it on its own."""
        if threading.get_ident() == self._loop_thread:
            return step
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step, self._loop))

    async def restore(self) -> None:
        """Set ``saved`` to the last checkpoint of an earlier attempt, if there is one; wait while NATS is away.

        The attempt counts already, so it waits for its checkpoint rather than begin from nothing.
        """
        while True:
            try:
                stored = await self._log.last(codec.checkpoint_subject(self.job_id))
            except QueueUnavailable:
                await asyncio.sleep(STORE_PAUSE)
                continue
            if stored is not None:
                try:
                    self.saved = msgspec.json.decode(self._decoded(stored))
                except (ValueError, RecursionError, CodecFailure) as error:
                    # Of other code than this: the attempt begins from nothing rather than never.
                    self.log.warning("the checkpoint of an earlier attempt cannot be read: %s", error)
            return

    def _encoded(self, body: bytes) -> bytes:
        try:
            made = self._stored.encode(self.job_id, self._claimed.spec, StoredPart.CHECKPOINT, body)
        except CodecFailure as failure:
            raise TransientError(f"The checkpoint could not be encoded. {failure}") from None
        if len(made) > MAX_CHECKPOINT:
            raise RefusedValue(
                f"The checkpoint has {len(made)} bytes once it is encoded; the limit is {MAX_CHECKPOINT}."
            )
        return made

    def _decoded(self, stored: JobMessage) -> bytes:
        if stored.header(codec.ENCODED_HEADER) is None:
            return stored.data
        return self._stored.decode(self.job_id, self._claimed.spec, StoredPart.CHECKPOINT, stored.data)

    def request_stop(self) -> None:
        """Have the next report of a handler in a thread raise ``AttemptStoppedError``."""
        self._stop_requested = True

    async def close(self) -> None:
        """Ignore all later reports and stop storing progress; the event of the outcome has the last report."""
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
                submission=self._claimed.submission_seq,
                attempt=self.attempt,
                worker_id=self._worker_id,
                progress=self.percent,
                message=self.message,
            )
            log_event("progress", self._claimed.fields, progress=f"{self.percent}%", message=self.message)
            try:
                # Fenced too: the progress of a superseded attempt would replace its successor's.
                await self._rollup(codec.progress_subject(self.job_id), encode_body(body))
            except AttemptStoppedError:
                return
            except QueueUnavailable as error:
                self.log.debug("progress was not stored: %s", error)
            await asyncio.sleep(PROGRESS_PAUSE - (self._loop.time() - began))

    async def _save(self, name: str, source: BinaryIO, media_type: str) -> Artifact:
        def save() -> Awaitable[Artifact]:
            return self._fenced(self._artifacts.save(self.job_id, name, source, media_type, self._claimed.fence))

        def save_again() -> Awaitable[Artifact]:
            source.seek(begin)
            return save()

        if source.seekable():
            begin = source.tell()
            return await self._until_stored(save_again)
        try:
            return await save()
        except QueueUnavailable as error:
            raise TransientError(error.message) from error

    async def _rollup(self, subject: str, body: bytes, marks: dict[str, str] | None = None) -> None:
        await self._fenced(self._log.rollup(subject, body, self._claimed.fence, marks))

    async def _fenced(self, write: Awaitable[_T]) -> _T:
        """Return the answer of a fenced write; a refused one means that the job has been lost.

        :raises AttemptStoppedError: if the job is another worker's, or has ended.
        :raises QueueUnavailable: if the write was refused although the job is ours.
        """
        try:
            return await write
        except FenceRefused:
            if await self._claimed.lease.confirm(self._log):
                raise QueueUnavailable("The stream has no settled leader.") from None
            raise AttemptStoppedError("Another worker has this job now.") from None

    async def _until_stored(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write, and try again while NATS is away; the attempt's own timeout ends that.

        :raises TransientError: if the write has failed ``STORE_TRIES`` times with NATS connected.
        """
        tries = STORE_TRIES
        while True:
            try:
                return await write()
            except QueueUnavailable as error:
                tries -= self._log.connection.connected
                if tries <= 0:
                    raise TransientError(error.message) from error
            await asyncio.sleep(STORE_PAUSE)
