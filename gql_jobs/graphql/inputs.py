"""The inputs that select and order jobs, for pages, live events and bulk retries, and their translation.

The classes only define the schema. A resolver is given an input object as a dictionary of what the client gave, by the
Python names of its fields: what was left out is left out, what was null is None.
"""

from datetime import UTC, datetime
from typing import Any

import strawberry

from gql_jobs.graphql.scalars_and_enums import SortDirection
from gql_jobs.jobs.model import JobPriority, JobStatus, parse_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField


@strawberry.input(
    name="JobFilter", description="Which jobs are meant: all given parts must match, an empty list matches nothing."
)
class JobFilterInput:
    """The input ``JobFilter``, which ``filter_of`` translates."""

    ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="One of these ids; an id that is no UUID matches nothing."
    )
    status: list[JobStatus] | None = strawberry.field(default=strawberry.UNSET, description="In one of these states.")
    type: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Of one of these types.")
    queue: list[str] | None = strawberry.field(default=strawberry.UNSET, description="In one of these queues.")
    priority: list[JobPriority] | None = strawberry.field(
        default=strawberry.UNSET, description="With one of these priorities."
    )
    tags: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Carrying every one of these tags.")
    created_after: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Created later than this; UTC where no offset is given."
    )
    created_before: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Created earlier than this; UTC where no offset is given."
    )


@strawberry.input(name="JobOrder", description="How a page of jobs is sorted.")
class JobOrderInput:
    """The input ``JobOrder``, which ``order_of`` translates."""

    field: OrderField = strawberry.field(default=OrderField.CREATED_AT, description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.DESC, description="Which end comes first.")


def filter_of(given: dict[str, Any] | None) -> JobFilter:
    """Return the filter of an input ``JobFilter``; one that matches every job where none was given."""
    if not given:
        return JobFilter()
    ids = _tuple(given.get("ids"))
    return JobFilter(
        ids=tuple(i for i in map(parse_job_id, ids) if i is not None) if ids is not None else None,
        status=_tuple(given.get("status")),
        type=_tuple(given.get("type")),
        queue=_tuple(given.get("queue")),
        priority=_tuple(given.get("priority")),
        tags=_tuple(given.get("tags")),
        created_after=_aware(given.get("created_after")),
        created_before=_aware(given.get("created_before")),
    )


def order_of(given: dict[str, Any] | None) -> JobOrder:
    """Return the order of an input ``JobOrder``; newest first where none was given."""
    if not given:
        return JobOrder()
    field = given.get("field", OrderField.CREATED_AT)
    return JobOrder(field, descending=given.get("direction", SortDirection.DESC) is SortDirection.DESC)


def _tuple(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
