"""The small schema in Strawberry."""

from collections.abc import AsyncIterator
from datetime import datetime
from enum import Enum

import strawberry
from store import StoredEvent, StoredJob, store
from strawberry.extensions import ParserCache, ValidationCache


@strawberry.enum
class JobStatus(Enum):
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"


@strawberry.type
class Job:
    id: strawberry.ID
    type: str
    status: JobStatus
    priority: str
    queue: str
    progress: int
    attempt: int
    created_at: datetime
    finished_at: datetime | None
    duration_ms: int | None


@strawberry.type
class JobEvent:
    cursor: str
    job: Job


@strawberry.type
class JobConnection:
    nodes: list[Job]


@strawberry.type
class CreateJobPayload:
    job: Job
    deduplicated: bool


@strawberry.type
class CreateJobsPayload:
    jobs: list[Job]


@strawberry.input
class EmailPayloadInput:
    to: str
    subject: str
    body: str


@strawberry.input
class JobPayloadInput:
    email: EmailPayloadInput


@strawberry.input
class CreateJobInput:
    payload: JobPayloadInput


@strawberry.input
class JobFilter:
    status: list[JobStatus] | None = None
    type: list[str] | None = None


def shown(job: StoredJob) -> Job:
    return Job(
        id=strawberry.ID(job.id),
        type=job.type,
        status=JobStatus(job.status),
        priority=job.priority,
        queue=job.queue,
        progress=job.progress,
        attempt=job.attempt,
        created_at=job.created_at,
        finished_at=job.finished_at,
        duration_ms=job.duration_ms,
    )


def created(given: CreateJobInput) -> Job:
    email = given.payload.email
    return shown(store.create({"to": email.to, "subject": email.subject, "body": email.body}))


async def events(topic: str) -> AsyncIterator[JobEvent]:
    event: StoredEvent
    async for event in store.watch(topic):
        yield JobEvent(cursor=event.cursor, job=shown(event.job))


@strawberry.type
class Query:
    @strawberry.field
    def jobs(self, filter: JobFilter | None = None, first: int = 50) -> JobConnection:  # noqa: A002
        statuses = [s.value for s in filter.status] if filter and filter.status else None
        page = store.page(statuses, filter.type if filter else None, first)
        return JobConnection(nodes=[shown(job) for job in page])


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def create_job(self, input: CreateJobInput) -> CreateJobPayload:  # noqa: A002
        return CreateJobPayload(job=created(input), deduplicated=False)

    @strawberry.mutation
    async def create_jobs(self, inputs: list[CreateJobInput]) -> CreateJobsPayload:
        return CreateJobsPayload(jobs=[created(given) for given in inputs])

    @strawberry.mutation
    async def tick(self) -> int:
        return store.tick()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def job_events(self) -> AsyncIterator[JobEvent]:
        async for event in events(""):
            yield event

    @strawberry.subscription
    async def job_progress(self, id: strawberry.ID) -> AsyncIterator[JobEvent]:  # noqa: A002
        yield JobEvent(cursor="0", job=shown(store.by_id[id]))
        async for event in events(id):
            yield event


schema = strawberry.Schema(Query, Mutation, Subscription, extensions=[ParserCache, ValidationCache])
