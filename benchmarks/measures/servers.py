"""What a GraphQL server does: answer over HTTP, push over WebSockets, and hold sockets that wait."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import stack
from benchmarks.graphql_peers import SERVERS, GraphqlPeer, Server
from benchmarks.http_load import Asker, graphql_request, hammering
from benchmarks.machine import python
from benchmarks.measurement import OURS, Bench, Contender, Plan, Sample, percentiles
from benchmarks.processes import cpu_seconds, free_port, listening, program, resident_mib
from benchmarks.socket_load import SocketFailed, Sockets, subscriptions
from benchmarks.stack import CREATE, CREATE_MANY, EMAIL, Stack
from benchmarks.stock import finish

EVENTS = "subscription { jobEvents { __typename cursor job { id status progress } } }"
PROGRESS = "subscription ($id: ID!) { jobProgress(id: $id) { __typename cursor job { id status progress } } }"
MESSAGES = "subscription ($id: ID!) { jobProgress(id: $id) { cursor job { status progress progressMessage } } }"
PAGE = """query ($filter: JobFilter) {
  jobs(filter: $filter, first: 50) {
    nodes { id type status priority queue progress attempt createdAt finishedAt durationMs }
  }
}"""
FINISHED = {"filter": {"status": ["COMPLETED"], "type": ["noop"]}}
CREATION = {"payload": {"email": EMAIL}}
CONNECTIONS = 50
PAGE_CONNECTIONS = 16
WARM_ANSWERS = 500
LONGEST = 20.0
"""Seconds that warming up or measuring takes at most, where others leave us little of the machine."""
AT_ONCE = 10
"""Jobs of one creation while events are fanned out."""
_MOMENT = re.compile(rb'"progressMessage":\s*"([0-9.]+)"')


@dataclass
class _Target:
    """Where requests go, and the processes that answer them."""

    port: int
    asker: Asker
    pids: tuple[int, ...]


def _of_ours(system: Stack) -> _Target:
    """The API process alone: nats-server has a core of its own and is never the limit here."""
    return _Target(system.port, system.asker, (system.api.pid,))


def _of_peer(server: Server) -> _Target:
    return _Target(server.port, server.asker, (server.process.pid,))


class _Meter:
    """Rates by the clock, and by the server's own CPU seconds, which others on the machine hardly change."""

    def __init__(self, target: _Target) -> None:
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


def _seconds(plan: Plan) -> tuple[float, float]:
    """Of warming up, and of measuring."""
    return (1.0, 3.0) if not plan.quick else (0.5, 1.5)


async def _hammered(
    target: _Target, plan: Plan, named: tuple[str, str, str], operation: tuple[str, dict[str, Any]], connections: int
) -> list[Sample]:
    """One operation repeated; ``named`` is bench, metric and unit."""
    warm_up, seconds = _seconds(plan)
    async with hammering(target.port, graphql_request(target.port, *operation), connections) as tally:
        await _passed(warm_up, lambda: tally.answers >= WARM_ANSWERS)
        meter, before = _Meter(target), tally.answers
        await _passed(seconds, lambda: meter.used >= seconds / 3)
        bench, metric, unit = named
        return meter.samples(bench, metric, tally.answers - before, unit)


