"""The inputs that select, order and name jobs, the payloads that clients give, and the translation of both.

The classes only define the schema. A resolver is given an input object as a dictionary of what the client gave, by the
Python names of its fields: what was left out is left out, what was null is None.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import strawberry
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from gql_jobs.graphql.engine.errors import Parts
from gql_jobs.graphql.registered_types import RegisteredTypes, payload_member
from gql_jobs.graphql.scalars_and_enums import SortDirection
from gql_jobs.jobs.errors import InvalidArgument, InvalidPayload, shortened
from gql_jobs.jobs.graphql_input import shown_path
from gql_jobs.jobs.model import JobPriority, JobStatus, parse_job_id
from gql_jobs.jobs.payloads import AcceptedPayload, ModelMismatch, accept
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import MAX_TAGS, MAX_TEXT, InvalidRequest, JobFilter, JobOrder, OrderField
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.jobs.viewer import Visibility
from gql_jobs.logs import hidden_in_log

log = logging.getLogger(__name__)


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
        _check_length(f"filter.{to_camel(name)}", given)
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


# Payloads: the member of ``JobPayloadInput`` that is named after their type, or a JSON text beside its name.


def member_payload(members: dict[str, Any], registered: RegisteredTypes, path: str) -> tuple[JobType, AcceptedPayload]:
    """Return the type and the payload of an input ``JobPayloadInput``.

    :param path: where the input stands in the arguments.
    :raises InvalidPayload: as ``accepted_payload`` does.
    """
    # GraphQL has made sure that there is exactly one member.
    ((name, fields),) = members.items()
    job_type = registered.job_types[name]
    return job_type, accepted_payload(job_type, fields, f"{path}.{payload_member(job_type)}")


def known_type(name: str, registered: RegisteredTypes, path: str) -> JobType:
    """Return the type of this name.

    :param path: where the name stands in the arguments.
    :raises InvalidArgument: if there is none.
    """
    job_type = registered.job_types.get(name)
    if job_type is None:
        raise InvalidArgument(path, f"There is no job type {shortened(name)!r}.")
    return job_type


def text_payload(job_type: JobType, text: str, path: str) -> AcceptedPayload:
    """Return the payload that a JSON text holds.

    :param path: where the text stands in the arguments.
    :raises InvalidPayload: if it is no JSON; as ``accepted_payload`` does, with the paths that faults have in the JSON.
    """
    return accepted_payload(job_type, read_json(text, path), path, list)


def read_json(text: str, path: str) -> Any:
    """Return the value of a JSON text.

    :raises InvalidPayload: naming ``path``, if it is none.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        message = "It is no JSON text, or nested too deeply."
        raise InvalidPayload([{"path": path, "message": message}]) from None


def accepted_payload(
    job_type: JobType,
    given: Any,
    path: str,
    shown: Callable[[Parts], Sequence[str | int]] | None = None,
) -> AcceptedPayload:
    """Return the payload as it will be stored, once its type's model has read that.

    :param given: what the client gave, under the aliases of the fields.
    :param path: where the payload stands in the arguments; it is prefixed to each field's own.
    :param shown: returns a path in the JSON as the client writes it; None for the names that the schema has.
    :raises InvalidPayload: with one entry for each field that does not fit, named as clients write it.
    """
    try:
        return accept(job_type.payload, given)
    except ModelMismatch as mismatch:
        if mismatch.unexpected is not None:
            with hidden_in_log(mismatch.secret_texts):
                log.exception("the payload model of %s failed", job_type.name, exc_info=mismatch.unexpected)
        shown = shown or partial(shown_path, job_type.payload, stored=given)
        faults = [(shown(fault.path), fault.message) for fault in mismatch.faults]
        raise InvalidPayload(
            [{"path": ".".join([path, *map(str, below)]), "message": message} for below, message in faults]
        ) from None


# What is at fault.

_NAMES = {"timeout": "timeoutSeconds", "key.value": "key.value", "key.max_delay": "key.maxDelaySeconds"}
"""The names in ``CreateJobInput`` of those fields of ``JobRequest`` that are not the same in camelCase."""


def argument_fault(invalid: InvalidRequest, path: str = "") -> InvalidArgument:
    """Return the error about a field, by the name that clients know.

    :param path: where the fields stand in the arguments; empty if they are the arguments.
    """
    name = _NAMES.get(invalid.field, to_camel(invalid.field))
    message = invalid.problem.format(name)
    where = f"{path}.{name}" if path else name
    return InvalidArgument(where if invalid.index is None else f"{where}.{invalid.index}", message)
