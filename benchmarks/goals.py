"""What is aimed at: each figure against other systems in the same run, or against a number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.measurement import NATS_CLIENT, OURS, Record

STRAWBERRIES = ("strawberry-asgi", "strawberry-fastapi")
NODES = ("graphql-yoga", "mercurius")


@dataclass(frozen=True)
class Goal:
    """``ours >= times x the best of against``, or ``<=`` where less is better.

    ``against`` names systems, or a metric of our own in the same bench (``own``), or nothing: then ``times`` is the
    number itself. ``further`` marks what lies beyond the goal; ``system`` is which of ours it is about.
    """

    bench: str
    metric: str
    times: float
    against: tuple[str, ...] = ()
    own: tuple[str, str] | None = None
    at_most: bool = False
    further: bool = False
    system: str = OURS

    @property
    def text(self) -> str:
        """As a person writes it."""
        sign = "≤" if self.at_most else "≥"
        if self.against:
            return f"{sign} {self.times:g} x {' and '.join(self.against)}"
        if self.own is not None:
            return f"{sign} {self.times:g} x {self.own[1]}"
        return f"{sign} {self.times:,g}".replace(",", " ")


@dataclass(frozen=True)
class Verdict:
    """A goal, our figure, what it is compared with, and their ratio; None where something was not measured."""

    goal: Goal
    ours: Record | None
    other: float | None

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return self.ours["value"] / self.other if self.ours is not None and self.other else None

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None for what is not known."""
        if self.ours is None or self.other is None:
            return None
        limit = self.goal.times * self.other if self.goal.against or self.goal.own else self.goal.times
        return self.ours["value"] <= limit if self.goal.at_most else self.ours["value"] >= limit


GOALS = (
    Goal("drain", "20 000 jobs", 3.5, ("saq",)),
    Goal("drain", "20 000 jobs", 1, ("taskiq-nats-batch100",)),
    Goal("drain", "20 000 jobs", 1, ("bullmq",), further=True),
    Goal("drain", "100 000 jobs", 3.5, ("saq",)),
    Goal("drain", "100 000 jobs", 1, ("taskiq-nats-batch100",)),
    Goal("drain", "100 000 jobs", 1, ("bullmq",), further=True),
    Goal("drain_scaling", "2 worker processes", 1.4, own=("drain", "20 000 jobs")),
    Goal("drain_scaling", "backlog of 1 000 000", 0.8, own=("drain", "20 000 jobs")),
    Goal("gated_drain", "a key for each job", 0.5, own=("gated_drain", "without limits")),
    Goal("gated_drain", "1 000 keys", 0.5, own=("gated_drain", "without limits")),
    Goal("gated_drain", "one key, 50 at a time", 0.5, own=("gated_drain", "without limits")),
    Goal("create", "createJob", 2, ("strawberry-asgi",)),
    Goal("create", "createJob", 1, ("graphql-yoga",), further=True),
    Goal("create_bulk", "jobs", 1, ("bullmq",)),
    Goal("create_bulk", "jobs", 1, ("pgqueuer",), further=True),
    Goal("start_latency", "p50", 1, ("bullmq", "saq"), at_most=True),
    Goal("start_latency", "p99", 5, at_most=True),
    Goal("start_latency", "p50", 1, ("saq",), at_most=True, system=NATS_CLIENT),
    Goal("enqueue", "many", 1, ("bullmq",), system=NATS_CLIENT),
    Goal("event_latency", "1000 subscribers p50", 3, at_most=True),
    Goal("event_latency", "1000 subscribers p99", 15, at_most=True),
    Goal("fanout_shared", "deliveries", 1.3, NODES),
    Goal("fanout_shared", "deliveries", 2, NODES, further=True),
    Goal("fanout_own", "deliveries", 2.5, STRAWBERRIES),
    # What is reported, and so what can be delivered, ends at ten a second for each job, by design.
    Goal("fanout_own", "deliveries per CPU second", 2.5, STRAWBERRIES),
    Goal("fanout_own", "deliveries", 1, ("graphql-yoga",), further=True),
    Goal("idle", "memory", 1, ("graphql-yoga",), at_most=True),
    Goal("idle", "memory", 20, at_most=True, further=True),
    Goal("page", "10 000 jobs", 3, ("strawberry-asgi",)),
    Goal("page", "1 000 000 jobs", 0.9, own=("page", "10 000 jobs")),
    Goal("page", "10 000 jobs", 1, ("graphql-yoga",), further=True),
    Goal("rebuild", "events", 50_000),
    *(
        Goal("authentication", f"{work} with {caller}", 1.05, at_most=True)
        for work in ("page", "createJob")
        for caller in ("a key", "a view token", "a JWT", "a key of a tenant")
    ),
)


def verdicts(measured: Sequence[Record]) -> list[Verdict]:
    """Each goal with what was measured."""
    found = {(r["bench"], r["system"], r["metric"]): r for r in measured}
    return [Verdict(goal, found.get((goal.bench, goal.system, goal.metric)), _other(goal, found)) for goal in GOALS]


def _other(goal: Goal, found: dict[tuple[str, str, str], Record]) -> float | None:
    if goal.own is not None:
        own = found.get((goal.own[0], OURS, goal.own[1]))
        return own["value"] if own is not None else None
    if not goal.against:
        return goal.times
    values = [found[key]["value"] for system in goal.against if (key := (goal.bench, system, goal.metric)) in found]
    best: Callable[[list[float]], float] = min if goal.at_most else max
    return best(values) if values else None
