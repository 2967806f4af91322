"""The mutations, and the input of a creation. Each returns the job as this process's index has it after the write.

Which payloads there are is known only when a schema is made, so each schema has a type Mutation of its own.
"""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import strawberry
from pydantic_core import to_json
from strawberry.schema_directives import OneOf
from strawberry.tools import create_type

from gql_jobs.graphql.bulk import BULK_FIELDS
from gql_jobs.graphql.context import Context, Info, Services
from gql_jobs.graphql.engine.errors import PayloadArguments
from gql_jobs.graphql.engine.strawberry_internals import named_field
from gql_jobs.graphql.inputs import (
    JobFilterInput,
    JobKeyInput,
    argument_fault,
    filter_of,
    known_type,
    member_payload,
    read_json,
    text_payload,
    unique_key_of,
)
from gql_jobs.graphql.job_edits import JobId, edit_mutations, known_id
from gql_jobs.graphql.job_types import Job, presenter
from gql_jobs.graphql.queue_types import QUEUE_FIELDS
from gql_jobs.graphql.registered_types import RegisteredTypes, payload_member
from gql_jobs.graphql.schedule_types import run_one, schedule_mutations
from gql_jobs.graphql.viewers import DEFAULT_JOB_TTL, TOKEN_MUTATIONS, ViewToken, token_of_job
from gql_jobs.jobs import model
from gql_jobs.jobs.bulk import BulkAction
from gql_jobs.jobs.errors import InvalidArgument, no_such_job
from gql_jobs.jobs.model import DependencyPolicy, JobPriority, parse_job_id
from gql_jobs.jobs.payloads import AcceptedPayload
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import MAX_AFTER, InvalidRequest, JobRequest
from gql_jobs.jobs.viewer import Scope
from gql_jobs.live.feed import READ_BACK_TIMEOUT
from gql_jobs.log.commands import Created
from gql_jobs.logs import hidden_in_log

log = logging.getLogger(__name__)

LARGEST_BATCH = 1000
"""Jobs that ``createJobs`` takes at most."""
LARGEST_BATCH_BYTES = 16 << 20
"""Bytes of their payloads together, as they are stored: a variable may stand in many inputs."""
_LOOKUPS_AT_ONCE = 50
"""Jobs that are looked up before other tasks run."""
_VALIDATION_TURN = 0.01
"""Seconds of validating payloads after which other tasks run."""
MOST_RETRIES = 1000
"""Jobs that all ``retryJobs`` of one operation retry at most."""
RETRY_SECONDS = 20.0
"""Seconds from the first ``retryJobs`` of an operation until none of them begins with a further job."""
PAYLOADS = PayloadArguments(
    {
        "createJob": "input",
        "createJobs": "inputs",
        "createRawJobs": "inputs",
        "updateJob": "input",
        "retryJob": "payload",
        "upsertSchedule": "input",
    },
    member="payload",
)
"""The arguments whose faults are those of a payload."""


# The input of a creation, and the request that it makes.


@strawberry.input
class JobCreation:
    """The fields of all inputs of a creation; each adds its ``payload``."""

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
    key: JobKeyInput | None = strawberry.field(
        default=strawberry.UNSET,
        description="What no other job of the tenant may have until this one has ended. An `idempotencyKey` beside it "
        "comes first: a repetition returns its job, whatever has the key by now.",
    )
    concurrency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="What the job has in common with those that it shares limits per key with, as a customer's number; "
        "in the place of what its type says. 1 to 255 printable characters.",
    )
    start_before: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="Cancel the job if its first attempt has not started by then, as `cancelReason` says. Later than "
        "`runAt`, and at most two years ahead; UTC where no offset is given. A retry by hand is for at once.",
    )
    after: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET,
        description="The jobs that have to complete first: at most 1000 that the viewer may see, none of them twice.",
    )
    after_policy: DependencyPolicy | None = strawberry.field(
        default=DependencyPolicy.CANCEL,
        description="What becomes of the job when one of `after` ends otherwise, or is not kept any more.",
    )


def job_payload_input(registered: RegisteredTypes) -> type[Any]:
    """Return ``JobPayloadInput`` of a schema: a @oneOf input with one member for each registered type."""
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
    return create_type(
        "JobPayloadInput",
        members,
        is_input=True,
        directives=[OneOf()],
        description="The payload of a job: exactly one member, which also says the job's type.",
    )


