"""The execution of one handler: how it is found, where it runs, how it is stopped, and its outcome as stored values.

A coroutine function runs on the event loop, a plain function in a thread of its own, a CPU-bound one in a process. All
of them have the attempt's timeout, and are stopped when the attempt is. The steps before and after the handler are the
same in the process (``sandbox.child``), which imports them from here: nothing in this module needs a connection.
"""

import asyncio
import concurrent.futures
import importlib
import inspect
import logging
import os
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import copy_context
from enum import StrEnum
from functools import cache, partial
from math import isfinite
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel

from gql_jobs.jobs.errors import PermanentError, RefusedValue
from gql_jobs.jobs.handler import ChildJob, JobContext
from gql_jobs.jobs.messages import Receipt
from gql_jobs.jobs.model import MAX_TIMEOUT, NO_RESULT, Spec, artifact_name, artifact_path
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPart, StoredPayloads
from gql_jobs.jobs.payloads import ModelMismatch, numbers_not_shown, read, secret_texts, write
from gql_jobs.jobs.registry import JobType, Registry, install_advice
from gql_jobs.jobs.secret_fields import REDACTED, marks_for, redacted
from gql_jobs.jobs.worker_hooks import WorkerHook
from gql_jobs.logs import HiddenTexts, current_job, hidden_in_log, redact, redact_beginning
from gql_jobs_worker.children import AskedChild
from gql_jobs_worker.failures import Failure, HookFailed, failure_of, log_unexpected, shown, text_of

log = logging.getLogger(__name__)

HANDLER = "job "
"""The prefix of the names of handlers' tasks and threads."""
STOP_GRACE = 5.0
"""Seconds that a handler has to end after it has been cancelled."""
MAX_CHECKPOINT = 256 * 1024
"""Bytes of a checkpoint's JSON."""
MAX_MESSAGE = 1000
"""Characters of a progress message."""


class Succeeded(Struct, frozen=True):
    """The handler returned a value that fits its result model; ``result`` is its JSON.

    ``encoded``: whether a codec has made a text of that.
    """

    result: bytes
    encoded: bool = False


class Unable(Struct, frozen=True):
    """A job cannot be read here, though perhaps by other code: ``reason`` is a sentence, ``type`` that of its error."""

    type: str
    reason: str


class Readable(Struct, frozen=True):
    """A payload as its model and as its JSON.

    ``hidden``: the texts of its secrets, which nobody but the handler may see.
    """

    payload: BaseModel
    plain: bytes
    hidden: HiddenTexts


class Stop(StrEnum):
    """The reason for which a running handler is stopped: by a client, by another worker's takeover, or at shutdown."""

    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    HANDED_BACK = "handed back"


class Ran(Struct, frozen=True):
    """The outcome of a handler that has ended or was stopped.

    ``ending``: how it ended, for the receipt of a cancellation; ``progress`` (in percent) and ``message``: what
    it reported last.
    """

    outcome: Succeeded | Failure | Stop
    ending: Receipt
    progress: int
    message: str | None


class HandlerContext(JobContext, Protocol):
    """What a handler's context has beyond ``JobContext``, for the code that runs the handler."""

    percent: int
    """The progress that was reported last, 0 to 100."""
    message: str | None
    """The message that was reported last."""

    @property
    def hidden(self) -> HiddenTexts:
        """Return the texts of the payload's secrets."""

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields of log lines about the attempt."""

    async def store_checkpoint(self, body: bytes) -> None:
        """Keep a checkpoint that is JSON already; raises what ``checkpoint`` raises."""

    async def create_child(self, asked: AskedChild) -> ChildJob[Any]:
        """Create a child that is plain values already; raises what ``create`` raises."""

    def request_stop(self) -> None:
        """Have the next report of a handler in a thread raise ``AttemptStoppedError``."""

    async def close(self) -> None:
        """Ignore all later reports, and stop storing progress."""


class TimeLimit:
    """How long one attempt may take. What its process does once before its first handler has a limit of its own.

    :param seconds: for the attempt, from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[str] = self._loop.create_future()
        """Done when no time is left, with the sentence that says so."""
        self._message = f"The attempt took longer than {seconds:g} s."
        self._left: float | None = None
        self._timer = self._loop.call_later(seconds, self._end, self._message)

    def pause(self, seconds: float, message: str) -> None:
        """Have the process prepare itself for at most so many seconds, which do not count; again for its next step.

        :param message: what is to be said if it takes longer.
        """
        if self._left is None:
            self._left = self._timer.when() - self._loop.time()
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._end, message)

    def resume(self) -> None:
        """Have the attempt's own time go on, if it is paused."""
        if self._left is not None:
            self._timer.cancel()
            self._timer, self._left = self._loop.call_later(self._left, self._end, self._message), None

    def close(self) -> None:
        """Measure no longer."""
        self._timer.cancel()

    def _end(self, message: str) -> None:
        self.over.set_result(message)


