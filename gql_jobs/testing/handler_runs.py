"""One attempt of a handler, run as a worker runs it, without a server: ``run_handler``.

The payload passes through its model, the codec and the limits of a creation; the handler is found by its name and gets
a worker's own context; its result, checkpoints and files pass the checks of a worker. Only what a worker writes into
the streams is kept in memory instead.
"""

import asyncio
import io
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from hashlib import sha256
from typing import Any, BinaryIO, TypedDict, TypeVar, Unpack, overload

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel

from gql_jobs import clock
from gql_jobs.jobs.built_payloads import accept_built, built_payload
from gql_jobs.jobs.errors import IdempotencyConflict, InvalidPayload
from gql_jobs.jobs.handler import ChildJob, JobContext
from gql_jobs.jobs.model import Artifact, JobStatus, Spec, artifact_name
from gql_jobs.jobs.payload_codec import StoredPart, StoredPayloads, load_codec
from gql_jobs.jobs.payloads import AcceptedPayload, ModelMismatch, accept, read
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.registry import registry as registered
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.worker_hooks import WorkerHooks, worker_hooks
from gql_jobs.log.artifacts import LimitedSource
from gql_jobs.log.commands import HEADROOM, storable
from gql_jobs.logs import HiddenTexts, hidden_in_log, job_fields
from gql_jobs.settings import Settings
from gql_jobs.testing.job_records import JobRecord
from gql_jobs.testing.log_lines import lines_about, lines_of_processes
from gql_jobs.testing.outcomes import AttemptError, ErrorKind, HandlerOutcome, ProgressReport, SavedFile
from gql_jobs_worker import execution
from gql_jobs_worker.children import refusals_for_handlers
from gql_jobs_worker.context import AttemptContext, StoredCheckpoint
from gql_jobs_worker.execution import (
    HandlerExecution,
    Readable,
    Stop,
    Succeeded,
    checkpoint_json,
    start_task,
)
from gql_jobs_worker.failures import Failure, job_error
from gql_jobs_worker.process_life import ProcessLife
from gql_jobs_worker.sandbox.processes import open_cpu_processes

_P = TypeVar("_P", bound=BaseModel)
_R = TypeVar("_R")
_MAX_MESSAGE = 1 << 20
"""Bytes of the largest message of a NATS server, where nothing else is configured; payloads and results are smaller."""
_PART = 128 * 1024
"""Bytes that are read of a file at a time."""
_SUBMISSION = 1
"""The sequence of the job's submission, from which the ids of its children follow."""
_WORKER = "test"
"""The name of the worker in the lines of the log."""


class HandlerRunOptions(TypedDict, total=False):
    """The options of ``run_handler``.

    ``attempt``: its number, 1 by default. ``saved``: what an earlier attempt has kept as a checkpoint.
    ``timeout`` (seconds) and ``max_retries``: by default those of the type, or else the settings'.
    ``cancel_after``: seconds after which the job is cancelled; ``cancel_after_reports``: reports of progress after
    which it is. ``in_process``: run a CPU-bound handler here instead of in a process of its own: sooner, and within
    reach of a debugger, but neither a cancellation nor a timeout can kill it. ``type``: the name of the job type, where
    several have this payload model and this handler. ``state``: what the handler finds as ``context.state``, instead of
    what functions marked by ``worker_startup`` make; these do not run then, but in a process of a CPU-bound handler.
    ``job_id``: a random one by default. ``settings``: those of the environment by default. ``registry``: the job types
    that there are; those of this process by default.
    """

    attempt: int
    saved: Any
    timeout: float | None
    max_retries: int | None
    cancel_after: float | None
    cancel_after_reports: int | None
    in_process: bool
    type: str | None
    state: Any
    job_id: str | None
    settings: Settings | None
    registry: Registry | None