def create_job_input(payload_type: type[Any]) -> type[Any]:
    """Return ``CreateJobInput`` of a schema, over its input of payloads."""

    @strawberry.input(name="CreateJobInput", description="What is to be done, when, how urgently and how often.")
    class CreateJobInput(JobCreation):
        payload: Any = strawberry.field(
            graphql_type=payload_type, description="What to do: exactly one member, named after the job type."
        )

    return CreateJobInput


@strawberry.input(
    name="RawJobInput",
    description="What is to be done, with a payload that is given as it is stored: for clients that have the models of "
    "the job types, or serve any type.",
)
class RawJobInput(JobCreation):
    """The input of ``createRawJobs``."""

    type: str = strawberry.field(description="The name of the job type, as `Job.type` says it.")
    payload: str = strawberry.field(
        description="The payload as a JSON text, with the keys, the enum values and the numbers that `payloadSchema` "
        "of the type and `rawPayload` have, whatever GraphQL can say of them."
    )
    sent: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The payload without values that the client has drawn for it, such as new ids, as a JSON text: "
        "what tells whether two creations with one key ask for the same. The payload itself where left out.",
    )


def request_of(given: dict[str, Any], registered: RegisteredTypes, path: str) -> JobRequest:
    """Return the request of an input ``CreateJobInput``.

    :param given: what the client gave, by the Python names of the fields; what was left out is left out.
    :param path: where the input stands in the arguments, for the errors.
    :raises InvalidPayload: if the payload does not fit its model, or cannot be stored.
    :raises InvalidArgument: for any other value outside its limits.
    """
    job_type, payload = member_payload(given["payload"], registered, f"{path}.payload")
    return _request(job_type, payload, given, path)


def raw_request_of(given: dict[str, Any], registered: RegisteredTypes, path: str) -> JobRequest:
    """Return the request of an input ``RawJobInput``.

    :param given: as for ``request_of``.
    :param path: as for ``request_of``.
    :raises InvalidPayload: as ``request_of`` does, with the paths that the faults have in the JSON.
    :raises InvalidArgument: for an unknown type, and any other value outside its limits.
    """
    job_type = known_type(given["type"], registered, f"{path}.type")
    payload = text_payload(job_type, given["payload"], f"{path}.payload")
    if (sent := given.get("sent")) is not None:
        payload = payload._replace(sent=to_json(read_json(sent, f"{path}.sent"), inf_nan_mode="null"))
    return _request(job_type, payload, given, path)


def _request(job_type: JobType, payload: AcceptedPayload, given: dict[str, Any], path: str) -> JobRequest:
    """Return the request of a payload and the other fields of an input.

    :raises InvalidArgument: for a value outside its limits, or one that code of the type had to say.
    """
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
            key=unique_key_of(given["key"]) if given.get("key") is not None else None,
            concurrency_key=given.get("concurrency_key"),
            start_before=given.get("start_before"),
            after=tuple(given.get("after") or ()),
            after_policy=given.get("after_policy") or DependencyPolicy.CANCEL,
        )
    except InvalidRequest as invalid:
        if invalid.unexpected is not None:
            with hidden_in_log(invalid.secret_texts):
                log.exception("code of the job type %s failed", job_type.name, exc_info=invalid.unexpected)
        raise argument_fault(invalid, path) from None


# The mutations.

_READ = [Scope.READ]


@strawberry.type(description="A created job.")
class CreateJobPayload:
    """What ``createJob`` returns."""

    job: Job = strawberry.field(description="As it is stored now: new, or the one that has the key.")
    deduplicated: bool = strawberry.field(
        description="True if the job is not new: its idempotency key had made it before, or it has the `key`."
    )

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
    deduplicated_count: int = strawberry.field(description="How many of them are not new.")
    deduplicated: list[bool] = strawberry.field(
        description="For each of the jobs, in their order, whether it is not new, because of an idempotency key or of "
        "the `key`."
    )


@strawberry.type(description="A cancelled job.")
class CancelJobPayload:
    """What ``cancelJob`` returns."""

    job: Job = strawberry.field(description="As it is after the cancellation.")


