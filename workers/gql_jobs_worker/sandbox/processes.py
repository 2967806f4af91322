"""Processes for CPU-bound handlers: one per running job, reused between jobs, replaced after many jobs or when large.

The event loop only passes messages on, so leases are kept however busy the handlers are. A process is killed, with all
that it has started, when its attempt times out or is stopped, and when the worker ends.
"""

import asyncio
import fcntl
import logging
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from pydantic import BaseModel

from gql_jobs.jobs.errors import AttemptStoppedError, PermanentError, TransientError
from gql_jobs.jobs.registry import JobType
from gql_jobs.settings import Settings
from gql_jobs_worker.execution import HandlerContext, Succeeded, TimeLimit
from gql_jobs_worker.failures import Failure
from gql_jobs_worker.process_life import SHUTDOWN_WITHIN, late_hook
from gql_jobs_worker.sandbox.child import CONNECTION_CLOSED
from gql_jobs_worker.sandbox.guard import kill_marked
from gql_jobs_worker.sandbox.wire import (
    LENGTH,
    Answer,
    AttemptEnded,
    Began,
    CpuJob,
    CreateChild,
    EndProcess,
    Imported,
    Order,
    Preparing,
    ReportProgress,
    Request,
    RequestDone,
    RequestFailed,
    RunAttempt,
    SaveCheckpoint,
    Stored,
    TryImport,
    decode_request,
    frame,
)

log = logging.getLogger(__name__)

_NOT_FOUND = (
    "The process of a CPU-bound handler finds no model {}.{}: it is imported from there, so define it at the top of "
    "that module, under its own name."
)
STARTS = 3
"""Processes that are tried before an attempt fails although its handler never began."""
_ENDS_WITHIN = 10.0
"""Seconds after which a guard that does not end is killed; it kills what it guards within half of that."""
_PAUSE = 0.2
"""Seconds after a process that ended before its handler began, times the tries."""
_MARK = "_GQL_JOBS_HANDLERS"
"""The environment variable by which all that is below one guard is known."""
_FRAME_HEADROOM = 1 << 20
"""Bytes that a frame may have beside twice its largest result: a checkpoint, or an error's message."""
_DRAIN = 1.0
"""Seconds for which what a process that is gone has sent is read; it is there already."""
ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TEMP", "TMP"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "DYLD_*", "SSL_CERT_*", "*_NUM_THREADS", "MALLOC_*"),
    *("XDG_*", "FONTCONFIG_*", "COVERAGE_PROCESS_*"),
    # What the handlers that come with gql-jobs read, and nothing else of its own settings.
    *("GQL_JOBS_DATA_DIR", "GQL_JOBS_DOWNLOAD_*", "GQL_JOBS_IMAGE_*", "GQL_JOBS_SALES_*", "GQL_JOBS_REPORT_*"),
)
"""Names of the environment variables that handlers' processes get, with ``*`` for anything."""


def environment_for_handlers(environment: Mapping[str, str], more: tuple[str, ...]) -> dict[str, str]:
    """Return what handlers' processes get of an environment: what they need to run, and what the settings name.

    :param more: names beside ``ENVIRONMENT``, with ``*`` for anything.
    """
    allowed = (*ENVIRONMENT, *more)
    return {
        name: value for name, value in environment.items() if any(fnmatchcase(name, pattern) for pattern in allowed)
    }


class GarbledConnection(Exception):
    """A process has sent what is no message."""