class HandlerProcesses(Protocol):
    """Processes in which CPU-bound handlers run."""

    async def run_handler(
        self,
        job_type: JobType,
        payload: bytes,
        marks: tuple[str, ...],
        context: HandlerContext,
        max_result: int,
        *,
        time_limit: TimeLimit,
    ) -> Succeeded | Failure:
        """Run a handler in a process and return its outcome; if cancelled, kill the process first.

        :param marks: the places of secrets that were stored with the payload.
        :param max_result: bytes of the result's JSON.
        :param time_limit: paused while the process prepares itself.
        """


class HandlersLife(Protocol):
    """What the process of handlers does once, before the first of them; ``process_life.ProcessLife``."""

    state: Any
    """What it has made for all handlers."""
    startup: list[WorkerHook]
    """The functions that make it; more of them as modules are imported."""
    done: int
    """How many of them have run."""

    async def start(self) -> None:
        """Run the others.

        :raises HookFailed: if it fails.
        """


class HandlerExecution:
    """Runs the handlers of one worker."""

    def __init__(
        self,
        registry: Registry,
        processes: HandlerProcesses,
        stored: StoredPayloads | None,
        life: HandlersLife,
    ) -> None:
        """Run the handlers of a registry.

        :param stored: how payloads and results are stored; None for as they are.
        """
        self.registry = registry
        self._processes = processes
        self.stored = stored or StoredPayloads()
        self._life = life

    @property
    def state(self) -> Any:
        """Return what was made at the start of this process, for the contexts of its handlers."""
        return self._life.state

    def read(self, job_id: str, spec: Spec) -> Readable | Unable:
        """Return a job's payload as the model of its type; ``Unable`` if this code knows none that fits."""
        job_type = self.registry.get(spec.type)
        if job_type is None:
            return Unable("UnknownJobType", f"No job type {spec.type[:100]!r} is registered here.")
        try:
            plain = self.stored.payload(job_id, spec) if spec.encoded else spec.payload
        except CodecFailure as failure:
            return Unable("PayloadNotDecoded", f"The stored payload cannot be decoded here. {failure}")
        return read_payload(job_type, bytes(plain), spec.secrets)

    def without_secrets(self, spec: Spec) -> Spec:
        """Return what others than the handler may read of a spec: for the dead letter, of which the server has a copy.

        A job that is retried has the spec of its submission. What is encoded shows nothing.
        """
        if spec.encoded:
            return spec
        job_type = self.registry.get(spec.type)
        marks = marks_for(job_type.payload if job_type is not None else None, spec.payload, spec.secrets)
        return replace(spec, payload=redacted(spec.payload, marks)) if marks else spec

    async def run(
        self,
        spec: Spec,
        payload: Readable | Unable,
        context: HandlerContext,
        max_result: int,
        *,
        stopped: "asyncio.Future[Stop]",
        on_stop: Callable[["asyncio.Future[Stop]"], None],
    ) -> Ran:
        """Run a job's handler and close its context; nothing that a handler does is raised.

        :param payload: as ``read`` has returned it; a job that is ``Unable`` to run fails for good.
        :param max_result: bytes of the result's JSON.
        :param stopped: done when the handler has to stop, with the reason.
        :param on_stop: called with ``stopped`` as soon as that is done, unless the handler has ended before.
        """
        stopped.add_done_callback(on_stop)
        try:
            outcome, ending = await self._outcome(spec, payload, context, max_result, stopped)
        finally:
            stopped.remove_done_callback(on_stop)
            # What was reported last is stored with the event of the outcome.
            await context.close()
        if isinstance(outcome, Failure) and context.hidden:
            hide = context.hidden.hide
            outcome = replace(outcome, type=hide(outcome.type), message=hide(outcome.message))
        if isinstance(outcome, Succeeded) and self.stored.encodes:
            outcome = self._encoded(spec, outcome, context, max_result)
        return Ran(outcome, ending, context.percent, context.message)

    def _encoded(
        self, spec: Spec, succeeded: Succeeded, context: HandlerContext, max_result: int
    ) -> Succeeded | Failure:
        try:
            made = self.stored.encode(context.job_id, spec, StoredPart.RESULT, succeeded.result)
        except CodecFailure as failure:
            context.log.error("the result of job %s is not stored: %s", context.job_id, failure)  # noqa: TRY400
            return Failure("ResultNotEncoded", "The result could not be encoded; the worker's log says more.")
        return _too_large(made, max_result) or Succeeded(made, encoded=True)

    async def _outcome(
        self,
        spec: Spec,
        payload: Readable | Unable,
        context: HandlerContext,
        max_result: int,
        stopped: "asyncio.Future[Stop]",
    ) -> tuple[Succeeded | Failure | Stop, Receipt]:
        job_type = self.registry.get(spec.type)
        if job_type is None or isinstance(payload, Unable):
            assert isinstance(payload, Unable)
            return Failure(payload.type, payload.reason, retryable=False), Receipt.FINISHED
        handling: Coroutine[Any, Any, Succeeded | Failure]
        time_limit = TimeLimit(spec.timeout)
        if job_type.cpu_bound:
            handling = self._processes.run_handler(
                job_type, payload.plain, spec.secrets, context, max_result, time_limit=time_limit
            )
            stopped_by = Receipt.KILLED
        else:
            invocation = prepare(job_type, payload.payload, context)
            if isinstance(invocation, Failure):
                return invocation, Receipt.FINISHED
            run_here = partial(_run_here, invocation, job_type, context, max_result)
            # Its module may have been imported just now.
            is_behind = len(self._life.startup) > self._life.done
            handling = self._started_first(run_here, time_limit) if is_behind else run_here()
            stopped_by = Receipt.STOPPED
        task = asyncio.create_task(handling, name=f"{HANDLER}{context.job_id}")
        return await _supervise(task, context, time_limit, stopped, stopped_by)

    async def _started_first(
        self, run_here: Callable[[], Coroutine[Any, Any, Succeeded | Failure]], time_limit: TimeLimit
    ) -> Succeeded | Failure:
        """Do first what a module has asked for that was not imported yet when the worker started."""
        time_limit.pause(MAX_TIMEOUT, "")
        try:
            await self._life.start()
        except HookFailed as failure:
            return Failure("StartupFailed", str(failure))
        time_limit.resume()
        return await run_here()


