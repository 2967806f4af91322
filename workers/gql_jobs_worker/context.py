"""The context of a handler on the event loop or in a thread: progress, checkpoints, artifacts, children and logger.

It goes to an ``AttemptStore``: in a worker the streams, where each write is fenced by the attempt's ``started`` event
(``FencedStore``). A write that is refused means that the job has been lost: the handler is stopped. A handler in a
process has ``sandbox.child.ChildContext``, which sends its requests here.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

import msgspec
from pydantic import BaseModel

from gql_jobs.jetstream.errors import FenceRefused
from gql_jobs.jobs.errors import (
    AttemptStoppedError,
    PermanentError,
    QueueUnavailable,
    RefusedValue,
    TransientError,
)
from gql_jobs.jobs.handler import ChildJob
from gql_jobs.jobs.messages import Progress
from gql_jobs.jobs.model import Artifact, Spec, artifact_name, content_type_of, media_type
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPart, StoredPayloads
from gql_jobs.jobs.registry import Registry
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import encode_body
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.logs import HiddenTexts, JobLogger
from gql_jobs_worker.children import AskedChild, asked_child, child_request, refusals_for_handlers
from gql_jobs_worker.claim import Claimed
from gql_jobs_worker.execution import (
    MAX_CHECKPOINT,
    Reports,
    address_of_artifact,
    checkpoint_json,
    refuse_waiting_on_a_loop,
)
from gql_jobs_worker.telemetry import log_event

_T = TypeVar("_T")

PROGRESS_PAUSE = 0.1
"""Seconds from one stored progress message of a job to the next, the time that storing takes included."""
STORE_TRIES = 20
"""Failures to store something, with NATS connected, after which it is given up."""
STORE_PAUSE = 0.5
"""Seconds between two tries to store or to read something."""


class RunningAttempt(Protocol):
    """What is known of the attempt that a handler runs for; ``claim.Claimed`` has it."""

    @property
    def job_id(self) -> str:
        """Return the id of the job."""

    @property
    def spec(self) -> Spec:
        """Return what is stored of the job."""

    @property
    def submission_seq(self) -> int:
        """Return the sequence of the submission that the attempt is one of."""

    @property
    def attempt(self) -> int:
        """Return the number of the attempt, 1 for the first."""

    @property
    def progress(self) -> int:
        """Return the percents that an earlier attempt has reported last."""

    @property
    def message(self) -> str | None:
        """Return the message that an earlier attempt has reported last."""

    @property
    def hidden(self) -> HiddenTexts:
        """Return the texts of the payload's secrets."""

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields of log lines about the attempt."""


class StoredCheckpoint(NamedTuple):
    """A checkpoint as it is stored; ``encoded``: whether a codec has made a text of its JSON."""

    body: bytes
    encoded: bool


class AttemptStore(Protocol):
    """Where what the handler of one attempt reports and keeps is stored.

    A write raises ``AttemptStoppedError`` if the job is not this attempt's any more.
    """

    async def save_progress(self, percent: int, message: str | None) -> None:
        """Store the newest report; it is tried once.

        :raises QueueUnavailable: if it was not stored.
        """

    async def save_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Store a checkpoint in place of the one before.

        :raises TransientError: if it could not be stored.
        """

    async def last_checkpoint(self) -> StoredCheckpoint | None:
        """Return the checkpoint that is stored, or None.

        :raises QueueUnavailable: if it cannot be read now.
        """

    async def save_artifact(self, name: str, source: BinaryIO, content_type: str) -> Artifact:
        """Store a file in place of an older one of its name.

        :raises RefusedValue: for an invalid name, or a file that is too large.
        :raises TransientError: if it could not be stored.
        """

    async def create_child(self, request: JobRequest) -> ChildJob[Any]:
        """Store a child of the job, or find it stored.

        :raises PermanentError: if its payload is too large, or it is stored with another one.
        :raises TransientError: if it could not be stored.
        """


