"""Schedules as a client defines, shows and runs them, by the operations of the API.

Only an API does this: it checks a schedule against the job types that it knows, and keeps what has been made of each.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar, runtime_checkable

from msgspec import Raw, Struct
from pydantic import BaseModel

from gql_jobs.client.creation import creation_of, priority_of, seconds_of, tags_of
from gql_jobs.client.errors import ClientError, InvalidArgument
from gql_jobs.jobs.model import JobPriority, OverlapPolicy

if TYPE_CHECKING:
    from gql_jobs.client.api_connections import ApiConnections

_OF_SCHEDULE = (
    "name type cron everySeconds timeZone priority tags overlap catchUpSeconds spreadSeconds paused createdAt "
    "createdBy changedAt definedBy rawPayload nextRuns lastJob { id } skipped"
)
_T = TypeVar("_T")
_PAGE = 100
_SCHEDULES = f"query Schedules($after: String) {{ schedules(first: {_PAGE}, after: $after) {{ {_OF_SCHEDULE} }} }}"
_ONE = f"query Schedule($name: String!) {{ schedule(name: $name) {{ {_OF_SCHEDULE} }} }}"
_PREVIEW = """query Preview($cron: String, $everySeconds: Int, $timeZone: String, $first: Int, $after: DateTime) {
  schedulePreview(cron: $cron, everySeconds: $everySeconds, timeZone: $timeZone, first: $first, after: $after)
}"""
_UPSERT = f"""mutation Upsert($input: RawScheduleInput!) {{
  upsertRawSchedule(input: $input) {{ schedule {{ {_OF_SCHEDULE} }} }}
}}"""
_PAUSE = f"""mutation PauseSchedule($name: String!, $paused: Boolean!) {{
  pauseSchedule(name: $name, paused: $paused) {{ schedule {{ {_OF_SCHEDULE} }} }}
}}"""
_DELETE = "mutation DeleteSchedule($name: String!) { deleteSchedule(name: $name) { deleted } }"
_RUN = "mutation RunSchedule($name: String!) { runSchedule(name: $name) { job { id } } }"
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


class ScheduleSnapshot(Struct, frozen=True, kw_only=True):
    """A schedule at one moment; its durations are in seconds.

    ``payload``: the JSON of it, without secrets. ``next_runs``: when it is due next, none while it is paused.
    ``last_job``: the id of the job of its latest tick that came to run. ``skipped``: how many ticks had no run.
    ``defined_by``: the program whose code defines it, None for one that clients have defined.
    """

    name: str
    type: str
    cron: str | None
    every: int | None
    time_zone: str
    overlap: OverlapPolicy
    catch_up: int
    spread: int
    paused: bool
    priority: JobPriority
    tags: tuple[str, ...]
    payload: bytes
    created_at: datetime
    created_by: str | None
    changed_at: datetime
    defined_by: str | None
    next_runs: tuple[datetime, ...]
    last_job: str | None
    skipped: int


class JobOfSchedule(Struct, frozen=True):
    """A job, by its id alone."""

    id: str


class ShownSchedule(Struct, frozen=True, kw_only=True, rename="camel"):
    """A schedule as the API shows it."""

    name: str
    type: str
    cron: str | None
    every_seconds: int | None
    time_zone: str
    priority: str
    tags: tuple[str, ...]
    overlap: str
    catch_up_seconds: int
    spread_seconds: int
    paused: bool
    created_at: datetime
    created_by: str | None
    changed_at: datetime
    defined_by: str | None
    raw_payload: Raw
    next_runs: tuple[datetime, ...]
    last_job: JobOfSchedule | None
    skipped: int

    def snapshot(self) -> ScheduleSnapshot:
        """Return it with the names and kinds that clients are given."""
        return ScheduleSnapshot(
            name=self.name,
            type=self.type,
            cron=self.cron,
            every=self.every_seconds,
            time_zone=self.time_zone,
            overlap=OverlapPolicy[self.overlap],
            catch_up=self.catch_up_seconds,
            spread=self.spread_seconds,
            paused=self.paused,
            priority=JobPriority[self.priority],
            tags=self.tags,
            payload=bytes(self.raw_payload),
            created_at=self.created_at,
            created_by=self.created_by,
            changed_at=self.changed_at,
            defined_by=self.defined_by,
            next_runs=self.next_runs,
            last_job=self.last_job.id if self.last_job is not None else None,
            skipped=self.skipped,
        )


class ScheduleAnswer(Struct, frozen=True):
    """What ``upsertRawSchedule`` and ``pauseSchedule`` answer."""

    schedule: ShownSchedule


class ScheduleDeletion(Struct, frozen=True):
    """What ``deleteSchedule`` answers."""

    deleted: bool


class ScheduleRun(Struct, frozen=True):
    """What ``runSchedule`` answers."""

    job: JobOfSchedule


class ScheduleCalls:
    """The operations of one API that are about schedules."""

    def __init__(self, api: "ApiConnections") -> None:
        self._api = api

    async def upsert(self, name: str, payload: BaseModel, options: ScheduleOptions) -> ScheduleSnapshot:
        """Define a schedule, or replace the one of this name; again after a lost answer, which changes nothing more.

        :raises TypeError: | LookupError: if the payload is no model of a registered type, or there is no such option.
        :raises InvalidArgument: | InvalidPayload: if it can be no schedule.
        """
        if unknown := options.keys() - ScheduleOptions.__annotations__.keys():
            raise TypeError(f"There is no option {', '.join(sorted(map(repr, unknown)))} of a schedule.")
        type_name = options.get("type")
        creation = creation_of(payload, {"type": type_name} if type_name is not None else {})
        overlap, priority, tags = options.get("overlap"), options.get("priority"), options.get("tags")
        asked = {
            "name": name,
            "type": creation.job_type.name,
            "payload": creation.payload.decode(),
            "cron": options.get("cron"),
            "everySeconds": whole_seconds("every", options.get("every")),
            "timeZone": options.get("time_zone"),
            "overlap": _overlap_of(overlap).name if overlap is not None else None,
            "catchUpSeconds": whole_seconds("catch_up", options.get("catch_up")),
            "spreadSeconds": whole_seconds("spread", options.get("spread")),
            "paused": options.get("paused"),
            "priority": priority_of(priority).name if priority is not None else None,
            "tags": list(tags_of(tags)) if tags is not None else None,
        }
        given = {"input": {field: value for field, value in asked.items() if value is not None}}
        return (await self._ask(_UPSERT, given, ScheduleAnswer)).schedule.snapshot()

    async def pause(self, name: str, *, paused: bool) -> ScheduleSnapshot:
        """Have a schedule be without ticks, or have ticks again; again after a lost answer."""
        return (await self._ask(_PAUSE, {"name": name, "paused": paused}, ScheduleAnswer)).schedule.snapshot()

    async def delete(self, name: str) -> bool:
        """Delete a schedule; again after a lost answer, which may have been that it was there."""
        doubts: list[ClientError] = []
        return (await self._ask(_DELETE, {"name": name}, ScheduleDeletion, doubts=doubts)).deleted or bool(doubts)

    async def run(self, name: str) -> str:
        """Create a job of a schedule, and return its id; not again after a lost answer, which might run it twice."""
        return (await self._ask(_RUN, {"name": name}, ScheduleRun, repeatable=False)).job.id

    async def all(self) -> list[ScheduleSnapshot]:
        """Return all schedules, sorted by name."""
        found: list[ScheduleSnapshot] = []
        while True:
            after = found[-1].name if found else None
            page = await self._ask(_SCHEDULES, {"after": after}, list[ShownSchedule])
            found += [one.snapshot() for one in page]
            if len(page) < _PAGE:
                return found

    async def find(self, name: str) -> ScheduleSnapshot | None:
        """Return a schedule; None if there is none."""
        found = await self._api.ask_for(_ONE, {"name": name}, ShownSchedule)
        return found.snapshot() if found is not None else None

    async def preview(self, asked: dict[str, Any]) -> list[datetime]:
        """Return when a schedule would be due.

        :param asked: the arguments of ``schedulePreview``; those that are None are left out.
        """
        given = {field: value for field, value in asked.items() if value is not None}
        return await self._ask(_PREVIEW, given, list[datetime])

    async def _ask(self, document: str, variables: dict[str, Any], kind: type[_T], **how: Any) -> _T:
        """Return what is answered, and raise errors with the names that options have."""
        try:
            return await self._api.ask(document, variables, kind, **how)
        except InvalidArgument as error:
            field, *rest = str(error.extensions.get("argument")).removeprefix("input.").split(".")
            named = ".".join([_OPTIONS.get(field, field), *rest])
            message = error.message
            for theirs, ours in _OPTIONS.items():
                message = message.replace(theirs, ours)
            raise InvalidArgument(message, {**error.extensions, "argument": named}) from None


@runtime_checkable
class SchedulingTransport(Protocol):
    """A transport that has schedules."""

    @property
    def schedules(self) -> ScheduleCalls:
        """Return the operations on them."""


def whole_seconds(name: str, given: int | timedelta | None) -> int | None:
    """Return a duration in whole seconds; None for None.

    :raises InvalidArgument: if it is none, or has a fraction.
    """
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
