"""The mutations, and the input of a creation. Each returns the job as this process's index has it after the write.

Which payloads there are is known only when a schema is made, so each schema has a type Mutation of its own.
"""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

import asyncio
import logging
import time
from asyncio import TaskGroup
from collections import deque
from datetime import datetime
from typing import Annotated, Any

import strawberry
from msgspec.structs import replace
from pydantic.alias_generators import to_camel
from strawberry.schema_directives import OneOf
from strawberry.tools import create_type

from gql_jobs.graphql.bulk import BULK_FIELDS
from gql_jobs.graphql.context import Context, Info, Services
from gql_jobs.graphql.engine.errors import PayloadArguments
from gql_jobs.graphql.engine.strawberry_internals import named_field
from gql_jobs.graphql.inputs import JobFilterInput, filter_of
from gql_jobs.graphql.job_types import Job, presenter
from gql_jobs.graphql.payload_types import shown_path
from gql_jobs.graphql.registered_types import RegisteredTypes, payload_member
from gql_jobs.graphql.viewers import DEFAULT_JOB_TTL, TOKEN_MUTATIONS, ViewToken, token_of_job
from gql_jobs.jobs import model
from gql_jobs.jobs.errors import InvalidArgument, InvalidPayload, InvalidState, NotFound
from gql_jobs.jobs.model import JobPriority, JobStatus, parse_job_id
from gql_jobs.jobs.payloads import AcceptedPayload, ModelMismatch, accept
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import InvalidRequest, JobFilter, JobRequest
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log.commands import Created
from gql_jobs.logs import hidden_in_log

log = logging.getLogger(__name__)

LARGEST_BATCH = 1000
"""Jobs that ``createJobs`` takes at most."""
LARGEST_BATCH_BYTES = 16 << 20
"""Bytes of their payloads together, as they are stored: a variable may stand in many inputs."""
_VALIDATION_TURN = 0.01
"""Seconds of validating payloads after which other tasks run."""
MOST_RETRIES = 1000
"""Jobs that all ``retryJobs`` of one operation retry at most."""
RETRY_SECONDS = 20.0
"""Seconds from the first ``retryJobs`` of an operation until none of them begins with a further job."""
RETRIES_AT_A_TIME = 32
"""Jobs that ``retryJobs`` retries concurrently."""
RETRYABLE = frozenset({JobStatus.DEAD_LETTER, JobStatus.CANCELLED})
PAYLOADS = PayloadArguments({"createJob": "input", "createJobs": "inputs"}, member="payload")
"""The arguments whose faults are those of a payload."""

JobId = Annotated[strawberry.ID, strawberry.argument(description="The job's id.")]


# The input of a creation, and the request that it makes.


@strawberry.input
class JobCreation:
    """The fields of ``CreateJobInput`` that are the same in every schema; each schema adds its ``payload``."""

    priority: JobPriority | None = strawberry.field(
        default=JobPriority.NORMAL, description="Which job starts first when workers are busy."
    )
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Repeating a creation with the same key and payload returns the same job, for as long as it is kept. "
            "1 to 255 printable characters."
        ),
    )
    run_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Hold the job back until then: at most a year ahead; UTC where no offset is given; "
            "a moment in the past means now."
        ),
    )
    max_retries: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="How many attempts may follow the first: 0 to 100. The type's own where left out.",
    )
    timeout_seconds: float | None = strawberry.field(
        default=strawberry.UNSET,
        description="How long one attempt may take: 0.1 to 86400. The type's own where left out.",
    )
    tags: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="At most 32, of 1 to 255 printable characters each; to filter by."
    )
    origin: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The job that this one is made of, as by editing its payload to run it again as a new job: one "
        "that the viewer may see. It is kept for `Job.origin` and changes nothing else; a repetition of an idempotency "
        "key may leave it out or name another one.",
    )


def create_job_input(registered: RegisteredTypes) -> type[Any]:
    """Return ``CreateJobInput`` of a schema, over a @oneOf input with one member for each registered type."""
    members = []
    for name, shape in registered.inputs.items():
        job_type = registered.job_types[name]
        member = strawberry.field(
            name=payload_member(job_type),
            graphql_type=shape.type | None,
            description=job_type.description or f"Ask for a job of type `{name}`.",
            default=strawberry.UNSET,
        )
        members.append(named_field(name, member))
    payload_type = create_type(
        "JobPayloadInput",
        members,
        is_input=True,
        directives=[OneOf()],
        description="The payload of a job: exactly one member, which also says the job's type.",
    )

    @strawberry.input(name="CreateJobInput", description="What is to be done, when, how urgently and how often.")
    class CreateJobInput(JobCreation):
        payload: Any = strawberry.field(
            graphql_type=payload_type, description="What to do: exactly one member, named after the job type."
        )

    return CreateJobInput


