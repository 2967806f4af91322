"""Which job types this process can run: a handler whose libraries are missing here is another worker's business."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs_worker import invocation
from gql_jobs_worker.sandbox.processes import CpuProcesses

log = logging.getLogger(__name__)


class Abilities:
    """Found out at the first delivery of each type, once."""

    def __init__(self, registry: Registry, processes: CpuProcesses) -> None:
        self._registry = registry
        self._processes = processes
        self._found: dict[str, asyncio.Task[bool]] = {}
        self._lacking: set[str] = set()

    async def can_run(self, type_name: str) -> bool:
        """Whether the handler can be imported here. True for a type nobody knows: to say so is anybody's business."""
        job_type = self._registry.get(type_name)
        if job_type is None:
            return True
        found = self._found.get(type_name)
        if found is None or (found.done() and found.exception() is not None):
            # Anew where it could not be found out, for want of a process for example.
            found = self._found[type_name] = asyncio.create_task(self._look(job_type), name=f"ability {type_name}")
        return await asyncio.shield(found)

    def types(self, queues: tuple[str, ...]) -> tuple[str, ...]:
        """The types of these queues, without those that turned out to lack something here."""
        return tuple(t.name for t in self._registry if t.queue in queues and t.name not in self._lacking)

    async def _look(self, job_type: JobType) -> bool:
        if job_type.cpu_bound:
            # In one of their processes: this one shall never hold their libraries.
            lacking = await self._processes.lacking(job_type.handler)
        else:
            lacking = invocation.lacking(job_type.handler)
        if lacking is None:
            return True
        self._lacking.add(job_type.name)
        log.warning("jobs of type %s are left to other workers, for this one lacks: %s", job_type.name, lacking)
        return False


@asynccontextmanager
async def open_abilities(registry: Registry, processes: CpuProcesses) -> AsyncIterator[Abilities]:
    """What can be run, found out until the block ends."""
    abilities = Abilities(registry, processes)
    try:
        yield abilities
    finally:
        for task in abilities._found.values():  # noqa: SLF001
            task.cancel()
        await asyncio.gather(*abilities._found.values(), return_exceptions=True)  # noqa: SLF001
