"""Runs benches: systems interleaved, an idle check before each, medians kept."""

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import graphql_peers, queue_peers
from benchmarks.machine import description, wait_until_idle
from benchmarks.measurement import Bench, Contender, Plan, Record, Sample, records
from benchmarks.measures import authentication, gate, generators, history, pauses, pushes, queues, requests

BENCHES: dict[str, Bench] = {
    bench.name: bench
    for part in (generators, requests, authentication, pushes, history, queues, gate, pauses)
    for bench in part.BENCHES
}
REPETITIONS = 3
WITHIN = 1500.0
"""Seconds that one measurement may take."""
_PEERS = {peer.system: peer for peer in (*queue_peers.QUEUES, *graphql_peers.SERVERS)}


class Outcome:
    """Records, and what could not be measured and why."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.skipped: dict[str, str] = {}
        self.failures: list[str] = []


def note(text: str) -> None:
    """One line about the progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


async def run(names: Sequence[str], plan: Plan, systems: Iterable[str] | None) -> Outcome:
    """Measure benches, one after another.

    :param systems: which systems; None for all.
    """
    outcome, busy, loads, about = Outcome(), [], [os.getloadavg()[0]], description()
    wanted = None if systems is None else {*systems, "constant"}
    for system, peer in _PEERS.items():
        reason = peer.missing() if wanted is None or system in wanted else None
        if reason is not None:
            outcome.skipped[system] = reason
            note(f"{system} is skipped: {reason}")
    for name in names:
        bench = BENCHES[name]
        contenders = [
            contender
            for contender in bench.contenders
            if contender.system not in outcome.skipped and (wanted is None or contender.system in wanted)
        ]
        busy += await _measure(bench, contenders, plan, outcome)
        loads.append(os.getloadavg()[0])
    outcome.records.append(_machine({**about, "quick": plan.quick}, busy, loads))
    return outcome


async def _measure(bench: Bench, contenders: Sequence[Contender], plan: Plan, outcome: Outcome) -> list[float]:
    samples: dict[str, list[Sample]] = {contender.system: [] for contender in contenders}
    busy: list[float] = []
    clock = asyncio.get_running_loop().time
    for repetition in range(1 if plan.quick else bench.repetitions or REPETITIONS):
        for contender in contenders:
            if contender.system not in samples:
                continue
            busy.append(await wait_until_idle())
            began = clock()
            try:
                async with asyncio.timeout(WITHIN):
                    taken = await contender.measure(plan)
            except Exception as error:  # noqa: BLE001 - one system's failure must not end the others' measurements
                outcome.failures.append(f"{bench.name}, {contender.system}: {type(error).__name__}: {error}")
                note(f"FAILED {outcome.failures[-1]}")
                del samples[contender.system]
                continue
            samples[contender.system] += taken
            shown = ", ".join(f"{s.metric} {s.value:,.4g} {s.unit}" for s in taken[:3])
            note(f"{bench.name} {repetition + 1} {contender.system}: {shown} ({clock() - began:.0f} s)")
    settings = {contender.system: contender.settings for contender in contenders}
    outcome.records += records(samples, settings)
    return busy


def _machine(about: Mapping[str, Any], busy: Sequence[float], loads: Sequence[float]) -> Record:
    """The machine as a record: how busy others kept it, with everything about it as settings."""
    about = {**about, "load_average": [round(load, 1) for load in loads]}
    made = records(
        {"host": [Sample("machine", "used by others before each measurement", used, "%") for used in busy]},
        {"host": about},
    )
    return made[0]
