"""Processes for CPU-bound handlers: one per running job, reused between jobs, replaced after many jobs or when large.

The event loop only passes messages on, so leases are kept however busy the handlers are. A process is killed when its
attempt times out or is stopped.
"""

import asyncio
import logging
import multiprocessing
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from gql_jobs.jobs.errors import AttemptStoppedError, TransientError
from gql_jobs.jobs.registry import JobType
from gql_jobs.logs import LogFormat
from gql_jobs.settings import Settings
from gql_jobs_worker.execution import Failure, HandlerContext, Succeeded, missing_import
from gql_jobs_worker.sandbox import child
from gql_jobs_worker.sandbox.scratch import scratch_folder
from gql_jobs_worker.sandbox.wire import (
    LENGTH,
    Answer,
    CpuJob,
    Hello,
    ReportProgress,
    RequestDone,
    RequestFailed,
    SaveArtifact,
    SaveCheckpoint,
    decode_request,
    frame,
)

log = logging.getLogger(__name__)


class _Process:
    """One process and how many jobs it has run."""

    def __init__(self, socket_path: str, log_format: LogFormat) -> None:
        # Spawned: a fork would copy the locks of this process's threads in whatever state they are.
        context = multiprocessing.get_context("spawn")
        level = logging.getLogger().getEffectiveLevel()
        arguments = (socket_path, level, log_format)
        self.pool = ProcessPool(1, initializer=child.begin, initargs=arguments, context=context)
        self.jobs = 0

    def kill(self) -> None:
        self.pool.stop()  # type: ignore[no-untyped-call]
        self.pool.join()


class CpuProcesses:
    """The processes of one worker."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._socket = str(folder / "context")
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._contexts: dict[str, HandlerContext] = {}
        self._connections: set[asyncio.StreamWriter] = set()
        self._endings: set[asyncio.Task[None]] = set()

    async def run_handler(
        self, job_type: JobType, payload: bytes, context: HandlerContext, max_result: int
    ) -> Succeeded | Failure:
        """Run a handler in a process and return its outcome; if cancelled, kill the process first.

        :param max_result: bytes of the result's JSON.
        """
        token = secrets.token_hex(16)
        job = CpuJob(
            socket=self._socket,
            token=token,
            job_type=job_type,
            payload=payload,
            job_id=context.job_id,
            attempt=context.attempt,
            saved=context.saved,
            max_result=max_result,
            fields=dict(context.log.extra or {}),
        )
        process = self._take()
        self._contexts[token] = context
        memory = self._settings.process_max_bytes + 1
        try:
            outcome, memory = await asyncio.wrap_future(process.pool.schedule(child.run_attempt, (job,)))
        except ProcessExpired as error:
            return _died(error)
        finally:
            del self._contexts[token]
            process.jobs += 1
            await self._give_back(process, memory)
        return outcome

    async def missing_import(self, handler: str) -> str | None:
        """Return the message of the ImportError that keeps a handler from being imported in a process there.

        None if it can be imported, fails otherwise, or ends the process: then its attempts fail.
        """
        process, memory = self._take(), self._settings.process_max_bytes + 1
        try:
            found: str | None = await asyncio.wrap_future(process.pool.schedule(missing_import, (handler,)))
            memory = 0
        except ProcessExpired:
            return None
        finally:
            await self._give_back(process, memory)
        return found

    def _take(self) -> _Process:
        process = self._idle.pop() if self._idle else _Process(self._socket, self._settings.log_format)
        self._busy.add(process)
        return process

    async def _give_back(self, process: _Process, memory: int) -> None:
        old = process.jobs >= self._settings.process_max_jobs
        if not old and memory <= self._settings.process_max_bytes:
            self._busy.discard(process)
            self._idle.append(process)
            return
        ending = asyncio.create_task(asyncio.to_thread(process.kill))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        # Awaited even if this is cancelled meanwhile: the slot is free only once the process has ended.
        await asyncio.shield(ending)
        self._busy.discard(process)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a process until it is closed.

        A process keeps one open on which it sends nothing, to see the worker's end, and opens one for each attempt.
        """
        self._connections.add(writer)
        try:
            context: HandlerContext | None = None
            while True:
                request = decode_request(await _read(reader))
                if isinstance(request, Hello):
                    context = self._contexts.get(request.token)
                elif context is not None and isinstance(request, ReportProgress):
                    context.progress(request.percent, request.message)
                elif context is not None:
                    writer.write(frame(await _answer(context, request)))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._connections.discard(writer)
            writer.close()

    async def close(self) -> None:
        """Kill every process and close every connection."""
        processes = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(asyncio.to_thread(process.kill) for process in processes), *self._endings)
        for writer in list(self._connections):
            writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return await reader.readexactly(length)


async def _answer(context: HandlerContext, request: SaveCheckpoint | SaveArtifact) -> Answer:
    try:
        if isinstance(request, SaveCheckpoint):
            await context.store_checkpoint(bytes(request.data))
            return RequestDone()
        return RequestDone(await context.save_artifact(request.name, Path(request.path), request.content_type))
    except (ValueError, TransientError, AttemptStoppedError, OSError) as error:
        return RequestFailed(type(error).__name__, str(error))


def _died(error: ProcessExpired) -> Failure:
    code = error.exitcode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = "; that is what happens when memory runs out" if code == -9 else ""  # noqa: PLR2004
    return Failure("ProcessDied", f"The process of the handler {how}{hint}.")


@asynccontextmanager
async def open_cpu_processes(settings: Settings) -> AsyncIterator[CpuProcesses]:
    """Yield processes that are started as they are needed; kill all of them when the block ends."""
    with scratch_folder() as folder:
        processes = CpuProcesses(settings, folder)
        # A frame holds a checkpoint at most.
        server = await asyncio.start_unix_server(processes.serve, folder / "context", limit=1 << 20)
        try:
            yield processes
        finally:
            await processes.close()
            server.close()
            await server.wait_closed()
