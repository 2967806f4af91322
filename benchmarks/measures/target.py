"""Where requests go, what the work there costs, and who takes part: what every bench of servers has in common."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.graphql_peers import SERVERS, GraphqlPeer, Server
from benchmarks.http_load import Asker
from benchmarks.measurement import OURS, Contender, Plan, Sample
from benchmarks.processes import cpu_seconds
from benchmarks.stack import EMAIL, Stack

CREATION = {"payload": {"noop": EMAIL}}
"""What is created: an e-mail whose addresses are plain text, since the others do not look whether they are any."""
PEER_CREATION = {"payload": {"email": EMAIL}}
"""The same in the peers' schema, which has one type of job only."""
LONGEST = 20.0
"""Seconds that warming up or measuring takes at most, where others leave us little of the machine."""


@dataclass
class Target:
    """Where requests go, and the processes that answer them."""

    port: int
    asker: Asker
    pids: tuple[int, ...]
    creation: dict[str, Any]
    """The input of ``createJob`` there."""


def of_ours(system: Stack) -> Target:
    """The API process alone: nats-server has a core of its own and is never the limit here."""
    return Target(system.port, system.asker, (system.api.pid,), CREATION)


def of_peer(server: Server) -> Target:
    return Target(server.port, server.asker, (server.process.pid,), PEER_CREATION)


class Meter:
    """Rates by the clock, and by the server's own CPU seconds, which others on the machine hardly change."""

    def __init__(self, target: Target) -> None:
        self._pids = target.pids
        self._began, self._before = time.monotonic(), cpu_seconds(self._pids)

    @property
    def used(self) -> float:
        """CPU seconds of the server since the beginning."""
        return cpu_seconds(self._pids) - self._before

    def samples(self, bench: str, metric: str, done: float, unit: str) -> list[Sample]:
        """How many were done per second of either kind."""
        seconds, used = time.monotonic() - self._began, self.used
        return [
            Sample(bench, metric, done / seconds, f"{unit}/s"),
            Sample(bench, f"{metric} per CPU second", done / max(used, 0.01), f"{unit}/CPU s"),
        ]


def durations(plan: Plan) -> tuple[float, float]:
    """Of warming up, and of measuring."""
    return (1.0, 3.0) if not plan.quick else (0.5, 1.5)


async def passed(seconds: float, enough: Callable[[], bool]) -> None:
    """Wait so long, and on a machine that is kept busy by others until there is enough to look at."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    while not enough() and time.monotonic() - began < LONGEST:  # noqa: ASYNC110 - a clock of CPU time wakes nobody
        await asyncio.sleep(0.1)


_SETTINGS = {"keeps": "jobs, results, full history and index in files"}


def ours(measure: Callable[[Plan], Awaitable[list[Sample]]], **settings: object) -> Contender:
    """gql-jobs in one bench."""
    return Contender(OURS, measure, {**_SETTINGS, **settings})


def all_systems(
    own: Callable[[Plan], Awaitable[list[Sample]]],
    theirs: Callable[[GraphqlPeer, Plan], Awaitable[list[Sample]]],
) -> tuple[Contender, ...]:
    """Ours, and every peer that is a GraphQL server."""
    return (ours(own), *(peer.contender(theirs) for peer in SERVERS))
