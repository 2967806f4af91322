"""The worker's log of its jobs' lifecycle, one line an event, the same for every kind."""

import logging
from typing import Any

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
