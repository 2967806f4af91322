"""Which job types this process can run: a handler whose libraries are missing here is another worker's business.

Found out at the first delivery of each type, once. In the process where the handler would run: this one shall never
hold the libraries of CPU-bound handlers.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs_worker.execution import missing_import

log = logging.getLogger(__name__)


class ImportingProcesses(Protocol):
    """Processes of CPU-bound handlers, in which a handler can be imported on trial."""

    async def missing_import(self, handler: str) -> str | None:
        """Return what keeps a handler from being imported there, or None."""


class Abilities:
    """What has been found out so far. ``known``: by name of a type, whether it can be run here."""

    def __init__(self, registry: Registry, processes: ImportingProcesses) -> None:
        self._registry = registry
        self._processes = processes
        self._looking: dict[str, asyncio.Task[bool]] = {}
        self.known: dict[str, bool] = {}

    async def can_run(self, type_name: str) -> bool:
        """Return whether the handler can be imported here; true for a type nobody knows, which anybody may reject."""
        job_type = self._registry.get(type_name)
        if job_type is None:
            return True
        looking = self._looking.get(type_name)
        if looking is None or (looking.done() and looking.exception() is not None):
            # Anew where it could not be found out, for want of a process for example.
            looking = self._looking[type_name] = asyncio.create_task(self._look(job_type), name=f"ability {type_name}")
        return await asyncio.shield(looking)

    def types(self, queues: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of these queues' types, without those that turned out to lack something here."""
        return tuple(t.name for t in self._registry if t.queue in queues and self.known.get(t.name, True))

    async def close(self) -> None:
        """Stop looking."""
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _look(self, job_type: JobType) -> bool:
        if job_type.cpu_bound:
            missing = await self._processes.missing_import(job_type.handler)
        else:
            missing = missing_import(job_type.handler)
        self.known[job_type.name] = missing is None
        if missing is not None:
            log.warning("jobs of type %s are left to other workers, for this one lacks: %s", job_type.name, missing)
        return missing is None


@asynccontextmanager
async def open_abilities(registry: Registry, processes: ImportingProcesses) -> AsyncIterator[Abilities]:
    """Find out what can be run until the block ends."""
    abilities = Abilities(registry, processes)
    try:
        yield abilities
    finally:
        await abilities.close()
