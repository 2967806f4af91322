"""Which job types this worker can run: jobs whose handler lacks a library here are left to other workers.

Each type is checked once, at its first delivery, by importing the handler in the process where it would run: the
worker's own process never loads the libraries of CPU-bound handlers.
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
    """Processes of CPU-bound handlers, in which the import of a handler can be tried."""

    async def missing_import(self, handler: str) -> str | None:
        """Return the message of the ImportError that keeps a handler from being imported there, or None."""


class Abilities:
    """The results of the checks so far. ``known``: by the name of a type, whether it can be run here."""

    def __init__(self, registry: Registry, processes: ImportingProcesses) -> None:
        self._registry = registry
        self._processes = processes
        self._checks: dict[str, asyncio.Task[bool]] = {}
        self.known: dict[str, bool] = {}

    async def can_run(self, type_name: str) -> bool:
        """Return whether the handler of a type can be imported here; check that first where it is not known yet.

        True for a type that is not registered: its attempt fails in any worker.
        """
        job_type = self._registry.get(type_name)
        if job_type is None:
            return True
        check = self._checks.get(type_name)
        if check is None or (check.done() and check.exception() is not None):
            # A check that failed, because no process could be started for example, is repeated.
            check = self._checks[type_name] = asyncio.create_task(self._check(job_type), name=f"ability {type_name}")
        return await asyncio.shield(check)

    def types(self, queues: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of these queues' types, without those that turned out to lack something here."""
        return tuple(t.name for t in self._registry if t.queue in queues and self.known.get(t.name, True))

    async def close(self) -> None:
        """Cancel the checks that have not ended."""
        for task in self._checks.values():
            task.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)

    async def _check(self, job_type: JobType) -> bool:
        if job_type.cpu_bound:
            missing = await self._processes.missing_import(job_type.handler)
        else:
            missing = missing_import(job_type.handler)
        self.known[job_type.name] = missing is None
        if missing is not None:
            log.warning("jobs of type %s are left to other workers: %s", job_type.name, missing)
        return missing is None


@asynccontextmanager
async def open_abilities(registry: Registry, processes: ImportingProcesses) -> AsyncIterator[Abilities]:
    """Yield the abilities of this worker; cancel checks that have not ended when the block ends."""
    abilities = Abilities(registry, processes)
    try:
        yield abilities
    finally:
        await abilities.close()