async def _supervise(
    task: "asyncio.Task[Succeeded | Failure]",
    context: HandlerContext,
    time_limit: TimeLimit,
    stopped: "asyncio.Future[Stop]",
    stopped_by: Receipt,
) -> tuple[Succeeded | Failure | Stop, Receipt]:
    """Return the handler's own outcome, unless the timeout or a stop comes first, and how it ended.

    :param stopped_by: the receipt of a handler that has ended because it was stopped.
    """
    ended = True
    try:
        any_of: set[asyncio.Future[Any]] = {task, stopped, time_limit.over}
        await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result(), Receipt.FINISHED
        outcome = stopped.result() if stopped.done() else Failure("Timeout", time_limit.over.result())
    finally:
        time_limit.close()
        # Also when this coroutine is cancelled: no handler may go on unsupervised.
        if not task.done():
            context.request_stop()
            ended = await _stop(task)
            if not ended:
                warning = "the handler of job %s ignores its cancellation and is abandoned"
                log.warning(warning, context.job_id, extra=context.log.extra)
    return outcome, stopped_by if ended else Receipt.IGNORED


async def _stop(task: "asyncio.Task[Any]") -> bool:
    """Cancel a handler, and return whether it ends within the grace period."""
    task.cancel()
    _, unfinished = await asyncio.wait({task}, timeout=STOP_GRACE)
    if unfinished:
        # A second cancellation ends the wait for a thread, which ignores the first.
        task.cancel()
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
    return not unfinished


