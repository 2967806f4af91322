"""The events of jobs as clients see them: one object type for each kind of event."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from datetime import datetime
from operator import attrgetter

import strawberry

from gql_jobs.graphql.hooks import compute, computed
from gql_jobs.graphql.job_types import Job, JobError, error_of, milliseconds
from gql_jobs.graphql.registered import RegisteredTypes
from gql_jobs.jobs import fold, model
from gql_jobs.jobs.messages import Kind


@strawberry.interface(description="Something that happened to a job.")
class JobEvent:
    source: strawberry.Private[fold.Event]
    registered: strawberry.Private[RegisteredTypes]
    cursor: str = strawberry.field(
        description="The event's place in the history of all jobs; give it as `after` to resume."
    )
    at: datetime = computed(description="When it happened.")
    job: Job = computed(description="The job as of this event.")


@strawberry.type(description="The job was created and is held back until `runAt`.")
class JobScheduled(JobEvent):
    run_at: datetime = computed(description="When it will be queued.")


@strawberry.type(description="The job waits for a worker: created, due, handed back at shutdown, or retried by hand.")
class JobQueued(JobEvent):
    pass


@strawberry.type(description="A worker began an attempt.")
class JobStarted(JobEvent):
    worker_id: str = computed(description="The worker.")
    attempt: int = computed(description="The attempt's number; the first is 1.")
    supersedes: int | None = computed(
        description="The attempt this one replaces because its worker was lost; null where none was."
    )


@strawberry.type(description="The handler said how far it is.")
class JobProgress(JobEvent):
    progress: int = computed(description="In percent: 0 to 100.")
    message: str | None = computed(description="What it is doing.")


@strawberry.type(description="The job is done. Terminal.")
class JobCompleted(JobEvent):
    duration_ms: int = computed(description="How long the attempt ran, in milliseconds.")


@strawberry.type(description="An attempt failed and another one will follow.")
class JobFailed(JobEvent):
    error: JobError = computed(description="What went wrong.")
    next_attempt_at: datetime = computed(description="When the next attempt starts.")


@strawberry.type(description="The job failed for good: a permanent error, or no attempts left. Terminal.")
class JobDeadLetter(JobEvent):
    error: JobError = computed(description="What went wrong last.")


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


def event_of(event: fold.Event, registered: RegisteredTypes) -> JobEvent:
    """The event as an object of its kind, its job to be shown as an object of its type."""
    return EVENT_TYPES[event.kind](source=event, registered=registered, cursor=str(event.cursor))


def _last_error(shown: JobEvent) -> JobError:
    """A failure always comes with its error; a foreign writer's message may not, and must not break the stream."""
    job = shown.source.job
    if job.errors:
        return error_of(job.errors[-1])
    unrecorded = "The failure was not recorded."
    return JobError(message=unrecorded, type="Unknown", attempt=job.attempt, at=job.updated_at, retryable=False)


def _run_at(shown: JobEvent) -> datetime:
    spec = shown.source.job.spec
    return spec.run_at or spec.created_at


def _next_attempt_at(shown: JobEvent) -> datetime:
    job: model.Job = shown.source.job
    return job.next_attempt_at or job.updated_at


compute(JobEvent, at=attrgetter("source.job.updated_at"), job=lambda event: event.registered.present(event.source.job))
compute(JobScheduled, run_at=_run_at)
compute(
    JobStarted,
    worker_id=lambda event: event.source.job.worker_id or "",
    attempt=attrgetter("source.job.attempt"),
    supersedes=attrgetter("source.job.superseded_attempt"),
)
compute(JobProgress, progress=attrgetter("source.job.progress"), message=attrgetter("source.job.progress_message"))
compute(JobCompleted, duration_ms=lambda event: milliseconds(event.source.job) or 0)
compute(JobFailed, error=_last_error, next_attempt_at=_next_attempt_at)
compute(JobDeadLetter, error=_last_error)
