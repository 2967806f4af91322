"""A histogram of plain numbers: an observation costs a bisection, and nothing is looked up by label."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

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
