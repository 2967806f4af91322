"""What the log says of a job, as the values that a client is given: snapshots, events and files.

The API says the same of the same job over HTTP: where a foreign writer's event lacks something, both put the same
substitute in its place.
"""

from collections.abc import Callable
from datetime import timedelta

from msgspec import Raw
from msgspec.structs import replace

from gql_jobs.client.transport import (
    ArtifactInfo,
    CancelledEvent,
    CompletedEvent,
    DeadLetterEvent,
    EditedEvent,
    FailedEvent,
    JobEvent,
    JobSnapshot,
    ProgressEvent,
    QueuedEvent,
    ScheduledEvent,
    StartedEvent,
    WaitingEvent,
)
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Artifact, Job, JobError, Spec
from gql_jobs.jobs.registry import registry
from gql_jobs.jobs.secret_fields import marks_for, redacted


def shown_payload(spec: Spec, payload: Raw) -> bytes:
    """Return the JSON of a payload, decoded, without its secrets: those that were stored as such, and its model's."""
    job_type = registry.get(spec.type)
    marks = marks_for(job_type.payload if job_type is not None else None, payload, spec.secrets)
    return bytes(redacted(payload, marks)) if marks else bytes(payload)


def snapshot_of(job: Job, payload: bytes | None = None, result: bytes | None = None) -> JobSnapshot:
    """Return the job as a client is shown it.

    :param payload: the JSON of its payload, decoded and without secrets; None to leave it out.
    :param result: the JSON of its result, decoded; None to leave it out.
    """
    spec = job.spec
    return JobSnapshot(
        id=job.id,
        type=spec.type,
        queue=spec.queue,
        status=job.status,
        priority=spec.priority,
        progress=job.progress,
        message=job.progress_message,
        attempts=job.attempt,
        max_retries=spec.max_retries,
        timeout=spec.timeout,
        created_at=spec.created_at,
        updated_at=job.updated_at,
        error=job.error,
        errors=job.errors,
        tags=spec.tags,
        tenant=spec.tenant,
        created_by=spec.created_by,
        worker_id=job.worker_id,
        run_at=job.run_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        next_attempt_at=job.next_attempt_at,
        payload=payload,
        result=result,
        key=spec.key,
        concurrency_key=spec.concurrency_key,
        schedule=spec.schedule,
        start_before=spec.start_before,
        cancel_reason=job.cancel_reason,
    )


def brief_snapshot(job: Job) -> JobSnapshot:
    """Return the job without its payload and its result, and with the latest error alone."""
    shown = snapshot_of(job)
    return replace(shown, errors=(shown.error,) if shown.error is not None else ())


def client_event(event: Event) -> JobEvent:
    """Return an event as a client is told it, with the job as of that."""
    job = event.job
    return _EVENTS[event.kind](str(event.cursor), job, brief_snapshot(job))


def artifact_info(saved: Artifact) -> ArtifactInfo:
    """Return what a client is told of a file."""
    return ArtifactInfo(saved.name, saved.content_type, saved.size_bytes, saved.sha256, saved.created_at)


def _last_error(job: Job) -> JobError:
    if job.errors:
        return job.errors[-1]
    return JobError(
        message="The failure was not recorded.", type="Unknown", attempt=job.attempt, at=job.updated_at, retryable=False
    )


def _duration(job: Job) -> timedelta:
    """Return how long the last attempt ran, in whole milliseconds."""
    duration = max(job.duration or timedelta(), timedelta())
    return timedelta(milliseconds=round(duration / timedelta(milliseconds=1)))


_EVENTS: dict[Kind, Callable[[str, Job, JobSnapshot], JobEvent]] = {
    Kind.SCHEDULED: lambda cursor, job, shown: ScheduledEvent(
        cursor, job.updated_at, job.actor, shown, job.spec.run_at or job.spec.created_at
    ),
    Kind.WAITING: lambda cursor, job, shown: WaitingEvent(cursor, job.updated_at, job.actor, shown),
    Kind.EDITED: lambda cursor, job, shown: EditedEvent(cursor, job.updated_at, job.actor, shown),
    Kind.QUEUED: lambda cursor, job, shown: QueuedEvent(cursor, job.updated_at, job.actor, shown),
    Kind.STARTED: lambda cursor, job, shown: StartedEvent(
        cursor, job.updated_at, job.actor, shown, job.worker_id or "", job.attempt, job.superseded_attempt
    ),
    Kind.PROGRESS: lambda cursor, job, shown: ProgressEvent(
        cursor, job.updated_at, job.actor, shown, job.progress, job.progress_message
    ),
    Kind.COMPLETED: lambda cursor, job, shown: CompletedEvent(cursor, job.updated_at, job.actor, shown, _duration(job)),
    Kind.FAILED: lambda cursor, job, shown: FailedEvent(
        cursor, job.updated_at, job.actor, shown, _last_error(job), job.next_attempt_at or job.updated_at
    ),
    Kind.DEAD_LETTER: lambda cursor, job, shown: DeadLetterEvent(
        cursor, job.updated_at, job.actor, shown, _last_error(job)
    ),
    Kind.CANCELLED: lambda cursor, job, shown: CancelledEvent(cursor, job.updated_at, job.actor, shown),
}
"""How the event of each kind is made of its cursor and of the job as of it."""
