"""The load: creations at a steady pace, repeated until they are acknowledged, some of them cancelled or run again."""

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.chaos.client import (
    CANCEL,
    CREATE,
    CREATE_MANY,
    FIND,
    LIMIT,
    RETRY,
    SCHEDULE,
    UNSCHEDULE,
    Client,
    NotSent,
    Refused,
    Unanswered,
)
from benchmarks.chaos.creation import Creation, creation
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.probe_jobs import LIMITED

_CREATORS = 16
_BATCHES = (20, 100)
"""How many jobs are created together, where they are."""
_BATCHED = 0.04
"""Share of the requests that create a batch: about two thirds of the jobs."""
_PATIENCE = 300.0
"""Seconds that one creation is repeated before it is given up."""
_PAUSE = 0.2
_PULSE = 0.25
PLACES = (4, 8)
"""Between which numbers the places of the limited queue are changed, again and again."""
_LIMITED_EVERY = 5.0
_STARTS_A_SECOND = 40.0
SCHEDULES: dict[str, dict[str, Any]] = {
    "each": {"everySeconds": 2, "overlap": "ALLOW"},
    "one": {"everySeconds": 3, "overlap": "SKIP"},
}
"""Of the first no tick is skipped."""
_PULSES_AT_ONCE = 32
"""Unanswered ones; in an outage of minutes thousands would keep the load's own loop from reading what was answered."""


@dataclass(frozen=True)
class Amount:
    """``jobs`` in all, ``rate`` a second, ``poisons`` of them kill whoever runs them."""

    seed: int
    jobs: int
    rate: float
    poisons: int = 0


