"""A histogram of plain numbers: an observation costs a bisection, and nothing is looked up by label."""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

# How late the event loop is: everything that this process answers is late by as much.

INTERVAL = 0.1
"""Seconds between two samples."""
WINDOW = 15.0
"""Seconds over which the worst sample is remembered: as long as Prometheus usually waits between two scrapes."""


class LoopLag:
    """The worst delay of the last ``WINDOW`` seconds."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque([0.0], maxlen=round(WINDOW / INTERVAL))

    @property
    def worst(self) -> float:
        """In seconds."""
        return max(self._samples)

    async def run(self) -> None:
        """Take samples; never ends by itself."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            await asyncio.sleep(INTERVAL)
            self._samples.append(max(clock() - began - INTERVAL, 0.0))


ANSWERS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, for what a client waits for."""
JOBS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""Upper bounds in seconds, for what happens to jobs."""


class Histogram:
    """Observations counted by upper bound."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """:param bounds: ascending upper bounds; what is above the last one is counted too."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each upper bound with how many values were at or below it, as Prometheus wants them."""
        return list(zip([*map(str, self._bounds), "+Inf"], accumulate(self._counts), strict=True))


# Plain counters as the metric families of prometheus-client.

Labels = tuple[str, ...]
L = TypeVar("L", bound=Labels)


def counter(name: str, text: str, labels: Sequence[str], values: Mapping[L, float]) -> CounterMetricFamily:
    """A family of counters; ``name`` without its ``_total``."""
    family = CounterMetricFamily(name, text, labels=labels)
    # A list at once: a worker's counters are read from a thread of their own while they go on.
    for key, value in list(values.items()):
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, labels: Sequence[str], values: Mapping[L, float]) -> GaugeMetricFamily:
    """A family of gauges."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def single(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return gauge(name, text, (), {(): value})


def histogram(name: str, text: str, labels: Sequence[str], values: Mapping[L, Histogram]) -> HistogramMetricFamily:
    """A family of histograms."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value.buckets(), value.sum)
    return family
