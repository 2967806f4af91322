"""What can be done to jobs. Every mutation returns what this process's index shows, once it has applied the write."""

from asyncio import TaskGroup
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import strawberry
from msgspec.structs import replace
from strawberry.tools import create_type

from gql_jobs.graphql.context import Info, Services, services
from gql_jobs.graphql.inputs import JobFilterInput, request_of
from gql_jobs.graphql.job_types import Job, presenter
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs import model
from gql_jobs.jobs.errors import InvalidArgument, InvalidState, NotFound
from gql_jobs.jobs.model import JobStatus, parse_job_id
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.log.commands import Created, JobCommands

# Retrying many jobs at once: a few at a time, passing over those that somebody else has moved meanwhile.

AT_A_TIME = 32
RETRYABLE = (JobStatus.DEAD_LETTER, JobStatus.CANCELLED)


async def retry_all(services: Services, meant: JobFilter) -> list[model.Job]:
    """Retry what matches and can be retried; returns the jobs that were.

    :raises QueueUnavailable: if NATS stops answering; what was retried before that stays so.
    """
    wanted = RETRYABLE if meant.status is None else tuple(s for s in RETRYABLE if s in meant.status)
    if not wanted:
        return []
    waiting = iter(await services.reader.ids(replace(meant, status=wanted)))
    retried: list[model.Job] = []
    try:
        async with TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(_retry_in_turn(services.commands, waiting, retried))
    except ExceptionGroup as failures:
        # One sentence for the client: all of them failed for the same reason.
        raise failures.exceptions[0] from failures
    return retried


async def _retry_in_turn(commands: JobCommands, waiting: Iterator[str], retried: list[model.Job]) -> None:
    for job_id in waiting:
        try:
            retried.append(await commands.retry(job_id))
        except (InvalidState, NotFound):
            continue


LARGEST_BATCH = 1000
JobId = Annotated[strawberry.ID, strawberry.argument(description="The job's id.")]


@strawberry.type(description="A created job.")
class CreateJobPayload:
    job: Job = strawberry.field(description="The job.")
    deduplicated: bool = strawberry.field(description="True if the idempotency key had made the job before.")


@strawberry.type(description="Created jobs.")
class CreateJobsPayload:
    jobs: list[Job] = strawberry.field(description="The jobs, in the order of the inputs.")
    deduplicated_count: int = strawberry.field(description="How many of them an idempotency key had made before.")


@strawberry.type(description="A cancelled job.")
class CancelJobPayload:
    job: Job = strawberry.field(description="The job.")


@strawberry.type(description="A job that runs again.")
class RetryJobPayload:
    job: Job = strawberry.field(description="The job.")


@strawberry.type(description="The outcome of retrying many jobs.")
class RetryJobsPayload:
    retried_count: int = strawberry.field(description="How many jobs run again.")


class Creations(NamedTuple):
    """The type Mutation, and the resolvers that are to be called with their inputs as dictionaries."""

    type: type[Any]
    resolvers: dict[str, Callable[..., Any]]


def mutations(registered: RegisteredTypes, create_input: type[Any]) -> Creations:
    """What can be done in a schema whose creations take ``create_input``."""

    async def create_job(info: Info, input: Any) -> CreateJobPayload:  # noqa: A002
        request = request_of(input, registered, "input")
        created = await services(info).commands.create(request)
        job = await services(info).settled(created.job)
        return CreateJobPayload(job=registered.present(job), deduplicated=created.deduplicated)

    async def create_jobs(info: Info, inputs: Any) -> CreateJobsPayload:
        if not 1 <= len(inputs) <= LARGEST_BATCH:
            raise InvalidArgument("inputs", f"createJobs takes 1 to {LARGEST_BATCH} inputs, not {len(inputs)}.")
        requests = [request_of(creation, registered, f"inputs.{n}") for n, creation in enumerate(inputs)]
        created = await services(info).commands.create_many(requests)
        jobs = await _all_settled(services(info), created)
        return CreateJobsPayload(
            jobs=[registered.present(job) for job in jobs], deduplicated_count=sum(c.deduplicated for c in created)
        )

    # The type is known only now; Strawberry reads annotations when it makes a field.
    one = strawberry.argument(description="The job to create.")
    many = strawberry.argument(description="1 to 1000 jobs to create, in this order.")
    create_job.__annotations__["input"] = Annotated[create_input, one]
    create_jobs.__annotations__["inputs"] = Annotated[list[create_input], many]  # type: ignore[valid-type]
    fields = [
        strawberry.mutation(create_job, description="Create a job. It is durable once this returns."),
        strawberry.mutation(
            create_jobs,
            description=(
                "Create up to 1000 jobs at once, in order. All inputs are checked before anything is stored; "
                "if storing fails midway, `extensions.acceptedIds` of the error lists what was stored and "
                "`extensions.uncertainIds` what may have been."
            ),
        ),
        *_FIELDS,
    ]
    mutation = create_type("Mutation", fields, description="Everything that can be done.")
    return Creations(mutation, {"createJob": create_job, "createJobs": create_jobs})


async def _all_settled(running: Services, created: list[Created]) -> list[model.Job]:
    """The index applies the stream in order: once it has the last of the writes it has all of them."""
    last = await running.settled(max((c.job for c in created), key=lambda job: job.last_seq))
    known = {last.id: last}
    return [known.get(c.job.id) or running.index.job(c.job.id) or c.job for c in created]


def _known_id(text: str) -> str:
    job_id = parse_job_id(text)
    if job_id is None:
        raise NotFound(text)
    return job_id


async def _cancel_job(info: Info, id: JobId) -> CancelJobPayload:  # noqa: A002
    job_id = _known_id(id)
    job = await services(info).commands.cancel(job_id)
    return CancelJobPayload(job=presenter(info)(await services(info).settled(job)))


async def _retry_job(info: Info, id: JobId) -> RetryJobPayload:  # noqa: A002
    job_id = _known_id(id)
    job = await services(info).commands.retry(job_id)
    return RetryJobPayload(job=presenter(info)(await services(info).settled(job)))


async def _retry_jobs(
    info: Info,
    filter: Annotated[JobFilterInput, strawberry.argument(description="Which jobs; others are left alone.")],  # noqa: A002
) -> RetryJobsPayload:
    running = services(info)
    retried = await retry_all(running, filter.value())
    if retried:
        await running.settled(max(retried, key=lambda job: job.last_seq))
    return RetryJobsPayload(retried_count=len(retried))


_FIELDS = [
    strawberry.mutation(
        _cancel_job,
        name="cancelJob",
        description="Cancel a job that has not ended yet. If it runs, its worker is told at once.",
    ),
    strawberry.mutation(
        _retry_job,
        name="retryJob",
        description="Run a dead-lettered or cancelled job again, with a fresh retry budget and its history kept.",
    ),
    strawberry.mutation(
        _retry_jobs,
        name="retryJobs",
        description="Run all dead-lettered and cancelled jobs again that match a filter.",
    ),
]
