"""What a queue does: take jobs in, run them, start one soon; and what that costs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from operator import attrgetter

from benchmarks import stack, stores
from benchmarks.enqueueing import back_end, seconds_to_enqueue
from benchmarks.http_load import graphql_request
from benchmarks.measurement import (
    HTTP_CLIENT,
    NATS_CLIENT,
    OURS,
    Bench,
    Contender,
    Plan,
    Sample,
    percentiles,
)
from benchmarks.queue_peers import BULLMQ, PGQUEUER, QUEUES, SAQ, TASKIQ_BATCH, TASKIQ_RESULTS, QueuePeer, drain
from benchmarks.stock import queue_up
from gql_jobs.jetstream.connection import connect
from gql_jobs.log.streams import ensure_streams
from gql_jobs.settings import Settings

CONCURRENCY = 200
MOST = 100_000
RATE = 50
"""Jobs per second while their start is timed."""
OUR_SETTINGS = {
    "concurrency": CONCURRENCY,
    "log_level": stack.LOG_LEVEL,
    "keeps": "queue, results, full history and index in files",
}


def _jobs(plan: Plan) -> int:
    return plan.size(20_000, 2_000)


async def _drain(jobs: int, *, workers: int = 1, sync_always: bool = False) -> tuple[float, list[Sample]]:
    """Jobs per second until the API's index has the last of them, and the cost of it all."""
    async with stack.running(sync_always=sync_always) as system:
        empty = system.disk()
        await system.fill("noop", [stack.EMAIL] * jobs)
        before = system.cpu()
        await system.work(CONCURRENCY, workers)
        ended = await system.completed(jobs)
        cpu, memory = system.cpu(), system.memory()
        cost = [
            Sample("cost", f"{name} CPU", (spent - before[name]) * MOST / jobs, "s/100 000 jobs")
            for name, spent in cpu.items()
        ]
        cost += [Sample("cost", f"{name} memory", mib, "MiB") for name, mib in memory.items()]
        cost.append(Sample("cost", "disk", (system.disk() - empty) / jobs, "bytes/job"))
        return jobs / (ended - min(system.marks())), cost


async def _drain_ours(plan: Plan) -> list[Sample]:
    rate, _ = await _drain(_jobs(plan))
    return [Sample("drain", "20 000 jobs", rate, "jobs/s")]


