"""The endpoints for operators and probes: ``/healthz``, ``/readyz``, and ``/metrics`` for Prometheus.

Nothing is counted here: counters are kept where things happen and read for each page. There are three kinds of metrics,
and each help text says which it is: of this process (to be added up over processes), of the jobs as this process has
seen them since it started, and of the jobs as they are. The last two are the same for
every API process, so ``max by`` is right for them and ``sum`` counts each job once for each process.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from fastapi import APIRouter, Request, Response
from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import asdict
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gql_jobs import clock
from gql_jobs.graphql.engine.operations import OperationTimes
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import Forbidden, GqlJobsError, QueueUnavailable
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.viewer import EVERYTHING
from gql_jobs.live.tally import Tally
from gql_jobs.log.heartbeats import WorkerSeen
from gql_jobs.log.streams import StoreUse, store_use, stream_info
from gql_jobs.metrics import Labels, counter, gauge, histogram, single
from gql_jobs.processes.event_loop import LoopLag
from gql_jobs.web.connections import SocketCounts
from gql_jobs.web.request_authentication import RequestAuthentication, refusal_of
from gql_jobs.web.runtime import Runtime, RuntimeOpener

log = logging.getLogger(__name__)
health_router = APIRouter()
metrics_router = APIRouter()

OWN_PORT = "gql_jobs.own_port"
"""The key of an ASGI scope that is set for requests at a port of this process alone, on loopback."""
_OTHER_QUEUE = "other"
"""The label of queues that no registered type uses."""
_ANSWER_TIMEOUT = 1.0
"""Seconds that NATS has to answer; without an answer the metrics about the store are left out."""
_PROCESS = "Of this API process; sum over processes."
_WORST = "Of this API process; max over processes."
_LEAST = "Of this API process; min over processes."
_SEEN = "As each API process has seen it since it started; max over processes."
_SHARED = "The same in every API process; max over processes."


@health_router.get("/healthz")
async def healthz() -> Response:
    """Answer 200 while the event loop runs; nothing is checked that a restart of the process would not mend."""
    return _json(200, {"status": "ok"})


@health_router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Answer 200 while every check holds, else 503; the body has the checks and how far the feed is."""
    opener: RuntimeOpener = request.app.state.opener
    checks = await opener.checks()
    ready = all(check.ok for check in checks.values())
    shown = {name: {"ok": check.ok, "message": check.message} for name, check in checks.items()}
    status = "ready" if ready else "not ready"
    return _json(200 if ready else 503, {"status": status, "checks": shown, "feed": opener.feed})


def _json(status: int, body: object) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(encode(body), status_code=status, media_type="application/json", headers=headers)


