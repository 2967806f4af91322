"""The process in which CPU-bound handlers run: how it is prepared, runs one attempt after the other, and ends.

Has no connection to NATS: whatever has to be stored, its worker stores. Whatever a handler does to the process, the
worker hears how the attempt ended: from here, or by the end of the process.
"""

import asyncio
import fcntl
import logging
import math
import os
import pickle
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import msgspec
from pydantic import BaseModel

from gql_jobs.jobs.errors import (
    AttemptStoppedError,
    PayloadTooLarge,
    PermanentError,
    RefusedValue,
    TransientError,
)
from gql_jobs.jobs.handler import ChildJob
from gql_jobs.jobs.model import Artifact
from gql_jobs.jobs.worker_hooks import WorkerState
from gql_jobs.logs import HiddenTexts, JobLogger, configure_logging, hidden_in_log, log_whole_process_as
from gql_jobs.settings import Settings
from gql_jobs_worker.children import asked_child
from gql_jobs_worker.execution import (
    Readable,
    Reports,
    Succeeded,
    Unable,
    address_of_artifact,
    awaited,
    checkpoint_json,
    end_copy,
    missing_import,
    must_be_awaited,
    prepare,
    read_payload,
    refuse_waiting_on_a_loop,
    result_of,
)
from gql_jobs_worker.failures import Failure, HookFailed, failure_of
from gql_jobs_worker.process_life import ProcessLife
from gql_jobs_worker.sandbox.wire import (
    LENGTH,
    Answer,
    AttemptEnded,
    Began,
    CpuJob,
    CreateChild,
    EndProcess,
    Imported,
    Preparing,
    ReportProgress,
    Request,
    RequestDone,
    RequestFailed,
    RunAttempt,
    SaveArtifact,
    SaveCheckpoint,
    Stored,
    TryImport,
    decode_answer,
    decode_order,
    frame,
)

_T = TypeVar("_T")

NICENESS = 10
"""What is added to the niceness of these processes, below the worker and the API."""
CONNECTION_CLOSED = 77
"""The exit code of a process whose handler has closed its connection to the worker."""
_LIMITS = tuple({limit for name, limit in vars(resource).items() if name.startswith("RLIMIT_")})
"""What a handler may lower for itself, but not for the next one."""
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_MOST_LEFT_OPEN = 64
"""Descriptors that handlers may leave open before their process is replaced."""
_MOST_LEFT_RUNNING = 16
"""Threads that handlers may leave running before their process is replaced."""
_HIGH_FD = 100
"""The connection's descriptor is this or a higher one, out of the way of handlers that close all low ones; where a
process may have few, a lower one."""
_STARTUP_FAILED = "StartupFailed"
_SPOILING = frozenset({"MemoryError", _STARTUP_FAILED})
"""The types of failures after which the process is replaced."""
_BURST = 100
"""Progress reports that leave the process at once; as many come back in ``_BURST / _RATE`` s."""
_RATE = 20
"""Reports a second that leave it after that; the last one always does."""


def run(folder: str, log_level: str, log_format: str, memory_limit: str) -> NoReturn:
    """Run what the worker at the other end of stdin orders, until it ends the connection; called once in a process.

    :param folder: where temporary files go, so that those of a process that is killed go with its worker.
    :param memory_limit: bytes of address space that a handler may take; 0 for no limit.
    """
    configure_logging(int(log_level), "json" if log_format == "json" else "text", _secrets())
    # Heartbeats, and the API on the same machine, go before computing.
    os.nice(NICENESS)
    tempfile.tempdir = folder
    process = _ThisProcess(int(memory_limit))
    while True:
        match decode_order(process.receive()):
            case RunAttempt() as order:
                process.run_attempt(order)
            case TryImport(handler):
                process.send(Imported(missing_import(handler)))
            case EndProcess():
                process.finish()


def _secrets() -> tuple[str, ...]:
    try:
        return Settings().secrets
    except ValueError:
        return ()  # the worker has said what is wrong with them