@strawberry.type(description="What became of a deletion.")
class DeleteJobPayload:
    """What ``deleteJob`` returns."""

    deleted: bool = strawberry.field(
        description="True if the job was there; false if it had expired or was deleted before. Either way nothing is "
        "left of it when this is answered."
    )


@strawberry.type(description="The outcome of retrying many jobs.")
class RetryJobsPayload:
    """What ``retryJobs`` returns."""

    retried_count: int = strawberry.field(description="How many jobs run again.")
    remaining_count: int = strawberry.field(
        description="How many more jobs match: one call retries 1000 at most. Call it again for these."
    )


def mutation_type(registered: RegisteredTypes) -> type[Any]:
    """Return the type Mutation of a schema."""
    payload_input = job_payload_input(registered)
    create_input = create_job_input(payload_input)

    async def create_job(
        info: Info,
        input: Annotated[  # noqa: A002 -- the schema's name
            dict[str, Any], strawberry.argument(description="The job to create.", graphql_type=create_input)
        ],
    ) -> CreateJobPayload:
        info.context.count_creations(1)
        await _find_named([input], "input", info)
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
        return await create_all(inputs, "createJobs", request_of, info)

    async def create_raw_jobs(
        info: Info,
        inputs: Annotated[
            list[dict[str, Any]],
            strawberry.argument(description="1 to 1000 jobs to create, in this order.", graphql_type=list[RawJobInput]),
        ],
    ) -> CreateJobsPayload:
        return await create_all(inputs, "createRawJobs", raw_request_of, info)

    async def create_all(
        inputs: list[dict[str, Any]],
        mutation: str,
        read: Callable[[dict[str, Any], RegisteredTypes, str], JobRequest],
        info: Info,
    ) -> CreateJobsPayload:
        if not 1 <= len(inputs) <= LARGEST_BATCH:
            raise InvalidArgument("inputs", f"{mutation} takes 1 to {LARGEST_BATCH} inputs, not {len(inputs)}.")
        info.context.budget.take(len(inputs))
        info.context.count_creations(len(inputs))
        await _find_named(inputs, "inputs", info)
        requests = await _requests_of(inputs, lambda given, path: read(given, registered, path))
        services = info.context.services()
        created = await services.commands.create_many(requests, info.context.session.viewer)
        jobs = await _all_indexed(services, created)
        deduplicated = [one.deduplicated for one in created]
        return CreateJobsPayload(
            jobs=[registered.present(job) for job in jobs],
            deduplicated_count=sum(deduplicated),
            deduplicated=deduplicated,
        )

    async def run_schedule(
        info: Info, name: Annotated[str, strawberry.argument(description="The schedule's name.")]
    ) -> CreateJobPayload:
        return CreateJobPayload(job=registered.present(await run_one(name, info.context)), deduplicated=False)

    fields = [
        strawberry.mutation(create_job, description="Create a job. It is durable once this returns."),
        strawberry.mutation(
            create_jobs,
            description=(
                "Create up to 1000 jobs at once, in order. All inputs are checked before anything is stored; "
                "if storing fails midway, `extensions.acceptedIds` of the error lists what was stored and "
                "`extensions.uncertainIds` what may have been; `extensions.acceptedInputs` and "
                "`extensions.uncertainInputs` are the places of their inputs, from 0."
            ),
        ),
        strawberry.mutation(
            create_raw_jobs, description="The same as `createJobs`, of payloads that are given as they are stored."
        ),
        *_FIELDS,
        *edit_mutations(registered, payload_input),
        *TOKEN_MUTATIONS,
        *schedule_mutations(registered, payload_input),
        strawberry.mutation(
            run_schedule,
            description="Create a job of a schedule at once, outside of its ticks and whatever `overlap` says, also "
            "while it is paused.",
        ),
    ]
    fields += [*BULK_FIELDS, *QUEUE_FIELDS]
    return create_type("Mutation", fields, description="Everything that can be done.")