_NAMES = {"timeout": "timeoutSeconds"}
"""The names in ``CreateJobInput`` of those fields of ``JobRequest`` that are not the same in camelCase."""


def request_of(given: dict[str, Any], registered: RegisteredTypes, path: str) -> JobRequest:
    """Return the request of an input ``CreateJobInput``.

    :param given: what the client gave, by the Python names of the fields; what was left out is left out.
    :param path: where the input stands in the arguments, for the errors.
    :raises InvalidPayload: if the payload does not fit its model, or cannot be stored.
    :raises InvalidArgument: for any other value outside its limits.
    """
    # GraphQL has made sure that there is exactly one member.
    ((name, fields),) = given["payload"].items()
    job_type = registered.job_types[name]
    payload = accepted_payload(job_type, fields, f"{path}.payload.{payload_member(job_type)}")
    try:
        return JobRequest.of(
            job_type,
            payload,
            priority=given.get("priority") or JobPriority.NORMAL,
            idempotency_key=given.get("idempotency_key"),
            run_at=given.get("run_at"),
            max_retries=given.get("max_retries"),
            timeout=given.get("timeout_seconds"),
            tags=tuple(given.get("tags") or ()),
            origin=given.get("origin"),
        )
    except InvalidRequest as invalid:
        raise _as_shown(invalid, path) from None


def accepted_payload(job_type: JobType, given: dict[str, Any], path: str) -> AcceptedPayload:
    """Return the payload as it will be stored, once its type's model has read that.

    :param given: what the client gave, under the aliases of the fields.
    :param path: where the payload stands in the arguments; it is prefixed to each field's own.
    :raises InvalidPayload: with one entry for each field that does not fit, named as clients write it.
    """
    try:
        return accept(job_type.payload, given)
    except ModelMismatch as mismatch:
        if mismatch.unexpected is not None:
            with hidden_in_log(mismatch.secret_texts):
                log.exception("the payload model of %s failed", job_type.name, exc_info=mismatch.unexpected)
        faults = [(shown_path(job_type.payload, fault.path), fault.message) for fault in mismatch.faults]
        raise InvalidPayload(
            [{"path": ".".join([path, *map(str, below)]), "message": message} for below, message in faults]
        ) from None


def _as_shown(invalid: InvalidRequest, path: str) -> InvalidArgument:
    name = _NAMES.get(invalid.field, to_camel(invalid.field))
    message = invalid.problem.format(name)
    return InvalidArgument(f"{path}.{name}" if invalid.index is None else f"{path}.{name}.{invalid.index}", message)


# The mutations.

_READ = [Scope.READ]


@strawberry.type(description="A created job.")
class CreateJobPayload:
    """What ``createJob`` returns."""

    job: Job = strawberry.field(description="As it is stored now: new, or the one that had the key.")
    deduplicated: bool = strawberry.field(description="True if the idempotency key had made the job before.")

    @strawberry.field(
        description="A token with which a browser, say, may watch just this job; made only if it is asked for."
    )
    def view_token(
        self,
        info: Info,
        ttl_seconds: Annotated[
            int | None,
            strawberry.argument(
                description="How long it lasts, 1 to 2592000, and no longer than what it is made with."
            ),
        ] = DEFAULT_JOB_TTL,
        scopes: Annotated[
            list[Scope] | None,
            strawberry.argument(description="What may be done with it: READ, and what the viewer may do."),
        ] = _READ,
    ) -> ViewToken:
        """Return a new token; where that is refused, the error names the job, which has been created."""
        return token_of_job(info, self.job.id, ttl_seconds, scopes)


@strawberry.type(description="Created jobs.")
class CreateJobsPayload:
    """What ``createJobs`` returns."""

    jobs: list[Job] = strawberry.field(description="The jobs, in the order of the inputs.")
    deduplicated_count: int = strawberry.field(description="How many of them an idempotency key had made before.")


@strawberry.type(description="A cancelled job.")
class CancelJobPayload:
    """What ``cancelJob`` returns."""

    job: Job = strawberry.field(description="As it is after the cancellation.")


@strawberry.type(description="A job that runs again.")
class RetryJobPayload:
    """What ``retryJob`` returns."""

    job: Job = strawberry.field(description="As it is now, with attempts of its own before it.")


