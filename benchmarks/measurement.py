"""What a measurement yields, and how repetitions of it become one figure."""

import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

OURS = "gql-jobs"
"""The system, asked over HTTP by a load generator."""
HTTP_CLIENT = "gql-jobs, http client"
"""A back end with ``gql_jobs.client`` that asks the API."""
NATS_CLIENT = "gql-jobs, nats client"
"""A back end with ``gql_jobs.client`` that writes into the log itself."""
ALL_OURS = (OURS, NATS_CLIENT, HTTP_CLIENT)
"""Others are compared with the first of these that a bench has."""


@dataclass(frozen=True)
class Sample:
    """One value of one repetition. ``unit`` says whether more is better: everything per second is."""

    bench: str
    metric: str
    value: float
    unit: str


class Record(TypedDict):
    """The median of ``n`` repetitions, as stored in ``results/latest.json``."""

    bench: str
    system: str
    metric: str
    value: float
    min: float
    max: float
    unit: str
    n: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured. ``quick`` asks for the same with less of everything, once."""

    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """The one or the other."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Contender:
    """One system in one bench: a coroutine function that starts it, measures it, stops it."""

    system: str
    measure: Callable[[Plan], Awaitable[list[Sample]]]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What is done, and by whom. ``quick`` is false for what takes minutes whatever its size.

    ``repetitions`` may be overridden where one repetition takes minutes; the record says how many there were.
    """

    name: str
    work: str
    contenders: tuple[Contender, ...]
    quick: bool = True
    repetitions: int | None = None


def records(samples: Mapping[str, Iterable[Sample]], settings: Mapping[str, Mapping[str, Any]]) -> list[Record]:
    """Samples of all repetitions, by system, as medians."""
    made: list[Record] = []
    for system, taken in samples.items():
        grouped: dict[tuple[str, str, str], list[float]] = {}
        for sample in taken:
            grouped.setdefault((sample.bench, sample.metric, sample.unit), []).append(sample.value)
        for (bench, metric, unit), values in grouped.items():
            made.append(
                Record(
                    bench=bench,
                    system=system,
                    metric=metric,
                    value=_rounded(statistics.median(values)),
                    min=_rounded(min(values)),
                    max=_rounded(max(values)),
                    unit=unit,
                    n=len(values),
                    settings=dict(settings.get(system, {})),
                )
            )
    return made


def percentiles(bench: str, name: str, seconds: Iterable[float]) -> list[Sample]:
    """p50 and p99 of latencies, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return [Sample(bench, f"{name}p{p}", cuts[p - 1] * 1000, "ms") for p in (50, 99)]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))  # noqa: PLR2004
