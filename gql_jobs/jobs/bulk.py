"""Bulk actions: what is to be done to many jobs, as it was planned, and how far a run of it is.

A plan names its jobs by a filter as of a position of the stream: those that match and have not moved since. So the
number that was shown is the number of jobs that are touched, and whatever a run has done is left out by the next one.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.requests import JobFilter

PLAN_LIFE = timedelta(hours=24)
"""How long a plan may be run."""
SILENT_AFTER = timedelta(seconds=15)
"""How long nothing is heard of a run before it counts as interrupted."""


class BulkAction(StrEnum):
    """What is done to each job."""

    RETRY = "retry"
    CANCEL = "cancel"


class BulkState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    INTERRUPTED = "interrupted"


APPLIES_TO = {
    BulkAction.RETRY: frozenset({JobStatus.DEAD_LETTER, JobStatus.CANCELLED}),
    BulkAction.CANCEL: frozenset(status for status in JobStatus if not status.is_terminal),
}
"""The states of jobs to which an action can be done."""


class BulkPlan(Struct, frozen=True, rename="camel"):
    """An action on the jobs of a filter, whose visibility is that of the maker: ``subject`` of ``tenant``.

    ``jobs``: how many there were when it was made. The filter has the position of that moment.
    """

    action: BulkAction
    filter: JobFilter
    jobs: int
    expires_at: datetime
    subject: str
    tenant: str | None = None


def planned_filter(action: BulkAction, asked: JobFilter, position: int) -> JobFilter:
    """Return the filter of those jobs to which an action can be done, and which have not moved after a position."""
    applies = APPLIES_TO[action]
    return replace(asked, status=applies if asked.status is None else applies & asked.status, moved_by=position)


class BulkRun(Struct, frozen=True, rename="camel"):
    """How far a run of a plan is.

    Of ``planned`` jobs so many were ``done``, were ``skipped`` because they had moved meanwhile, or have ``failed`` for
    another reason. ``heard_at``: when its process last said that it goes on.
    """

    id: str
    action: BulkAction
    state: BulkState
    planned: int
    started_at: datetime
    heard_at: datetime
    subject: str
    tenant: str | None = None
    done: int = 0
    skipped: int = 0
    failed: int = 0
    finished_at: datetime | None = None

    def seen_at(self, now: datetime) -> "BulkRun":
        """Return the run as it looks at a moment: one of which nothing was heard for long is interrupted."""
        if self.state is BulkState.RUNNING and now - self.heard_at > SILENT_AFTER:
            return replace(self, state=BulkState.INTERRUPTED, finished_at=self.heard_at)
        return self