@strawberry.type(description="The outcome of retrying many jobs.")
class RetryJobsPayload:
    """What ``retryJobs`` returns."""

    retried_count: int = strawberry.field(description="How many jobs run again.")
    remaining_count: int = strawberry.field(
        description="How many more jobs match: one call retries 1000 at most. Call it again for these."
    )


def mutation_type(registered: RegisteredTypes) -> type[Any]:
    """Return the type Mutation of a schema."""
    create_input = create_job_input(registered)

    async def create_job(
        info: Info,
        input: Annotated[  # noqa: A002 -- the schema's name
            dict[str, Any], strawberry.argument(description="The job to create.", graphql_type=create_input)
        ],
    ) -> CreateJobPayload:
        info.context.count_creations(1)
        await _find_origins([input], "input", info)
        request = request_of(input, registered, "input")
        services = info.context.services()
        created = await services.commands.create(request, info.context.session.viewer)
        job = await services.feed.read_back(created)
        return CreateJobPayload(job=registered.present(job), deduplicated=created.deduplicated)

    async def create_jobs(
        info: Info,
        inputs: Annotated[
            list[dict[str, Any]],
            strawberry.argument(
                description="1 to 1000 jobs to create, in this order.",
                graphql_type=list[create_input],
            ),
        ],
    ) -> CreateJobsPayload:
        if not 1 <= len(inputs) <= LARGEST_BATCH:
            raise InvalidArgument("inputs", f"createJobs takes 1 to {LARGEST_BATCH} inputs, not {len(inputs)}.")
        info.context.budget.take(len(inputs))
        info.context.count_creations(len(inputs))
        await _find_origins(inputs, "inputs", info)
        requests = await _requests_of(inputs, registered)
        services = info.context.services()
        created = await services.commands.create_many(requests, info.context.session.viewer)
        jobs = await _all_indexed(services, created)
        return CreateJobsPayload(
            jobs=[registered.present(job) for job in jobs], deduplicated_count=sum(c.deduplicated for c in created)
        )

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
        *TOKEN_MUTATIONS,
    ]
    fields += BULK_FIELDS
    return create_type("Mutation", fields, description="Everything that can be done.")


async def _find_origins(inputs: list[dict[str, Any]], path: str, info: Info) -> None:
    """Put the ids of origins into their canonical spelling.

    :param path: of the one input, or of their list.
    :raises InvalidArgument: for the id of no job that there is for the viewer.
    :raises QueueUnavailable: if the index does not have it and the stream cannot be read.
    """
    context = info.context
    found: set[str] = set()
    for number, given in enumerate(inputs):
        if given.get("origin") is None or given["origin"] in found:
            continue
        job_id = parse_job_id(given["origin"])
        if job_id is None or not await _is_there(job_id, context):
            where = f"{path}.origin" if path == "input" else f"{path}.{number}.origin"
            raise InvalidArgument(where, "There is no job with this id.")
        found.add(job_id)
        given["origin"] = job_id


async def _is_there(job_id: str, context: Context) -> bool:
    """Return whether there is such a job for the viewer; one that is in the index is not read for that."""
    services, visibility = context.services(), context.session.visibility
    if services.index.shows(job_id, visibility):
        return True
    return await services.job(job_id, visibility, context.budget) is not None


async def _requests_of(inputs: list[dict[str, Any]], registered: RegisteredTypes) -> list[JobRequest]:
    """Return the requests of several inputs, and let other tasks run in between.

    :raises InvalidPayload: | InvalidArgument: as ``request_of`` does.
    :raises InvalidArgument: if the payloads are too large together: a variable may stand in many inputs.
    """
    requests = []
    left = LARGEST_BATCH_BYTES
    pause_at = time.monotonic() + _VALIDATION_TURN
    for number, given in enumerate(inputs):
        request = request_of(given, registered, f"inputs.{number}")
        left -= len(request.payload)
        if left < 0:
            message = f"The payloads of one createJobs may have {LARGEST_BATCH_BYTES} bytes together."
            raise InvalidArgument("inputs", message)
        requests.append(request)
        if time.monotonic() > pause_at:
            await asyncio.sleep(0)
            pause_at = time.monotonic() + _VALIDATION_TURN
    return requests


async def _all_indexed(services: Services, created: list[Created]) -> list[model.Job]:
    """Return the jobs as the index has them: it applies the stream in order, so once it has the last, it has all."""
    last = await services.feed.read_back(max(created, key=lambda one: one.last_seq))
    return [last if one.id == last.id else services.index.job(one.id) or one.job for one in created]