async def _passed(seconds: float, enough: Callable[[], bool]) -> None:
    """Wait so long, and on a machine that is kept busy by others until there is enough to look at."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    while not enough() and time.monotonic() - began < LONGEST:  # noqa: ASYNC110 - a clock of CPU time wakes nobody
        await asyncio.sleep(0.1)


def _creations(target: _Target, plan: Plan, bench: str, metric: str) -> Coroutine[Any, Any, list[Sample]]:
    return _hammered(target, plan, (bench, metric, "requests"), (CREATE, {"input": CREATION}), CONNECTIONS)


def _pages(target: _Target, plan: Plan, metric: str) -> Coroutine[Any, Any, list[Sample]]:
    return _hammered(target, plan, ("page", metric, "pages"), (PAGE, FINISHED), PAGE_CONNECTIONS)


async def _create_ours(plan: Plan) -> list[Sample]:
    async with stack.running() as system:
        return await _creations(_of_ours(system), plan, "create", "createJob")


async def _create_always(plan: Plan) -> list[Sample]:
    async with stack.running(sync_always=True) as system:
        return await _creations(_of_ours(system), plan, "sync", "create")


async def _create_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    async with peer.running() as server:
        return await _creations(_of_peer(server), plan, "create", "createJob")


async def _page_ours(plan: Plan) -> list[Sample]:
    async with stack.running(prepare=partial(finish, jobs=10_000)) as system:
        return await _pages(_of_ours(system), plan, "10 000 jobs")


async def _page_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    async with peer.running(10_000) as server:
        return await _pages(_of_peer(server), plan, "10 000 jobs")


async def _pushed(sockets: Sockets, asker: Asker, frames: int, query: str, variables: dict[str, Any]) -> None:
    """Have one mutation push its events, and wait until they are everywhere."""
    before = sockets.frames
    await asker.ask(query, variables)
    await sockets.have(before + frames)


async def _fan_out(target: _Target, plan: Plan, bench: str, metric: str = "deliveries") -> list[Sample]:
    """Results on all sockets together; two creations are always under way."""
    clients = plan.size(1000, 200)
    variables = {"inputs": [CREATION] * AT_ONCE}
    async with AsyncExitStack() as exits:
        sockets = await exits.enter_async_context(subscriptions(target.port, EVENTS, [{}] * clients))
        await _subscribed(sockets, target)
        sockets.on_text(None)
        askers = [await exits.enter_async_context(Asker(target.port)) for _ in range(2)]
        warm_up, seconds = _seconds(plan)
        expected, going = sockets.frames, True

        async def create(one: Asker) -> None:
            nonlocal expected
            while going:
                before, expected = expected, expected + AT_ONCE * clients
                await one.ask(CREATE_MANY, variables)
                await sockets.have(before)

        creating = [asyncio.create_task(create(one)) for one in askers]
        await asyncio.sleep(warm_up)
        meter, before = _Meter(target), sockets.frames
        await _passed(seconds, lambda: meter.used >= seconds / 3)
        going = False
        await asyncio.gather(*creating)
        await sockets.have(expected)
        return meter.samples(bench, metric, sockets.frames - before, "deliveries")


async def _subscribed(sockets: Sockets, target: _Target) -> None:
    """Create jobs until every socket has heard of one, then wait until nothing is under way any more."""
    for _ in range(10):
        await target.asker.ask(CREATE_MANY, {"inputs": [CREATION]})
        with suppress(SocketFailed):
            await sockets.each_has(1, within=5)
            break
    else:
        await sockets.each_has(1, within=1)
    before = -1
    while before != sockets.frames:
        before = sockets.frames
        await asyncio.sleep(1)


async def _fanout_shared_ours(plan: Plan) -> list[Sample]:
    async with stack.running() as system:
        return await _fan_out(_of_ours(system), plan, "fanout_shared")


async def _fanout_shared_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    async with peer.running() as server:
        return await _fan_out(_of_peer(server), plan, "fanout_shared")


async def _fanout_own_ours(plan: Plan) -> list[Sample]:
    """Every job runs in one worker and reports ten times a second, the most that is stored."""
    clients, (warm_up, seconds) = plan.size(1000, 200), _seconds(plan)
    ticks = {"reports": 100_000, "pause": 0.1, "first": 0.0}
    async with stack.running(workers=1, concurrency=clients) as system:
        ids = await system.fill("ticker", [ticks] * clients)
        async with subscriptions(system.port, PROGRESS, [{"id": job_id} for job_id in ids]) as sockets:
            await sockets.each_has(3, within=120)
            sockets.on_text(None)
            await asyncio.sleep(warm_up)
            meter, before = _Meter(_of_ours(system)), sockets.frames
            await asyncio.sleep(seconds)
            sockets.check()
            samples = meter.samples("fanout_own", "deliveries", sockets.frames - before, "deliveries")
        await system.abandon_workers()
        return samples


async def _fanout_own_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    """A mutation moves every watched job; the next one follows when all have been told."""
    clients, (warm_up, seconds) = plan.size(1000, 200), _seconds(plan)
    async with peer.running() as server:
        created = await server.asker.ask(CREATE_MANY, {"inputs": [CREATION] * clients})
        ids = [job["id"] for job in created["createJobs"]["jobs"]]
        async with subscriptions(server.port, PROGRESS, [{"id": job_id} for job_id in ids]) as sockets:
            await sockets.each_has(1)
            await asyncio.sleep(0.5)

            async def move(seconds: float) -> None:
                began = time.monotonic()
                while time.monotonic() - began < seconds:
                    await _pushed(sockets, server.asker, clients, "mutation { tick }", {})

            await move(warm_up)
            sockets.on_text(None)
            meter, before = _Meter(_of_peer(server)), sockets.frames
            await move(seconds)
            sockets.check()
            return meter.samples("fanout_own", "deliveries", sockets.frames - before, "deliveries")


async def _event_latency(plan: Plan) -> list[Sample]:
    async with stack.running(workers=1, concurrency=10) as system:
        return [sample for clients in (1, 100, 1000) for sample in await _latencies(system, clients, plan)]


async def _latencies(system: Stack, clients: int, plan: Plan) -> list[Sample]:
    """One job's progress to so many sockets. The first two reports, which find cold code, are left out."""
    reports, latencies = 2 + plan.size(30, 10), []
    ended = await system.count(status=["COMPLETED"])

    def came(data: bytes, start: int, end: int) -> None:
        found = _MOMENT.search(data, start, end)
        if found:
            latencies.append(time.monotonic() - float(found[1]))

    ticks = {"reports": reports, "pause": 0.2, "first": 1.0 + clients / 200}
    (job_id,) = await system.fill("ticker", [ticks])
    async with subscriptions(system.port, MESSAGES, [{"id": job_id}] * clients) as sockets:
        sockets.on_text(came)
        await system.completed(ended + 1)
    if len(latencies) < clients * (reports - 1):
        raise RuntimeError(f"{clients} sockets had {len(latencies)} reports of {reports} each")
    return percentiles("event_latency", f"{clients} subscribers ", latencies[2 * clients :])