class _ThisProcess:
    """The connection to the worker, and what handlers must leave as it is."""

    def __init__(self, memory_limit: int) -> None:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = _HIGH_FD if most == resource.RLIM_INFINITY else min(_HIGH_FD, most // 2)
        high = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, lowest)
        self._connection = socket.socket(fileno=high)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self._id = os.getpid()
        self._memory_limit = memory_limit
        self._may_take = resource.getrlimit(resource.RLIMIT_AS)
        self._life = ProcessLife(math.inf)
        self._own_loop: asyncio.Runner | None = None
        self._made_at_start = 0
        self._note_condition(high)
        self._lock = threading.Lock()
        # A copy that keeps the connection would keep the worker from seeing that this process has ended.
        os.register_at_fork(after_in_child=self._connection.close)

    def _note_condition(self, connection: int) -> None:
        """Note how the process is, for ``_is_intact``."""
        self._identity = self._identities(connection)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._open = _open_descriptors()
        self._threads = threading.active_count()

    def _identities(self, connection: int) -> tuple[object, ...]:
        found: list[object] = []
        for fd in (0, 1, 2, connection):
            try:
                stat = os.fstat(fd)
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_dev, stat.st_ino))
        return (*found, os.nice(0), *(resource.getrlimit(limit) for limit in _LIMITS))

    @property
    def is_copy(self) -> bool:
        """Whether this is a copy of the process that the worker has started, made by a handler that forked."""
        return os.getpid() != self._id

    def run_attempt(self, order: RunAttempt) -> None:
        """Run one attempt and send how it ended."""
        log_whole_process_as(order.fields)
        log = JobLogger(order.type_name, order.fields)
        surroundings = _Surroundings()
        try:
            job: CpuJob = pickle.loads(order.job)  # noqa: S301  # from the worker, which has started this process
        except BaseException as error:  # noqa: BLE001  # the module of a job type may do anything when it is imported
            outcome: Succeeded | Failure = failure_of(error, log)
        else:
            payload = read_payload(job.job_type, job.payload, job.marks)
            hidden = HiddenTexts(()) if isinstance(payload, Unable) else payload.hidden
            context = ChildContext(self, job, log, hidden, self._life.state)
            with hidden_in_log(hidden):
                outcome = self._outcome(job, payload, context, surroundings)
                context.close()
        intact = surroundings.restore() and self._is_intact()
        self._flush_output()
        succeeded = isinstance(outcome, Succeeded)
        self.send(
            AttemptEnded(
                result=outcome.result if isinstance(outcome, Succeeded) else None,
                failure=None if succeeded else outcome,  # type: ignore[arg-type]
                memory=_memory() - self._made_at_start,
                reusable=intact and not (isinstance(outcome, Failure) and outcome.type in _SPOILING),
                has_end=self._life.has_end,
            )
        )

    def finish(self) -> NoReturn:
        """Do what is to be done after the last attempt, and end the process."""
        self._life.stop_here(self.run_coroutine)
        self._flush_output()
        logging.shutdown()
        os._exit(0)

    def run_coroutine(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end, in an event loop of its own.

        In the process's own one if functions of its start have run, so that what they made there can be used, and if
        that does not run already.
        """
        if not self._life.has_begun or threading.current_thread() is not threading.main_thread() or _loop_runs():
            return asyncio.run(coroutine)
        if self._own_loop is None:
            self._own_loop = asyncio.Runner()
        return self._own_loop.run(_without_left_over(coroutine))

    def _prepare(self) -> None:
        """Do once what the handler's module asks for.

        :raises HookFailed: if that fails.
        """
        held = _memory()
        self._life.start_here(lambda hook: self.send(Preparing(hook)), self.run_coroutine)
        self._made_at_start += max(_memory() - held, 0)
        self._note_condition(self._connection.fileno())

    def _outcome(
        self, job: CpuJob, payload: Readable | Unable, context: "ChildContext", surroundings: "_Surroundings"
    ) -> Succeeded | Failure:
        if isinstance(payload, Unable):
            # The worker could read it: the model's code does not do the same everywhere.
            return Failure(payload.type, payload.reason, retryable=False)
        invocation = prepare(job.job_type, payload.payload, context)
        if isinstance(invocation, Failure):
            return invocation
        if self._life.is_behind:
            try:
                self._prepare()
            except HookFailed as failure:
                return Failure(_STARTUP_FAILED, str(failure))
            surroundings.take_log()
        # What its module has done to the process when it was imported was done for all of its jobs.
        surroundings.take()
        self.send(Began())
        try:
            self._limit_memory(self._memory_limit)
            value = invocation.handler(context, invocation.payload)
            end_copy(self._id)
            if must_be_awaited(value):
                value = self.run_coroutine(_finished(value))
            _stop_timers()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the process can go on
            end_copy(self._id, error)
            _stop_timers()
            self._limit_memory(0)
            if isinstance(error, MemoryError) and self._memory_limit:
                limit = f"GQL_JOBS_PROCESS_MEMORY_LIMIT allows {self._memory_limit} bytes"
                return Failure("MemoryError", f"The handler needs more memory than it may have: {limit}.")
            return failure_of(error, context.log)
        self._limit_memory(0)
        return result_of(job.job_type, value, job.max_result)

    def _limit_memory(self, limit: int) -> None:
        """Limit the address space to ``limit`` bytes, 0 for none: only handlers have one, to report on them is free."""
        if self._memory_limit:
            soft, hard = self._may_take
            lower = limit and (soft == resource.RLIM_INFINITY or limit < soft)
            with suppress(OSError, ValueError):  # the handler has lowered it for good
                resource.setrlimit(resource.RLIMIT_AS, (limit if lower else soft, hard))

    def _is_intact(self) -> bool:
        """Return whether nothing that cannot be put back keeps the next handler from this process."""
        if any(stream is not None and stream.closed for stream in self._streams):
            return False
        if (
            _open_descriptors() > self._open + _MOST_LEFT_OPEN
            or threading.active_count() > self._threads + _MOST_LEFT_RUNNING
        ):
            return False
        same = (sys.stdin, sys.stdout, sys.stderr) == self._streams
        return same and self._identities(self._connection.fileno()) == self._identity

    def _flush_output(self) -> None:
        for stream in self._streams[1:]:
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue  # closed by the handler, or never there

    def send(self, message: Request) -> None:
        """Send a frame; end the process if the connection is not there any more.

        :raises RuntimeError: in a copy of the process.
        """
        data = frame(message)
        if self.is_copy:
            raise RuntimeError("Only the process that the worker has started can report; this is a copy of it.")
        with self._lock:
            try:
                if self._identities(self._connection.fileno())[3] != self._identity[3]:
                    os._exit(CONNECTION_CLOSED)
                self._connection.sendall(data)
            except OSError:
                os._exit(CONNECTION_CLOSED)

    def receive(self) -> bytes:
        """Return the next frame without its length; end the process if the connection has ended."""
        (length,) = LENGTH.unpack(self._receive_exactly(LENGTH.size))
        return self._receive_exactly(length)

    def _receive_exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._connection.recv(size - len(parts))
            except OSError:
                os._exit(CONNECTION_CLOSED)
            if not part:
                os._exit(0)
            parts += part
        return bytes(parts)


class _Surroundings:
    """What a handler may change for all that runs in the process after it, and what can be put back."""

    def __init__(self) -> None:
        self.take_log()
        self.take()

    def take_log(self) -> None:
        """Remember how the log is now."""
        root = logging.getLogger()
        self._logging = (root.level, list(root.handlers))

    def take(self) -> None:
        """Remember how it is now, but for the log."""
        try:
            self._folder: str | None = os.getcwd()  # noqa: PTH109
        except FileNotFoundError:
            self._folder = None  # it was removed, as a release is by the next one
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._recursion_limit = sys.getrecursionlimit()
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._cores = os.sched_getaffinity(0) if sys.platform == "linux" else set()

    def restore(self) -> bool:
        """Have it be so again; return whether that was possible."""
        _stop_timers()
        try:
            for number, handling in self._signals.items():
                # What was not set by Python is None, and cannot be set by it.
                if handling is not None and signal.getsignal(number) != handling:
                    signal.signal(number, handling)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
            sys.setrecursionlimit(self._recursion_limit)
            sys.path[:] = self._path
            os.umask(self._umask)
            if self._folder is not None:
                os.chdir(self._folder)
            if os.environ != self._environment:
                os.environ.clear()
                os.environ.update(self._environment)
                time.tzset()
            if sys.platform == "linux" and os.sched_getaffinity(0) != self._cores:
                os.sched_setaffinity(0, self._cores)
            root = logging.getLogger()
            logging.disable(logging.NOTSET)
            root.handlers[:] = self._logging[1]
            root.setLevel(self._logging[0])
        except Exception:  # noqa: BLE001  # what is put back is the handler's now, and may do anything
            return False
        return True


async def _finished(value: Any) -> Any:
    return await awaited(value)


async def _without_left_over(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns, once the tasks that it has left over were cancelled, as ``asyncio.run`` does."""
    before = asyncio.all_tasks()
    try:
        return await coroutine
    finally:
        left = asyncio.all_tasks() - before
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _stop_timers() -> None:
    # One that a handler has set would interrupt, or end, what runs after it.
    for timer in _TIMERS:
        signal.setitimer(timer, 0)


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208
    except OSError:
        return 1 << 30  # none is left to look


class ChildContext:
    """A ``JobContext`` in the process of a CPU-bound handler; it asks its worker to store what is stored."""

    def __init__(
        self, process: _ThisProcess, job: CpuJob, log: JobLogger, hidden: HiddenTexts, state: WorkerState
    ) -> None:
        self._process = process
        self.state = state
        self._asking = threading.Lock()
        self._reporting = threading.Lock()
        self._room = float(_BURST)
        self._filled = time.monotonic()
        self._unsent: ReportProgress | None = None
        self._timer: threading.Timer | None = None
        self._closed = False
        self._max_payload = job.max_result
        self._public_url = job.public_url
        self.job_id = job.job_id
        self.attempt = job.attempt
        self.idempotency_token = job.job_id
        self.saved = job.saved
        self.log: logging.LoggerAdapter[Any] = log
        self._reports = Reports(self, hidden=hidden)

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report how far the work is; sent at once unless there are very many, the last report in any case.

        :param percent: from 0 to 100; what is outside is brought to the nearer end, what is no number is logged.
        :raises AttemptStoppedError: if the attempt has ended.
        """
        report = ReportProgress(*self._reports.stored(percent, message))
        if self._closed:
            raise AttemptStoppedError("The attempt has ended.")
        with self._reporting:
            now = time.monotonic()
            self._room = min(self._room + (now - self._filled) * _RATE, _BURST)
            self._filled = now
            self._unsent = report
            if self._room >= 1:
                self._room -= 1
                self._send_unsent()
            elif self._timer is None:
                self._timer = threading.Timer(1 / _RATE, self._flush)
                self._timer.daemon = True
                try:
                    self._timer.start()
                except RuntimeError:  # no thread can be started, for want of memory
                    self._timer = None
                    self._send_unsent()

    async def checkpoint(self, data: Any) -> None:
        """Keep JSON data for the next attempt; see ``JobContext``."""
        encoded = checkpoint_json(data)
        self._ask(SaveCheckpoint(msgspec.Raw(encoded)))
        self.saved = msgspec.json.decode(encoded)

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        """Keep a file with the job; see ``JobContext``."""
        if isinstance(data, Path):
            return self._save(name, data.resolve(), content_type)  # noqa: ASYNC240
        with tempfile.NamedTemporaryFile(prefix="gql-jobs-artifact-") as copy:
            if isinstance(data, bytes):
                copy.write(data)
            else:
                shutil.copyfileobj(data, copy)
            copy.flush()
            return self._save(name, Path(copy.name), content_type)

    async def create(self, payload: BaseModel, **options: Any) -> ChildJob[Any]:
        """Create a job, a child of this one; see ``JobContext``."""
        asked = asked_child(payload, options)
        size = len(bytes(asked.payload.stored))
        if size > self._max_payload:
            # The worker would take so long a message for no message.
            raise PermanentError(
                f"A child cannot be created. {PayloadTooLarge('The payload', size, self._max_payload)}"
            )
        child = self._ask(CreateChild(asked)).child
        assert child is not None
        return child

    def artifact_url(self, name: str) -> str:
        """Return the address at which clients find a file; see ``JobContext``."""
        return address_of_artifact(self._public_url, self.job_id, name)

    def wait(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in an event loop of the process; return its result or raise its error.

        :raises RuntimeError: in a coroutine, where the step is awaited.
        """
        refuse_waiting_on_a_loop(step)
        return self._process.run_coroutine(step)

    def close(self) -> None:
        """Send the last report; refuse all later ones."""
        self._closed = True
        self._flush()

    def _flush(self) -> None:
        with self._reporting:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            self._send_unsent()

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            self._process.send(unsent)

    def _save(self, name: str, path: Path, content_type: str | None) -> Artifact:
        artifact = self._ask(SaveArtifact(name, str(path), content_type)).artifact
        assert artifact is not None
        return artifact

    def _ask(self, request: Stored) -> RequestDone:
        if self._closed:
            raise AttemptStoppedError("The attempt has ended.")
        self._flush()
        with self._asking:
            self._process.send(request)
            answer: Answer = decode_answer(self._process.receive())
        if isinstance(answer, RequestFailed):
            raise _ERRORS.get(answer.error, RuntimeError)(answer.message)
        return answer


_ERRORS: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "RefusedValue": RefusedValue,
    "TransientError": TransientError,
    "PermanentError": PermanentError,
    "AttemptStoppedError": AttemptStoppedError,
    "OSError": OSError,
}


def _memory() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        # There is no /proc on macOS, or no descriptor left for it. The peak, in bytes there, is the best to be had.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()