# Running a handler on the event loop or in a thread; ``HandlerProcesses`` run it in a process.


async def _run_here(
    invocation: "Invocation", job_type: JobType, context: HandlerContext, max_result: int
) -> Succeeded | Failure:
    handler, payload = invocation
    own = os.getpid()
    current_job.set(context.fields)
    try:
        if is_coroutine_function(handler):
            value = handler(context, payload)
        else:
            value = await run_in_thread(partial(handler, context, payload), f"{HANDLER}{context.job_id}")
        end_copy(own)
        if must_be_awaited(value):
            value = await awaited(value)
    except asyncio.CancelledError as error:
        end_copy(own, error)
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return Failure("CancelledError", "The handler was cancelled from within.")
    except BaseException as error:  # noqa: BLE001  # KeyboardInterrupt and its like would end the whole worker
        end_copy(own, error)
        return failure_of(error, context.log)
    return result_of(job_type, value, max_result)


def is_coroutine_function(handler: Callable[..., Any]) -> bool:
    """Return whether a function can be called on the event loop: its call does nothing but make a coroutine."""
    while isinstance(handler, partial):
        handler = handler.func
    # Of an object, its class decides. A decorator may hide it, so in the end what was returned decides.
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def must_be_awaited(value: Any) -> bool:
    """Return whether what a handler has returned is not its result yet."""
    return inspect.isawaitable(value) or isinstance(value, concurrent.futures.Future)


async def _result_of_awaiting(value: Any) -> Any:
    while must_be_awaited(value):
        value = await (asyncio.wrap_future(value) if isinstance(value, concurrent.futures.Future) else value)
    return value


@types.coroutine
def awaited(value: Any) -> Generator[Any, Any, Any]:
    """Return what an awaitable comes to in the end; end the process at once if it is a copy, made by ``os.fork``.

    A copy must not come back to the event loop: it would read from the connections of the original and close them.
    """
    own = os.getpid()
    steps = _result_of_awaiting(value)
    step = partial(steps.send, None)
    while True:
        try:
            future = step()
        except StopIteration as ended:
            end_copy(own)
            return ended.value
        except BaseException as error:
            end_copy(own, error)
            raise
        end_copy(own)
        try:
            step = partial(steps.send, (yield future))
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001  # a cancellation, which is for the handler
            step = partial(steps.throw, error)


def start_task(loop: asyncio.AbstractEventLoop, coroutine: Any, /, **options: Any) -> "asyncio.Task[Any]":
    """Start a task, as a loop's task factory; of one that a handler has started, no exception can stop the loop."""
    if current_job.get() is not None:
        coroutine = _without_exit(coroutine)
    return asyncio.Task(coroutine, loop=loop, **options)


