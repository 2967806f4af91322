"""Other queues: each is a small program in ``peers/queues`` and the server that it stands on.

Settings are the fastest that were found by trying, with acknowledgement after the work, and with results kept where the
system can keep them.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import stores
from benchmarks.machine import ROOT
from benchmarks.measurement import Contender, Plan, Sample
from benchmarks.processes import Program, cpu_seconds, program, resident_mib
from benchmarks.stores import Store

PEERS = ROOT / "benchmarks/peers"
PYTHON = PEERS / ".venv/bin/python"
NODE_MODULES = PEERS / "node_modules"


@dataclass(frozen=True)
class QueuePeer:
    """One system. ``slow`` ones get fewer jobs: their rate does not depend on the number."""

    system: str
    script: str
    store: Callable[[], AbstractAsyncContextManager[Store]]
    missing_store: Callable[[], str | None]
    settings: Mapping[str, Any]
    keeps: str
    bulk: str
    slow: bool = False
    install: bool = False

    @property
    def command(self) -> tuple[str | Path, ...]:
        """How its program is started."""
        return ("node" if self.script.endswith(".mjs") else PYTHON, self.script)

    def missing(self) -> str | None:
        """Why it cannot be measured here, if so."""
        node = self.script.endswith(".mjs")
        if not (NODE_MODULES / "bullmq" if node else PYTHON).exists():
            return "run make bench-setup"
        return self.missing_store()

    def program(self, store: Store, *arguments: str) -> AbstractAsyncContextManager[Program]:
        """Its program with one of the commands of ``peers/queues/driver.py``."""
        environment = {"PEER_URL": store.url, "PEER_SETTINGS": json.dumps(dict(self.settings))}
        return program(*self.command, *arguments, environment=environment, cwd=PEERS / "queues")

    @asynccontextmanager
    async def ready_store(self) -> AsyncIterator[Store]:
        """Its server, with tables where it needs some."""
        async with self.store() as store:
            if self.install:
                async with self.program(store, "install", "0") as installing:
                    await installing.ended()
            yield store

    async def fill(self, store: Store, jobs: int, how: str = "fill") -> float:
        """Enqueue jobs; returns the seconds that it took.

        :param how: ``one`` after another, or ``fifty`` at once; by default as many as the system has a call for.
        """
        async with self.program(store, how, str(jobs)) as filling:
            return float(await filling.value(within=600))

    def contender(self, measure: Callable[["QueuePeer", Plan], Any]) -> Contender:
        """This system in a bench."""

        async def measured(plan: Plan) -> list[Sample]:
            samples: list[Sample] = await measure(self, plan)
            return samples

        return Contender(self.system, measured, {**self.settings, "keeps": self.keeps, "bulk": self.bulk})


_FORGETS = "results and queue in Redis' memory, nothing on disk"

SAQ = QueuePeer(
    "saq", "saq_jobs.py", stores.redis, stores.missing_redis,
    {"concurrency": 10}, keeps=_FORGETS, bulk="50 at once",
)  # fmt: skip
CELERY = QueuePeer(
    "celery", "celery_jobs.py", stores.redis, stores.missing_redis,
    {"results": True, "prefetch": 100, "pool": "solo"}, keeps=_FORGETS, bulk="one after another", slow=True,
)  # fmt: skip
TASKIQ_RESULTS = QueuePeer(
    "taskiq-nats-results", "taskiq_jobs.py", stores.nats, lambda: None,
    {"results": True, "batch": 100, "concurrency": 100},
    keeps="queue and results in JetStream's files, no history", bulk="50 at once", slow=True,
)  # fmt: skip
TASKIQ_BATCH = QueuePeer(
    "taskiq-nats-batch100", "taskiq_jobs.py", stores.nats, lambda: None,
    {"results": False, "batch": 100, "concurrency": 100},
    keeps="queue in JetStream's files, no results, no history", bulk="50 at once",
)  # fmt: skip
PGQUEUER = QueuePeer(
    "pgqueuer", "pgqueuer_jobs.py", stores.postgres, stores.missing_postgres,
    {"batch": 100, "synchronous_commit": "off"},
    keeps="queue and a log of statuses in PostgreSQL's files, no results", bulk="1000 a call", install=True,
)  # fmt: skip
BULLMQ = QueuePeer(
    "bullmq", "bullmq_jobs.mjs", stores.redis, stores.missing_redis,
    {"concurrency": 100}, keeps=_FORGETS, bulk="1000 a call",
)  # fmt: skip
QUEUES = (SAQ, CELERY, TASKIQ_RESULTS, TASKIQ_BATCH, PGQUEUER, BULLMQ)


@dataclass
class Drained:
    """What draining took: jobs per second, and by part CPU seconds and MiB; bytes on disk per job."""

    rate: float
    cpu: dict[str, float]
    memory: dict[str, float]
    disk: float


async def drain(peer: QueuePeer, jobs: int) -> Drained:
    """Enqueue jobs, start one worker process, and take the time from the first beginning to the last end."""
    async with peer.ready_store() as store:
        empty = store.disk()
        await peer.fill(store, jobs)
        async with peer.program(store, "work", str(jobs)) as worker:
            await worker.value()
            first, last = await worker.value(within=900)
            cpu = {"worker": cpu_seconds([worker.pid]), "store": cpu_seconds([store.pid])}
            memory = {"worker": resident_mib([worker.pid]), "store": resident_mib([store.pid])}
        return Drained(jobs / (last - first), cpu, memory, (store.disk() - empty) / jobs)


def missing(system: str) -> str | None:
    """Why a queue cannot be measured here, if so."""
    return next((peer.missing() for peer in QUEUES if peer.system == system), None)
