"""Bulk actions: what is to be done to many jobs, as it was planned, and how far a run of it is.

A plan names its jobs by a filter as of a position of the stream: those that match and have not moved since. So the
number that was shown is the number of jobs that are touched, and whatever a run has done is left out by the next one.
"""

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import Scope, Viewer, Visibility

PLAN_LIFE = timedelta(hours=24)
"""How long a plan may be run."""
SILENT_AFTER = timedelta(seconds=15)
"""How long nothing is heard of a run before it counts as interrupted."""


class BulkAction(StrEnum):
    """What is done to each job."""

    RETRY = "retry"
    CANCEL = "cancel"
    DELETE = "delete"


class BulkState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    INTERRUPTED = "interrupted"


APPLIES_TO = {
    BulkAction.RETRY: frozenset({JobStatus.DEAD_LETTER, JobStatus.CANCELLED}),
    BulkAction.CANCEL: frozenset(status for status in JobStatus if not status.is_terminal),
    BulkAction.DELETE: frozenset(JobStatus) - {JobStatus.PROCESSING},
}
"""The states of jobs to which an action can be done."""


NEEDS = {BulkAction.RETRY: Scope.CONTROL, BulkAction.CANCEL: Scope.CONTROL, BulkAction.DELETE: Scope.OPERATE}
"""The scope that whoever plans or runs an action needs."""


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


@lru_cache(maxsize=256)
def mark_of(visibility: Visibility) -> str:
    """Return a text that is the same for all who see the same jobs, and short however many these are."""
    return hashlib.sha256(msgspec.json.encode(visibility, order="deterministic")).hexdigest()


class BulkRun(Struct, frozen=True, rename="camel"):
    """How far a run of a plan is.

    Of ``planned`` jobs so many were ``done``, were ``skipped`` because they had moved meanwhile, or have ``failed`` for
    another reason. ``heard_at``: when its process last said that it goes on. ``seen_by``: stands for what
    whoever began it may see; of others with the same name, as view tokens have it, it is none.
    """

    id: str
    action: BulkAction
    state: BulkState
    planned: int
    started_at: datetime
    heard_at: datetime
    subject: str
    tenant: str | None = None
    seen_by: str = ""
    done: int = 0
    skipped: int = 0
    failed: int = 0
    finished_at: datetime | None = None

    def is_shown_to(self, viewer: Viewer) -> bool:
        """Return whether there is the run for the viewer: one that it might have begun, or any if it operates all."""
        own = (self.subject, self.tenant) == (viewer.subject, viewer.tenant)
        return viewer.may_operate_all or (own and self.seen_by == mark_of(viewer.visibility))

    @property
    def as_interrupted(self) -> "BulkRun":
        """The run as it is if nothing has been heard of it for long."""
        return replace(self, state=BulkState.INTERRUPTED, finished_at=self.heard_at)