@metrics_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Answer with all metrics in Prometheus' format, also while NATS is away.

    Under authentication only to those with OPERATE and neither a tenant nor limits. The port of this process alone, on
    loopback, is for whoever runs it.
    """
    authentication: RequestAuthentication = request.app.state.authentication
    if not request.scope.get(OWN_PORT):
        try:
            viewer = await authentication.viewer(request.scope)
            if not viewer.may_operate_all:
                raise Forbidden("Metrics are about all jobs: this needs the scope OPERATE, and no tenant or limits.")
        except GqlJobsError as error:
            return refusal_of(error)
    page: ApiMetrics = request.app.state.metrics
    text, media_type = await page.page(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


class _Snapshot(Struct, frozen=True):
    """What is read from NATS and the index before a page is made."""

    counts: dict[str, dict[JobStatus, int]]
    oldest: dict[str, datetime]
    store: StoreUse | None
    last_seq: int | None
    """The last sequence of the stream; None, as ``store``, if NATS did not answer in time."""


class ApiMetrics(Collector):
    """All metrics of one API process, as prometheus-client collects them.

    :param lag: of the event loop.
    """

    def __init__(self, opener: RuntimeOpener, times: OperationTimes, sockets: SocketCounts, lag: LoopLag) -> None:
        self._opener = opener
        self._times = times
        self._sockets = sockets
        self._lag = lag
        self._snapshot: _Snapshot | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    async def page(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its media type, as the ``Accept`` header wants it."""
        runtime = self._opener.current
        self._snapshot = await _snapshot(runtime) if runtime is not None else None
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: names are not asked for before there are numbers."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family, as of the last ``page``."""
        yield from self._of_process()
        runtime = self._opener.current
        if runtime is None or self._snapshot is None:
            yield single("gql_jobs_nats_connected", f"Whether NATS is connected: 1 or 0. {_LEAST}", 0)
            return
        yield from _of_connection(runtime, self._snapshot.store, self._snapshot.last_seq)
        yield from _of_history(runtime.feed.tally)
        yield from _of_queues(runtime, self._snapshot)

    def _of_process(self) -> Iterator[Metric]:
        sockets, times = self._sockets, self._times
        yield single("gql_jobs_event_loop_lag_seconds", f"The worst delay of the last 15 s. {_WORST}", self._lag.worst)
        yield single("gql_jobs_sockets", f"WebSockets that are open. {_PROCESS}", sockets.open)
        text = f"WebSockets that ended, by who closed them and the close code. {_PROCESS}"
        yield counter("gql_jobs_socket_closes", text, ("by", "code"), sockets.closes)
        text = f"Time from a document to its result, by operation name and first root field; no streams. {_PROCESS}"
        yield histogram("gql_jobs_graphql_operation_seconds", text, ("operation", "field"), times.times)
        yield counter("gql_jobs_graphql_errors", f"Errors, by code. {_PROCESS}", ("code",), times.errors)


def _of_connection(runtime: Runtime, store: StoreUse | None, last_seq: int | None) -> Iterator[Metric]:
    connected, feed = runtime.connection.connected, runtime.feed
    yield single("gql_jobs_nats_connected", f"Whether NATS is connected: 1 or 0. {_LEAST}", connected)
    yield single("gql_jobs_subscribers", f"Subscriptions that are open. {_PROCESS}", runtime.bus.subscribers)
    yield single("gql_jobs_unreadable_messages", f"Messages set aside. {_SHARED}", runtime.index.unreadable)
    text = f"Times that the index was built anew. {_PROCESS}"
    yield counter("gql_jobs_index_rebuilds", text, (), {(): feed.counters.rebuilt})
    if store is not None:
        yield single("gql_jobs_store_used_bytes", f"What is stored. {_SHARED}", store.used)
        yield single("gql_jobs_store_limit_bytes", f"What may be stored. {_SHARED}", store.limit)
        full_at = store.limit * runtime.settings.queue_full_ratio
        yield single("gql_jobs_store_full_bytes", f"Above this, createJob answers QUEUE_FULL. {_SHARED}", full_at)
    if last_seq is not None:
        lag = max(last_seq - feed.position, 0)
        yield single("gql_jobs_feed_lag_messages", f"Messages of the stream that the index has not read. {_WORST}", lag)


def _of_history(tally: Tally) -> Iterator[Metric]:
    by_type = ("type",)
    by_status = ("type", "status")
    yield counter("gql_jobs_created", f"Jobs created. {_SEEN}", by_type, tally.created)
    yield counter("gql_jobs_started", f"Attempts started. {_SEEN}", by_type, tally.started)
    yield counter(
        "gql_jobs_retries", f"Attempts that failed and are followed by another. {_SEEN}", by_type, tally.retries
    )
    yield counter(
        "gql_jobs_superseded", f"Attempts lost by their worker to another. {_SEEN}", by_type, tally.superseded
    )
    text = f"Jobs ended, by their last status; DEAD_LETTER are those that failed for good. {_SEEN}"
    yield counter("gql_jobs_finished", text, by_status, tally.finished)
    text = f"From when a job was due until its first attempt started. {_SEEN}"
    yield histogram("gql_jobs_time_to_start_seconds", text, by_type, tally.time_to_start)
    text = f"How long an attempt ran, by the status it led to. {_SEEN}"
    yield histogram("gql_jobs_run_seconds", text, by_status, tally.run_time)


