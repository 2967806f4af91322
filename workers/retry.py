"""When a failed attempt is tried again: exponential backoff with a cap, and jitter where it is asked for."""

import random
from typing import Protocol


class Backoff(Protocol):
    """Delays in seconds; ``retry_jitter`` is the share of the delay that is random."""

    @property
    def base_retry_delay(self) -> float: ...
    @property
    def max_retry_delay(self) -> float: ...
    @property
    def retry_jitter(self) -> float: ...


_MAX_DOUBLINGS = 60


def retry_delay(backoff: Backoff, attempt: int, retry_after: float | None = None) -> float:
    """Seconds until the attempt after ``attempt`` (1 is the first): base, twice the base, and so on, capped.

    :param retry_after: seconds that the outside system asked for; kept to even above the cap.
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    delay: float = min(backoff.base_retry_delay * 2**doublings, backoff.max_retry_delay)
    if backoff.retry_jitter:
        delay *= 1 - backoff.retry_jitter * random.random()  # noqa: S311
    return max(delay, retry_after or 0.0)
