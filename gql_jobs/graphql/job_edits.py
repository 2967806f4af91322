"""The mutations that change what a job is asked for: ``updateJob`` before it starts, ``retryJob`` once it has ended.

A payload is given as the input of its type, or as a JSON text: for clients that have the models of the job types, or
serve any type. Both are read by the model of the job's type before anything is decided.
"""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from datetime import datetime
from typing import Annotated, Any

import strawberry
from msgspec import UNSET

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.inputs import argument_fault, known_type, member_payload, text_payload
from gql_jobs.graphql.job_types import Job, presenter
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.errors import InvalidArgument, NotFound
from gql_jobs.jobs.model import JobPriority, parse_job_id
from gql_jobs.jobs.requests import InvalidRequest

JobId = Annotated[strawberry.ID, strawberry.argument(description="The job's id.")]
RawPayload = Annotated[
    str | None,
    strawberry.argument(
        description="In the place of `payload`: the payload of the job's own type as a JSON text, as `RawJobInput` has "
        "it."
    ),
]

RawType = Annotated[
    str | None,
    strawberry.argument(
        description="Of which type `rawPayload` is: it is refused for a job of another one. The job's own if left out."
    ),
]


@strawberry.type(description="A changed job.")
class UpdateJobPayload:
    """What ``updateJob`` returns."""

    job: Job = strawberry.field(description="As it is now: queued again, scheduled, or waiting for what holds it back.")


@strawberry.type(description="A job that runs again.")
class RetryJobPayload:
    """What ``retryJob`` returns."""

    job: Job = strawberry.field(
        description="As it is now, with attempts of its own before it: queued, scheduled until its `runAt`, or waiting "
        "for what holds it back."
    )


def known_id(text: str) -> str:
    """Return a job's id in its canonical spelling.

    :raises NotFound: if it is none, and so no job's.
    """
    job_id = parse_job_id(text)
    if job_id is None:
        raise NotFound(text)
    return job_id


async def _payload_of(
    given: dict[str, Any], job_id: str, path: str, info: Info, registered: RegisteredTypes
) -> JobChanges:
    """Return the change of a payload that was given in either way; none where it was given in none.

    :param given: what the client gave, by the names of ``UpdateJobInput``.
    :param path: what the paths of its members begin with.
    """
    members, text = (given.get(name) for name in ("payload", "raw_payload"))
    members, text = members or None, None if text is strawberry.UNSET else text
    if members is not None and text is not None:
        raise InvalidArgument(f"{path}rawPayload", "A payload is given as payload or as rawPayload, not as both.")
    if members is not None:
        job_type, payload = member_payload(members, registered, f"{path}payload")
        return JobChanges(payload=payload, job_type=job_type)
    if text is None:
        return JobChanges()
    named = given.get("raw_type") or None
    if named is None:
        services, context = info.context.services(), info.context
        job = await services.job(job_id, context.session.visibility, context.budget)
        if job is None:
            raise NotFound(job_id)
        named = job.spec.type
    known = known_type(named, registered, f"{path}rawType")
    return JobChanges(payload=text_payload(known, text, f"{path}rawPayload"), job_type=known)


def edit_mutations(registered: RegisteredTypes, payload_input: type[Any]) -> list[Any]:
    """Return the mutations of a schema that change jobs.

    :param payload_input: its @oneOf input with one member for each registered type.
    """

    @strawberry.input(
        name="UpdateJobInput",
        description="What is to be another about a job that has not started. What is left out, or null, stays as it "
        "is, but for `runAt`, whose null means at once.",
    )
    class UpdateJobInput:
        run_at: datetime | None = strawberry.field(
            default=strawberry.UNSET,
            description="When it is to run at the earliest: at most a year ahead; UTC where no offset is given; null "
            "or a moment in the past means now.",
        )
        priority: JobPriority | None = strawberry.field(
            default=strawberry.UNSET, description="Which job starts first when workers are busy."
        )
        payload: Any = strawberry.field(
            graphql_type=payload_input | None,
            default=strawberry.UNSET,
            description="What to do in the place of what was asked for: the member of the job's own type.",
        )
        raw_payload: str | None = strawberry.field(
            default=strawberry.UNSET,
            description="In the place of `payload`: the payload of the job's own type as a JSON text, as `RawJobInput` "
            "has it.",
        )
        raw_type: str | None = strawberry.field(
            default=strawberry.UNSET,
            description="Of which type `rawPayload` is: it is refused for a job of another one. The job's own if left "
            "out.",
        )
        tags: list[str] | None = strawberry.field(
            default=strawberry.UNSET,
            description="All its tags from now on: at most 32, of 1 to 255 printable characters each.",
        )

    async def update_job(
        info: Info,
        id: JobId,  # noqa: A002 -- the schema's name
        input: Annotated[  # noqa: A002 -- the schema's name
            dict[str, Any], strawberry.argument(description="What is to be another.", graphql_type=UpdateJobInput)
        ],
    ) -> UpdateJobPayload:
        job_id, services = known_id(id), info.context.services()
        given = await _payload_of(input, job_id, "input.", info, registered)
        try:
            changes = JobChanges.of(
                payload=given.payload,
                job_type=given.job_type,
                run_at=input.get("run_at", UNSET),
                priority=input.get("priority"),
                tags=tuple(input["tags"]) if input.get("tags") is not None else None,
            )
            updated = await services.commands.update(job_id, changes, info.context.session.viewer)
        except InvalidRequest as invalid:
            raise argument_fault(invalid, "input") from None
        return UpdateJobPayload(job=presenter(info)(await services.feed.read_back(updated)))

    async def retry_job(
        info: Info,
        id: JobId,  # noqa: A002 -- the schema's name
        payload: Annotated[
            dict[str, Any] | None,
            strawberry.argument(
                description="What to do in the place of what was asked for: the member of the job's own type.",
                graphql_type=payload_input | None,
            ),
        ] = strawberry.UNSET,
        raw_payload: RawPayload = strawberry.UNSET,
        raw_type: RawType = strawberry.UNSET,
    ) -> RetryJobPayload:
        job_id, services = known_id(id), info.context.services()
        given = {"payload": payload, "raw_payload": raw_payload, "raw_type": raw_type}
        changes = await _payload_of(given, job_id, "", info, registered)
        try:
            retried = await services.commands.retry(job_id, info.context.session.viewer, payload=changes)
        except InvalidRequest as invalid:
            raise argument_fault(invalid) from None
        return RetryJobPayload(job=presenter(info)(await services.feed.read_back(retried)))

    return [
        strawberry.mutation(
            update_job,
            description=(
                "Change when a job runs that has not started yet, how urgently, with what payload, and its tags. It is "
                "queued or scheduled anew, and its events tell what was changed by whom. If it has started meanwhile, "
                "even if that attempt was handed back, the answer is INVALID_STATE. Where nothing would be another, "
                "nothing is done."
            ),
        ),
        strawberry.mutation(
            retry_job,
            description=(
                "Run a dead-lettered or cancelled job again, with a fresh retry budget and its history kept, and with "
                "another payload if one is given. A `runAt` that still lies ahead holds it back until then; "
                "`startBefore` does no more."
            ),
        ),
    ]
