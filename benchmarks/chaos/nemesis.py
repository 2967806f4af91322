"""The nemesis: faults in a random order that the seed decides, each followed by a wait until everything works again."""

import asyncio
import logging
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.chaos import stream
from benchmarks.chaos.client import CREATE, FIND, Client, NotSent, Refused, Unanswered
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.processes import Program
from benchmarks.chaos.servers import Node
from benchmarks.chaos.system import GRACE, LEASE, System

log = logging.getLogger(__name__)

_NATS_PAUSE = (16.0, 20.0)
"""Seconds; longer than every timeout of our clients: 10 s of a request, 15 s until a silent NATS counts as gone."""
AWAY = (0.0, 3.0)
"""Seconds until a killed NATS node is started again, if nothing else is asked for."""
_RECOVERED_WITHIN = 120.0
_POLL = 0.05


class Fault(StrEnum):
    """What is done to whom."""

    WORKER_KILL = "worker kill -9"
    WORKER_PAUSE = "worker paused beyond its lease"
    API_KILL = "API kill -9"
    NATS_KILL = "NATS kill -9"
    NATS_LEADER_KILL = "NATS leader kill -9"
    NATS_LEADER_PAUSE = "NATS leader paused"
    NATS_PAUSE = "NATS paused beyond every timeout"
    ROLLING_RESTART = "SIGTERM of everything in turn"


ON_ONE_NODE = (
    Fault.WORKER_KILL,
    Fault.WORKER_PAUSE,
    Fault.API_KILL,
    Fault.NATS_KILL,
    Fault.NATS_PAUSE,
    Fault.ROLLING_RESTART,
)
ON_A_CLUSTER = (*ON_ONE_NODE, Fault.NATS_LEADER_KILL, Fault.NATS_LEADER_PAUSE)


@dataclass(frozen=True)
class Outcome:
    """``lasted``: from the first signal until all runs again. ``recovery``: from then until the system works.

    It works when every process is ready and each API has a new job completed by a worker; None if it did not.
    ``began`` and ``ended`` are moments of the monotonic clock, the others seconds.
    """

    fault: Fault
    began: float
    ended: float
    lasted: float
    recovery: float | None
    unavailable: float


def plan(seed: int, count: int, kinds: tuple[Fault, ...]) -> list[Fault]:
    """Faults in a random order, every kind as often as any other."""
    chance = random.Random(seed)  # noqa: S311
    faults: list[Fault] = []
    while len(faults) < count:
        faults += chance.sample(kinds, len(kinds))
    return faults[:count]


