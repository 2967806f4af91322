"""Which jobs are meant: one filter for pages, counts, bulk retries and live events."""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from gql_jobs.jobs.model import Job, JobPriority, JobStatus


class JobFilter(Struct, frozen=True):
    """All parts combine; None leaves a part open, an empty tuple matches nothing.

    A job matches ``tags`` if it carries every one of them. ``created_after`` and ``created_before`` are exclusive.
    """

    ids: tuple[str, ...] | None = None
    status: tuple[JobStatus, ...] | None = None
    type: tuple[str, ...] | None = None
    queue: tuple[str, ...] | None = None
    priority: tuple[JobPriority, ...] | None = None
    tags: tuple[str, ...] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def matches(self, job: Job) -> bool:
        """Whether the job, as it stands in ``job``, is meant."""
        spec = job.spec
        return (
            (self.ids is None or job.id in self.ids)
            and (self.status is None or job.status in self.status)
            and (self.type is None or spec.type in self.type)
            and (self.queue is None or spec.queue in self.queue)
            and (self.priority is None or spec.priority in self.priority)
            and (self.tags is None or (bool(self.tags) and set(self.tags) <= set(spec.tags)))
            and (self.created_after is None or spec.created_at > self.created_after)
            and (self.created_before is None or spec.created_at < self.created_before)
        )


class OrderField(StrEnum):
    """What a page is sorted by; the job id decides between equals."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    FINISHED_AT = "finished_at"
    PRIORITY = "priority"


class JobOrder(Struct, frozen=True):
    """Newest first unless told otherwise. Unfinished jobs count as finished before all others."""

    field: OrderField = OrderField.CREATED_AT
    descending: bool = True
