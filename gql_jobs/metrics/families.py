"""Plain counters as the metric families of prometheus-client."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gql_jobs.metrics.histogram import Histogram

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
