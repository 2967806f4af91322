"""Which jobs this worker can run. All others are left to workers that can: QUEUED, and without an attempt.

Types whose handler lacks a library are found by importing it once, in the process where it would run: the worker's own
process never loads the libraries of CPU-bound handlers. Types that are not registered here, and payloads that do not
fit the model, are found with each job: another version of the code may know better. Only when no worker that is alive
could read such a job, for ``unable_timeout`` seconds, is it given up.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from gql_jobs.jobs.model import Spec
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.log.heartbeats import MAX_TYPE_NAME, LeftType, WorkerSeen
from gql_jobs.logs import redact_beginning
from gql_jobs_worker.execution import Unable, missing_import

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
"""Seconds, times the deliveries so far, until a job that cannot be run here is delivered again."""
MAX_DELAY = 10.0
"""Seconds that this delay has at most, but for ``MAX_RATE``."""
MAX_RATE = 1000.0
"""Such jobs that one worker has delivered again in a second, at most: more of them come back later."""
READ_AT = frozenset({2, 4, 8, 16})
READ_EVERY = 32
"""At which deliveries the history of such a job is read, in which it may have ended; a flood must not read them all."""
GRACE = 60.0
"""Seconds for which a worker gives up no job after its start: able ones may start beside it."""
SURVEY_AGE = 30.0
"""Seconds for which it counts what other workers said of themselves."""
SHOWN_FOR = 120.0
"""Seconds after its last such job for which a type is named in the worker's heartbeats."""
MAX_LEFT = 1000
"""Types that a worker remembers to have left to others; what came to a stream may be of any number of types."""
MAX_SHOWN = 50
"""Types in one heartbeat of which jobs are left to others, at most."""
MAX_REASON = 500
"""Characters of a reason in heartbeats, which clients see."""


class ImportingProcesses(Protocol):
    """Processes of CPU-bound handlers, in which the import of a handler can be tried."""

    async def missing_import(self, handler: str) -> str | None:
        """Return the message of the ImportError that keeps a handler from being imported there, or None."""


class Abilities:
    """What was found out so far. ``known``: by the name of a registered type, whether its handler can be imported."""

    def __init__(
        self,
        registry: Registry,
        processes: ImportingProcesses,
        ask_workers: Callable[[], Awaitable[list[WorkerSeen]]],
        unable_timeout: float,
    ) -> None:
        """Check nothing yet.

        :param ask_workers: returns the workers that are alive, this one among them.
        :param unable_timeout: seconds after which a job is given up that nobody can read.
        """
        self._registry = registry
        self._processes = processes
        self._ask_workers = ask_workers
        self._unable_timeout = unable_timeout
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._checks: dict[str, asyncio.Task[bool]] = {}
        self._left: dict[str, tuple[str, float]] = {}
        self._missing: dict[str, str] = {}
        self._next_offer = 0.0
        self._survey: asyncio.Task[tuple[float, list[WorkerSeen]]] | None = None
        self.known: dict[str, bool] = {}

    async def can_import(self, type_name: str) -> bool:
        """Return whether the handler of a type can be imported here; check that first where it is not known yet.

        True for a type that is not registered, of which nothing can be imported.
        """
        job_type = self._registry.get(type_name)
        if job_type is None:
            return True
        check = self._checks.get(type_name)
        if check is None or (check.done() and check.exception() is not None):
            # A check that failed, because no process could be started for example, is repeated.
            check = self._checks[type_name] = asyncio.create_task(self._check(job_type), name=f"ability {type_name}")
        return await asyncio.shield(check)

    def leave(self, spec: Spec, why: Unable | None, deliveries: int) -> float:
        """Note that a job is left to other workers; return the seconds until it is to be delivered again.

        That is logged once for each type, and said in heartbeats as long as there are such jobs.

        :param why: None if the handler lacks a library, which has been logged already.
        :param deliveries: of the job so far.
        """
        now, name = self._clock(), spec.type[:MAX_TYPE_NAME]
        if why is not None and name not in self._left:
            log.warning("jobs of type %s are left to other workers: %s", name, why.reason)
        if name not in self._left and len(self._left) >= MAX_LEFT:
            del self._left[next(iter(self._left))]
        reason = redact_beginning(why.reason, MAX_REASON) if why is not None else self._missing.get(name, "")
        self._left[name] = (reason, now)
        self._next_offer = max(self._next_offer, now) + 1 / MAX_RATE
        return max(min(FIRST_DELAY * deliveries, MAX_DELAY), self._next_offer - now)

    def looks_into(self, deliveries: int) -> bool:
        """Return whether the history of a job that cannot be run here is to be read at this delivery."""
        return deliveries in READ_AT or deliveries % READ_EVERY == 0

    def may_give_up(self, waited: float) -> bool:
        """Return whether a job that cannot be read here has waited so many seconds that it may be given up."""
        grace = min(GRACE, self._unable_timeout)
        return waited > self._unable_timeout and self._clock() - self._began > grace

    def nobody_can(self, spec: Spec) -> bool:
        """Return whether no worker that is alive says that it can run a job.

        False until they have been asked, which is begun here where the last answers are too old.
        """
        survey = self._survey
        if survey is None or (
            survey.done() and (survey.exception() or self._clock() - survey.result()[0] > SURVEY_AGE)
        ):
            self._survey = asyncio.create_task(self._ask(), name="survey of workers")
            return False
        if not survey.done():
            return False
        return not any(worker.can_run(spec.queue, spec.type) for worker in survey.result()[1])

    def types(self, queues: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of these queues' types, without those that turned out to lack something here."""
        return tuple(t.name for t in self._registry if t.queue in queues and self.known.get(t.name, True))

    def known_types(self) -> tuple[str, ...]:
        """Return the names of all types, whatever their queue, without those that turned out to lack something here."""
        return tuple(t.name for t in self._registry if self.known.get(t.name, True))

    def unable(self) -> tuple[LeftType, ...]:
        """Return the types of which jobs are left to other workers at present, each with the reason of one."""
        since = self._clock() - SHOWN_FOR
        recent = [LeftType(name, reason) for name, (reason, last) in self._left.items() if last > since]
        return tuple(recent[-MAX_SHOWN:])

    async def close(self) -> None:
        """Cancel the checks that have not ended."""
        tasks: list[asyncio.Task[object]] = [*self._checks.values(), *([self._survey] if self._survey else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _check(self, job_type: JobType) -> bool:
        if job_type.cpu_bound:
            missing = await self._processes.missing_import(job_type.handler)
        else:
            missing = missing_import(job_type.handler)
        self.known[job_type.name] = missing is None
        if missing is not None:
            missing = redact_beginning(missing, MAX_REASON)
            self._missing[job_type.name] = missing
            log.warning("jobs of type %s are left to other workers: %s", job_type.name, missing)
        return missing is None

    async def _ask(self) -> tuple[float, list[WorkerSeen]]:
        return self._clock(), await self._ask_workers()


@asynccontextmanager
async def open_abilities(
    registry: Registry,
    processes: ImportingProcesses,
    ask_workers: Callable[[], Awaitable[list[WorkerSeen]]],
    unable_timeout: float,
) -> AsyncIterator[Abilities]:
    """Yield the abilities of this worker, of these parts; cancel checks that have not ended when the block ends."""
    abilities = Abilities(registry, processes, ask_workers, unable_timeout)
    try:
        yield abilities
    finally:
        await abilities.close()