def _of_queues(runtime: Runtime, snapshot: _Snapshot) -> Iterator[Metric]:
    known = runtime.registry.queues
    jobs: dict[Labels, float] = {(queue, status.name): 0 for queue in known for status in JobStatus}
    for queue, counts in snapshot.counts.items():
        for status, number in counts.items():
            label = (queue if queue in known else _OTHER_QUEUE, status.name)
            jobs[label] = jobs.get(label, 0) + number
    yield gauge("gql_jobs_jobs", f"Jobs that are kept, by status. {_SHARED}", ("queue", "status"), jobs)
    now = clock.now()
    ages: dict[Labels, float] = {(queue,): 0.0 for queue in known}
    for queue, since in snapshot.oldest.items():
        shown = queue if queue in known else _OTHER_QUEUE
        ages[shown,] = max(ages.get((shown,), 0.0), (now - since).total_seconds())
    text = f"How long the oldest queued job has been waiting. {_SHARED}"
    yield gauge("gql_jobs_oldest_queued_seconds", text, ("queue",), ages)
    paused: dict[Labels, float] = {(queue,): 0 for queue in known}
    paused |= {(queue if queue in known else _OTHER_QUEUE,): 1 for queue in runtime.pauses.now()}
    gate = runtime.gate.counters
    text = f"Whether this process queues the jobs that are held back: 1 or 0; one process at a time does. {_PROCESS}"
    yield single("gql_jobs_gate_held", text, float(gate.holds))
    done: dict[Labels, float] = {
        ("released",): gate.released,
        ("cancelled",): gate.cancelled,
        ("recalled",): gate.recalled,
    }
    text = f"Jobs that were held back, by what was decided about them. {_PROCESS}"
    yield counter("gql_jobs_gate_decisions_total", text, ("decision",), done)
    yield from _of_limits({queue: runtime.feed.steering.limits_of_queue(queue) for queue in known})
    yield gauge("gql_jobs_queue_paused", f"Whether the queue is paused: 1 or 0. {_SHARED}", ("queue",), paused)
    yield from _of_workers(runtime.presence.workers(), known, [kind.name for kind in runtime.registry])


def _of_limits(limits: Mapping[str, Limits]) -> Iterator[Metric]:
    values: dict[Labels, float] = {
        (queue, name): value
        for queue, of_queue in limits.items()
        for name, value in asdict(of_queue).items()
        if value is not None
    }
    text = f"What the queue is limited to, by the limit; there is no value for one that it does not have. {_SHARED}"
    yield gauge("gql_jobs_queue_limit", text, ("queue", "limit"), values)


def _of_workers(workers: list[WorkerSeen], queues: Sequence[str], types: Sequence[str]) -> Iterator[Metric]:
    serving: dict[Labels, float] = {(queue,): sum(queue in worker.queues for worker in workers) for queue in queues}
    yield gauge("gql_jobs_queue_workers", f"Worker processes that serve the queue. {_SHARED}", ("queue",), serving)
    able: dict[Labels, float] = {(name,): sum(name in worker.job_types for worker in workers) for name in types}
    yield gauge("gql_jobs_type_workers", f"Worker processes that can run the type. {_SHARED}", ("type",), able)
    running = sum(worker.running for worker in workers)
    yield single(
        "gql_jobs_workers",
        f"Worker processes heard of in the last 15 s in which NATS was there. {_SHARED}",
        len(workers),
    )
    yield single("gql_jobs_running", f"Jobs that workers run now. {_SHARED}", running)
    capacity = sum(worker.concurrency for worker in workers)
    yield single("gql_jobs_capacity", f"Jobs that workers can run at a time. {_SHARED}", capacity)


async def _snapshot(runtime: Runtime) -> _Snapshot:
    store = last_seq = None
    if runtime.connection.connected:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                store = await store_use(runtime.connection, runtime.settings)
                last_seq = (await stream_info(runtime.connection)).state.last_seq
        except (ApiError, QueueUnavailable, TimeoutError):
            log.debug("NATS does not say how full the store is")
    return _Snapshot(
        await runtime.reader.queue_counts(EVERYTHING),
        await runtime.reader.oldest_queued_at(EVERYTHING),
        store,
        last_seq,
    )
