"""The whole system on loopback: nats nodes, API processes, worker processes, each of them supervised."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.chaos.probe_handlers import RUNS
from benchmarks.chaos.processes import Program, left_behind
from benchmarks.chaos.servers import HOST, Node, free_ports, nodes

log = logging.getLogger(__name__)

JOB_TYPES = "benchmarks.chaos.probe_jobs"
ROOT = Path(__file__).parents[2]
LEASE = 2.0
"""Seconds of the lease of a delivery: short, so that a pause outlasts it soon."""
GRACE = 2.0
"""Seconds that running jobs get after SIGTERM; shorter than some jobs are, so that some are handed back."""
_READY_WITHIN = 120.0
_SAY_EVERY = 5.0
_OK = 200


def log_progress() -> None:
    """Have a run tell how it gets on, on standard error; results go to standard output."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stderr)
    for noisy in ("httpx", "nats"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Shape:
    """How much of everything. ``sync_always``: nats-server flushes before each acknowledgement.

    ``imports`` are the modules with job types, ``settings`` are environment variables over those that every run has.
    """

    apis: int = 2
    workers: int = 3
    slots: int = 8
    nodes: int = 1
    sync_always: bool = False
    imports: tuple[str, ...] = (JOB_TYPES,)
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ApiNode:
    """One API process."""

    program: Program
    port: int

    @property
    def url(self) -> str:
        """Where it serves GraphQL."""
        return f"http://{HOST}:{self.port}/graphql"

    async def ready(self, http: httpx.AsyncClient) -> bool:
        """Whether it wants requests."""
        try:
            return (await http.get(f"http://{HOST}:{self.port}/readyz", timeout=2)).status_code == _OK
        except httpx.HTTPError:
            return False


class System:
    """The parts, and what can be asked of all of them."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.runs.mkdir()
        mark = {RUNS: str(self.runs)}
        self.nodes: list[Node] = nodes(folder / "nats", shape.nodes, sync_always=shape.sync_always, environment=mark)
        self.nats_url = ",".join(node.url for node in self.nodes)
        self._imports = [word for module in shape.imports for word in ("--import", module)]
        environment = {
            **mark,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "workers"))),
            "GQL_JOBS_NATS_URL": self.nats_url,
            "GQL_JOBS_REPLICAS": str(min(shape.nodes, 3)),
            "GQL_JOBS_ACK_WAIT": str(LEASE),
            "GQL_JOBS_SHUTDOWN_GRACE": str(GRACE),
            "GQL_JOBS_BASE_RETRY_DELAY": "0.5",
            "GQL_JOBS_NUM_WORKERS": str(shape.slots),
            **shape.settings,
        }
        self.apis = [self._api(number, port, environment) for number, port in enumerate(free_ports(shape.apis), 1)]
        self.workers = [self._worker(number, environment) for number in range(1, shape.workers + 1)]

    def _api(self, number: int, port: int, environment: dict[str, str]) -> ApiNode:
        name = f"api-{number}"
        data = ("--port", str(port), "--data-dir", str(self.folder / name), *self._imports)
        command = (sys.executable, "-m", "gql_jobs", "api", *data)
        return ApiNode(Program(name, command, environment, self.folder / f"{name}.log"), port)

    def _worker(self, number: int, environment: dict[str, str]) -> Program:
        name = f"worker-{number}"
        command = (sys.executable, "-m", "gql_jobs_worker", *self._imports)
        return Program(name, command, environment, self.folder / f"{name}.log")

    @property
    def programs(self) -> list[Program]:
        """All of them, in the order in which they need each other."""
        return [*(node.program for node in self.nodes), *(api.program for api in self.apis), *self.workers]

    async def ready(self, http: httpx.AsyncClient) -> None:
        """Wait until every process runs, every node has been healthy and every API has wanted requests.

        Each has to say so once from now on, not all in the same moment: on a busy machine one is late now and then.

        :raises TimeoutError: naming what is not.
        """
        began = said_at = time.monotonic()
        nodes, apis = self.nodes, self.apis
        while True:
            nodes = [node for node in nodes if not await node.healthy(http)]
            apis = [api for api in apis if not await api.ready(http)]
            missing = [program.name for program in self.programs if program.pid is None]
            missing += [*(node.name for node in nodes), *(api.program.name for api in apis)]
            if not missing:
                return
            now = time.monotonic()
            if now - said_at > _SAY_EVERY:
                said_at = now
                log.info("  waiting for %s", ", ".join(missing))
            if now - began > _READY_WITHIN:
                raise TimeoutError(f"not ready within {_READY_WITHIN:g} s: {', '.join(missing)}")
            await asyncio.sleep(0.1)

    def ends(self) -> int:
        """Kill what has been left behind although everything was stopped; returns how many there were."""
        left = left_behind(RUNS, str(self.runs))
        for process in left:
            log.warning("left behind: %s", process)
            process.send_signal(signal.SIGKILL)
        return len(left)


@asynccontextmanager
async def running(shape: Shape, folder: Path) -> AsyncIterator[System]:
    """The system, started; stopped when the block ends, however it ends."""
    system = System(shape, folder)
    tasks = [asyncio.create_task(program.run(), name=program.name) for program in system.programs]
    try:
        yield system
    finally:
        await _stop(system.programs[::-1], tasks[::-1])


async def _stop(programs: list[Program], tasks: list["asyncio.Task[None]"]) -> None:
    """Workers first, then APIs, NATS last: nobody has to wait for a server that has gone."""
    for prefix in ("worker", "api", "node"):
        own = [(p, t) for p, t in zip(programs, tasks, strict=True) if p.name.startswith(prefix)]
        for program, _ in own:
            program.stop()
        done, late = await asyncio.wait([task for _, task in own], timeout=GRACE + 10)
        for task in late:
            task.cancel()
        await asyncio.gather(*done, *late, return_exceptions=True)
