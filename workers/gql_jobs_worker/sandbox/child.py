"""The process in which a CPU-bound handler runs: how it is prepared, runs attempts, and ends with its worker.

Runs one attempt at a time. Has no connection to NATS: whatever has to be stored, its worker stores.
"""

import asyncio
import inspect
import logging
import os
import resource
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from gql_jobs.jobs.errors import AttemptStoppedError, TransientError
from gql_jobs.jobs.model import Artifact
from gql_jobs.logs import JobLogger, LogFormat, configure_logging
from gql_jobs_worker.execution import Failure, Reports, Succeeded, checkpoint_json, failure_of, prepare, result_of
from gql_jobs_worker.sandbox.wire import (
    LENGTH,
    Answer,
    CpuJob,
    Hello,
    ReportProgress,
    Request,
    RequestDone,
    RequestFailed,
    SaveArtifact,
    SaveCheckpoint,
    decode_answer,
    frame,
)

_T = TypeVar("_T")

NICENESS = 10
"""What is added to the niceness of these processes, below the worker and the API."""
_PROGRESS_PAUSE = 0.05
"""Seconds between two reports that leave the process; the last one always does."""


def begin(socket_path: str, log_level: int, log_format: LogFormat) -> None:
    """Prepare a new process, once: it ignores Ctrl-C, which is for the worker, and exits when the worker is gone.

    :param socket_path: the socket where the worker listens; temporary files are kept in its folder.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(log_level, log_format)
    # Heartbeats, and the API on the same machine, go before computing.
    os.nice(NICENESS)
    # What a handler leaves behind when it is killed goes with its worker's folder.
    tempfile.tempdir = str(Path(socket_path).parent)
    watched = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    watched.connect(socket_path)

    def watch() -> None:
        # The kernel closes the connection when the worker has ended, in whatever way.
        watched.recv(1)
        os._exit(1)

    threading.Thread(target=watch, name="worker-exit", daemon=True).start()


def run_attempt(job: CpuJob) -> tuple[Succeeded | Failure, int]:
    """Run one attempt; return its outcome, and the bytes of memory that the process holds afterwards."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(job.socket)
        context = ChildContext(job, connection)
        outcome = _outcome(job, context)
        context.flush()
    return outcome, _memory()


class ChildContext:
    """A ``JobContext`` in the process of a CPU-bound handler; it asks its worker to store what is stored."""

    def __init__(self, job: CpuJob, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._reported = 0.0
        self._unsent: ReportProgress | None = None
        self.job_id = job.job_id
        self.attempt = job.attempt
        self.idempotency_token = job.job_id
        self.saved = job.saved
        self.log: logging.LoggerAdapter[Any] = JobLogger(job.job_type.name, job.fields)
        self._reports = Reports(self)
        self._connection.sendall(frame(Hello(job.token)))

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report how far the work is; sent at most twenty times a second, the last report in any case.

        :param percent: from 0 to 100; what is outside is brought to the nearer end, what is no number is logged.
        """
        self._unsent = ReportProgress(*self._reports.stored(percent, message))
        if time.monotonic() - self._reported >= _PROGRESS_PAUSE:
            self.flush()

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

    def wait(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in an event loop of its own; return its result or raise its error."""
        return asyncio.run(step)

    def flush(self) -> None:
        """Send the last report, if it has not been sent yet."""
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            with self._lock:
                self._connection.sendall(frame(unsent))
            self._reported = time.monotonic()

    def _save(self, name: str, path: Path, content_type: str | None) -> Artifact:
        artifact = self._ask(SaveArtifact(name, str(path), content_type)).artifact
        assert artifact is not None
        return artifact

    def _ask(self, request: Request) -> RequestDone:
        self.flush()
        with self._lock:
            self._connection.sendall(frame(request))
            answer = self._answer()
        if isinstance(answer, RequestFailed):
            raise _ERRORS.get(answer.error, TransientError)(answer.message)
        return answer

    def _answer(self) -> Answer:
        (length,) = LENGTH.unpack(self._receive_exactly(LENGTH.size))
        answer: Answer = decode_answer(self._receive_exactly(length))
        return answer

    def _receive_exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(size - len(parts))
            if not part:
                raise AttemptStoppedError("The worker has ended this attempt.")
            parts += part
        return bytes(parts)


_ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "AttemptStoppedError": AttemptStoppedError}


def _outcome(job: CpuJob, context: ChildContext) -> Succeeded | Failure:
    invocation = prepare(job.job_type, job.payload)
    if isinstance(invocation, Failure):
        return invocation
    try:
        value = invocation.handler(context, invocation.payload)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the process can go on
        return failure_of(error, context.log)
    return result_of(job.job_type, value, job.max_result)


def _memory() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        # There is no /proc on macOS; its peak, which is in bytes there, is the best that can be had.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()
