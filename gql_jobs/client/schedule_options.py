"""What a program gives for a schedule: options, checked, and the names by which errors speak of them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict

from pydantic import BaseModel

from gql_jobs.client.creation import creation_of, priority_of, seconds_of, tags_of
from gql_jobs.client.errors import ClientError, InvalidArgument, refusal
from gql_jobs.client.transport import AskedRecurrence, AskedSchedule
from gql_jobs.jobs.model import JobPriority, OverlapPolicy

_OPTIONS = {"everySeconds": "every", "timeZone": "time_zone", "catchUpSeconds": "catch_up", "spreadSeconds": "spread"}
"""The names of those fields of the schema that options call otherwise."""


class ScheduleOptions(TypedDict, total=False):
    """How a schedule is defined, besides its name and payload; what is left out or None is as the server has it.

    ``cron``: five fields, or six with the seconds first; ``every``: whole seconds, or a ``timedelta``, instead.
    ``time_zone``: in which ``cron`` is meant, UTC by default. ``overlap``: what becomes of a tick while a job of an
    earlier one has not ended, ``"skip"`` by default. ``catch_up``: how late a tick may be made up for after an outage.
    ``spread``: its ticks are late by a part of that, which follows from its name. ``paused``: without ticks until it is
    resumed. ``priority`` and ``tags`` are those of its jobs. ``type``: the job type by its name, where the payload's
    model is that of several.
    """

    cron: str | None
    every: int | timedelta | None
    time_zone: str | None
    overlap: OverlapPolicy | Literal["skip", "allow", "cancel_other"] | None
    catch_up: int | timedelta | None
    spread: int | timedelta | None
    paused: bool | None
    priority: JobPriority | str | None
    tags: Sequence[str] | None
    type: str | None


def asked_schedule(name: str, payload: BaseModel, options: ScheduleOptions) -> AskedSchedule:
    """Return a schedule with these options.

    :raises TypeError: | LookupError: if the payload is no model of a registered type, or there is no such option.
    :raises InvalidPayload: if what the payload holds does not read back as the same.
    :raises InvalidArgument: for an option of another kind than ``ScheduleOptions`` has.
    """
    if unknown := options.keys() - ScheduleOptions.__annotations__.keys():
        raise TypeError(f"There is no option {', '.join(sorted(map(repr, unknown)))} of a schedule.")
    type_name = options.get("type")
    overlap, priority = options.get("overlap"), options.get("priority")
    tags, paused = options.get("tags"), options.get("paused")
    if paused is not None and not isinstance(paused, bool):
        raise _argument("paused", f"paused is True or False, not {paused!r}.")
    return AskedSchedule(
        name=name,
        payload=creation_of(payload, {"type": type_name} if type_name is not None else {}),
        recurrence=asked_recurrence(options),
        overlap=_overlap_of(overlap) if overlap is not None else None,
        catch_up=_whole_seconds("catch_up", options.get("catch_up")),
        spread=_whole_seconds("spread", options.get("spread")),
        paused=paused,
        priority=priority_of(priority) if priority is not None else None,
        tags=tags_of(tags) if tags is not None else None,
    )


def asked_recurrence(options: Mapping[str, Any]) -> AskedRecurrence:
    """Return when a schedule with these options is to be due.

    :raises InvalidArgument: for an option of another kind than ``ScheduleOptions`` has.
    """
    for name in ("cron", "time_zone"):
        given = options.get(name)
        if given is not None and not isinstance(given, str):
            raise _argument(name, f"{name} is a text, not {given!r}.")
    return AskedRecurrence(options.get("cron"), _whole_seconds("every", options.get("every")), options.get("time_zone"))


def named_as_options(error: ClientError) -> ClientError:
    """Return an error about a schedule that names fields as the API does, with the names that options have."""
    extensions, message = dict(error.extensions), error.message
    if "fields" in extensions:
        extensions["fields"] = [{**one, "path": one["path"].removeprefix("input.")} for one in error.fields]
        return refusal(message.replace("input.payload", "payload"), extensions)
    field, dot, rest = str(extensions.get("argument")).removeprefix("input.").partition(".")
    extensions["argument"] = _OPTIONS.get(field, field) + dot + rest
    for theirs, ours in _OPTIONS.items():
        message = message.replace(theirs, ours)
    return refusal(message, extensions)


def _whole_seconds(name: str, given: int | timedelta | None) -> int | None:
    seconds = seconds_of(given)
    if seconds is None:
        return None
    if isinstance(given, bool) or seconds != int(seconds):
        raise _argument(name, f"{name} is whole seconds or a timedelta of whole seconds, not {given!r}.")
    return int(seconds)


def _overlap_of(given: OverlapPolicy | str) -> OverlapPolicy:
    try:
        return OverlapPolicy[str(given).upper()]
    except KeyError:
        names = ", ".join(policy.name.lower() for policy in OverlapPolicy)
        raise _argument("overlap", f"overlap is one of {names}, not {given!r}.") from None


def _argument(name: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, {"code": "INVALID_ARGUMENT", "argument": name})