class Load:
    """Makes the jobs. ``on_created`` is told of each acknowledged one: subscriptions come from there."""

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        amount: Amount,
        on_created: Callable[[str, Creation], None],
        share: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """:param share: how much of the jobs may have been asked for by now, 0 to 1: some are kept for each fault."""
        self._client = client
        self._ledger = ledger
        self._amount = amount
        self._on_created = on_created
        self._share = share
        self._chance = random.Random(amount.seed)  # noqa: S311
        self._poisons = set(self._chance.sample(range(amount.jobs), min(amount.poisons, amount.jobs)))
        self._due: asyncio.Queue[list[Creation]] = asyncio.Queue()
        self._aftermath: set[asyncio.Task[None]] = set()
        self._recent: deque[str] = deque(maxlen=50)
        self.given_up = 0

    async def run(self) -> None:
        """Until every creation has been dealt with."""
        async with asyncio.TaskGroup() as group:
            creators = [group.create_task(self._create_due()) for _ in range(_CREATORS)]
            await self._pace()
            await self._due.join()
            for creator in creators:
                creator.cancel()

    async def steer(self) -> None:
        """Have schedules made, and change the limits of the limited queue again and again, until cancelled."""
        for name, facts in SCHEDULES.items():
            payload = {"chaos": {"token": f"tick of {name}", "seconds": 0.1}}
            asked = {"name": name, "payload": payload, "catchUpSeconds": 600, **facts}
            await self._insist(partial(self._client.ask, SCHEDULE, input=asked))
        while True:
            limits = {"concurrency": self._chance.randint(*PLACES), "perSecond": _STARTS_A_SECOND}
            await self._insist(partial(self._client.ask, LIMIT, name=LIMITED, limits=limits))
            await asyncio.sleep(_LIMITED_EVERY)

    async def end_schedules(self) -> None:
        """Delete the schedules, with the jobs that are ahead."""
        for name in SCHEDULES:
            await self._insist(partial(self._client.ask, UNSCHEDULE, name=name))

    async def settled(self) -> None:
        """Wait for what follows creations: cancelling, running again, and the pulse's last."""
        while self._aftermath:
            await asyncio.gather(*self._aftermath)

    async def pulse(self) -> None:
        """One more creation every now and then, until cancelled: what tells when creations were acknowledged."""
        unanswered = asyncio.Semaphore(_PULSES_AT_ONCE)

        async def one(number: int) -> None:
            try:
                await self._create([creation(self._amount.seed, number)])
            finally:
                unanswered.release()

        for number in itertools.count(self._amount.jobs):
            await unanswered.acquire()
            # Not waited for: while one is not answered, the next one may be.
            self._later(one(number))
            await asyncio.sleep(_PULSE)

    async def _pace(self) -> None:
        """Hand out each creation when it is due; what an outage holds up is caught up with afterwards."""
        began = time.monotonic()
        number = 0
        while number < self._amount.jobs:
            if number > self._share() * self._amount.jobs:
                began += _PAUSE
                await asyncio.sleep(_PAUSE)
                continue
            batch = self._chance.randint(*_BATCHES) if self._chance.random() < _BATCHED else 1
            size = min(batch, self._amount.jobs - number)
            due = [creation(self._amount.seed, n, poison=n in self._poisons) for n in range(number, number + size)]
            self._due.put_nowait(due)
            number += size
            ahead = began + number / self._amount.rate - time.monotonic()
            if ahead > 0.01:  # noqa: PLR2004
                await asyncio.sleep(ahead)

    async def _create_due(self) -> None:
        while True:
            due = await self._due.get()
            try:
                if len(due) == 1 and not due[0].keyed:
                    await self._create_once(due[0])
                else:
                    await self._create(due)
            finally:
                self._due.task_done()

    async def _create(self, due: list[Creation]) -> None:
        """Ask until it is acknowledged, the same question of any API."""
        inputs = [self._input(wanted, keyed=True) for wanted in due]

        async def ask() -> list[str]:
            if len(inputs) == 1:
                return [(await self._client.ask(CREATE, input=inputs[0]))["job"]["id"]]
            return [job["id"] for job in (await self._client.ask(CREATE_MANY, inputs=inputs))["jobs"]]

        ids = await self._insist(ask)
        if ids is None:
            self.given_up += len(due)
            return
        for wanted, job_id in zip(due, ids, strict=True):
            self._acknowledged(wanted, job_id)
        if self._chance.random() < 0.02:  # noqa: PLR2004
            # A client that lost the answer asks once more, and must hear the same.
            for wanted, job_id in zip(due, await self._insist(ask) or [], strict=False):
                self._ledger.acknowledge(wanted.token, job_id, time.monotonic())

    async def _create_once(self, wanted: Creation) -> None:
        try:
            made = await self._client.ask(CREATE, input=self._input(wanted))
        except NotSent:
            self._ledger.denied.add(wanted.token)
        except Unanswered:
            self._ledger.unknown.add(wanted.token)
        except Refused as refused:
            self._told(refused)
            certain = "jobId" not in refused.extensions
            (self._ledger.denied if certain else self._ledger.unknown).add(wanted.token)
        else:
            self._acknowledged(wanted, made["job"]["id"])

    def _input(self, wanted: Creation, *, keyed: bool = False) -> dict[str, Any]:
        """The argument of createJob; it is asked with this as often as it takes."""
        asked = wanted.input()
        if wanted.follows and self._recent:
            asked["after"] = self._chance.sample(list(self._recent), min(self._chance.randint(1, 3), len(self._recent)))
            asked["afterPolicy"] = self._chance.choice(["RUN", "RUN", "CANCEL"])
        return {**asked, "idempotencyKey": wanted.token} if keyed else asked

    def _acknowledged(self, wanted: Creation, job_id: str) -> None:
        self._ledger.acknowledge(wanted.token, job_id, time.monotonic())
        if wanted.payload.get("poison"):
            self._ledger.poisonous.add(job_id)
        self._on_created(job_id, wanted)
        self._recent.append(job_id)
        lot = self._chance.random()
        if lot < 0.05:  # noqa: PLR2004
            self._later(self._look(job_id))
        elif lot < (0.4 if wanted.lasts else 0.07) and not wanted.payload.get("poison"):
            self._later(self._cancel(job_id, self._chance.uniform(0, 2)))
        elif wanted.payload.get("permanent") and lot < 0.5:  # noqa: PLR2004
            self._later(self._run_again(job_id))

    def _later(self, step: Any) -> None:
        task = asyncio.create_task(step)
        self._aftermath.add(task)
        task.add_done_callback(self._aftermath.discard)

    async def _look(self, job_id: str) -> None:
        """Another API process has to know it too."""
        try:
            if await self._client.ask(FIND, id=job_id) is None:
                self._ledger.vanished.add(job_id)
        except Refused as refused:
            self._told(refused)
        except (NotSent, Unanswered):
            return

    async def _cancel(self, job_id: str, delay: float) -> None:
        await asyncio.sleep(delay)
        answer = await self._insist(lambda: self._client.ask(CANCEL, id=job_id))
        if answer is not None and answer["job"]["status"] == "CANCELLED":
            self._ledger.cancelled.add(job_id)

    async def _run_again(self, job_id: str) -> None:
        """Once it is a dead letter; not at all if that takes long."""
        for _ in range(100):
            await asyncio.sleep(_PAUSE)
            job = await self._insist(lambda: self._client.ask(FIND, id=job_id))
            if job is not None and job["status"] == "DEAD_LETTER":
                break
        else:
            return
        answer = await self._insist(lambda: self._client.ask(RETRY, id=job_id))
        if answer is not None:
            self._ledger.retried.add(job_id)

    async def _insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, however often it takes to get one; None if it is refused for good."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                return await ask()
            except Refused as refused:
                self._told(refused)
                if refused.code not in {"QUEUE_UNAVAILABLE", "QUEUE_FULL"}:
                    return None
            except (NotSent, Unanswered):
                pass
            await asyncio.sleep(_PAUSE)
        return None

    def _told(self, refused: Refused) -> None:
        if refused.code not in {"QUEUE_UNAVAILABLE", "QUEUE_FULL", "INVALID_STATE"}:
            self._ledger.odd.append(str(refused))
