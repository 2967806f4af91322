"""What a worker process has done and met since its start, as plain numbers for metrics and tests."""

import logging
from collections import Counter, defaultdict
from typing import Any

# The worker's log of its jobs' lifecycle, one line an event, the same for every kind.

log = logging.getLogger("gql_jobs.events")


def event(what: str, job_id: str, **facts: Any) -> None:
    """``[event] Job progress: 550e8400... (progress=25%, message=Connecting to SMTP...)``; None facts are left out."""
    if log.isEnabledFor(logging.INFO):
        listed = ", ".join(f"{name}={_one_line(value)}" for name, value in facts.items() if value is not None)
        log.info("[event] Job %s: %s... (%s)", what, job_id[:8], listed, extra={"job_id": job_id})


def seconds(duration: float) -> str:
    """A duration as people read it."""
    return f"{duration:.3f}s"


def _one_line(value: Any) -> str:
    # A message may hold what a user typed: a line break in it must not forge a line of the log.
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


class Counts:
    """Only ever added to, and within the event loop's thread."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Job type and what an attempt came to: started, completed, failed, dead-letter, released, cancelled."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """By job type: how long its attempts ran."""
        self.superseded = 0
        """Attempts that another worker had taken over: their outcomes were refused."""
        self.late = 0
        """Outcomes that were refused because the job had ended, by a cancellation for example."""
        self.adopted = 0
        """Redeliveries of what ran here already, because its lease had run out."""
        self.passed_on = 0
        """Redeliveries left to the worker that still ran the job."""
        self.unreadable = 0
        """Submissions that no version can read, set aside."""
        self.newer = 0
        """Submissions left to workers of a newer version."""
        self.unable = 0
        """Deliveries left to workers that have what their handler needs."""
        self.stalls = 0
        """Times that the event loop stood still for so long that leases were in danger."""

    def ran(self, job_type: str, outcome: str, seconds: float) -> None:
        """An attempt has ended."""
        self.outcomes[job_type, outcome] += 1
        self.seconds[job_type] += seconds
