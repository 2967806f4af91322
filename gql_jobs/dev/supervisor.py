"""``gql-jobs dev``: nats-server, API, workers and mailbox as one process tree.

Decides which processes run, their ports, and the order in which they stop. None of them may outlive it.
"""

import asyncio
import http.client
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gql_jobs.dev.nats import supervised_server
from gql_jobs.dev.nats_monitoring import monitoring_page
from gql_jobs.dev.reload import Reload
from gql_jobs.processes.children import FASTER, STOP_WITHIN, Child, Children, StartFailed, workers_stop_message
from gql_jobs.processes.listening import local_hosts, port_to_use, reachable, url
from gql_jobs.processes.lock import DEV_LOCK, FolderLock, address_kept
from gql_jobs.settings import Settings
from gql_jobs.web import pages

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_STARTS = 3
"""Ends of a child while it starts, after which the whole start is given up."""
_READY_WITHIN = 120.0
"""Seconds in which a child has to be ready."""


@dataclass(frozen=True)
class Options:
    """The ports and modules that the command line chooses. Port 0 takes a free one."""

    host: str
    port: int
    nats_port: int
    monitor_port: int | None
    """Of NATS; None for 8222, or a free one where that is taken."""
    imports: tuple[str, ...]
    reload: bool = False
    """Whether the worker, and perhaps the API, are restarted when a file changes."""


async def run_dev(settings: Settings, options: Options) -> int:
    """Run everything until Ctrl-C or SIGTERM and return the exit code: 0 after a clean stop.

    :raises FolderInUse: if another ``dev`` uses the folder.
    :raises CannotListen: if the API's port is not free.
    :raises EmbeddedServerError: if nats-server cannot be started.
    :raises StartFailed: if a part does not come up.
    """
    return await Supervisor(settings, options).run()


