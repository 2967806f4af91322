"""The events of jobs as clients see them: one object type for each kind of event."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Callable
from datetime import datetime
from typing import Any

import strawberry

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.job_types import Job, JobError, error_of, milliseconds
from gql_jobs.graphql.registered import present
from gql_jobs.jobs import fold, model
from gql_jobs.jobs.messages import Kind


@strawberry.interface(description="Something that happened to a job.")
class JobEvent:
    source: strawberry.Private[fold.Event]
    cursor: str = strawberry.field(
        description="The event's place in the history of all jobs; give it as `after` to resume."
    )
    at: datetime = strawberry.field(description="When it happened.")

    @strawberry.field(description="The job as of this event.")
    def job(self, info: Info) -> Job:
        return present(info, self.source.job)


@strawberry.type(description="The job was created and is held back until `runAt`.")
class JobScheduled(JobEvent):
    run_at: datetime = strawberry.field(description="When it will be queued.")


@strawberry.type(description="The job waits for a worker: created, due, handed back at shutdown, or retried by hand.")
class JobQueued(JobEvent):
    pass


@strawberry.type(description="A worker began an attempt.")
class JobStarted(JobEvent):
    worker_id: str = strawberry.field(description="The worker.")
    attempt: int = strawberry.field(description="The attempt's number; the first is 1.")
    supersedes: int | None = strawberry.field(
        description="The attempt this one replaces because its worker was lost; null where none was."
    )


@strawberry.type(description="The handler said how far it is.")
class JobProgress(JobEvent):
    progress: int = strawberry.field(description="In percent: 0 to 100.")
    message: str | None = strawberry.field(description="What it is doing.")


@strawberry.type(description="The job is done. Terminal.")
class JobCompleted(JobEvent):
    duration_ms: int = strawberry.field(description="How long the attempt ran, in milliseconds.")


@strawberry.type(description="An attempt failed and another one will follow.")
class JobFailed(JobEvent):
    error: JobError = strawberry.field(description="What went wrong.")
    next_attempt_at: datetime = strawberry.field(description="When the next attempt starts.")


@strawberry.type(description="The job failed for good: a permanent error, or no attempts left. Terminal.")
class JobDeadLetter(JobEvent):
    error: JobError = strawberry.field(description="What went wrong last.")


@strawberry.type(description="The job was cancelled. Terminal.")
class JobCancelled(JobEvent):
    pass


EVENT_TYPES: dict[Kind, type[JobEvent]] = {
    Kind.SCHEDULED: JobScheduled,
    Kind.QUEUED: JobQueued,
    Kind.STARTED: JobStarted,
    Kind.PROGRESS: JobProgress,
    Kind.COMPLETED: JobCompleted,
    Kind.FAILED: JobFailed,
    Kind.DEAD_LETTER: JobDeadLetter,
    Kind.CANCELLED: JobCancelled,
}


def event_of(event: fold.Event) -> JobEvent:
    """The event as an object of its kind."""
    job = event.job
    own = _OWN_FIELDS.get(event.kind)
    fields: dict[str, Any] = own(job) if own is not None else {}
    return EVENT_TYPES[event.kind](source=event, cursor=str(event.cursor), at=job.updated_at, **fields)


def _last_error(job: model.Job) -> JobError:
    """A failure always comes with its error; a foreign writer's message may not, and must not break the stream."""
    if job.errors:
        return error_of(job.errors[-1])
    unrecorded = "The failure was not recorded."
    return JobError(message=unrecorded, type="Unknown", attempt=job.attempt, at=job.updated_at, retryable=False)


_OWN_FIELDS: dict[Kind, Callable[[model.Job], dict[str, Any]]] = {
    Kind.SCHEDULED: lambda job: {"run_at": job.spec.run_at or job.spec.created_at},
    Kind.STARTED: lambda job: {
        "worker_id": job.worker_id or "",
        "attempt": job.attempt,
        "supersedes": job.superseded_attempt,
    },
    Kind.PROGRESS: lambda job: {"progress": job.progress, "message": job.progress_message},
    Kind.COMPLETED: lambda job: {"duration_ms": milliseconds(job) or 0},
    Kind.FAILED: lambda job: {
        "error": _last_error(job),
        "next_attempt_at": job.next_attempt_at or job.updated_at,
    },
    Kind.DEAD_LETTER: lambda job: {"error": _last_error(job)},
}
