"""What clients were told, as plain data: the one side of the comparison. Knows nothing of how it was asked."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class Seen(NamedTuple):
    """One event as a subscription brought it. ``seq`` is the position that its cursor names."""

    seq: int
    nth: int
    kind: str
    job_id: str


@dataclass
class Observation:
    """One subscription over all its connections.

    ``job_id``: it watches that job; else all jobs, or those with the ``tag``. ``completed``: the server ended it, as it
    does after a watched job's terminal event. ``resumes``: how often it went on with ``after``.
    """

    job_id: str | None = None
    tag: str | None = None
    seen: list[Seen] = field(default_factory=list)
    completed: bool = False
    resumes: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def cursor(self) -> str | None:
        """Where to go on, as the API spells it."""
        if not self.seen:
            return None
        last = self.seen[-1]
        return f"{last.seq}.{last.nth}" if last.nth else str(last.seq)


@dataclass
class Ledger:
    """Everything that was acknowledged, denied or observed.

    ``acknowledged``: token → job id. ``contradicted``: tokens with two ids. ``denied``: tokens of creations without
    key that were told that nothing was stored. ``vanished``: acknowledged jobs that an API then did not know.
    ``ack_times``: when creations were acknowledged, in seconds of the monotonic clock, ascending.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    contradicted: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    retried: set[str] = field(default_factory=set)
    poisonous: set[str] = field(default_factory=set)
    vanished: set[str] = field(default_factory=set)
    observations: list[Observation] = field(default_factory=list)
    ack_times: "array[float]" = field(default_factory=lambda: array("d"))
    odd: list[str] = field(default_factory=list)

    def acknowledge(self, token: str, job_id: str, now: float) -> None:
        """A creation was answered with a job."""
        if self.acknowledged.setdefault(token, job_id) != job_id:
            self.contradicted.add(token)
        self.ack_times.append(now)

    def unavailable(self, begin: float, end: float) -> float:
        """Seconds between two moments in which no creation was acknowledged: gaps longer than ``GAP`` only."""
        times = [begin, *(t for t in self.ack_times if begin < t < end), end]
        gaps = (later - earlier for earlier, later in pairwise(times))
        return sum(gap for gap in gaps if gap > GAP)


GAP = 1.0
"""Seconds without an acknowledgement that count as unavailable."""
