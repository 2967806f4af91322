"""One run from the first process to the comparison: system, load, nemesis, subscriptions, checker."""

import asyncio
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos import stream
from benchmarks.chaos.checker import Evidence, Findings, Promised, check
from benchmarks.chaos.client import COUNT, Client, NotSent, Refused, Unanswered, http_pools
from benchmarks.chaos.creation import LANES, Creation
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.load import PLACES, SCHEDULES, Amount, Load
from benchmarks.chaos.nemesis import AWAY, Fault, Nemesis, Outcome, plan, unrecovered
from benchmarks.chaos.probe_jobs import LIMITED, OF_A_GROUP
from benchmarks.chaos.subscriptions import Subscriptions
from benchmarks.chaos.system import Shape, System, running

log = logging.getLogger(__name__)

STATUSES = ("SCHEDULED", "WAITING", "QUEUED", "PROCESSING", "RETRYING", "COMPLETED", "DEAD_LETTER", "CANCELLED")
_UNFINISHED = STATUSES[:5]
_HELD_BACK = 5.0
"""Seconds that jobs may wait at most while nothing is queued or runs that they could wait for."""
_QUIET_WITHIN = 300.0
"""Seconds after the last fault within which every job has to have ended."""
_SUBSCRIPTIONS_WITHIN = 60.0
_WATCHED = 0.05
"""Share of the jobs that have a subscription of their own."""
_MOST_WATCHED = 200


@dataclass(frozen=True)
class Plan:
    """What is done to what. ``kinds`` are the faults to choose from; the load lasts ``amount.jobs / amount.rate``.

    ``away``: seconds, at least and at most, until a killed NATS node is started again.
    """

    shape: Shape
    amount: Amount
    faults: int
    kinds: tuple[Fault, ...]
    away: tuple[float, float] = AWAY


@dataclass
class Result:
    """What came of it."""

    findings: Findings
    outcomes: list[Outcome]


async def carry_out(planned: Plan, folder: Path) -> Result:
    """Run it in a folder of its own.

    :raises TimeoutError: if the system does not come up at all.
    """
    ledger = Ledger()
    async with http_pools() as pools, running(planned.shape, folder) as system:
        urls = [api.url for api in system.apis]
        client = Client(urls, pools)
        subscriptions = Subscriptions(urls, ledger)
        try:
            await system.ready(client.http)
            result = await _measure(planned, system, client, ledger, subscriptions)
        finally:
            await subscriptions.close()
    result.findings.add("left_behind", [str(process) for process in range(system.ends())])
    return result


async def _measure(
    planned: Plan, system: System, client: Client, ledger: Ledger, subscriptions: Subscriptions
) -> Result:
    seed = planned.amount.seed
    nemesis = Nemesis(system, client, ledger, seed, planned.away)
    chance = random.Random(seed)  # noqa: S311

    def created(job_id: str, _: Creation) -> None:
        if chance.random() < _WATCHED and subscriptions.open_now < _MOST_WATCHED:
            subscriptions.open(job_id=job_id)

    subscriptions.open()
    subscriptions.open(slow=3.0)
    for lane in range(0, LANES, 5):
        subscriptions.open(tag=f"lane-{lane}")
    await nemesis.works()
    load = Load(client, ledger, planned.amount, created, lambda: (nemesis.begun + 1) / (planned.faults + 1))
    seconds = planned.amount.jobs / planned.amount.rate
    log.info("%d jobs over %.0f s, %d faults", planned.amount.jobs, seconds, planned.faults)
    async with asyncio.TaskGroup() as group:
        pulse = group.create_task(load.pulse())
        steering = group.create_task(load.steer())
        loading = group.create_task(load.run())
        await nemesis.run(plan(seed, planned.faults, planned.kinds), seconds)
        await loading
        pulse.cancel()
        steering.cancel()
    await load.end_schedules()
    await load.settled()
    counts, held = await _quiet(system, client)
    evidence = await _evidence(system, ledger, subscriptions, counts)
    log.info("comparing %d messages", len(evidence.messages))
    findings = check(evidence)
    findings.add("unrecovered", unrecovered(nemesis.outcomes))
    findings.add("odd_refusals", ledger.odd)
    findings.add("held_back_for_nothing", held)
    findings.figures |= {
        "creations_given_up": load.given_up,
        "not_answered": dict(sorted(client.outcomes.items())),
        "slowest_refusal_seconds": {name: round(seconds, 1) for name, seconds in client.slowest_refusal.items()},
    }
    return Result(findings, nemesis.outcomes)


