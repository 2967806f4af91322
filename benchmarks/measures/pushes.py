"""What a GraphQL server pushes over WebSockets, and what sockets that wait cost it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from benchmarks import stack
from benchmarks.graphql_peers import GraphqlPeer
from benchmarks.http_load import Asker
from benchmarks.measurement import Bench, Plan, Sample, percentiles
from benchmarks.measures.target import Meter, Target, all_systems, durations, of_ours, of_peer, ours, passed
from benchmarks.processes import resident_mib
from benchmarks.socket_load import SocketFailed, Sockets, subscriptions
from benchmarks.stack import CREATE_MANY, Stack

EVENTS = "subscription { jobEvents { __typename cursor job { id status progress } } }"
PROGRESS = "subscription ($id: ID!) { jobProgress(id: $id) { __typename cursor job { id status progress } } }"
MESSAGES = (
    "subscription ($id: ID!) { jobProgress(id: $id) { __typename cursor job { status progress progressMessage } } }"
)
LIST = "subscription ($tags: [String!]) { jobsChanged(filter: { tags: $tags }) { __typename ... on JobLeft { id } } }"
CREATED = 20
"""Creations of ten jobs a second while lists are watched."""
AT_ONCE = 10
"""Jobs of one creation while events are fanned out."""
_MOMENT = re.compile(rb'"progressMessage":\s*"([0-9.]+)"')


def latency(data: bytes, start: int, end: int) -> float | None:
    """Seconds since the report of progress that a frame brings; other events show the last report once more."""
    found = _MOMENT.search(data, start, end) if data.find(b'"JobProgress"', start, end) >= 0 else None
    return time.monotonic() - float(found[1]) if found else None


async def _pushed(sockets: Sockets, asker: Asker, frames: int, query: str, variables: dict[str, Any]) -> None:
    """Have one mutation push its events, and wait until they are everywhere."""
    before = sockets.frames
    await asker.ask(query, variables)
    await sockets.have(before + frames)


async def fan_out(target: Target, plan: Plan, bench: str, metric: str = "deliveries") -> list[Sample]:
    """Results on all sockets together; two creations are always under way."""
    clients = plan.size(1000, 200)
    variables = {"inputs": [target.creation] * AT_ONCE}
    async with AsyncExitStack() as exits:
        sockets = await exits.enter_async_context(subscriptions(target.port, EVENTS, [{}] * clients))
        await _subscribed(sockets, target)
        sockets.on_text(None)
        askers = [await exits.enter_async_context(Asker(target.port)) for _ in range(2)]
        warm_up, seconds = durations(plan)
        expected, going = sockets.frames, True

        async def create(one: Asker) -> None:
            nonlocal expected
            while going:
                before, expected = expected, expected + AT_ONCE * clients
                await one.ask(CREATE_MANY, variables)
                await sockets.have(before)

        creating = [asyncio.create_task(create(one)) for one in askers]
        await asyncio.sleep(warm_up)
        meter, before = Meter(target), sockets.frames
        await passed(seconds, lambda: meter.used >= seconds / 3)
        going = False
        await asyncio.gather(*creating)
        await sockets.have(expected)
        return meter.samples(bench, metric, sockets.frames - before, "deliveries")


async def _subscribed(sockets: Sockets, target: Target) -> None:
    """Create jobs until every socket has heard of one, then wait until nothing is under way any more."""
    for _ in range(10):
        await target.asker.ask(CREATE_MANY, {"inputs": [target.creation]})
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
        return await fan_out(of_ours(system), plan, "fanout_shared")


async def _fanout_shared_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    async with peer.running() as server:
        return await fan_out(of_peer(server), plan, "fanout_shared")


@asynccontextmanager
async def own_progress(clients: int) -> AsyncIterator[tuple[Stack, Sockets]]:
    """Sockets, each with its own job's progress: every job runs in one worker and reports ten times a second, the most
    that is stored.
    """
    ticks = {"reports": 100_000, "pause": 0.1, "first": 0.0}
    async with stack.running(workers=1, concurrency=clients) as system:
        ids = await system.fill("ticker", [ticks] * clients)
        async with subscriptions(system.port, PROGRESS, [{"id": job_id} for job_id in ids]) as sockets:
            await sockets.each_has(3, within=120)
            sockets.on_text(None)
            yield system, sockets
        await system.abandon_workers()


async def _fanout_own_ours(plan: Plan) -> list[Sample]:
    warm_up, seconds = durations(plan)
    async with own_progress(plan.size(1000, 200)) as (system, sockets):
        await asyncio.sleep(warm_up)
        meter, before = Meter(of_ours(system)), sockets.frames
        await asyncio.sleep(seconds)
        sockets.check()
        return meter.samples("fanout_own", "deliveries", sockets.frames - before, "deliveries")


async def _fanout_own_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    """A mutation moves every watched job; the next one follows when all have been told."""
    clients, (warm_up, seconds) = plan.size(1000, 200), durations(plan)
    async with peer.running() as server:
        target = of_peer(server)
        created = await target.asker.ask(CREATE_MANY, {"inputs": [target.creation] * clients})
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
            meter, before = Meter(target), sockets.frames
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
        seconds = latency(data, start, end)
        if seconds is not None:
            latencies.append(seconds)

    ticks = {"reports": reports, "pause": 0.2, "first": 1.0 + clients / 200}
    (job_id,) = await system.fill("ticker", [ticks])
    async with subscriptions(system.port, MESSAGES, [{"id": job_id}] * clients) as sockets:
        sockets.on_text(came)
        await system.completed(ended + 1)
    if len(latencies) < clients * (reports - 1):
        raise RuntimeError(f"{clients} sockets had {len(latencies)} reports of {reports} each")
    return percentiles("event_latency", f"{clients} subscribers ", latencies[2 * clients :])


async def _watched_lists(plan: Plan) -> list[Sample]:
    """What the API's process works while the same jobs are created, whoever watches lists of them."""
    many = plan.size(1000, 200)
    watched = {
        "nobody watches": [],
        "1 watcher": [["a"]],
        f"{many} watchers of one list": [["a"]] * many,
        "60 watchers of a list each": [["a", f"t{number}"] for number in range(60)],
    }
    async with stack.running() as system:
        target, samples = of_ours(system), []
        for name, lists in watched.items():
            async with subscriptions(system.port, LIST, [{"tags": tags} for tags in lists]) as sockets:
                if lists:
                    await sockets.each_has(1)
                sockets.on_text(None)
                samples.append(Sample("watched_lists", name, await _busy(target, plan), "% of a core"))
        return samples


