"""The inputs of the API and how they become values of ``jobs``. Checks what GraphQL's types cannot say."""

import types
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import strawberry
from pydantic.alias_generators import to_camel

from gql_jobs.graphql.registered_types import RegisteredTypes, payload_member
from gql_jobs.graphql.scalars_and_enums import SortDirection
from gql_jobs.jobs.model import JobPriority, JobStatus, parse_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder, JobRequest, OrderField

ANY = strawberry.UNSET


@strawberry.input(
    name="JobFilter", description="Which jobs are meant: all given parts must match, an empty list matches nothing."
)
class JobFilterInput:
    ids: list[strawberry.ID] | None = strawberry.field(
        default=ANY, description="One of these ids; an id that is no UUID matches nothing."
    )
    status: list[JobStatus] | None = strawberry.field(default=ANY, description="In one of these states.")
    type: list[str] | None = strawberry.field(default=ANY, description="Of one of these types.")
    queue: list[str] | None = strawberry.field(default=ANY, description="In one of these queues.")
    priority: list[JobPriority] | None = strawberry.field(default=ANY, description="With one of these priorities.")
    tags: list[str] | None = strawberry.field(default=ANY, description="Carrying every one of these tags.")
    created_after: datetime | None = strawberry.field(
        default=ANY, description="Created later than this; UTC where no offset is given."
    )
    created_before: datetime | None = strawberry.field(
        default=ANY, description="Created earlier than this; UTC where no offset is given."
    )

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "JobFilterInput":
        """From its fields by the names of the schema."""
        return cls(**{_FILTER_FIELDS[name]: value for name, value in fields.items()})

    def value(self) -> JobFilter:
        """The filter as the views know it."""
        ids = _tuple(self.ids)
        return JobFilter(
            ids=tuple(i for i in map(parse_job_id, ids) if i is not None) if ids is not None else None,
            status=_tuple(self.status),
            type=_tuple(self.type),
            queue=_tuple(self.queue),
            priority=_tuple(self.priority),
            tags=_tuple(self.tags),
            created_after=_aware(self.created_after),
            created_before=_aware(self.created_before),
        )


_FILTER_FIELDS = {to_camel(field.name): field.name for field in fields(JobFilterInput)}


@strawberry.input(name="JobOrder", description="How a page of jobs is sorted.")
class JobOrderInput:
    field: OrderField = strawberry.field(default=OrderField.CREATED_AT, description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.DESC, description="Which end comes first.")

    def value(self) -> JobOrder:
        """The order as the views know it."""
        return JobOrder(self.field, descending=self.direction is SortDirection.DESC)


@strawberry.input
class JobCreation:
    """What a creation says beside its payload; ``CreateJobInput`` of a schema adds the payload."""

    priority: JobPriority | None = strawberry.field(
        default=JobPriority.NORMAL, description="Which job starts first when workers are busy."
    )
    idempotency_key: str | None = strawberry.field(
        default=ANY,
        description=(
            "Repeating a creation with the same key and payload returns the same job, for as long as it is kept. "
            "1 to 255 printable characters."
        ),
    )
    run_at: datetime | None = strawberry.field(
        default=ANY,
        description=(
            "Hold the job back until then: at most a year ahead; UTC where no offset is given; "
            "a moment in the past means now."
        ),
    )
    max_retries: int | None = strawberry.field(
        default=ANY, description="How many attempts may follow the first: 0 to 100. The type's own where left out."
    )
    timeout_seconds: float | None = strawberry.field(
        default=ANY, description="How long one attempt may take: 0.1 to 86400. The type's own where left out."
    )
    tags: list[str] | None = strawberry.field(
        default=ANY, description="At most 32, of 1 to 255 printable characters each; to filter by."
    )


def request_of(creation: dict[str, Any], registered: RegisteredTypes, path: str) -> JobRequest:
    """The creation, checked.

    :param creation: a ``CreateJobInput`` by the Python names of its fields; what the client left out is left out.
    :param path: where the input stands in the arguments.
    :raises InvalidPayload: if the payload does not fit its model.
    :raises InvalidArgument: for any other value outside its limits.
    """
    # GraphQL has made sure that there is exactly one member.
    ((name, fields),) = creation["payload"].items()
    job_type = registered.job_types[name]
    payload = job_type.validate(fields, f"{path}.payload.{payload_member(job_type)}")
    return JobRequest.of(
        job_type,
        payload,
        priority=creation.get("priority") or JobPriority.NORMAL,
        idempotency_key=creation.get("idempotency_key"),
        run_at=creation.get("run_at"),
        max_retries=creation.get("max_retries"),
        timeout=creation.get("timeout_seconds"),
        tags=tuple(creation.get("tags") or ()),
        path=path,
    )


def create_job_input(registered: RegisteredTypes) -> type[Any]:
    """``CreateJobInput`` of a schema, over a @oneOf input with one member for each registered type."""
    payload = strawberry.field(
        graphql_type=_payload_input(registered), description="What to do: exactly one member, named after the job type."
    )
    members = {"__module__": __name__, "payload": payload, "__annotations__": {"payload": Any}}
    new_type = types.new_class("CreateJobInput", (JobCreation,), {}, lambda namespace: namespace.update(members))
    return strawberry.input(new_type, name="CreateJobInput", description="A job to create.")


def _payload_input(registered: RegisteredTypes) -> type[Any]:
    members: dict[str, Any] = {"__module__": __name__, "__annotations__": {}}
    for name, shape in registered.inputs.items():
        job_type = registered.job_types[name]
        members["__annotations__"][name] = shape.type | None
        description = job_type.description or f"A job of type `{name}`."
        members[name] = strawberry.field(name=payload_member(job_type), description=description, default=ANY)
    new_type = types.new_class("JobPayloadInput", (), {}, lambda namespace: namespace.update(members))
    description = "The payload of a job: exactly one member, which also says the job's type."
    return strawberry.input(new_type, name="JobPayloadInput", one_of=True, description=description)


def _given(value: Any) -> Any:
    return None if value is ANY else value


def _tuple(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None or value is ANY else tuple(value)


def _aware(moment: datetime | None) -> datetime | None:
    moment = _given(moment)
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