async def _drain_peer(peer: QueuePeer, plan: Plan) -> list[Sample]:
    drained = await drain(peer, _jobs(plan) // (4 if peer.slow else 1))
    return [Sample("drain", "20 000 jobs", drained.rate, "jobs/s")]


async def _cost_ours(plan: Plan) -> list[Sample]:
    rate, cost = await _drain(plan.size(MOST, 2_000))
    return [Sample("drain", "100 000 jobs", rate, "jobs/s"), *cost]


async def _cost_peer(peer: QueuePeer, plan: Plan) -> list[Sample]:
    jobs = plan.size(MOST, 2_000)
    drained = await drain(peer, jobs)
    cost = [Sample("cost", f"{name} CPU", s * MOST / jobs, "s/100 000 jobs") for name, s in drained.cpu.items()]
    cost += [Sample("cost", f"{name} memory", mib, "MiB") for name, mib in drained.memory.items()]
    cost.append(Sample("cost", "disk", drained.disk, "bytes/job"))
    return [Sample("drain", "100 000 jobs", drained.rate, "jobs/s"), *cost]


async def _scaling(plan: Plan) -> list[Sample]:
    rate, _ = await _drain(_jobs(plan), workers=2)
    return [Sample("drain_scaling", "2 worker processes", rate, "jobs/s")]


async def _backlog(plan: Plan) -> list[Sample]:
    """Three times the rate of the next jobs of one backlog, each by a worker process that has just begun."""
    backlog, part = plan.size(1_000_000, 10_000), _jobs(plan)
    async with stack.running(prepare=partial(queue_up, jobs=backlog)) as system:
        samples = []
        for _ in range(3):
            before, marks = await system.count(status=["COMPLETED"]), len(system.marks())
            await system.work(CONCURRENCY)
            ended = await system.completed(before + part)
            rate = (await system.count(status=["COMPLETED"]) - before) / (ended - system.marks()[marks])
            samples.append(Sample("drain_scaling", "backlog of 1 000 000", rate, "jobs/s"))
            await system.stop_workers()
        return samples


async def _create_bulk_ours(plan: Plan) -> list[Sample]:
    jobs = _jobs(plan)
    async with stack.running() as system:
        began = time.monotonic()
        await system.fill("noop", [stack.EMAIL] * jobs)
        return [Sample("create_bulk", "jobs", jobs / (time.monotonic() - began), "jobs/s")]


async def _create_bulk_peer(peer: QueuePeer, plan: Plan) -> list[Sample]:
    jobs = _jobs(plan) // (4 if peer.slow else 1)
    async with peer.ready_store() as store:
        return [Sample("create_bulk", "jobs", jobs / await peer.fill(store, jobs), "jobs/s")]


async def _start_latency_ours(plan: Plan) -> list[Sample]:
    jobs = plan.size(300, 100)
    async with stack.running(workers=1, concurrency=CONCURRENCY) as system:
        await asyncio.sleep(1)
        began = time.monotonic()
        for number in range(jobs):
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            variables = {"input": {"payload": {"stamp": {**stack.EMAIL, "body": repr(time.monotonic())}}}}
            answer = await system.asker.any_status(graphql_request(system.port, stack.CREATE, variables))
            assert b'"errors"' not in answer, answer
        await system.completed(jobs)
        return percentiles("start_latency", "", system.marks())


async def _start_latency_peer(peer: QueuePeer, plan: Plan) -> list[Sample]:
    jobs = plan.size(300, 100)
    async with peer.ready_store() as store, peer.program(store, "stamp", str(jobs)) as worker:
        await worker.value()
        await asyncio.sleep(1)
        async with peer.program(store, "send", str(jobs), str(RATE)) as sender:
            latencies = await worker.value()
            await sender.value()
        return percentiles("start_latency", "", latencies)


_WAYS = {"one by one": ("one", 2_000), "50 at once": ("fifty", 10_000), "many": ("many", 20_000)}
"""How a back end creates jobs, and how many."""


async def _enqueue_by_http(plan: Plan) -> list[Sample]:
    async with stack.running() as system:
        return await _enqueued(system.address, plan)


async def _enqueue_by_nats(plan: Plan) -> list[Sample]:
    async with stores.nats() as store:
        settings = Settings(nats_url=store.url)
        async with connect(settings, "benchmarks") as connection:
            await ensure_streams(connection, settings)
        return await _enqueued(store.url, plan)


async def _enqueued(address: str, plan: Plan) -> list[Sample]:
    samples = []
    for metric, (how, most) in _WAYS.items():
        jobs = plan.size(most, most // 10)
        samples.append(Sample("enqueue", metric, jobs / await seconds_to_enqueue(address, how, jobs), "jobs/s"))
    return samples


async def _enqueue_peer(peer: QueuePeer, plan: Plan) -> list[Sample]:
    samples = []
    for metric, (how, most) in _WAYS.items():
        if how == "many" and peer is not BULLMQ:
            continue
        jobs = plan.size(most, most // 10)
        async with peer.ready_store() as store:
            seconds = await peer.fill(store, jobs, "fill" if how == "many" else how)
        samples.append(Sample("enqueue", metric, jobs / seconds, "jobs/s"))
    return samples


async def _start_latency_client(address_of: Callable[[stack.Stack], str], plan: Plan) -> list[Sample]:
    jobs = plan.size(300, 100)
    async with stack.running(workers=1, concurrency=CONCURRENCY) as system:
        await asyncio.sleep(1)
        async with back_end(address_of(system), "send", jobs, RATE) as sender:
            await sender.value()
        # The first one, which opened the connection, is of another type.
        await system.completed(jobs + 1)
        return percentiles("start_latency", "", system.marks()[-jobs:])


_start_latency_by_http = partial(_start_latency_client, attrgetter("address"))
_start_latency_by_nats = partial(_start_latency_client, attrgetter("nats.url"))


async def _sync_ours(plan: Plan) -> list[Sample]:
    rate, _ = await _drain(plan.size(5_000, 500), sync_always=True)
    return [Sample("sync", "drain", rate, "jobs/s")]


def _ours(measure: Callable[[Plan], Awaitable[list[Sample]]], **settings: object) -> Contender:
    return Contender(OURS, measure, {**OUR_SETTINGS, **settings})


def _clients(
    by_http: Callable[[Plan], Awaitable[list[Sample]]], by_nats: Callable[[Plan], Awaitable[list[Sample]]]
) -> tuple[Contender, Contender]:
    """Back ends that ask the API, and such that write into the log themselves."""
    return Contender(HTTP_CLIENT, by_http, OUR_SETTINGS), Contender(NATS_CLIENT, by_nats, OUR_SETTINGS)


BENCHES = (
    Bench(
        "drain", "no-op jobs with the payload of an e-mail, queued; one worker process, first to last",
        (_ours(_drain_ours), *(peer.contender(_drain_peer) for peer in QUEUES)),
    ),
    Bench(
        "cost", "the same with 100 000 jobs: rate, CPU seconds, memory and bytes on disk",
        (_ours(_cost_ours), *(p.contender(_cost_peer) for p in (SAQ, TASKIQ_BATCH, PGQUEUER, BULLMQ))),
        repetitions=1,
    ),
    Bench("drain_scaling", "the same as drain with two worker processes", (_ours(_scaling),)),
    Bench(
        "drain_backlog", "the next 20 000 jobs of a backlog of 1 000 000, three times",
        (_ours(_backlog),), quick=False, repetitions=1,
    ),
    Bench(
        "create_bulk", "jobs created in calls of 1 000, or as many at once as the system has a call for",
        (_ours(_create_bulk_ours), *(peer.contender(_create_bulk_peer) for peer in QUEUES)),
    ),
    Bench(
        "start_latency", "creation sent to the handler's first line, 50 jobs/s, one idle worker",
        (_ours(_start_latency_ours), *_clients(_start_latency_by_http, _start_latency_by_nats),
         *(p.contender(_start_latency_peer) for p in (SAQ, TASKIQ_RESULTS, PGQUEUER, BULLMQ))),
    ),
    Bench(
        "enqueue", "jobs created by a back end with the client of the system; without an API process where ours writes "
        "into the log itself",
        (*_clients(_enqueue_by_http, _enqueue_by_nats),
         *(p.contender(_enqueue_peer) for p in (SAQ, TASKIQ_BATCH, BULLMQ))),
    ),
    Bench("sync", "drain with sync_interval: always", (_ours(_sync_ours, sync_interval="always"),)),
)  # fmt: skip