async def _busy(target: Target, plan: Plan) -> float:
    """Create jobs at a steady rate; how much of a core the API's process takes."""
    creation = {**target.creation, "tags": ["a"]}
    seconds = 2 * durations(plan)[1]
    began, meter = time.monotonic(), Meter(target)
    for number in range(int(seconds * CREATED)):
        await asyncio.sleep(began + number / CREATED - time.monotonic())
        await target.asker.ask(CREATE_MANY, {"inputs": [creation] * AT_ONCE})
    return 100 * meter.used / (time.monotonic() - began)


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


BENCHES = (
    Bench(
        "fanout_shared", "1 000 sockets with the same subscription; creations of ten jobs",
        all_systems(_fanout_shared_ours, _fanout_shared_peer),
    ),
    Bench(
        "fanout_own", "1 000 sockets, each with the progress of a job of its own",
        all_systems(_fanout_own_ours, _fanout_own_peer),
    ),
    Bench("event_latency", "the handler reports progress, the frame is in the client", (ours(_event_latency),)),
    Bench(
        "watched_lists", "200 jobs a second are created while lists of 50 are watched, four changes a second at most",
        (ours(_watched_lists),),
    ),
    Bench("idle", "resident memory per idle subscription, 5 000 sockets", all_systems(_idle_ours, _idle_peer)),
)  # fmt: skip
