"""Which of the jobs that were created have a payload of some model with some values, and a text about the others."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from pydantic import BaseModel

from gql_jobs.jobs.errors import shortened
from gql_jobs.jobs.model import JobPriority, JobStatus

_SHOWN = 20
"""Jobs that a message lists, at most."""
_PAYLOAD = 300
"""Characters of a payload in there."""
_ABSENT = object()


class JobRecord(Struct, frozen=True):
    """A job that was created: its payload as its model reads it from what is stored, and its options.

    ``key``: its idempotency key, or the key that a handler gave its child.
    """

    id: str
    type: str
    payload: BaseModel
    priority: JobPriority = JobPriority.NORMAL
    run_at: datetime | None = None
    key: str | None = None
    tags: tuple[str, ...] = ()
    status: JobStatus = JobStatus.QUEUED


def matching(records: Iterable[JobRecord], model: type[BaseModel], fields: dict[str, Any]) -> list[JobRecord]:
    """Return the jobs whose payload is of a model and has fields with these values.

    :param fields: values by the names of the model's fields, compared by ``==``.
    :raises TypeError: if the model has no such field.
    """
    for name in fields:
        if name not in model.model_fields:
            known = ", ".join(model.model_fields)
            raise TypeError(f"{model.__name__} has no field {name!r}; it has: {known}.")
    return [
        record for record in records if isinstance(record.payload, model) and not _differences(record.payload, fields)
    ]


def _differences(payload: BaseModel, fields: dict[str, Any]) -> list[str]:
    return [name for name, value in fields.items() if getattr(payload, name, _ABSENT) != value]


def wanted_text(model: type[BaseModel], fields: dict[str, Any]) -> str:
    """Return what was looked for, such as ``SmsPayload(to='+44')``."""
    return f"{model.__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


def record_lines(records: Sequence[JobRecord], model: type[BaseModel], fields: dict[str, Any]) -> str:
    """Return a line for each job, those of the model first, with what is different about them."""
    if not records:
        return "No job was created at all."
    listed = sorted(records, key=lambda record: not isinstance(record.payload, model))
    lines = [f"Created were, {len(records)} in all:"]
    for record in listed[:_SHOWN]:
        differences = _differences(record.payload, fields) if isinstance(record.payload, model) else []
        other = f"  <- another {', '.join(differences)}" if differences else ""
        told = shortened(_given(record.payload), _PAYLOAD)
        lines.append(f"  {record.type} {record.id[:8]} {record.status.name}: {told}{_options(record)}{other}")
    if len(listed) > _SHOWN:
        lines.append(f"  … and {len(listed) - _SHOWN} more")
    return "\n".join(lines)


def _given(payload: BaseModel) -> str:
    given = {name: getattr(payload, name) for name in type(payload).model_fields if name in payload.model_fields_set}
    return wanted_text(type(payload), given)


def _options(record: JobRecord) -> str:
    told = []
    if record.key is not None:
        told.append(f"key={record.key!r}")
    if record.priority is not JobPriority.NORMAL:
        told.append(f"priority={record.priority.name}")
    if record.run_at is not None:
        told.append(f"run_at={record.run_at:%Y-%m-%d %H:%M:%S}Z")
    if record.tags:
        told.append(f"tags={list(record.tags)}")
    return f" ({', '.join(told)})" if told else ""