async def _without_exit(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        # A task would raise these out of the loop, and so out of the whole worker.
        raise RuntimeError(f"A task of the handler raised {type(error).__name__}.") from error


def end_copy(original: int, error: BaseException | None = None) -> None:
    """End this process at once if a handler has made it by ``os.fork``: only the process it was called in goes on.

    :param original: the id of that process.
    :param error: what the handler has raised in the copy.
    """
    if os.getpid() != original:
        code = error.code if isinstance(error, SystemExit) else int(error is not None)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def refuse_waiting_on_a_loop(step: Coroutine[Any, Any, Any]) -> None:
    """Refuse to wait for a step where an event loop runs, which would stop for ever.

    :raises PermanentError: if this thread runs an event loop; the step is closed then.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    step.close()
    raise PermanentError(
        "context.wait(…) is for plain functions, which run in a thread; in a coroutine it would stop the event loop. "
        "Await the step itself there, as in: await context.checkpoint(…)"
    )


async def run_in_thread(call: Callable[[], Any], name: str, *, is_left: bool = False) -> Any:
    """Run a plain function in a thread of its own, and return what it returns.

    Not in asyncio's pool of few threads: one that never ends would be missing from it, and would keep the process.

    :param is_left: whether a cancellation leaves the thread, which cannot be interrupted, instead of waiting for it.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    outcome: list[Callable[[], Any]] = []

    own = os.getpid()

    def run() -> None:
        try:
            value = call()
            end_copy(own)
            outcome.append(lambda: value)
        except BaseException as error:  # noqa: BLE001  # no future can carry a StopIteration
            end_copy(own, error)
            outcome.append(partial(_raise, error))
        with suppress(RuntimeError):  # the loop is closed, so nothing waits for the event
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True).start()
    try:
        await ended.wait()
    except asyncio.CancelledError:
        # The next report of a handler raises, if it makes one.
        if not is_left:
            await ended.wait()
        raise
    return outcome[0]()


def _raise(error: BaseException) -> None:
    raise RuntimeError("The handler raised StopIteration.") if isinstance(error, StopIteration) else error


# Before the handler: its function is imported and its payload read. The same in the worker and in a process.


class Invocation(NamedTuple):
    """A handler and the payload that it is called with."""

    handler: Callable[..., Any]
    payload: Any


def read_payload(job_type: JobType, payload: bytes, marks: tuple[str, ...] = ()) -> Readable | Unable:
    """Return a stored payload as the model of its type, or why it does not fit.

    :param marks: the places of secrets that were stored with it.
    """
    try:
        value = read(job_type.payload, payload)
    except ModelMismatch as mismatch:
        texts = [*mismatch.secret_texts, *secret_texts(job_type.payload, payload, marks)]
        hidden = HiddenTexts(texts, REDACTED) if texts else _NOTHING_HIDDEN
        with hidden_in_log(hidden):
            _log_unexpected(mismatch, job_type)
        return Unable("InvalidPayload", hidden.hide(f"The stored payload does not fit its model. {mismatch}"))
    texts = secret_texts(job_type.payload, payload, marks, value)
    return Readable(value, payload, HiddenTexts(texts, REDACTED) if texts else _NOTHING_HIDDEN)


_NOTHING_HIDDEN = HiddenTexts(())


def prepare(job_type: JobType, payload: BaseModel, context: JobContext) -> Invocation | Failure:
    """Return the handler of a type with the payload for it, or the failure that the attempt ends with."""
    try:
        return Invocation(load_handler(job_type.handler), payload)
    except (Exception, SystemExit) as error:  # noqa: BLE001
        # A module may raise anything when it is imported; another worker may have what this one lacks.
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            why = f"there is no module {error.name}."
        else:
            why = log_unexpected(error, context.log)
        return Failure("HandlerNotFound", f"The handler {job_type.handler} cannot be loaded: {why}")


def _log_unexpected(mismatch: ModelMismatch, job_type: JobType) -> None:
    if mismatch.unexpected is not None:
        log.error("the code of a model of %s failed", job_type.name, exc_info=mismatch.unexpected)


