"""``/metrics`` of a worker process, in Prometheus' format, at a port of its own.

It is read in a thread, beside the event loop: from plain counters only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gql_jobs.metrics import counter, single
from gql_jobs.processes.event_loop import LoopLag
from gql_jobs.processes.metrics_port import metrics_served
from gql_jobs.settings import Settings
from gql_jobs_worker.telemetry import Counts

_PROCESS = "Of this worker process; sum over processes."


class MeasuredPool(Protocol):
    """The part of a pool that its metrics read."""

    @property
    def connected(self) -> bool:
        """Return whether NATS is connected."""

    @property
    def running(self) -> int:
        """Return how many jobs run now."""

    @property
    def capacity(self) -> int:
        """Return how many jobs may run at a time."""

    @property
    def counts(self) -> Counts:
        """Return what the pool has counted since its start."""


_COUNTED = (
    ("superseded", "superseded", "Attempts that another worker had taken over"),
    ("late", "late", "Outcomes refused because the job had ended"),
    ("adopted", "renewed", "Redeliveries of what ran here already"),
    ("passed_on", "passed_on", "Redeliveries left to the worker that still ran the job"),
    ("unreadable", "unreadable", "Submissions that no version can read, set aside"),
    ("newer", "newer", "Submissions left to workers of a newer version"),
    ("unable", "unable", "Deliveries left to workers that have what their handler needs"),
    ("stalls", "stalls", "Times that the event loop stood still for so long that leases were in danger"),
)
"""The name of the metric, the attribute of ``Counts``, and what it counts."""


class WorkerMetrics(Collector):
    """All metrics of one worker process."""

    def __init__(self, pool: MeasuredPool, lag: LoopLag) -> None:
        self._pool = pool
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        """Yield every family of metrics, as of now."""
        pool = self._pool
        yield single(
            "gql_jobs_worker_nats_connected",
            "Whether NATS is connected: 1 or 0. Of this worker process.",
            pool.connected,
        )
        yield single("gql_jobs_worker_running", f"Jobs that run now. {_PROCESS}", pool.running)
        yield single("gql_jobs_worker_capacity", f"Jobs that can run at a time. {_PROCESS}", pool.capacity)
        text = f"Attempts by type and what they came to, which is `started` at first. {_PROCESS}"
        yield counter("gql_jobs_worker_attempts", text, ("type", "outcome"), pool.counts.outcomes)
        text = f"How long attempts ran, added up by type. {_PROCESS}"
        seconds = {(name,): value for name, value in list(pool.counts.seconds.items())}
        yield counter("gql_jobs_worker_run_seconds", text, ("type",), seconds)
        for name, attribute, text in _COUNTED:
            yield counter(f"gql_jobs_worker_{name}", f"{text}. {_PROCESS}", (), {(): getattr(pool.counts, attribute)})
        text = "The worst delay of the last 15 s. Of this worker process; max over processes."
        yield single("gql_jobs_worker_event_loop_lag_seconds", text, self._lag.worst)


@contextmanager
def serve_metrics(settings: Settings, pool: MeasuredPool, lag: LoopLag) -> Iterator[int | None]:
    """Serve ``/metrics`` until the block ends; yields the port, or None where it is off.

    :raises OSError: if no port is free.
    """
    with metrics_served(settings, WorkerMetrics(pool, lag)) as port:
        yield port