async def _idle(port: int, pid: int, plan: Plan) -> list[Sample]:
    clients = plan.size(5000, 500)
    async with subscriptions(port, EVENTS, [{}] * 10):
        await asyncio.sleep(0.5)
    before = resident_mib([pid])
    async with subscriptions(port, EVENTS, [{}] * clients) as sockets:
        await asyncio.sleep(2)
        sockets.check()
        after = resident_mib([pid])
    return [Sample("idle", "memory", (after - before) * 1024 / clients, "KiB/subscription")]


async def _idle_ours(plan: Plan) -> list[Sample]:
    async with stack.running() as system:
        return await _idle(system.port, system.api.pid, plan)


async def _idle_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    async with peer.running() as server:
        return await _idle(server.port, server.process.pid, plan)


async def _million(plan: Plan) -> list[Sample]:
    """The index of a long history built from nothing, then pages of it."""
    jobs = plan.size(1_000_000, 10_000)
    async with stack.running(prepare=partial(finish, jobs=jobs)) as system:
        assert await system.count(**FINISHED["filter"]) == jobs
        samples = [Sample("rebuild", "events", 3 * jobs / system.start_seconds, "events/s")]
        for _ in range(3):
            samples += await _pages(_of_ours(system), plan, "1 000 000 jobs")
        return samples


async def _limits(plan: Plan) -> list[Sample]:
    """What the generators count when the server does nothing."""
    port = free_port()
    async with program(python(), "-m", "benchmarks.limits", str(port)) as process:
        await listening(port, process)
        async with Asker(port) as asker:
            target = _Target(port, asker, (process.pid,))
            return [
                *await _creations(target, plan, "limits", "HTTP"),
                *await _fan_out(target, plan, "limits", "WebSocket"),
            ]


_SETTINGS = {"keeps": "jobs, results, full history and index in files"}


def _ours(measure: Callable[[Plan], Awaitable[list[Sample]]], **settings: object) -> Contender:
    return Contender(OURS, measure, {**_SETTINGS, **settings})


def _all(
    ours: Callable[[Plan], Awaitable[list[Sample]]],
    theirs: Callable[[GraphqlPeer, Plan], Awaitable[list[Sample]]],
) -> tuple[Contender, ...]:
    return (_ours(ours), *(peer.contender(theirs) for peer in SERVERS))


BENCHES = (
    Bench("limits", "constant answers: what the load generators can count", (Contender("constant", _limits),)),
    Bench("create", "createJob over HTTP, 50 connections, one API process", _all(_create_ours, _create_peer)),
    Bench("sync_create", "the same with sync_interval: always", (_ours(_create_always, sync_interval="always"),)),
    Bench("page", "jobs(first: 50) with 10 fields, filter on status and type", _all(_page_ours, _page_peer)),
    Bench(
        "fanout_shared", "1 000 sockets with the same subscription; creations of ten jobs",
        _all(_fanout_shared_ours, _fanout_shared_peer),
    ),
    Bench(
        "fanout_own", "1 000 sockets, each with the progress of a job of its own",
        _all(_fanout_own_ours, _fanout_own_peer),
    ),
    Bench("event_latency", "the handler reports progress, the frame is in the client", (_ours(_event_latency),)),
    Bench("idle", "resident memory per idle subscription, 5 000 sockets", _all(_idle_ours, _idle_peer)),
    Bench(
        "rebuild", "index from an empty file, 1 000 000 jobs in 3 000 000 messages; then pages of it",
        (_ours(_million),), quick=False, repetitions=1,
    ),
)  # fmt: skip
