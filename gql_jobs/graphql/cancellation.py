"""What became of a cancellation, as clients see it: the receipts of the worker that ran the job."""

from datetime import datetime
from typing import Self

import strawberry

from gql_jobs.graphql.enums import CancellationOutcome
from gql_jobs.jobs.messages import Receipt
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.views.notes import Note


@strawberry.type(
    description="What became of a cancellation. The receipts come after the terminal event, so that they are not part "
    "of a subscription, which ends with it: ask for the job again."
)
class Cancellation:
    requested_at: datetime = strawberry.field(description="When the job was cancelled.")
    delivered_at: datetime | None = strawberry.field(
        description="When the running handler was told; null if none ran, or it had ended by then."
    )
    ended_at: datetime | None = strawberry.field(description="When the handler ended or was given up.")
    outcome: CancellationOutcome | None = strawberry.field(
        description="How the handler ended; null while it is not known, and for good if none ran or it was lost."
    )
    worker_id: str | None = strawberry.field(description="The worker that says so.")

    @classmethod
    def of(cls, job: Job, notes: list[Note]) -> Self | None:
        """The cancellation of a job that is cancelled, with its receipts."""
        if job.status is not JobStatus.CANCELLED or job.finished_at is None:
            return None
        delivered = next((note for note in notes if note.receipt is Receipt.DELIVERED), None)
        ended = next((note for note in notes if note.receipt is not Receipt.DELIVERED), None)
        return cls(
            requested_at=job.finished_at,
            delivered_at=delivered.at if delivered is not None else None,
            ended_at=ended.at if ended is not None else None,
            outcome=CancellationOutcome(ended.receipt.value) if ended is not None else None,
            worker_id=notes[-1].worker_id if notes else None,
        )