@overload
def run_handler(
    handler: Callable[[JobContext, _P], Coroutine[Any, Any, _R]],
    payload: _P | Mapping[str, Any],
    **options: Unpack[HandlerRunOptions],
) -> HandlerOutcome[_R]: ...
@overload
def run_handler(
    handler: Callable[[JobContext, _P], _R], payload: _P | Mapping[str, Any], **options: Unpack[HandlerRunOptions]
) -> HandlerOutcome[_R]: ...
def run_handler(
    handler: Callable[[JobContext, Any], Any], payload: Any, **options: Unpack[HandlerRunOptions]
) -> HandlerOutcome[Any]:
    """Run one attempt of a handler as a worker does, and return what came of it; the handler's errors are in there.

    :param handler: the function that the job type names; which type is found by it and by the payload's model.
    :param payload: the payload, or its fields as a client sends them.
    :raises InvalidPayload: | InvalidRequest: | PayloadTooLarge: where a creation would be refused with it.
    :raises LookupError: in a sentence that says what to do, if no registered job type has this payload and handler.
    :raises RefusedValue: if ``saved`` could be no checkpoint.
    :raises ValueError: for an attempt that no worker would begin.
    :raises RuntimeError: in a coroutine, which awaits ``arun_handler`` instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("run_handler(…) is for plain functions; in a coroutine write: await arun_handler(…)")

    async def run() -> HandlerOutcome[Any]:
        asyncio.get_running_loop().set_task_factory(start_task)
        return await arun_handler(handler, payload, **options)

    return asyncio.run(run())


@overload
async def arun_handler(
    handler: Callable[[JobContext, _P], Coroutine[Any, Any, _R]],
    payload: _P | Mapping[str, Any],
    **options: Unpack[HandlerRunOptions],
) -> HandlerOutcome[_R]: ...
@overload
async def arun_handler(
    handler: Callable[[JobContext, _P], _R], payload: _P | Mapping[str, Any], **options: Unpack[HandlerRunOptions]
) -> HandlerOutcome[_R]: ...
async def arun_handler(
    handler: Callable[[JobContext, Any], Any], payload: Any, **options: Unpack[HandlerRunOptions]
) -> HandlerOutcome[Any]:
    """Run one attempt of a handler on the running event loop; as ``run_handler``, for tests that are coroutines."""
    return await _Attempt(handler, payload, **options).run()


class _Attempt:
    """An attempt that is about to be run: its job, as a creation would have stored it, and what is to happen to it."""

    def __init__(
        self,
        handler: Callable[..., Any],
        payload: Any,
        *,
        attempt: int = 1,
        saved: Any = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        cancel_after: float | None = None,
        cancel_after_reports: int | None = None,
        in_process: bool = False,
        type: str | None = None,  # noqa: A002 - as everywhere
        state: Any = None,
        job_id: str | None = None,
        settings: Settings | None = None,
        registry: Registry | None = None,
    ) -> None:
        known = self._known = registered if registry is None else registry
        self._settings = settings or Settings()
        self._stored = load_codec(self._settings.codec)
        self._type = _type_of(handler, payload, type, known)
        self._number, self._saved = attempt, saved
        self._cancel_after, self._cancel_after_reports = cancel_after, cancel_after_reports
        self._life = ProcessLife(self._settings.startup_timeout, worker_hooks if state is None else WorkerHooks())
        if state is not None:
            self._life.state = state
        self._in_process = in_process or not self._type.cpu_bound
        request = JobRequest.of(
            self._type, _accepted(self._type.payload, payload), timeout=timeout, max_retries=max_retries
        )
        self.job_id = job_id or request.job_id()
        spec = request.spec(clock.now(), self._settings)
        if not 1 <= attempt <= spec.max_retries + 1:
            raise ValueError(f"attempt is {attempt}; with max_retries={spec.max_retries} there is no such attempt.")
        self._spec = storable(request, self.job_id, spec, self._stored, _MAX_MESSAGE)

    async def run(self) -> HandlerOutcome[Any]:
        """Run the handler until it ends or is stopped."""
        max_result = _MAX_MESSAGE - HEADROOM
        with ExitStack() as ended:
            lines = ended.enter_context(lines_about(self.job_id))
            settings, stderr = self._settings, None
            if not self._in_process:
                settings = settings.model_copy(update={"log_format": "json"})
                stderr = ended.enter_context(lines_of_processes(self.job_id, lines))
            async with open_cpu_processes(settings, stderr) as processes:
                only = _registry_of(self._type, self._in_process)
                runner = HandlerExecution(only, processes, self._stored, self._life)
                payload = runner.read(self.job_id, self._spec)
                hidden = payload.hidden if isinstance(payload, Readable) else HiddenTexts(())
                ended.enter_context(hidden_in_log(hidden))
                stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
                store = _Memory(self._settings, self._stored)
                context = _ReportingContext(
                    store,
                    self._facts(hidden),
                    self._stored,
                    registry=self._known,
                    public_url=self._settings.public_url,
                    count=self._until_reports(stopped),
                    state=self._life.state,
                )
                if self._saved is not None:
                    await context.store_checkpoint(checkpoint_json(self._saved))
                    await context.restore()
                earlier = len(store.checkpoints)
                if self._cancel_after is not None:
                    timer = asyncio.get_running_loop().call_later(self._cancel_after, _cancel, stopped)
                    ended.callback(timer.cancel)
                ran = await runner.run(
                    self._spec, payload, context, max_result, stopped=stopped, on_stop=lambda _: None
                )
                if self._life.done:
                    await self._life.stop()
                await processes.finish()
        checkpoints = [self._plain(checkpoint) for checkpoint in store.checkpoints]
        return HandlerOutcome(
            job_id=self.job_id,
            attempt=self._number,
            status=self._status(ran.outcome),
            returned=self._result(ran.outcome) if isinstance(ran.outcome, Succeeded) else None,
            error=self._error(ran.outcome) if isinstance(ran.outcome, Failure) else None,
            receipt=ran.ending,
            progress=tuple(context.reports),
            checkpoints=tuple(checkpoints[earlier:]),
            saved=checkpoints[-1] if checkpoints else None,
            created=tuple(_record_of(job_id, request) for job_id, request in store.children.items()),
            artifacts=store.files,
            logs=tuple(lines),
        )

    def _facts(self, hidden: HiddenTexts) -> "_Facts":
        fields = job_fields(job_id=self.job_id, attempt=self._number, type=self._type.name, worker=_WORKER)
        return _Facts(self.job_id, self._spec, _SUBMISSION, self._number, hidden, fields)

    def _until_reports(self, stopped: "asyncio.Future[Stop]") -> Callable[[int], None]:
        def count(reports: int) -> None:
            if reports == self._cancel_after_reports:
                _cancel(stopped)

        return count

    def _plain(self, checkpoint: StoredCheckpoint) -> Any:
        body = checkpoint.body
        if checkpoint.encoded:
            body = self._stored.decode(self.job_id, self._spec, StoredPart.CHECKPOINT, body)
        return msgspec.json.decode(body)

    def _status(self, outcome: Succeeded | Failure | Stop) -> JobStatus:
        if isinstance(outcome, Stop):
            return JobStatus.CANCELLED
        if isinstance(outcome, Succeeded):
            return JobStatus.COMPLETED
        ends = not outcome.retryable or self._number > self._spec.max_retries
        return JobStatus.DEAD_LETTER if ends else JobStatus.RETRYING

    def _error(self, failure: Failure) -> AttemptError:
        told = job_error(failure, self._number, clock.now())
        kind = ErrorKind.TRANSIENT if failure.retryable else ErrorKind.PERMANENT
        return AttemptError(told.type, told.message, kind, failure.retry_after)

    def _result(self, succeeded: Succeeded) -> Any:
        body = succeeded.result
        if succeeded.encoded:
            body = self._stored.decode(self.job_id, self._spec, StoredPart.RESULT, body)
        return None if self._type.result is None else read(self._type.result, body)


def _record_of(job_id: str, request: JobRequest) -> JobRecord:
    return JobRecord(
        id=job_id,
        type=request.job_type.name,
        payload=read(request.job_type.payload, request.payload),
        priority=request.priority,
        run_at=request.run_at,
        key=request.child.key if request.child is not None else None,
        tags=request.tags,
        status=_first_status(request),
    )


def _first_status(request: JobRequest) -> JobStatus:
    if request.after:
        return JobStatus.WAITING
    return JobStatus.QUEUED if request.run_at is None else JobStatus.SCHEDULED


def _cancel(stopped: "asyncio.Future[Stop]") -> None:
    if not stopped.done():
        stopped.set_result(Stop.CANCELLED)


# Before the attempt: the job type and the payload.


def _type_of(handler: Callable[..., Any], payload: Any, name: str | None, known: Registry) -> JobType:
    """Return the job type that has this handler, and the model of this payload.

    :raises LookupError: if there is none, or several.
    """
    shown = f"{getattr(handler, '__module__', '?')}:{getattr(handler, '__qualname__', handler)}"
    found = [one for one in known if name in {None, one.name}]
    if isinstance(payload, BaseModel):
        found = [one for one in found if one.payload is type(payload)]
        if not found:
            return known.of_payload(type(payload), name)
    if len(found) > 1:
        found = [one for one in found if one.handler == shown or _is_in_module(handler, one.handler)]
    if not found:
        raise LookupError(
            f"The handler {shown} is that of no such job type: import the module that calls job_type for it."
        )
    if len(found) > 1:
        names = ", ".join(sorted(repr(one.name) for one in found))
        raise LookupError(f"The handler {shown} is that of several job types: say which is meant, type=… of {names}.")
    (job_type,) = found
    if not _is_run_by_workers(handler, job_type.handler):
        raise LookupError(
            f"The handler of the job type {job_type.name!r} is {job_type.handler}, and not {shown}: a worker would run "
            "the former."
        )
    return job_type


def _is_in_module(handler: Callable[..., Any], name: str) -> bool:
    module, function = name.split(":")
    return getattr(sys.modules.get(module), function, None) == handler


def _is_run_by_workers(handler: Callable[..., Any], name: str) -> bool:
    """Return whether a worker would run this function; also if it would find none there, of which the attempt tells."""
    try:
        return execution.load_handler(name) == handler
    except (Exception, SystemExit):  # noqa: BLE001  # a module may raise anything when it is imported
        return True


def _registry_of(job_type: JobType, in_process: bool) -> Registry:
    only = Registry()
    only.add(replace(job_type, cpu_bound=job_type.cpu_bound and not in_process))
    return only


def _accepted(model: type[BaseModel], payload: Any) -> AcceptedPayload:
    """Return a payload as a creation reads it.

    :raises InvalidPayload: if it does not fit its model.
    """
    try:
        return accept_built(model, built_payload(payload)) if isinstance(payload, model) else accept(model, payload)
    except ModelMismatch as mismatch:
        raise InvalidPayload(mismatch.told_faults()) from None


# While the handler runs: what a worker would write into the streams.


class _Facts(Struct, frozen=True):
    """What the context is told of the attempt."""

    job_id: str
    spec: Spec
    submission_seq: int
    attempt: int
    hidden: HiddenTexts
    fields: dict[str, Any]
    progress: int = 0
    message: str | None = None


class _ReportingContext(AttemptContext):
    """A worker's context that remembers all reports; ``count`` is called with their number after each."""

    def __init__(
        self,
        store: "_Memory",
        facts: _Facts,
        stored: StoredPayloads,
        *,
        registry: Registry,
        public_url: str | None,
        count: Callable[[int], None],
        state: Any,
    ) -> None:
        super().__init__(store, facts, stored, registry, public_url, state=state)
        self.reports: list[ProgressReport] = []
        self._count = count

    def report(self, percent: int, message: str | None) -> None:
        """Take a report over, as it is stored; called on the event loop."""
        super().report(percent, message)
        if not self.closed:
            self.reports.append(ProgressReport(percent, message))
            self._count(len(self.reports))


