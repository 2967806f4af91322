"""What a worker process publishes about its work: a log line for each step of a job, and counts for its metrics."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from gql_jobs.logs import printable

_events = logging.getLogger("gql_jobs.events")
_MAX_FACT = 500
"""Characters of one fact that a line shows."""
_progress_level = logging.DEBUG


def show_progress(shown: bool) -> None:
    """Have the progress of jobs logged at INFO from now on, or at DEBUG, for whole workers: it is most of the lines."""
    global _progress_level  # noqa: PLW0603  # set once, by the setting of the process
    _progress_level = logging.INFO if shown else logging.DEBUG


def log_event(what: str, fields: Mapping[str, Any], **facts: Any) -> None:
    """Write the line of one step of a job; the same form for every kind of step.

    ``[event] Job progress: 550e8400... (progress=25%, message=Connecting to SMTP...)``

    :param what: the step, such as ``started``; ``progress`` is written at the level that ``show_progress`` chose.
    :param fields: the fields of the line (see ``gql_jobs.logs.job_fields``).
    :param facts: what stands in brackets, in this order; what is None is left out.
    """
    level = _progress_level if what == "progress" else logging.INFO
    if _events.isEnabledFor(level):
        listed = ", ".join(f"{name}={_one_line(value)}" for name, value in facts.items() if value is not None)
        _events.log(level, "[event] Job %s: %s... (%s)", what, fields["job_id"][:8], listed, extra=fields)


def shown_seconds(duration: float) -> str:
    """Return a duration as log lines show it, such as ``0.250s``."""
    return f"{duration:.3f}s"


def _one_line(value: Any) -> str:
    # A message may hold what a user typed: a line break in it must not forge a line of the log.
    text = str(value)
    if len(text) > _MAX_FACT:
        text = f"{text[:_MAX_FACT]}…"
    return text if text.isprintable() else printable(text)


class Counts:
    """Counters of one worker process since its start, for metrics; written by the event loop's thread alone."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Attempts by job type and outcome: started, completed, failed, dead-letter, released, cancelled."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Seconds that the attempts of each job type ran, in all."""
        self.superseded = 0
        """Attempts that another worker had taken over: their outcomes were refused."""
        self.late = 0
        """Outcomes that were refused because the job had ended, by a cancellation for example."""
        self.renewed = 0
        """Redeliveries of what ran here already, which renewed a lease that had run out."""
        self.passed_on = 0
        """Redeliveries left to the worker that still ran the job."""
        self.unreadable = 0
        """Submissions that no version can read, set aside."""
        self.newer = 0
        """Submissions left to workers of a newer version."""
        self.unable = 0
        """Deliveries left to workers that have what their handler needs."""
        self.stalls = 0
        """Times that the event loop stood still for so long that leases may have run out."""

    def count_outcome(self, job_type: str, outcome: str, seconds: float) -> None:
        """Count an attempt that has ended after so many seconds."""
        self.outcomes[job_type, outcome] += 1
        self.seconds[job_type] += seconds