class AttemptContext:
    """The ``HandlerContext`` of one attempt. Stores only the latest progress, however often a handler reports."""

    def __init__(
        self,
        store: AttemptStore,
        attempt: RunningAttempt,
        stored: StoredPayloads,
        registry: Registry,
        public_url: str | None = None,
        *,
        state: Any,
    ) -> None:
        """Report on this attempt.

        :param stored: how checkpoints are stored.
        :param registry: the job types of which there may be children.
        :param public_url: where clients reach the API.
        :param state: what was made at the start of the process.
        """
        self.state = state
        self._stored = stored
        self._registry = registry
        self._public_url = public_url
        self._children: Counter[str] = Counter()
        self._store = store
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._flusher: asyncio.Task[None] | None = None
        self._unsent = False
        self._closed = False
        self._stop_requested = False
        self.percent = attempt.progress
        self.message = attempt.message
        self.saved: Any = None
        self.hidden = attempt.hidden
        self._reports = Reports(self, attempt.progress, self.hidden)

    @cached_property
    def log(self) -> JobLogger:
        """Return the logger of the job's type, whose lines carry the attempt's fields."""
        return JobLogger(self._attempt.spec.type, self._attempt.fields)

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields of log lines about the attempt."""
        return self._attempt.fields

    @property
    def job_id(self) -> str:
        """Return the id of the job."""
        return self._attempt.job_id

    @property
    def attempt(self) -> int:
        """Return the number of the attempt, 1 for the first."""
        return self._attempt.attempt

    @property
    def idempotency_token(self) -> str:
        """Return the job's id, which is the same in every attempt."""
        return self._attempt.job_id

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report how far the work is; stored at most ten times a second, the last report in any case.

        :param percent: from 0 to 100; what is outside is brought to the nearer end, what is no number is logged.
        :raises AttemptStoppedError: in a thread, if the attempt has been stopped or has ended.
        """
        whole, cut = self._reports.stored(percent, message)
        if threading.get_ident() == self._loop_thread:
            self.report(whole, cut)
            return
        if self._stop_requested or self._closed:
            raise AttemptStoppedError("The attempt has been stopped.")
        self._loop.call_soon_threadsafe(self.report, whole, cut)

    async def checkpoint(self, data: Any) -> None:
        """Keep JSON data for the next attempt; see ``JobContext``."""
        await self._on_the_loop(self.store_checkpoint(checkpoint_json(data)))

    async def store_checkpoint(self, body: bytes) -> None:
        """Keep a checkpoint that is JSON already; raises what ``checkpoint`` raises."""
        # Of a job whose payload is not encoded, an older release may run the next attempt.
        encoded = self._stored.encodes and self._attempt.spec.encoded
        await self._store.save_checkpoint(StoredCheckpoint(self._encoded(body) if encoded else body, encoded))
        self.saved = msgspec.json.decode(body)

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        """Keep a file with the job; see ``JobContext``."""
        try:
            name = artifact_name(name)
            kept_as = media_type(content_type or content_type_of(name))
        except ValueError as error:
            raise RefusedValue(str(error)) from None
        if isinstance(data, Path):
            with await asyncio.to_thread(data.open, "rb") as file:
                return await self._on_the_loop(self._store.save_artifact(name, file, kept_as))
        source = BytesIO(data) if isinstance(data, bytes) else data
        return await self._on_the_loop(self._store.save_artifact(name, source, kept_as))

    async def create(self, payload: BaseModel, **options: Any) -> ChildJob[Any]:
        """Create a job, a child of this one; see ``JobContext``."""
        return await self._on_the_loop(self.create_child(asked_child(payload, options)))

    async def create_child(self, asked: AskedChild) -> ChildJob[Any]:
        """Create a child that is plain values already; raises what ``create`` raises."""
        if self._closed:
            raise AttemptStoppedError("The attempt has ended.")
        request = child_request(asked, self._registry, self._attempt, self._children)
        child = await self._store.create_child(request)
        if not child.deduplicated:
            log_event("child created", self.fields, child=child.id, type=request.job_type.name)
        return child

    def artifact_url(self, name: str) -> str:
        """Return the address at which clients find a file; see ``JobContext``."""
        return address_of_artifact(self._public_url, self.job_id, name)

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
                stored = await self._store.last_checkpoint()
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
            made = self._stored.encode(self.job_id, self._attempt.spec, StoredPart.CHECKPOINT, body)
        except CodecFailure as failure:
            raise TransientError(f"The checkpoint could not be encoded. {failure}") from None
        if len(made) > MAX_CHECKPOINT:
            raise RefusedValue(
                f"The checkpoint has {len(made)} bytes once it is encoded; the limit is {MAX_CHECKPOINT}."
            )
        return made

    def _decoded(self, checkpoint: StoredCheckpoint) -> bytes:
        if not checkpoint.encoded:
            return checkpoint.body
        return self._stored.decode(self.job_id, self._attempt.spec, StoredPart.CHECKPOINT, checkpoint.body)

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

    @property
    def closed(self) -> bool:
        """Return whether the attempt has ended, so that all later reports are ignored."""
        return self._closed

    def report(self, percent: int, message: str | None) -> None:
        """Take a report over, as it is stored; called on the event loop."""
        if self._closed:
            return
        self.percent, self.message, self._unsent = percent, message, True
        if self._flusher is None or self._flusher.done():
            self._flusher = self._loop.create_task(self._flush())

    async def _flush(self) -> None:
        while self._unsent:
            self._unsent = False
            began = self._loop.time()
            log_event("progress", self._attempt.fields, progress=f"{self.percent}%", message=self.message)
            try:
                await self._store.save_progress(self.percent, self.message)
            except AttemptStoppedError:
                return
            except QueueUnavailable as error:
                self.log.debug("progress was not stored: %s", error)
            await asyncio.sleep(PROGRESS_PAUSE - (self._loop.time() - began))


class FencedStore:
    """The ``AttemptStore`` of an attempt that a worker has recorded as started: the streams of the jobs."""

    def __init__(
        self, log: JobLog, artifacts: ArtifactStore, commands: JobCommands, claimed: Claimed, worker_id: str
    ) -> None:
        self._log = log
        self._artifacts = artifacts
        self._commands = commands
        self._claimed = claimed
        self._worker_id = worker_id

    async def save_progress(self, percent: int, message: str | None) -> None:
        """Store the newest report; see ``AttemptStore``."""
        claimed = self._claimed
        body = Progress(
            submission=claimed.submission_seq,
            attempt=claimed.attempt,
            worker_id=self._worker_id,
            progress=percent,
            message=message,
        )
        # Fenced too: the progress of a superseded attempt would replace its successor's.
        await self._rollup(codec.progress_subject(claimed.job_id), encode_body(body))

    async def save_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Store a checkpoint; see ``AttemptStore``."""
        subject = codec.checkpoint_subject(self._claimed.job_id)
        marks = {codec.ENCODED_HEADER: "1"} if checkpoint.encoded else {}
        await self._until_stored(lambda: self._rollup(subject, checkpoint.body, marks))

    async def last_checkpoint(self) -> StoredCheckpoint | None:
        """Return the checkpoint that is stored; see ``AttemptStore``."""
        found = await self._log.last(codec.checkpoint_subject(self._claimed.job_id))
        if found is None or found.seq <= self._claimed.spec.checkpoints_after:
            # The job was retried with another payload since.
            return None
        return StoredCheckpoint(found.data, found.header(codec.ENCODED_HEADER) is not None)

    async def save_artifact(self, name: str, source: BinaryIO, content_type: str) -> Artifact:
        """Store a file; see ``AttemptStore``."""
        claimed = self._claimed

        def save() -> Awaitable[Artifact]:
            return self._fenced(self._artifacts.save(claimed.job_id, name, source, content_type, claimed.fence))

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

    async def create_child(self, request: JobRequest) -> ChildJob[Any]:
        """Store a child; see ``AttemptStore``."""
        return await self._until_stored(lambda: self._create(request))

    async def _create(self, request: JobRequest) -> ChildJob[Any]:
        # No fence can be over another job's messages. Whichever attempt writes it, it is the same child; but one that
        # has lost the job should make none that its successor does not ask for.
        if not await self._claimed.lease.confirm(self._log):
            raise AttemptStoppedError("Another worker has this job now, or it has ended.")
        with refusals_for_handlers(request):
            if (missing := await self._commands.missing(request.after, request.tenant())) is not None:
                raise PermanentError(f"A child cannot be created: there is no job {missing}, after which it is to run.")
            created = await self._commands.create(request)
        return ChildJob(created.id, created.deduplicated)

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