async def _find_named(inputs: list[dict[str, Any]], path: str, info: Info) -> None:
    """Put the ids of origins, and of jobs to run after, into their canonical spelling.

    :param path: of the one input, or of their list.
    :raises InvalidArgument: for the id of no job that there is for the viewer.
    :raises OverBudget: for more jobs than one operation may read.
    :raises QueueUnavailable: if the index does not have it and the stream cannot be read.
    """
    context = info.context
    found: dict[str, str] = {}

    async def known(text: str, where: str) -> str:
        if (job_id := found.get(text)) is None:
            job_id = parse_job_id(text)
            context.budget.take(1)
            if job_id is None or not await _is_there(job_id, context):
                raise InvalidArgument(where, no_such_job(text))
            found[text] = job_id
            if len(found) % _LOOKUPS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return job_id

    for number, given in enumerate(inputs):
        where = path if path == "input" else f"{path}.{number}"
        if given.get("origin") is not None:
            given["origin"] = await known(given["origin"], f"{where}.origin")
        if after := given.get("after"):
            if len(after) > MAX_AFTER:
                message = f"{where}.after may have {MAX_AFTER} items at most, and it has {len(after)}."
                raise InvalidArgument(f"{where}.after", message)
            given["after"] = [await known(job_id, f"{where}.after.{place}") for place, job_id in enumerate(after)]


async def _is_there(job_id: str, context: Context) -> bool:
    """Return whether there is such a job for the viewer; one that is in the index is not read for that."""
    services, visibility = context.services(), context.session.visibility
    if services.index.shows(job_id, visibility):
        return True
    return await services.job(job_id, visibility, context.budget) is not None


async def _requests_of(
    inputs: list[dict[str, Any]], read: Callable[[dict[str, Any], str], JobRequest]
) -> list[JobRequest]:
    """Return the requests of several inputs, and let other tasks run in between.

    :param read: returns the request of one input, given with its path.
    :raises InvalidPayload: | InvalidArgument: as ``read`` does.
    :raises InvalidArgument: if the payloads are too large together: a variable may stand in many inputs.
    """
    requests = []
    left = LARGEST_BATCH_BYTES
    pause_at = time.monotonic() + _VALIDATION_TURN
    for number, given in enumerate(inputs):
        request = read(given, f"inputs.{number}")
        left -= len(request.payload)
        if left < 0:
            message = f"The payloads of one mutation may have {LARGEST_BATCH_BYTES} bytes together."
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
    job_id = known_id(id)
    services = info.context.services()
    job = await services.feed.read_back(await services.commands.cancel(job_id, info.context.session.viewer))
    return CancelJobPayload(job=presenter(info)(job))


async def _delete_job(info: Info, id: JobId) -> DeleteJobPayload:  # noqa: A002 -- the schema's name
    job_id = known_id(id)
    services = info.context.services()
    outcome = await services.deletions.delete(job_id, info.context.session.viewer)
    await services.feed.wait_for(outcome.seq, READ_BACK_TIMEOUT)
    return DeleteJobPayload(deleted=outcome.deleted)


async def _retry_jobs(
    info: Info,
    filter: Annotated[  # noqa: A002 -- the schema's name
        dict[str, Any],
        strawberry.argument(description="Which jobs; others are left alone.", graphql_type=JobFilterInput),
    ],
) -> RetryJobsPayload:
    context, clock = info.context, asyncio.get_running_loop().time
    if context.retries_end is None:
        context.retries_end = clock() + RETRY_SECONDS
    until = context.retries_end

    async def is_over() -> bool:
        return clock() >= until or await context.is_abandoned()

    retried = await context.services().bulk_runs.run_at_once(
        BulkAction.RETRY,
        filter_of(filter, context.session.visibility),
        context.session.viewer,
        first=MOST_RETRIES - context.retries,
        is_over=is_over,
    )
    context.retries += retried.done + retried.skipped
    return RetryJobsPayload(retried_count=retried.done, remaining_count=retried.left)


_FIELDS = [
    strawberry.mutation(
        _cancel_job,
        name="cancelJob",
        description="Cancel a job that has not ended yet. If it runs, its worker is told at once.",
    ),
    strawberry.mutation(
        _delete_job,
        name="deleteJob",
        description=(
            "Delete a job that does not run, for good: its payload, result, errors, files, checkpoints and its dead "
            "letter, everywhere; its idempotency key is free again. One that runs is refused with INVALID_STATE: "
            "cancel it first. Jobs that are to run after it count it as not completed."
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
