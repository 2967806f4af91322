"""Histograms for hot paths, and the functions that make Prometheus' metric families of them and of plain numbers.

An observation is cheap: a bisection, without a lookup by label. Families are made only when metrics are read.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

ANSWER_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram of answers to clients, in seconds."""
JOB_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""Upper bounds of a histogram of jobs' waits and runs, in seconds."""

Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of their names."""
_Labels = TypeVar("_Labels", bound=Labels)


class Histogram:
    """Observations counted by upper bound.

    :param bounds: ascending upper bounds; values above the last one are counted as well.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return each upper bound, as text, with the number of values at or below it, ``+Inf`` at last."""
        return list(zip([*map(str, self._bounds), "+Inf"], accumulate(self._counts), strict=True))


def counter(name: str, text: str, labels: Sequence[str], values: Mapping[_Labels, float]) -> CounterMetricFamily:
    """Return a family of counters.

    :param name: the metric's name without ``_total``.
    :param text: its help text.
    :param labels: the names of its labels.
    :param values: the counters by the values of their labels.
    """
    family = CounterMetricFamily(name, text, labels=labels)
    # Copied first: a worker's metrics are read in a thread while the event loop adds counters.
    for key, value in list(values.items()):
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, labels: Sequence[str], values: Mapping[_Labels, float]) -> GaugeMetricFamily:
    """Return a family of gauges, with the parameters of ``counter``."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def single(name: str, text: str, value: float) -> GaugeMetricFamily:
    """Return a gauge without labels."""
    return gauge(name, text, (), {(): value})


def histogram(
    name: str, text: str, labels: Sequence[str], values: Mapping[_Labels, Histogram]
) -> HistogramMetricFamily:
    """Return a family of histograms, with the parameters of ``counter``."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value.buckets(), value.sum)
    return family
