"""What a GraphQL server answers over HTTP: creations, pages, and pages of a long history."""

from collections.abc import Coroutine
from functools import partial
from typing import Any

from benchmarks import stack
from benchmarks.graphql_peers import GraphqlPeer
from benchmarks.http_load import graphql_request, hammering
from benchmarks.measurement import Bench, Plan, Sample
from benchmarks.measures.target import Meter, Target, all_systems, durations, of_ours, of_peer, ours, passed
from benchmarks.stack import CREATE
from benchmarks.stock import finish

PAGE = """query ($filter: JobFilter) {
  jobs(filter: $filter, first: 50) {
    nodes { id type status priority queue progress attempt createdAt finishedAt durationMs }
  }
}"""
FINISHED = {"filter": {"status": ["COMPLETED"], "type": ["noop"]}}
CONNECTIONS = 50
PAGE_CONNECTIONS = 16
WARM_ANSWERS = 500


async def _hammered(
    target: Target, plan: Plan, named: tuple[str, str, str], operation: tuple[str, dict[str, Any]], connections: int
) -> list[Sample]:
    """One operation repeated; ``named`` is bench, metric and unit."""
    warm_up, seconds = durations(plan)
    async with hammering(target.port, graphql_request(target.port, *operation), connections) as tally:
        await passed(warm_up, lambda: tally.answers >= WARM_ANSWERS)
        meter, before = Meter(target), tally.answers
        await passed(seconds, lambda: meter.used >= seconds / 3)
        bench, metric, unit = named
        return meter.samples(bench, metric, tally.answers - before, unit)


def creations(target: Target, plan: Plan, bench: str, metric: str) -> Coroutine[Any, Any, list[Sample]]:
    return _hammered(target, plan, (bench, metric, "requests"), (CREATE, {"input": target.creation}), CONNECTIONS)


def pages(target: Target, plan: Plan, metric: str) -> Coroutine[Any, Any, list[Sample]]:
    return _hammered(target, plan, ("page", metric, "pages"), (PAGE, FINISHED), PAGE_CONNECTIONS)


async def _create_ours(plan: Plan) -> list[Sample]:
    async with stack.running() as system:
        return await creations(of_ours(system), plan, "create", "createJob")


async def _create_always(plan: Plan) -> list[Sample]:
    async with stack.running(sync_always=True) as system:
        return await creations(of_ours(system), plan, "sync", "create")


async def _create_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    async with peer.running() as server:
        return await creations(of_peer(server), plan, "create", "createJob")


async def _page_ours(plan: Plan) -> list[Sample]:
    async with stack.running(prepare=partial(finish, jobs=10_000)) as system:
        return await pages(of_ours(system), plan, "10 000 jobs")


async def _page_peer(peer: GraphqlPeer, plan: Plan) -> list[Sample]:
    async with peer.running(10_000) as server:
        return await pages(of_peer(server), plan, "10 000 jobs")


BENCHES = (
    Bench("create", "createJob over HTTP, 50 connections, one API process", all_systems(_create_ours, _create_peer)),
    Bench("sync_create", "the same with sync_interval: always", (ours(_create_always, sync_interval="always"),)),
    Bench("page", "jobs(first: 50) with 10 fields, filter on status and type", all_systems(_page_ours, _page_peer)),
)  # fmt: skip