class Supervisor:
    """The process tree; ``run`` may be called once."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self._settings = settings
        self._options = options
        self._data_dir = settings.data_dir.absolute()
        self._port = options.port
        self._children = Children(workers_stop_message(settings.shutdown_grace))

    async def run(self) -> int:
        """Start all parts, wait for a signal, and stop them in the opposite order: workers, API, mailbox, nats-server.

        Return the exit code; raise what ``run_dev`` raises.
        """
        with self._children.signals(), FolderLock(self._data_dir / DEV_LOCK):
            self._port = port_to_use(self._options.host, self._options.port)
            async with AsyncExitStack() as stack:
                await self._children.stopped(asyncio.create_task(self._start(stack)))
        return self._children.exit_code

    async def _start(self, stack: AsyncExitStack) -> None:
        reload = Reload(self._options.imports, self._settings.types) if self._options.reload else None
        if reload is not None:
            await stack.enter_async_context(reload.watching())
        environment = {
            "GQL_JOBS_DATA_DIR": str(self._data_dir),
            "GQL_JOBS_NUM_WORKERS": str(self._settings.num_workers),
            "GQL_JOBS_TYPES": ",".join(self._settings.types),
            "GQL_JOBS_DOWNLOAD_ALLOW_LOOPBACK": "true",
            **self._of_this_machine(),
            "GQL_JOBS_LOG_PROGRESS": "true",
        }
        nats = []
        if self._settings.nats_url is None:
            monitoring = stack.enter_context(monitoring_page(self._data_dir, self._options.monitor_port))
            server = await stack.enter_async_context(supervised_server(self._settings, self._options.nats_port))
            environment["GQL_JOBS_NATS_URL"] = server.address
            nats = [("NATS", server.address), ("Monitoring", monitoring)]
        mail_ports = await stack.enter_async_context(self._mailbox())
        mailbox = url("127.0.0.1", mail_ports["http_port"])
        environment |= {
            "GQL_JOBS_SMTP_HOST": "127.0.0.1",
            "GQL_JOBS_SMTP_PORT": str(mail_ports["smtp_port"]),
            "GQL_JOBS_SMTP_TLS": "none",
        }
        api = await stack.enter_async_context(self._child("API", self._api_command, environment))
        grace = self._settings.shutdown_grace + STOP_WITHIN
        worker = await stack.enter_async_context(
            self._child("worker", self._worker_command, environment, grace, FASTER)
        )
        await _until(api, lambda: asyncio.to_thread(_is_ready, self._options.host, self._port))
        stack.enter_context(address_kept(self._data_dir, url(self._options.host, self._port)))
        self._announce([("Mailbox", mailbox), *nats])
        if reload is not None:
            reload.restarts(api, worker)

    def _of_this_machine(self) -> dict[str, str]:
        """Return who may ask the API, where the settings do not say: programs and pages of this machine."""
        hosts = local_hosts(self._options.host)
        defaults = {
            "allowed_hosts": ",".join(hosts),
            "cors_origins": ",".join(f"http://{host}:*" for host in hosts),
        }
        given = self._settings.model_fields_set
        return {f"GQL_JOBS_{name.upper()}": value for name, value in defaults.items() if name not in given}

    def _announce(self, others: list[tuple[str, str]]) -> None:
        own = pages.addresses(url(self._options.host, self._port), self._settings)
        for name, address in [*own, *others]:
            print(f"{name:<13} {address}", flush=True)  # noqa: T201
        if self._settings.dashboard and not pages.DASHBOARD.is_built:
            log.info("the dashboard is not built in this checkout; `make web` builds it")

    def _api_command(self) -> list[str]:
        where = ("--host", self._options.host, "--port", str(self._port))
        return [sys.executable, "-m", "gql_jobs", "api", "--processes", "1", *where, *self._imports()]

    def _worker_command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "gql_jobs_worker", *self._imports()]

    def _imports(self) -> Iterator[str]:
        for module in self._options.imports:
            yield from ("--import", module)

    @asynccontextmanager
    async def _mailbox(self) -> AsyncIterator[dict[str, int]]:
        ports_file = self._data_dir / "mailbox.json"
        _remove(ports_file)

        def command() -> list[str]:
            ports = _read_ports(ports_file) or {"smtp_port": 0, "http_port": 0}
            listen = ("--smtp-port", str(ports["smtp_port"]), "--http-port", str(ports["http_port"]))
            where = ("--data-dir", str(self._data_dir), "--ports-file", str(ports_file))
            return [sys.executable, "-m", "gql_jobs.dev.mailbox", *listen, *where]

        async def ports() -> dict[str, int]:
            return _read_ports(ports_file) or {}

        async with self._child("mailbox", command, {}) as child:
            yield await _until(child, ports)

    @asynccontextmanager
    async def _child(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        environment: dict[str, str],
        stop_within: float = STOP_WITHIN,
        faster: signal.Signals | None = None,
    ) -> AsyncIterator[Child]:
        async with self._children.running(Child(name, command, environment, stop_within, faster)) as child:
            yield child


async def _until(child: Child, answer: Callable[[], Awaitable[_T]]) -> _T:
    """Return the first true answer about a child that is starting.

    :param answer: asks once; anything false means not yet.

    :raises StartFailed: if the child ends ``_STARTS`` times before, or ``_READY_WITHIN`` s pass.
    """
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        found = await answer()
        if found:
            return found
        if child.failures >= _STARTS:
            raise StartFailed(f"The {child.name} ended {child.failures} times while starting; its messages say why.")
        await asyncio.sleep(0.05)
    raise StartFailed(f"The {child.name} was not ready within {_READY_WITHIN:.0f} s.")


def _is_ready(host: str, port: int) -> bool:
    """Return whether ``/readyz`` answers 200. Blocks for at most two seconds."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _read_ports(path: Path) -> dict[str, int] | None:
    """Return what the mailbox has written into its ``--ports-file``; None until it has."""
    try:
        ports: dict[str, int] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return ports


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
