"""Jobs as clients see them: the interface Job, and the object for jobs that no registered type can describe."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

import msgspec
import strawberry
from strawberry.scalars import JSON

from gql_jobs.graphql.cancellation import Cancellation
from gql_jobs.graphql.context import Info, services
from gql_jobs.graphql.hooks import compute, computed
from gql_jobs.jobs import artifact, model
from gql_jobs.jobs.model import JobPriority, JobStatus

_MILLISECOND = timedelta(milliseconds=1)


@strawberry.type(description="One failed attempt.")
class JobError:
    message: str = strawberry.field(description="What went wrong, in the words of the handler.")
    type: str = strawberry.field(description="The name of the exception.")
    attempt: int = strawberry.field(description="The attempt that failed; the first is 1.")
    at: datetime = strawberry.field(description="When it failed.")
    retryable: bool = strawberry.field(description="False for a permanent error, after which no attempt can succeed.")


@strawberry.type(description="A file that a handler has saved with its job. Visible once it is complete.")
class Artifact:
    name: str = strawberry.field(description="Its path among the job's files.")
    url: str = strawberry.field(description="Where it can be fetched: a path below the API's address.")
    content_type: str = strawberry.field(description="Its media type.")
    size_bytes: int = strawberry.field(description="Its size.")
    sha256: str = strawberry.field(description="Its SHA-256, in hexadecimal digits.")
    created_at: datetime = strawberry.field(description="When it was saved.")


# An event holds a job and a job its events, so the module of one of them has to be named instead of imported.
_EVENT: Any = strawberry.LazyType("JobEvent", "gql_jobs.graphql.event_types")


@strawberry.interface(description="A job, whatever its type.")
class Job:
    source: strawberry.Private[model.Job]
    id: strawberry.ID = computed(description="A UUID.")
    type: str = computed(description="The name of the job type, as `email`.")
    queue: str = computed(description="The queue that workers take it from.")
    status: JobStatus = computed(description="Where the job stands.")
    priority: JobPriority = computed(description="Which job starts first when workers are busy.")
    progress: int = computed(description="How far the work is, in percent: 0 to 100.")
    progress_message: str | None = computed(description="What the handler said it is doing.")
    attempt: int = computed(
        description="The attempt that runs or ran last, from 1; 0 before the first. Starts again with a retry by hand."
    )
    retry_count: int = computed(description="Attempts after the first. Starts again with a retry by hand.")
    max_retries: int = computed(description="How many attempts may follow the first.")
    worker_id: str | None = computed(description="The worker that runs it or ran it last.")
    error: JobError | None = computed(description="The latest failure; null once the job has completed.")
    tags: list[str] = computed(description="The tags it was created with.")
    created_at: datetime = computed(description="When it was created.")
    updated_at: datetime = computed(description="When it last changed.")
    run_at: datetime | None = computed(description="When it was to run at the earliest; null for at once.")
    started_at: datetime | None = computed(description="When the latest attempt started.")
    finished_at: datetime | None = computed(description="When it reached its terminal state.")
    next_attempt_at: datetime | None = computed(description="When the next attempt starts, while RETRYING.")
    duration_ms: int | None = computed(
        description="How long the last attempt ran, in milliseconds; null until the job has ended."
    )

    @strawberry.field(description="The payload as stored: the JSON of the type's payload.")
    def raw_payload(self) -> JSON:
        return _json(self.source.spec.payload)

    @strawberry.field(description="The result as stored; null until the job has completed.")
    def raw_result(self) -> JSON | None:
        result = self.source.result
        return _json(result) if result is not None else None

    @strawberry.field(description="The files that the handler has saved, by name.")
    async def artifacts(self, info: Info) -> list[Artifact]:
        return [_artifact_of(self.id, saved) for saved in await services(info).saved(self.id)]

    @strawberry.field(description="What became of its cancellation; null for a job that is not cancelled.")
    def cancellation(self, info: Info) -> Cancellation | None:
        job = self.source
        return Cancellation.of(job, services(info).index.notes(job.id, job.event_seq))

    @strawberry.field(
        graphql_type=list[_EVENT],
        description="The whole history of the job, oldest first, all attempts and their errors included.",
    )
    async def events(self, info: Info) -> list[Any]:
        from gql_jobs.graphql.event_types import event_of  # noqa: PLC0415
        from gql_jobs.graphql.registered import registered_types  # noqa: PLC0415

        registered = registered_types(info)
        return [event_of(event, registered) for event in await services(info).events(self.id)]


@strawberry.type(
    description="A job whose type this server does not know, or whose stored payload or result no longer fits its type."
)
class UnknownJob(Job):
    pass


def _artifact_of(job_id: str, saved: artifact.Artifact) -> Artifact:
    return Artifact(
        name=saved.name,
        url=saved.url(job_id),
        content_type=saved.content_type,
        size_bytes=saved.size_bytes,
        sha256=saved.sha256,
        created_at=saved.created_at,
    )


def _json(stored: msgspec.Raw) -> JSON:
    """Stored JSON as it is; as text where a foreign writer has stored what no client could be given."""
    try:
        value = msgspec.json.decode(stored)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = None
    return JSON(value if value is not None else bytes(stored).decode("utf-8", "replace"))


def error_of(error: model.JobError) -> JobError:
    """A failure as clients see it."""
    return JobError(
        message=error.message, type=error.type, attempt=error.attempt, at=error.at, retryable=error.retryable
    )


def milliseconds(job: model.Job) -> int | None:
    """How long the last attempt ran. No longer than an Int can say: 24 days."""
    duration = job.duration
    return min(max(round(duration / _MILLISECOND), 0), 2**31 - 1) if duration is not None else None


def _error(shown: Job) -> JobError | None:
    error = shown.source.error
    return error_of(error) if error is not None else None


compute(
    Job,
    id=attrgetter("source.id"),
    type=attrgetter("source.spec.type"),
    queue=attrgetter("source.spec.queue"),
    status=attrgetter("source.status"),
    priority=attrgetter("source.spec.priority"),
    progress=attrgetter("source.progress"),
    progress_message=attrgetter("source.progress_message"),
    attempt=attrgetter("source.attempt"),
    retry_count=attrgetter("source.retry_count"),
    max_retries=attrgetter("source.spec.max_retries"),
    worker_id=attrgetter("source.worker_id"),
    error=_error,
    tags=attrgetter("source.spec.tags"),
    created_at=attrgetter("source.spec.created_at"),
    updated_at=attrgetter("source.updated_at"),
    run_at=attrgetter("source.spec.run_at"),
    started_at=attrgetter("source.started_at"),
    finished_at=attrgetter("source.finished_at"),
    next_attempt_at=attrgetter("source.next_attempt_at"),
    duration_ms=lambda shown: milliseconds(shown.source),
)
