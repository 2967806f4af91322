"""What a program changes about a job: options of ``update`` and ``retry``, checked, and as each transport sends them.

The payload is an object of the payload model of the job's type, as in a creation.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypedDict

from msgspec import UNSET, UnsetType
from pydantic import BaseModel

from gql_jobs.client.creation import accepted_of_creation, creation_of, moment_of, priority_of, tags_of
from gql_jobs.client.transport import Creation, Edit
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.model import JobPriority
from gql_jobs.jobs.requests import InvalidRequest


class EditOptions(TypedDict, total=False):
    """What may be changed about a job that has not started; what is left out stays as it is.

    ``payload``: of the payload model of its type. ``run_at``: not before then, at most a year ahead; None or a moment
    that has passed is at once. ``priority``: by name or as such. ``tags``: all its tags from now on.
    """

    payload: BaseModel
    run_at: datetime | None
    priority: JobPriority | str
    tags: Sequence[str]


def edit_of(options: EditOptions) -> Edit:
    """Return what is to be another about a job.

    :raises TypeError: if the payload is no model, or there is no such option.
    :raises LookupError: if the payload's model is that of no registered type.
    :raises InvalidPayload: if what the payload holds does not read back as the same.
    :raises InvalidArgument: for an option of another kind than ``EditOptions`` has.
    """
    if unknown := options.keys() - EditOptions.__annotations__.keys():
        raise TypeError(f"There is no option {', '.join(sorted(map(repr, unknown)))} of an edit.")
    payload, priority, tags = (options.get(name) for name in ("payload", "priority", "tags"))
    return Edit(
        payload=payload_of_edit(payload),
        run_at=moment_of("run_at", options["run_at"]) if "run_at" in options else UNSET,
        priority=priority_of(priority) if priority is not None else None,  # type: ignore[arg-type]  # it checks that
        tags=tags_of(tags) if tags is not None else None,  # type: ignore[arg-type]
    )


def payload_of_edit(payload: Any) -> Creation | None:
    """Return a payload as a creation holds it; None for none.

    :raises TypeError: | LookupError | InvalidPayload: as ``edit_of`` does.
    """
    return creation_of(payload, {}) if payload is not None else None


def update_input_of(edit: Edit) -> dict[str, Any]:
    """Return the ``UpdateJobInput`` of an edit."""
    given: dict[str, Any] = raw_payload_of(edit.payload)
    if not isinstance(edit.run_at, UnsetType):
        given["runAt"] = edit.run_at
    if edit.priority is not None:
        given["priority"] = edit.priority.name
    if edit.tags is not None:
        given["tags"] = list(edit.tags)
    return given


def raw_payload_of(payload: Creation | None) -> dict[str, Any]:
    """Return a payload as the arguments of the schema have it, with the type that it is of; nothing for None."""
    return {} if payload is None else {"rawType": payload.job_type.name, "rawPayload": payload.payload.decode()}


_OPTIONS = {"runAt": "run_at", "rawPayload": "payload", "rawType": "payload"}


def option_of(path: str) -> str:
    """Return a path of the API's, about what is made by the functions above, by the names of the options."""
    name, dot, rest = path.removeprefix("input.").partition(".")
    return _OPTIONS.get(name, name) + dot + rest


def changes_of(edit: Edit) -> JobChanges:
    """Return an edit as changes, once all of it is within its limits: as the server checks it.

    :raises GqlJobsError: ``InvalidPayload`` or ``InvalidArgument`` of ``gql_jobs.jobs.errors``.
    """
    try:
        return JobChanges.of(
            payload=accepted_of_creation(edit.payload) if edit.payload is not None else None,
            job_type=edit.payload.job_type if edit.payload is not None else None,
            run_at=edit.run_at,
            priority=edit.priority,
            tags=edit.tags,
        )
    except InvalidRequest as invalid:
        raise refused_edit(invalid) from None


def refused_edit(invalid: InvalidRequest) -> InvalidArgument:
    """Return the error about an edit, with the names that options have."""
    where = invalid.field if invalid.index is None else f"{invalid.field}.{invalid.index}"
    return InvalidArgument(where, invalid.problem.format(invalid.field))