async def _quiet(system: System, client: Client) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Wait until every API says that every job has ended, or the time is over.

    :returns: what they say, and that jobs were held back although there was nothing to wait for.
    """
    deadline = time.monotonic() + _QUIET_WITHIN
    idle_since: float | None = None
    held: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    while True:
        try:
            counts = {api.program.name: await _counts(client, api.url) for api in system.apis}
        except (Refused, NotSent, Unanswered) as error:
            log.warning("counting: %r", error)
        else:
            if not any(told[status] for told in counts.values() for status in _UNFINISHED):
                return counts, held
            waits = any(told["WAITING"] for told in counts.values())
            moves = any(told[status] for told in counts.values() for status in _UNFINISHED if status != "WAITING")
            idle_since = None if moves or not waits else idle_since or time.monotonic()
            if idle_since is not None and time.monotonic() - idle_since > _HELD_BACK and not held:
                held.append(str(counts))
        if time.monotonic() > deadline:
            log.warning("jobs have not ended: %s", counts)
            return counts, held
        await asyncio.sleep(0.5)


async def _counts(client: Client, url: str) -> dict[str, int]:
    return {status: (await client.ask(COUNT, url=url, status=[status]))["totalCount"] for status in STATUSES}


async def _evidence(
    system: System, ledger: Ledger, subscriptions: Subscriptions, counts: dict[str, dict[str, int]]
) -> Evidence:
    connection = await stream.connected(system.nats_url)
    try:
        messages = await stream.read(connection)
        dead_letters = await stream.read(connection, stream.DEAD_LETTERS)
    finally:
        await connection.close()
    last = max((m.seq for m in messages if m.kind == "queued" or m.kind.startswith("event.")), default=0)
    await _caught_up(ledger, last)
    await subscriptions.close()
    runs = await asyncio.to_thread(_runs, system.runs)
    promised = Promised(
        places={LIMITED: PLACES[1]},
        places_of_key={LIMITED: OF_A_GROUP},
        every={name: facts["everySeconds"] for name, facts in SCHEDULES.items() if facts["overlap"] == "ALLOW"},
    )
    return Evidence(messages, dead_letters, ledger, runs, counts, promised)


async def _caught_up(ledger: Ledger, last: int) -> None:
    """Wait until the subscriptions to all jobs have been brought the last event, and those to one have ended."""
    deadline = time.monotonic() + _SUBSCRIPTIONS_WITHIN

    def waiting() -> int:
        return sum(
            not o.completed if o.job_id else o.tag is None and not (o.seen and o.seen[-1].seq >= last)
            for o in ledger.observations
        )

    while waiting() and time.monotonic() < deadline:  # noqa: ASYNC110  # hundreds of subscriptions
        await asyncio.sleep(0.1)
    if waiting():
        log.warning("%d subscriptions have not come to their end", waiting())


def _runs(folder: Path) -> Counter[tuple[str, int]]:
    """How often each attempt of each job was run, as the handlers wrote it down."""
    runs: Counter[tuple[str, int]] = Counter()
    for path in folder.glob("*.runs"):
        for line in path.read_text().splitlines():
            job_id, attempt = line.split()
            runs[job_id, int(attempt)] += 1
    return runs