class _Memory:
    """The ``AttemptStore`` of an attempt of which nothing is written anywhere."""

    def __init__(self, settings: Settings, stored: StoredPayloads) -> None:
        self._settings = settings
        self._stored = stored
        self.children: dict[str, JobRequest] = {}
        self.checkpoints: list[StoredCheckpoint] = []
        self.files: dict[str, SavedFile] = {}

    async def save_progress(self, percent: int, message: str | None) -> None:
        """Do nothing: ``_ReportingContext`` has all reports."""

    async def save_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Keep a checkpoint; see ``AttemptStore``."""
        # A write to a stream lets other tasks run, such as a cancellation.
        await asyncio.sleep(0)
        self.checkpoints.append(checkpoint)

    async def last_checkpoint(self) -> StoredCheckpoint | None:
        """Return the newest checkpoint; see ``AttemptStore``."""
        return self.checkpoints[-1] if self.checkpoints else None

    async def save_artifact(self, name: str, source: BinaryIO, content_type: str) -> Artifact:
        """Keep a file; see ``AttemptStore``."""
        name, content = artifact_name(name), io.BytesIO()
        await asyncio.sleep(0)
        limited, part = LimitedSource(source, self._settings.max_artifact_bytes), bytearray(_PART)
        while read_bytes := limited.readinto(part):
            content.write(part[:read_bytes])
        data = content.getvalue()
        self.files[name] = SavedFile(name, content_type, data)
        return Artifact(
            name=name,
            content_type=content_type,
            size_bytes=len(data),
            sha256=sha256(data).hexdigest(),
            created_at=clock.now(),
            object=name,
        )

    async def create_child(self, request: JobRequest) -> ChildJob[Any]:
        """Keep a child, or find it kept; see ``AttemptStore``."""
        job_id = request.job_id()
        await asyncio.sleep(0)
        with refusals_for_handlers(request):
            storable(request, job_id, request.spec(clock.now(), self._settings), self._stored, _MAX_MESSAGE)
            earlier = self.children.get(job_id)
            if earlier is not None and not request.repeats(earlier):
                raise IdempotencyConflict("", job_id)
        self.children.setdefault(job_id, request)
        return ChildJob(job_id, deduplicated=earlier is not None)