class Nemesis:
    """Does the faults to one system."""

    def __init__(
        self, system: System, client: Client, ledger: Ledger, seed: int, away: tuple[float, float] = AWAY
    ) -> None:
        """:param away: seconds, at least and at most, until a killed NATS node is started again."""
        self._system = system
        self._client = client
        self._ledger = ledger
        self._seed = seed
        self._chance = random.Random(seed)  # noqa: S311
        self._away = away
        self._canaries = 0
        self.begun = 0
        self.outcomes: list[Outcome] = []
        self._do: dict[Fault, Callable[[], Awaitable[None]]] = {
            Fault.WORKER_KILL: self._kill_worker,
            Fault.WORKER_PAUSE: self._pause_worker,
            Fault.API_KILL: self._kill_api,
            Fault.NATS_KILL: self._kill_nats,
            Fault.NATS_LEADER_KILL: self._kill_leader,
            Fault.NATS_LEADER_PAUSE: self._pause_leader,
            Fault.NATS_PAUSE: self._pause_nats,
            Fault.ROLLING_RESTART: self._roll,
        }

    async def run(self, faults: list[Fault], seconds: float) -> None:
        """Do them one after another, spread over that many seconds or longer."""
        began = time.monotonic()
        for number, fault in enumerate(faults):
            ahead = began + seconds * number / max(len(faults), 1) - time.monotonic()
            await asyncio.sleep(max(ahead, self._chance.uniform(0.2, 2)))
            self.begun = number + 1
            log.info("fault %d of %d: %s", number + 1, len(faults), fault)
            outcome = await self._one(fault)
            self.outcomes.append(outcome)
            log.info(
                "  lasted %.1f s, worked again after %s s, no creation acknowledged for %.1f s",
                outcome.lasted,
                f"{outcome.recovery:.1f}" if outcome.recovery is not None else "more than 120",
                outcome.unavailable,
            )

    async def _one(self, fault: Fault) -> Outcome:
        began = healed = time.monotonic()
        try:
            await self._do[fault]()
            healed = time.monotonic()
            async with asyncio.timeout(_RECOVERED_WITHIN):
                await self.works()
        except TimeoutError as error:
            log.warning("did not recover: %s", error)
            recovery = None
        else:
            recovery = time.monotonic() - healed
        ended = time.monotonic()
        return Outcome(fault, began, ended, healed - began, recovery, self._ledger.unavailable(began, ended))

    async def works(self) -> None:
        """Wait until everything is ready and every API has a new job completed by a worker."""
        await self._system.ready(self._client.http)
        await asyncio.gather(*(self._canary(api.url) for api in self._system.apis))

    async def _canary(self, url: str) -> None:
        self._canaries += 1
        token = f"canary-{self._seed}-{self._canaries}"
        asked = {"payload": {"chaos": {"token": token}}, "idempotencyKey": token, "priority": "CRITICAL"}
        job_id = None
        while True:
            try:
                if job_id is None:
                    made = await self._client.ask(CREATE, url=url, input=asked)
                    job_id = made["job"]["id"]
                    self._ledger.acknowledge(token, job_id, time.monotonic())
                job = await self._client.ask(FIND, url=url, id=job_id)
                if job is not None and job["status"] == "COMPLETED":
                    return
            except (Refused, NotSent, Unanswered):
                log.debug("no canary yet")
            await asyncio.sleep(_POLL)

    async def _kill_worker(self) -> None:
        await self._kill(self._chance.choice(self._system.workers))

    async def _kill_api(self) -> None:
        await self._kill(self._chance.choice(self._system.apis).program)

    async def _kill_nats(self) -> None:
        await self._kill(self._chance.choice(self._system.nodes).program, away=self._chance.uniform(*self._away))

    async def _kill_leader(self) -> None:
        await self._kill((await self._leader()).program, away=self._chance.uniform(*self._away))

    async def _pause_worker(self) -> None:
        await self._pause([self._chance.choice(self._system.workers)], self._chance.uniform(1.5, 3) * LEASE)

    async def _pause_leader(self) -> None:
        await self._pause([(await self._leader()).program], self._chance.uniform(6, 12))

    async def _pause_nats(self) -> None:
        await self._pause([node.program for node in self._system.nodes], self._chance.uniform(*_NATS_PAUSE))

    async def _roll(self) -> None:
        """Each gets SIGTERM and the time to end in order; the next one when it is back."""
        nodes = [node.program for node in self._system.nodes]
        for program in [*self._system.workers, *(api.program for api in self._system.apis), *nodes]:
            starts = program.starts
            program.signal(signal.SIGTERM)
            await program.ended(GRACE + 11)
            while program.starts == starts or program.pid is None:  # noqa: ASYNC110  # supervised by another task
                await asyncio.sleep(_POLL)
            await self._system.ready(self._client.http)

    async def _kill(self, program: Program, away: float = 0.0) -> None:
        if away:
            program.hold()
        try:
            program.signal(signal.SIGKILL)
            await program.ended(5)
            await asyncio.sleep(away)
        finally:
            program.release()

    async def _pause(self, programs: list[Program], seconds: float) -> None:
        for program in programs:
            program.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for program in programs:
                program.signal(signal.SIGCONT)

    async def _leader(self) -> Node:
        """The node that leads the stream of the jobs; any, if nobody says."""
        client = await stream.connected(self._system.nats_url)
        try:
            name = await stream.leader(client)
        finally:
            await client.close()
        return next((node for node in self._system.nodes if node.name == name), self._system.nodes[0])


def unrecovered(outcomes: list[Outcome]) -> list[str]:
    """The faults after which the system did not work again."""
    return [f"fault {n}: {outcome.fault}" for n, outcome in enumerate(outcomes, 1) if outcome.recovery is None]


def by_kind(outcomes: list[Outcome]) -> Counter[str]:
    """How often each was done."""
    return Counter(outcome.fault.value for outcome in outcomes)