@cache
def load_handler(name: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names.

    :raises ImportError: if the module, or something it imports, is not there.
    :raises AttributeError: if the module has no such function.
    """
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def missing_import(handler: str) -> str | None:
    """Return the message of the ImportError that keeps a handler from being imported here, or None.

    None also if its import fails in any other way: then its attempts fail, because no other process could do better.
    """
    try:
        load_handler(handler)
    except ModuleNotFoundError as error:
        return install_advice([error.name or handler])
    except ImportError as error:
        return text_of(error) or "its import fails"
    except (Exception, SystemExit):  # noqa: BLE001  # whatever a module does when it is imported
        return None
    return None


# While the handler runs: its progress and checkpoints as they are stored.


class Reports:
    """What one attempt reports of its progress, as it is stored: whole percents from 0 to 100, messages cut to size.

    Nothing is raised, because a report is no reason to fail. What is no number is logged once, and leaves the percents.
    """

    def __init__(self, context: JobContext, percent: int = 0, hidden: HiddenTexts = _NOTHING_HIDDEN) -> None:
        """Begin with what an earlier attempt has reported last; ``hidden`` is what no message may show."""
        self._context = context
        self._hidden = hidden
        self._percent = percent
        self._has_warned = False

    def stored(self, percent: float, message: str | None) -> tuple[int, str | None]:
        """Return a report as it is stored."""
        try:
            self._percent = round(float(min(max(percent, 0), 100)))
        except Exception:  # noqa: BLE001  # numbers of other libraries run code of their own
            if not self._has_warned:
                self._context.log.warning("progress was reported as %s, which is no number of percent", shown(percent))
            self._has_warned = True
        if message is None:
            return self._percent, None
        text = message if isinstance(message, str) else shown(message, self._hide)
        # Lone surrogates are no UTF-8 and would make this and the job's last event unstorable.
        return self._percent, redact_beginning(text, MAX_MESSAGE, self._hide).encode("utf-8", "replace").decode()

    def _hide(self, text: str) -> str:
        return redact(self._hidden.hide(text))


def checkpoint_json(data: Any) -> bytes:
    """Return a checkpoint as it is stored.

    :raises RefusedValue: if the data is no JSON, has a number that JSON has not, or is too large.
    """
    try:
        body = msgspec.json.encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise RefusedValue(f"The checkpoint is no JSON: {error}") from error
    if len(body) > MAX_CHECKPOINT:
        raise RefusedValue(f"The checkpoint has {len(body)} bytes; the limit is {MAX_CHECKPOINT}.")
    if b"null" in body and _has_infinity(msgspec.to_builtins(data)):
        # The encoder writes null for them, which the next attempt could not tell from a null of its own.
        raise RefusedValue("The checkpoint is no JSON: it has a number that is infinite or NaN.")
    return body


def _has_infinity(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_infinity, value))
    return isinstance(value, float) and not isfinite(value)


def address_of_artifact(public_url: str | None, job_id: str, name: str) -> str:
    """Return the address of a job's file for clients.

    :param public_url: where they reach the API; None for a path.
    :raises RefusedValue: for an invalid name.
    """
    try:
        return f"{public_url or ''}{artifact_path(job_id, artifact_name(name))}"
    except ValueError as error:
        raise RefusedValue(str(error)) from None


# After the handler: its result as JSON.


def result_of(job_type: JobType, value: Any, max_bytes: int) -> Succeeded | Failure:
    """Return a handler's value as the JSON of its result model; a permanent failure if it does not fit."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        message = "The handler returned a generator, which nobody runs: a handler returns its result, without yield."
        return Failure("InvalidResult", message, retryable=False)
    if job_type.result is None:
        if value is None:
            return Succeeded(bytes(NO_RESULT))
        message = (
            f"The handler returned a value of {type(value).__name__}, but the job type has no result (result=None)."
        )
        return Failure("InvalidResult", message, retryable=False)
    try:
        result = write(job_type.result, value)
    except ModelMismatch as mismatch:
        _log_unexpected(mismatch, job_type)
        message = f"The handler's result does not fit {job_type.result.__name__}. {mismatch}"
        return Failure("InvalidResult", message, retryable=False)
    if places := numbers_not_shown(job_type.result, result):
        _warn_once(
            f"Results of the job type {job_type.name} have a number at {_dotted(places[0])} that GraphQL has not, "
            "which is shown as null: make the field a gql_jobs.BigInt."
        )
    return _too_large(result, max_bytes) or Succeeded(result)


def _dotted(place: tuple[str | int, ...]) -> str:
    # Without the numbers of items, which differ from job to job.
    return ".".join(str(part) for part in place if isinstance(part, str))


@cache
def _warn_once(sentence: str) -> None:
    log.warning(sentence)


def _too_large(result: bytes, max_bytes: int) -> Failure | None:
    if len(result) <= max_bytes:
        return None
    message = f"The result has {len(result)} bytes; the limit is {max_bytes}."
    return Failure("ResultTooLarge", message, retryable=False)
