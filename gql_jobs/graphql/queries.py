"""The queries: jobs from the index, and the job types, queues and workers of this installation."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from datetime import datetime
from functools import cache
from typing import Annotated, Any

import strawberry
from pydantic import BaseModel
from strawberry.scalars import JSON

from gql_jobs.graphql.bulk import BulkRun, bulk_run
from gql_jobs.graphql.context import Info, Services
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.graphql.engine.complexity import LARGEST_PAGE
from gql_jobs.graphql.inputs import FilterArgument, JobFilterInput, OrderArgument, filter_of, order_of
from gql_jobs.graphql.job_lists import JobConnection, presented_jobs, presented_page
from gql_jobs.graphql.job_types import (
    LARGEST_READ,
    Job,
    needed_of_job,
    needed_of_jobs,
    page_nodes,
    presenter,
    read_page_of,
)
from gql_jobs.graphql.queue_types import Queue, QueueLimits, kinds_for, read_queues, shown_limits
from gql_jobs.graphql.schedule_types import Schedule, find_schedule, list_schedules, preview_schedule
from gql_jobs.graphql.server_status import ServerStatus, server_status
from gql_jobs.graphql.viewers import Viewer, viewer_of
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.model import JobStatus, failure_group
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.jobs.viewer import Visibility
from gql_jobs.log.heartbeats import WorkerSeen

LARGEST_GROUPS, DEFAULT_GROUPS = 100, 20
"""Groups of dead letters that are answered, at most and where the argument ``first`` is left out or null."""
DEFAULT_PAGE = 50
"""Jobs of a page where the argument ``first`` is left out or null."""


@strawberry.type(description="A kind of job that this server can create.")
class JobType:
    """A registered job type as clients see it."""

    name: str = strawberry.field(description="Its name, as `Job.type` and filters say it.")
    queue: str = strawberry.field(description="The queue its jobs go to.")
    max_retries: int = strawberry.field(description="How many attempts may follow the first, unless a job says so.")
    timeout_seconds: float = strawberry.field(description="How long one attempt may take, unless a job says so.")
    payload_schema: JSON = strawberry.field(description="The JSON Schema of its payload.")
    limits: QueueLimits = strawberry.field(
        description="What its jobs are limited to, beside the limits of their queue: as the API process has registered "
        "the type that started last."
    )


@strawberry.type(description="A job type of which a worker cannot run some jobs: it leaves those to other workers.")
class UnableType:
    """A type of which a worker has met jobs that it cannot run, within the last minutes."""

    job_type: str = strawberry.field(description="The type's name, cut to 100 characters.")
    reason: str = strawberry.field(
        description="Why it cannot run one of them: the type is not registered there, the payload does not fit the "
        "model as that worker has it, or the handler lacks a library there."
    )


@strawberry.type(description="A worker process heard of within the last 15 seconds.")
class Worker:
    """A worker as its last heartbeat described it."""

    id: strawberry.ID = strawberry.field(description="Its id, as `Job.workerId` says it.")
    hostname: str = strawberry.field(description="The machine it runs on.")
    queues: list[str] = strawberry.field(description="The queues it serves.")
    job_types: list[str] = strawberry.field(
        description="The job types it runs: those it knows in its queues, less those whose handler turned out to lack "
        "a library there."
    )
    unable: list[UnableType] = strawberry.field(
        description="The types of which it has lately met jobs that it cannot run: it leaves them QUEUED for workers "
        "that can. One that nobody could read for a day is a dead letter (`GQL_JOBS_UNABLE_TIMEOUT`)."
    )
    concurrency: int = strawberry.field(description="How many jobs it runs at a time.")
    running: int = strawberry.field(description="How many jobs it runs now.")
    started_at: datetime = strawberry.field(description="When it started.")
    last_seen_at: datetime = strawberry.field(description="When it was last heard of.")
    stale: bool = strawberry.field(
        description="Whether it has missed a heartbeat, which come every 5 seconds: nothing was heard of it for more "
        "than 7. Soon it is no longer listed, unless it is heard of again. Time in which this server could not reach "
        "NATS, and so could hear of nobody, does not count."
    )

    @strawberry.field(description=f"The jobs that it runs, the first created first: at most {LARGEST_PAGE}.")
    async def jobs(self, info: Info) -> list[Job]:
        """Return the jobs of the index that are PROCESSING and name this worker."""
        context = info.context
        running = (await context.once("running", context.services().reader.running)).get(self.id, [])[:LARGEST_PAGE]
        if not running:
            return []
        needed = needed_of_job(info)
        job_filter = JobFilter(
            ids=frozenset(running),
            status=frozenset({JobStatus.PROCESSING}),
            visibility=context.session.visibility,
        )
        page = await read_page_of(job_filter, JobOrder(descending=False), len(running), info, needed)
        return await page_nodes(page, info, needed)


@strawberry.type(
    description="Dead letters that failed alike: jobs of one type, with one exception, whose messages differ in "
    "numbers, ids, addresses and quotations only."
)
class DeadLetterGroup:
    """A group of dead letters, with one of them as a sample."""

    key: str = strawberry.field(description="Names the group, everywhere and for good; `planBulk` takes it.")
    type: str = strawberry.field(description="The type of its jobs.")
    error_type: str = strawberry.field(description="The name of the exception that all of them ended with.")
    message: str = strawberry.field(
        description="The first line of their messages, with `<number>`, `<id>`, `<address>`, `<url>` and `<…>` for "
        "what differs; at most 200 characters."
    )
    count: int = strawberry.field(description="How many of the dead letters that match are in it.")
    first_at: datetime = strawberry.field(description="When the first of them failed for good.")
    last_at: datetime = strawberry.field(description="When the last of them did.")
    sample: Job = strawberry.field(description="The one that failed last.")


@strawberry.type(description="Everything that can be asked.")
class Query:
    """The root of all queries."""

    @strawberry.field(description="One job; null for an id that is unknown or no UUID.")
    async def job(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The job's id.")],  # noqa: A002 -- the schema's name
    ) -> Job | None:
        """Return the job, or None if the id is unknown or no UUID."""
        context = info.context
        job = await context.services().job(id, context.session.visibility, context.budget)
        return presenter(info)(job) if job is not None else None

    @strawberry.field(description="Jobs that match a filter, page by page. Without arguments: the newest 50.")
    async def jobs(
        self,
        info: Info,
        *,
        filter: FilterArgument = strawberry.UNSET,  # noqa: A002 -- the schema's name
        order_by: OrderArgument = strawberry.UNSET,
        first: Annotated[int | None, strawberry.argument(description="How many at most: 0 to 500.")] = DEFAULT_PAGE,
        after: Annotated[
            str | None,
            strawberry.argument(description="Go on after this cursor, which stays right while jobs arrive."),
        ] = strawberry.UNSET,
        offset: Annotated[
            int | None, strawberry.argument(description="Skip this many; a cursor is faster and does not shift.")
        ] = strawberry.UNSET,
    ) -> JobConnection:
        """Return a page of the index; refuse a size, offset or cursor that is not valid with INVALID_ARGUMENT."""
        first = DEFAULT_PAGE if first is None else first
        if not 0 <= first <= LARGEST_PAGE:
            raise InvalidArgument("first", f"first must be between 0 and {LARGEST_PAGE}.")
        if offset and offset < 0:
            raise InvalidArgument("offset", "offset must not be negative.")
        job_filter = filter_of(filter, info.context.session.visibility)
        budget, needed = info.context.budget, needed_of_jobs(info)
        budget.take(first)
        page = await info.context.services().reader.page(
            job_filter,
            order_of(order_by),
            first=first,
            after=after or None,
            offset=offset or 0,
            largest=LARGEST_READ[needed],
            max_bytes=None if budget.max_size is None else budget.max_size - budget.read,
        )
        budget.take(read=page.size)
        return await presented_page(page, job_filter, info, needed)

    @strawberry.field(
        description="The dead letters in groups of those that failed alike, the largest group first. Jobs that are "
        "retried leave their group."
    )
    async def dead_letter_groups(
        self,
        info: Info,
        filter: Annotated[  # noqa: A002 -- the schema's name
            dict[str, Any] | None,
            strawberry.argument(
                description="Which dead letters; all of them where left out.", graphql_type=JobFilterInput | None
            ),
        ] = strawberry.UNSET,
        first: Annotated[
            int | None, strawberry.argument(description=f"How many groups at most: 1 to {LARGEST_GROUPS}.")
        ] = DEFAULT_GROUPS,
    ) -> list[DeadLetterGroup]:
        """Return the groups, each with the job that failed last; refuse a size out of range with INVALID_ARGUMENT."""
        first = DEFAULT_GROUPS if first is None else first
        if not 1 <= first <= LARGEST_GROUPS:
            raise InvalidArgument("first", f"first must be between 1 and {LARGEST_GROUPS}.")
        context = info.context
        context.budget.take(first)
        job_filter = filter_of(filter, context.session.visibility)
        found = await context.services().reader.failure_groups(job_filter, first)
        samples = await presented_jobs([group.sample for group in found], info)
        return [
            DeadLetterGroup(
                key=group.key,
                type=failure.type,
                error_type=failure.error_type,
                message=failure.message,
                count=group.jobs,
                first_at=group.first_at,
                last_at=group.last_at,
                sample=shown,
            )
            for group in found
            # One that was retried since the groups were read is in none any more.
            if (shown := samples.get(group.sample)) is not None and (failure := failure_group(shown.source)) is not None
        ]

    bulk_run: BulkRun | None = strawberry.field(
        resolver=bulk_run,
        description="A run of a bulk action, to whoever began it; null for an id that is unknown, and a day after.",
    )

    @strawberry.field(
        description="The kinds of job that this server can create, as far as there can be jobs of them for the viewer."
    )
    def job_types(self, info: Info) -> list[JobType]:
        """Return the registered types, with the retries and the timeout that their jobs have by default."""
        limits = info.context.services().settings
        kinds = kinds_for(info.context.services(), info.context.session.visibility)
        info.context.budget.take(len(kinds))
        return [
            JobType(
                name=kind.name,
                queue=kind.queue,
                max_retries=limits.max_retries if kind.max_retries is None else kind.max_retries,
                timeout_seconds=limits.process_timeout if kind.timeout is None else kind.timeout,
                payload_schema=_payload_schema(kind.payload),
                limits=shown_limits(info.context.services().feed.steering.limits_of_type(kind.name)),
            )
            for kind in kinds
        ]

    @strawberry.field(
        description="The queues, with how many jobs stand where: those that there are for the viewer, and only queues "
        "that can have some."
    )
    async def queues(self, info: Info) -> list[Queue]:
        """Return the queues of registered types and of stored jobs, sorted by name."""
        return await read_queues(info.context.services(), info.context.session.visibility, info.context.budget)

    @strawberry.field(
        description="The workers that run at the moment; none for a viewer with a tenant or limits, because they run "
        "the jobs of all."
    )
    def workers(self, info: Info) -> list[Worker]:
        """Return the workers whose heartbeats this process has received lately; none to whom only some jobs exist."""
        return read_workers(info.context.services(), info.context.session.visibility, info.context.budget)

    schedules: list[Schedule] = strawberry.field(
        resolver=list_schedules,
        description="What is done again and again, sorted by name: none for a viewer with a tenant or limits, because "
        "schedules are those of all.",
    )
    schedule: Schedule | None = strawberry.field(
        resolver=find_schedule,
        description="One schedule; null for a name that none has, and for a viewer with a tenant or limits.",
    )
    schedule_preview: list[datetime] = strawberry.field(
        resolver=preview_schedule,
        description="When a schedule would be due, changes of clocks included, without `spreadSeconds`.",
    )

    @strawberry.field(description="Who asks, and what they may see and do.")
    def viewer(self, info: Info) -> Viewer:
        """Return the viewer of the session, which is another one after a renewal."""
        return viewer_of(info)

    server_status: ServerStatus = strawberry.field(
        resolver=server_status, description="Whether the process that answers reaches the store of the jobs."
    )


def read_workers(services: Services, visibility: Visibility, budget: Budget) -> list[Worker]:
    """Return the workers that run at the moment; none to those who see some jobs only."""
    if visibility.is_partial:
        return []
    workers = services.presence.workers()
    # They may have any number of queues and job types.
    budget.take(sum([1 + len(seen.queues) + len(seen.job_types) for seen in workers]))
    return [_worker(seen) for seen in workers]


@cache
def _payload_schema(payload: type[BaseModel]) -> JSON:
    # Making it takes far longer than all else of the list.
    return JSON(payload.model_json_schema(by_alias=True))


def _worker(seen: WorkerSeen) -> Worker:
    return Worker(
        id=strawberry.ID(seen.id),
        hostname=seen.hostname,
        queues=list(seen.queues),
        job_types=list(seen.job_types),
        unable=[UnableType(job_type=one.job_type, reason=one.reason) for one in seen.unable],
        concurrency=seen.concurrency,
        running=seen.running,
        started_at=seen.started_at,
        last_seen_at=seen.last_seen_at,
        stale=seen.stale,
    )
