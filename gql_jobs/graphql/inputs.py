"""The inputs that select, order and name jobs, and their translation.

The classes only define the schema. A resolver is given an input object as a dictionary of what the client gave, by the
Python names of its fields: what was left out is left out, what was null is None.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import strawberry
from strawberry.utils.str_converters import to_camel_case

from gql_jobs.graphql.scalars_and_enums import SortDirection
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.model import JobPriority, JobStatus, parse_job_id
from gql_jobs.jobs.requests import MAX_TAGS, MAX_TEXT, JobFilter, JobOrder, OrderField
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.jobs.viewer import Visibility


@strawberry.input(
    name="JobFilter", description="Which jobs are meant: all given parts must match, an empty list matches nothing."
)
class JobFilterInput:
    """The input ``JobFilter``, which ``filter_of`` translates."""

    ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="One of these ids, at most 500; an id that is no UUID matches nothing."
    )
    status: list[JobStatus] | None = strawberry.field(default=strawberry.UNSET, description="In one of these states.")
    type: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Of one of these types, at most 100."
    )
    queue: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="In one of these queues, at most 100."
    )
    priority: list[JobPriority] | None = strawberry.field(
        default=strawberry.UNSET, description="With one of these priorities."
    )
    tags: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Carrying every one of these tags, at most 32."
    )
    created_after: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Created later than this; UTC where no offset is given."
    )
    created_before: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Created earlier than this; UTC where no offset is given."
    )
    parent: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="Created by the handler of the job with this id; an id that is no UUID matches nothing.",
    )
    schedule: str | None = strawberry.field(
        default=strawberry.UNSET, description="Made by the schedule of this name, for one of its ticks."
    )
    key: str | None = strawberry.field(
        default=strawberry.UNSET, description="With this key, also after they have ended and it is free again."
    )
    concurrency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="With this concurrency key, which they share the limits per key with; whatever queue they are in.",
    )


@strawberry.input(name="JobOrder", description="How a page of jobs is sorted.")
class JobOrderInput:
    """The input ``JobOrder``, which ``order_of`` translates."""

    field: OrderField = strawberry.field(default=OrderField.CREATED_AT, description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.DESC, description="Which end comes first.")


FilterArgument = Annotated[
    dict[str, Any] | None,
    strawberry.argument(description="Which jobs; all of them where left out.", graphql_type=JobFilterInput | None),
]
OrderArgument = Annotated[
    dict[str, Any] | None,
    strawberry.argument(description="Newest first where left out.", graphql_type=JobOrderInput | None),
]

LARGEST_LISTS = {
    "ids": 500,
    "status": len(JobStatus),
    "type": 100,
    "queue": 100,
    "priority": len(JobPriority),
    "tags": MAX_TAGS,
}
"""Items that each list of a filter may have."""


def filter_of(given: dict[str, Any] | None, visibility: Visibility) -> JobFilter:
    """Return the filter of an input ``JobFilter``; one that matches every job where none was given.

    :param visibility: which jobs there are for whoever asks.
    :raises InvalidArgument: for a list or a text that is longer than any that could be meant.
    """
    if not given:
        return JobFilter(visibility=visibility)
    listed: dict[str, Any] = {name: _set(name, given.get(name)) for name in LARGEST_LISTS}
    ids, parent = listed.pop("ids"), given.get("parent")
    listed |= {name: _text(name, given.get(name)) for name in ("schedule", "key", "concurrency_key")}
    return JobFilter(
        ids=frozenset(i for i in map(parse_job_id, ids) if i is not None) if ids is not None else None,
        created_after=_aware(given.get("created_after")),
        created_before=_aware(given.get("created_before")),
        # No job has an empty id.
        parent=parent if parent is None else parse_job_id(parent) or "",
        visibility=visibility,
        **listed,
    )


def _set(name: str, given: list[Any] | None) -> frozenset[Any] | None:
    if given is None:
        return None
    if len(given) > LARGEST_LISTS[name]:
        message = f"filter.{name} may have {LARGEST_LISTS[name]} items at most, and it has {len(given)}."
        raise InvalidArgument(f"filter.{name}", message)
    if name != "ids":
        for number, text in enumerate(given):
            _check_length(f"filter.{name}.{number}", text)
    return frozenset(given)


def _text(name: str, given: str | None) -> str | None:
    if given is not None:
        _check_length(f"filter.{to_camel_case(name)}", given)
    return given


def _check_length(where: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        raise InvalidArgument(where, f"{where} has {len(text)} characters; none has more than {MAX_TEXT}.")


def order_of(given: dict[str, Any] | None) -> JobOrder:
    """Return the order of an input ``JobOrder``; newest first where none was given."""
    if not given:
        return JobOrder()
    field = given.get("field", OrderField.CREATED_AT)
    return JobOrder(field, descending=given.get("direction", SortDirection.DESC) is SortDirection.DESC)


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


@strawberry.input(
    name="JobKeyInput",
    description="A key that one job of a tenant has at a time. Unlike an idempotency key it is free again once that "
    "job has ended.",
)
class JobKeyInput:
    """The input ``JobKeyInput``, which ``unique_key_of`` translates."""

    value: str = strawberry.field(
        description="1 to 255 printable characters. Jobs of all types share the keys of their tenant."
    )
    policy: KeyPolicy | None = strawberry.field(
        default=KeyPolicy.RETURN, description="What becomes of this creation while another job has the key."
    )
    max_delay_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="With REPLACE: how long after its creation a waiting job may be pushed back by later values of "
        "`runAt`, 1 to 31622400; without end where left out.",
    )


def unique_key_of(given: dict[str, Any]) -> UniqueKey:
    """Return the key of an input ``JobKeyInput``."""
    return UniqueKey(given["value"], given.get("policy") or KeyPolicy.RETURN, given.get("max_delay_seconds"))