class _Process:
    """One process: its guard, the connection to it, and how many jobs it has run."""

    def __init__(
        self,
        guard: Process,
        control: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        mark: str,
    ) -> None:
        """Watch a process that has been started.

        :param control: a duplicate of the connection's socket, to end it whatever waits to be written.
        :param mark: the value of the variable by which all that it starts is known.
        """
        self._guard = guard
        self._control = control
        self._reader = reader
        self._writer = writer
        self.jobs = 0
        self.has_end = False
        """Whether it has something to do at its end."""
        self.began = False
        """Whether the handler of the attempt that runs has been called."""
        self.max_frame = _FRAME_HEADROOM
        self.ended = asyncio.create_task(self._end(mark), name="end of a handler's process")
        """Done when the process and whatever it started have ended, with the exit code; a signal's is negative."""

    async def _end(self, mark: str) -> int:
        code = await self._guard.wait()
        if code == -signal.SIGKILL:
            # Perhaps it did not end itself so, and what it guarded goes on.
            await asyncio.to_thread(kill_marked, f"{_MARK}={mark}")
        return code

    async def send(self, message: Order | Answer) -> None:
        self._writer.write(frame(message))
        await self._writer.drain()

    async def receive(self) -> Request:
        """Return the next message.

        :raises ConnectionError, IncompleteReadError: if the process has ended.
        :raises GarbledConnection: if this is no message: the handler has written to the connection.
        """
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        if length > self.max_frame:
            raise GarbledConnection
        try:
            request: Request = decode_request(await self._reader.readexactly(length))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise GarbledConnection from error
        return request

    async def drain(self, context: HandlerContext) -> None:
        """Take over what a process that has ended had reported before."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError, GarbledConnection):
            async with asyncio.timeout(_DRAIN):
                while True:
                    if isinstance(message := await self.receive(), ReportProgress):
                        context.progress(message.percent, message.message)

    async def finish(self) -> None:
        """Have the process do what it does at its end, if there is anything, and wait until it has ended or is late."""
        if self.has_end and not self.ended.done():
            with suppress(ConnectionError):
                await self.send(EndProcess())
            await asyncio.wait({self.ended}, timeout=SHUTDOWN_WITHIN)
            if not self.ended.done():
                log.error("a process of handlers is ended before its functions of @worker_shutdown are")

    async def kill(self) -> None:
        """Have the process and all that it has started killed, and return when they have ended."""
        with suppress(OSError):
            # Its guard sees that; what has arrived here can still be read.
            self._control.shutdown(socket.SHUT_WR if sys.platform == "linux" else socket.SHUT_RDWR)
        await asyncio.wait({self.ended}, timeout=_ENDS_WITHIN)
        if not self.ended.done():
            log.error("the guard %d of a handler's process does not end and is killed", self._guard.pid)
            with suppress(ProcessLookupError):
                self._guard.kill()
            await self.ended

    async def close(self) -> None:
        """Kill the process and close the connection."""
        await self.kill()
        self._control.close()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class CpuProcesses:
    """The processes of one worker."""

    def __init__(self, settings: Settings, folder: Path, stderr: int | None = None) -> None:
        """Start no process yet.

        :param folder: for temporary files of handlers.
        :param stderr: the descriptor of what is to be their standard error; None for that of this process.
        """
        self._stderr = stderr
        self._settings = settings
        self._folder = folder
        self._environment = environment_for_handlers(os.environ, settings.process_environment)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._closings: set[asyncio.Task[None]] = set()

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

        A process that ends before it has called the handler is no fault of the job: another one runs it at once.

        :param marks: the places of secrets that were stored with the payload.
        :param max_result: bytes of the result's JSON.
        :param time_limit: paused while a process does what it does once, before its first handler.
        """
        job = CpuJob(
            # The function for keys is for creations, and may be one that cannot be pickled.
            job_type=msgspec.structs.replace(job_type, concurrency_key=None),
            payload=payload,
            marks=marks,
            job_id=context.job_id,
            attempt=context.attempt,
            saved=context.saved,
            max_result=max_result,
            public_url=self._settings.public_url,
        )
        if (model := _not_found(job_type)) is not None:
            return Failure("ModelNotFound", _NOT_FOUND.format(model.__module__, model.__qualname__))
        order = RunAttempt(pickle.dumps(job), job_type.name, context.fields)
        for tries in range(1, STARTS + 1):
            try:
                process = await self._take()
            except OSError as error:
                ending, began = f"cannot be started: {error.strerror or error}", False
            else:
                outcome = await self._run_attempt(process, order, context, max_result, time_limit)
                if not isinstance(outcome, int):
                    return outcome
                ending, began = self._how(outcome), process.began
            if began or tries == STARTS:
                break
            context.log.warning("the process of the handler %s; another one is tried", ending)
            await asyncio.sleep(_PAUSE * (tries - 1))
        when = "" if began else ", before the handler began"
        return Failure("ProcessDied", f"The process of the handler {ending}{when}.")

    async def missing_import(self, handler: str) -> str | None:
        """Return the message of the ImportError that keeps a handler from being imported in a process there.

        None if it can be imported, fails otherwise, or ends the process: then its attempts fail.
        """
        process, reusable = await self._take(), False
        try:
            await process.send(TryImport(handler))
            answer = await process.receive()
            reusable = True
        except (ConnectionError, asyncio.IncompleteReadError, GarbledConnection):
            return None
        finally:
            await self._give_back(process, reusable=reusable)
        return answer.missing if isinstance(answer, Imported) else None

    async def _run_attempt(
        self, process: _Process, order: RunAttempt, context: HandlerContext, max_result: int, time_limit: TimeLimit
    ) -> Succeeded | Failure | int:
        """Return the attempt's outcome, or the exit code of the process if it has ended instead."""
        reusable = intact = False
        process.max_frame = 2 * max_result + _FRAME_HEADROOM
        try:
            await process.send(order)
            while not isinstance(message := await process.receive(), AttemptEnded):
                if isinstance(message, ReportProgress):
                    context.progress(message.percent, message.message)
                elif isinstance(message, Stored):
                    await process.send(await _answer(context, message))
                elif isinstance(message, Preparing):
                    seconds = self._settings.startup_timeout
                    time_limit.pause(seconds, late_hook(message.hook, seconds))
                elif isinstance(message, Began):
                    time_limit.resume()
                    process.began = True
            process.has_end = message.has_end
            intact = message.reusable
            reusable = intact and message.memory <= self._settings.process_max_bytes
        except (ConnectionError, asyncio.IncompleteReadError):
            return await process.ended
        except GarbledConnection:
            return Failure("ProcessDied", "The handler wrote to the connection between its process and the worker.")
        finally:
            process.jobs += 1
            # Awaited even if this is cancelled meanwhile: the slot is free only once the process has ended.
            await self._give_back(process, reusable=reusable, intact=intact, context=context)
        return message.failure if message.failure is not None else Succeeded(message.result or b"")

    def _how(self, code: int) -> str:
        """Say how a process with this exit code has ended."""
        if code == CONNECTION_CLOSED:
            return "ended because the handler closed its connection to the worker"
        if code >= 0:
            return f"ended with exit code {code}"
        limit = self._settings.process_memory_limit
        if limit is not None:
            return f"was killed by signal {-code}; its memory is limited to {limit} bytes"
        hint = "; that is what happens when memory runs out" if code == -9 else ""  # noqa: PLR2004
        return f"was killed by signal {-code}{hint}"

    async def _take(self) -> _Process:
        """Return an idle process, or start one.

        :raises OSError: if none can be started.
        """
        while self._idle:
            process = self._idle.pop()
            if not process.ended.done():
                process.began = False
                return process
        process = await self._start()
        self._all.add(process)
        process.ended.add_done_callback(lambda _: self._forget(process))
        return process

    async def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        mark = uuid.uuid4().hex
        try:
            level = logging.getLogger().getEffectiveLevel()
            limit = self._settings.process_memory_limit or 0
            arguments = (str(self._folder), str(level), self._settings.log_format, str(limit))
            # The module path of this process, of which the environment does not tell all.
            begin = (
                f"import sys; sys.path[:] = {sys.path!a}\n"
                "from gql_jobs_worker.sandbox.guard import run_guarded; run_guarded()"
            )
            guard = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                begin,
                *arguments,
                stdin=theirs.fileno(),
                stderr=self._stderr,
                env={**self._environment, _MARK: mark},
                start_new_session=True,
            )
            control = ours.dup()
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Process(guard, control, reader, writer, mark)

    def _forget(self, process: _Process) -> None:
        """Close the connection of a process that has ended by itself while it was idle."""
        if process in self._idle:
            self._idle.remove(process)
            self._replace(process, None, intact=False)

    async def _give_back(
        self, process: _Process, *, reusable: bool, intact: bool = False, context: HandlerContext | None = None
    ) -> None:
        if reusable and process.jobs < self._settings.process_max_jobs and not process.ended.done():
            self._idle.append(process)
            return
        await asyncio.shield(self._replace(process, context, intact=intact))

    def _replace(self, process: _Process, context: HandlerContext | None, *, intact: bool) -> "asyncio.Task[None]":
        async def replace() -> None:
            if intact:
                await process.finish()
            await process.kill()
            if context is not None:
                await process.drain(context)
            await process.close()

        replacing = asyncio.create_task(replace(), name="replacing a handler's process")
        self._closings.add(replacing)
        replacing.add_done_callback(self._closings.discard)
        replacing.add_done_callback(lambda _: self._all.discard(process))
        return replacing

    async def finish(self) -> None:
        """Have the processes in which nothing runs do what they do at their end; afterwards ``close`` them."""
        await asyncio.gather(*(process.finish() for process in self._idle))

    async def close(self) -> None:
        """Kill every process."""
        self._idle.clear()
        await asyncio.gather(*(process.close() for process in list(self._all)), *self._closings)


