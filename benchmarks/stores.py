"""The servers that other queues stand on: started on a free port with data of their own, stopped afterwards.

Redis keeps everything in memory and writes nothing: its fastest form. PostgreSQL answers before its log is flushed, as
JetStream does by default: safe against killed processes, not against a power loss.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Program, disk_bytes, free_port, listening, program, run
from gql_jobs.jetstream.server import embedded_server

_POSTGRES = (
    "synchronous_commit=off",
    "shared_buffers=256MB",
    "max_wal_size=2GB",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
)


@dataclass
class Store:
    """A server that runs: its address, its process, its data."""

    url: str
    pid: int
    folder: Path

    def disk(self) -> int:
        """Bytes on the disk."""
        return disk_bytes(self.folder)


def missing_redis() -> str | None:
    """Why Redis cannot be had, if so."""
    return None if shutil.which("redis-server") else "redis-server is not installed"


def missing_postgres() -> str | None:
    """Why PostgreSQL cannot be had, if so."""
    if _postgres_programs() is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        return "PostgreSQL does not run as root, and there is no setpriv"
    return None


@asynccontextmanager
async def redis() -> AsyncIterator[Store]:
    """A Redis that writes nothing to disk."""
    with tempfile.TemporaryDirectory(prefix="gql-jobs-bench-") as folder:
        port = free_port()
        options = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", port, "--dir", folder)
        async with program("redis-server", *map(str, options)) as process:
            await listening(port, process)
            yield Store(f"redis://127.0.0.1:{port}", process.pid, Path(folder))


@asynccontextmanager
async def postgres() -> AsyncIterator[Store]:
    """A PostgreSQL cluster of its own, of a user that is not root."""
    programs = _postgres_programs()
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="gql-jobs-bench-") as folder:
        user: tuple[str, ...] = ()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
            user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
        data, port = Path(folder, "data"), free_port()
        within = Path(folder)
        run(*user, programs / "initdb", "-D", data, "-A", "trust", "-U", "bench", "--no-sync", cwd=within)
        settings = [part for setting in (*_POSTGRES, f"port={port}") for part in ("-c", setting)]
        async with program(*user, programs / "postgres", "-D", data, *settings, cwd=within) as process:
            await listening(port, process)
            await _accepting(programs, port, process)
            yield Store(f"postgresql://bench@127.0.0.1:{port}/postgres", process.pid, data)


@asynccontextmanager
async def nats() -> AsyncIterator[Store]:
    """The nats-server that gql-jobs uses, in the same settings."""
    with tempfile.TemporaryDirectory(prefix="gql-jobs-bench-") as folder:
        async with embedded_server(Path(folder), max_store_bytes=32 << 30) as server:
            yield Store(server.url, server.pid, Path(folder))


async def _accepting(programs: Path, port: int, process: Program) -> None:
    while process.running:
        asked = program(programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), stop=False)
        async with asked as ready:
            pass
        if ready.code == 0:
            return


def _postgres_programs() -> Path | None:
    """The folder with all of them: what is on the PATH may be a part only."""
    on_path = [Path(found)] if (found := shutil.which("pg_isready")) else []
    for ready in (*sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_isready"), reverse=True), *on_path):
        if (ready.parent / "initdb").exists():
            return ready.parent
    return None