async def _cancel_job(info: Info, id: JobId) -> CancelJobPayload:  # noqa: A002 -- the schema's name
    job_id = _known_id(id)
    services = info.context.services()
    job = await services.feed.read_back(await services.commands.cancel(job_id, info.context.session.viewer))
    return CancelJobPayload(job=presenter(info)(job))


async def _retry_job(info: Info, id: JobId) -> RetryJobPayload:  # noqa: A002 -- the schema's name
    job_id = _known_id(id)
    services = info.context.services()
    job = await services.feed.read_back(await services.commands.retry(job_id, info.context.session.viewer))
    return RetryJobPayload(job=presenter(info)(job))


def _known_id(text: str) -> str:
    job_id = parse_job_id(text)
    if job_id is None:
        raise NotFound(text)
    return job_id


async def _retry_jobs(
    info: Info,
    filter: Annotated[  # noqa: A002 -- the schema's name
        dict[str, Any],
        strawberry.argument(description="Which jobs; others are left alone.", graphql_type=JobFilterInput),
    ],
) -> RetryJobsPayload:
    services = info.context.services()
    job_filter = filter_of(filter, info.context.session.visibility)
    bulk = BulkRetry(services, job_filter, info.context)
    await bulk.run()
    if bulk.newest is not None:
        await services.feed.read_back(bulk.newest)
    return RetryJobsPayload(retried_count=bulk.retried, remaining_count=bulk.remaining)


class BulkRetry:
    """The retry of the jobs that match a filter and can be retried: the oldest first, a few concurrently.

    It ends when ``MOST_RETRIES`` have been taken, ``RETRY_SECONDS`` are over, or nobody waits for the answer any more;
    all bulk retries of an operation, which may have twenty, count together in that. Each job is retried or left as it
    is. ``retried`` counts those that were, of which ``newest`` was the last in the stream, and ``remaining`` those that
    were not come to.

    :param context: of the operation, which knows what others have taken, and whether the client has gone.
    """

    def __init__(self, services: Services, job_filter: JobFilter, context: Context) -> None:
        self._services = services
        allowed = RETRYABLE if job_filter.status is None else RETRYABLE & job_filter.status
        self._filter = replace(job_filter, status=allowed)
        self._context = context
        self._waiting: deque[str] = deque()
        self.retried = 0
        self.newest: model.Job | None = None
        self.remaining = 0

    async def run(self) -> None:
        """Retry the jobs. One whose state no longer allows it when its turn comes is skipped.

        :raises QueueUnavailable: if NATS stops answering; the jobs retried before that stay retried.
        """
        if not self._filter.status:
            return
        reader = self._services.reader
        most = MOST_RETRIES - self._context.retries
        found = await reader.ids(self._filter, most)
        self._waiting.extend(found)
        self._context.retries += len(found)
        more = await reader.count(self._filter) - len(found) if len(found) == most else 0
        until = self._context.retries_end
        if until is None:
            until = self._context.retries_end = asyncio.get_running_loop().time() + RETRY_SECONDS
        try:
            async with TaskGroup() as group:
                for _ in range(min(RETRIES_AT_A_TIME, len(found))):
                    group.create_task(self._retry_in_turn(until))
        except ExceptionGroup as failures:
            # All of them failed for the same reason, so the client gets the first error.
            raise failures.exceptions[0] from failures
        self.remaining = max(more, 0) + len(self._waiting)

    async def _retry_in_turn(self, until: float) -> None:
        clock = asyncio.get_running_loop().time
        while self._waiting and clock() < until and not await self._context.is_abandoned():
            # Another of these tasks may have taken the last one meanwhile.
            job_id = self._waiting.popleft() if self._waiting else None
            if job_id is None:
                return
            try:
                job = await self._services.commands.retry(job_id, self._context.session.viewer, wait_for_copy=False)
            except (InvalidState, NotFound):
                continue
            self.retried += 1
            if self.newest is None or job.last_seq > self.newest.last_seq:
                self.newest = job


_FIELDS = [
    strawberry.mutation(
        _cancel_job,
        name="cancelJob",
        description="Cancel a job that has not ended yet. If it runs, its worker is told at once.",
    ),
    strawberry.mutation(
        _retry_job,
        name="retryJob",
        description=(
            "Run a dead-lettered or cancelled job again at once, with a fresh retry budget and its history kept. "
            "`runAt` does not hold it back, and is null from then on."
        ),
    ),
    strawberry.mutation(
        _retry_jobs,
        name="retryJobs",
        description=(
            "Run dead-lettered and cancelled jobs again that match a filter, the oldest first: 1000 at most, and no "
            "further one once 20 seconds are over or the client has gone; several in one operation count together. "
            "`remainingCount` says how many are left."
        ),
    ),
]