def _not_found(job_type: JobType) -> type[BaseModel] | None:
    """Return a model of a type that another process cannot import, as one that was made within a function."""
    for model in (job_type.payload, job_type.result):
        try:
            pickle.dumps(model)
        except (pickle.PicklingError, AttributeError):
            return model
    return None


async def _answer(context: HandlerContext, request: Stored) -> Answer:
    try:
        if isinstance(request, SaveCheckpoint):
            await context.store_checkpoint(bytes(request.data))
            return RequestDone()
        if isinstance(request, CreateChild):
            return RequestDone(child=await context.create_child(request.asked))
        return RequestDone(await context.save_artifact(request.name, Path(request.path), request.content_type))
    except OSError as error:
        return RequestFailed("OSError", str(error))
    except (ValueError, TransientError, PermanentError, AttemptStoppedError) as error:
        return RequestFailed(type(error).__name__, str(error))


@asynccontextmanager
async def open_cpu_processes(settings: Settings, stderr: int | None = None) -> AsyncIterator[CpuProcesses]:
    """Yield processes that are started as they are needed; kill all of them when the block ends.

    :param stderr: the descriptor of what is to be their standard error; None for that of this process.
    """
    with scratch_folder() as folder:
        processes = CpuProcesses(settings, folder, stderr)
        try:
            yield processes
        finally:
            await processes.close()


# The folder for temporary files of one worker's handlers. It belongs to the process that holds its lock, which the
# kernel releases with the process, however that ends.

SCRATCH_PREFIX = "gql-jobs-worker-"
"""The prefix of the names of such folders."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Remove the folders of dead processes, then yield one for this process, which is removed when the block ends."""
    _remove_leftovers()
    folder, lock = _make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
        lock = _locked(folder)
        # Another process that cleans up may have come between the two.
        if lock is not None and folder.exists():
            return folder, lock


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """Return the file descriptor of the folder, locked; None if another process has locked it or it does not exist."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
